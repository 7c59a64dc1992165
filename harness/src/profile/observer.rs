//! Watches a run from beside it: waits for its measured window, and records its leader, a follower and its load there.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use synod_engine::ids::ReplicaId;

use crate::output::write_whole;
use crate::profile::flame;
use crate::profile::perf::{Perf, Recording, SAMPLES_PER_S};
use crate::profile::processes::{Processes, Spending};
use crate::profile::stacks::Stacks;
use crate::profile::table::{ProcessProfile, Profile, SCHEMA_VERSION, Spent};
use crate::profile::watched::Watched;

const POLL: Duration = Duration::from_millis(20);
/// From the start of perf until it has attached itself to every thread.
const ATTACH: Duration = Duration::from_millis(400);
/// perf is told to stop; until then it would go on for a little, in case we are late.
const SPARE_S: u32 = 5;

pub struct Observer<'a> {
    pub perf: &'a Perf,
    /// The result folder of the run; its full path, as the run's processes are given it.
    pub results: PathBuf,
    pub warmup: Duration,
    /// How long to record.
    pub length: Duration,
    pub keep_perf: bool,
    /// The run is over: there is nothing more to wait for.
    pub over: &'a AtomicBool,
}

/// One process that is recorded.
struct Subject {
    role: &'static str,
    pid: i32,
    /// While it was recorded; before that ends, what was spent until it began.
    spent: Spending,
}

impl Observer<'_> {
    /// Records and writes everything. Call on a thread of its own while the run goes on.
    pub fn observe(&self) -> anyhow::Result<Profile> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        runtime.block_on(self.record())
    }

    async fn record(&self) -> anyhow::Result<Profile> {
        let load = self.wait_for_load().await?;
        let watched = Watched::of_load(&self.results.join("load.toml"))?;
        let leader = self.wait_for_commands(&watched).await?;
        self.pause(self.warmup).await?;
        let mut subjects = self.subjects(&watched, leader, load)?;
        let pids: Vec<i32> = subjects.iter().map(|subject| subject.pid).collect();
        // In the run's own folder, which nobody but the run had before.
        let data = self.results.join("perf.data");
        let seconds = self.length.as_secs() as u32 + SPARE_S;
        let mut recording = self.perf.record(&pids, &data, seconds)?;
        self.pause(ATTACH).await?;
        let before = watched.applied(leader).await?;
        let from = monotonic();
        for subject in &mut subjects {
            subject.spent = Spending::of(subject.pid)?;
        }
        self.pause(self.length).await?;
        let until = monotonic();
        for subject in &mut subjects {
            subject.spent = Spending::of(subject.pid)?.since(subject.spent);
        }
        let commands = watched.applied(leader).await?.saturating_sub(before);
        let leader_now = watched.leader().await?;
        watched.close().await;
        recording.stop()?;
        anyhow::ensure!(
            commands > 0,
            "no command was applied while the processes were recorded"
        );
        anyhow::ensure!(
            leader_now == Some(leader),
            "the leader changed while it was recorded"
        );
        let profile = self.evaluate(&subjects, &recording, (from, until), commands)?;
        if !self.keep_perf {
            std::fs::remove_file(&data)
                .with_context(|| format!("{}: not removed", data.display()))?;
        }
        Ok(profile)
    }

    /// The leader, one follower and the load.
    fn subjects(
        &self,
        watched: &Watched,
        leader: ReplicaId,
        load: i32,
    ) -> anyhow::Result<Vec<Subject>> {
        let processes = Processes::of_run(&self.results)?;
        let pid = |id: ReplicaId| {
            let pid = processes.replicas.get(&id).copied();
            pid.with_context(|| format!("the process of replica {} was not found", id.0))
        };
        let mut chosen = vec![("leader", pid(leader)?)];
        if let Some(follower) = watched.ids.iter().find(|id| **id != leader) {
            chosen.push(("follower", pid(*follower)?));
        }
        chosen.push(("client", load));
        let subjects = chosen.into_iter().map(|(role, pid)| Subject {
            role,
            pid,
            spent: Spending::default(),
        });
        Ok(subjects.collect())
    }

    fn evaluate(
        &self,
        subjects: &[Subject],
        recording: &Recording,
        (from, until): (f64, f64),
        commands: u64,
    ) -> anyhow::Result<Profile> {
        let mut processes = Vec::new();
        for subject in subjects {
            let stacks = recording.stacks(subject.pid, from, until)?;
            anyhow::ensure!(
                stacks.samples() > 0,
                "perf has no sample of the {}",
                subject.role
            );
            let spent = Spent {
                pid: subject.pid,
                cpu_us: subject.spent.cpu_us,
                wait_us: subject.spent.wait_us,
                commands,
                samples_per_s: SAMPLES_PER_S,
            };
            self.publish(subject.role, &stacks)?;
            processes.push(ProcessProfile::new(subject.role, &stacks, spent));
        }
        Ok(Profile {
            schema_version: SCHEMA_VERSION,
            recorded_s: until - from,
            samples_per_s: SAMPLES_PER_S,
            commands,
            limits: self.perf.limits.clone(),
            processes,
        })
    }

    fn publish(&self, role: &str, stacks: &Stacks) -> anyhow::Result<()> {
        let mut text = stacks.lines().join("\n");
        text.push('\n');
        write_whole(
            &self.results.join(format!("stacks-{role}.collapsed")),
            &text,
        )?;
        let title = format!("synod: CPU of the {role}");
        flame::draw(
            stacks,
            &title,
            &self.results.join(format!("flame-{role}.svg")),
        )
    }

    async fn wait_for_load(&self) -> anyhow::Result<i32> {
        loop {
            if let Some(pid) = Processes::of_run(&self.results)?.load {
                return Ok(pid);
            }
            self.pause(POLL).await?;
        }
    }

    /// The load has begun when something was applied. Returns the leader.
    async fn wait_for_commands(&self, watched: &Watched) -> anyhow::Result<ReplicaId> {
        loop {
            if let Some(leader) = watched.leader().await?
                && watched.applied(leader).await? > 0
            {
                return Ok(leader);
            }
            self.pause(POLL).await?;
        }
    }

    /// Sleeps, and no longer than the run goes on.
    async fn pause(&self, duration: Duration) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + duration;
        while tokio::time::Instant::now() < end {
            anyhow::ensure!(
                !self.over.load(Ordering::Relaxed),
                "the run was over before it was recorded"
            );
            let left = end - tokio::time::Instant::now();
            tokio::time::sleep(left.min(POLL)).await;
        }
        Ok(())
    }
}

/// In seconds, as perf stamps its samples.
fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
