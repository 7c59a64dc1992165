//! The replicas as the faults of processes and disks see them; and those of this machine.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use synod_engine::ids::ReplicaId;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::damage;
use super::fault::Fault;
use super::schedule::Planned;
use super::stalls;
use crate::run::cluster::Cluster;
use crate::run::layout::last_line;
use crate::run::process::describe;
use crate::run::target::Target;

/// How often the replicas are looked at.
const WATCH: Duration = Duration::from_millis(100);
/// A replica whose disk is full notices at its next write.
const FULL_MAX: Duration = Duration::from_secs(5);
/// What a replica may still write into one file: less than a segment, more than its log has by then.
const FULL_BYTES: u64 = 512 * 1_024;
/// A stopped replica stands still after this time at most.
const STOP_MAX: Duration = Duration::from_secs(2);
/// A replica stays away no longer than this. Cut off from each other, the others trim nothing.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// What one replica lost is there again within this time, unless the network is in the way.
const CONVERGE_MAX: Duration = Duration::from_secs(20);
/// The exit code of a replica whose disk failed.
const EXIT_WAL_FAILED: i32 = 3;

/// What faults need beyond what a run does. Each returns whether it was seen to strike, and what was seen.
pub trait Victims: Target {
    /// SIGKILL to all of them at once.
    async fn kill_and_see(&mut self, victims: &[ReplicaId]) -> anyhow::Result<(bool, String)>;

    /// SIGSTOP, and SIGCONT after this time.
    async fn stop_for(
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
    ) -> anyhow::Result<(bool, String)>;

    /// Something becomes of the disk of one replica, which then runs again.
    async fn harm_disk(
        &mut self,
        planned: &Planned,
        victim: ReplicaId,
    ) -> anyhow::Result<(bool, String)>;
}

impl Victims for Cluster<'_> {
    async fn kill_and_see(&mut self, victims: &[ReplicaId]) -> anyhow::Result<(bool, String)> {
        let mut ends = Vec::new();
        for victim in victims {
            self.process(*victim)?.kill()?;
        }
        for victim in victims {
            ends.push(describe(self.process(*victim)?.reap().await?));
        }
        let killed = ends.iter().all(|end| end == "signal 9");
        Ok((killed, format!("ended by {}", ends.join(", "))))
    }

    async fn stop_for(
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let process = self.process(victim)?;
        process.signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", process.id()?.as_raw_nonzero());
        let since = Instant::now();
        let mut stopped = false;
        while !stopped && since.elapsed() < STOP_MAX {
            stopped = state_of(&stat)? == Some('T');
            sleep(Duration::from_millis(1)).await;
        }
        sleep_until(since + lasts).await;
        let still = state_of(&stat)? == Some('T');
        process.signal(Signal::CONT)?;
        let evidence = format!(
            "seen stopped: {stopped}, and {} ms later: {still}",
            lasts.as_millis()
        );
        Ok((stopped && still, evidence))
    }

    async fn harm_disk(
        &mut self,
        planned: &Planned,
        victim: ReplicaId,
    ) -> anyhow::Result<(bool, String)> {
        let lasts = Duration::from_millis(planned.lasts_ms);
        match planned.fault {
            Fault::DiskFull => disk_full(self, victim, lasts).await,
            Fault::Corrupt => corrupt(self, victim, lasts, planned.draw).await,
            Fault::Away => away(self, victim, lasts).await,
            Fault::Wipe => wipe(self, victim, lasts).await,
            Fault::FrozenDisk => stalls::frozen_disk(self, victim, lasts).await,
            Fault::SlowDisk => stalls::slow_disk(self, victim, lasts).await,
            Fault::HungLogReader => stalls::hung_log_reader(self, victim, lasts).await,
            Fault::Kill
            | Fault::KillAll
            | Fault::Stop
            | Fault::Partition
            | Fault::OneWay
            | Fault::Partial
            | Fault::Loss
            | Fault::Duplicate
            | Fault::Delay
            | Fault::Clog
            | Fault::Strangers => anyhow::bail!("{} is no fault of a disk", planned.fault.name()),
        }
    }
}

/// The replica's files may not grow beyond a limit (RLIMIT_FSIZE, which any process may set for its own
/// children), and every write there fails with EFBIG. That is how a full disk looks to it: the WAL can neither
/// fill its segment nor prepare another one. It must stop rather than go on.
async fn disk_full(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    let process = cluster.process(victim)?;
    let id = process.id()?;
    let limit = Rlimit {
        current: Some(FULL_BYTES),
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    let before = prlimit(Some(id), Resource::Fsize, limit).context("no limit can be set")?;
    let Ok(end) = timeout(FULL_MAX, process.reap()).await else {
        prlimit(Some(id), Resource::Fsize, before).context("the limit cannot be lifted")?;
        let evidence = "it wrote nothing that met the limit".to_owned();
        return Ok((false, evidence));
    };
    let end = end?;
    let said = last_line(&cluster.layout.replica_log(victim));
    sleep(lasts).await;
    cluster.restart(&[victim]).await?;
    anyhow::ensure!(
        end.code() == Some(EXIT_WAL_FAILED),
        "replica {} met a full disk and ended with {} instead of exit code {EXIT_WAL_FAILED}: {said}",
        victim.0,
        describe(end)
    );
    Ok((
        true,
        format!("ended with exit code {EXIT_WAL_FAILED}: {said}"),
    ))
}

/// Never without the others being complete: what is damaged here must be whole there.
async fn corrupt(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
    draw: u64,
) -> anyhow::Result<(bool, String)> {
    if !converged(cluster).await? {
        return Ok((false, "the replicas were never equal".to_owned()));
    }
    end_cleanly(cluster, victim).await?;
    let flipped = damage::flip(&cluster.layout.replica_data(victim), draw);
    sleep(lasts).await;
    cluster.restart(&[victim]).await?;
    let repaired = converged(cluster).await?;
    match flipped? {
        Some(where_) => Ok((repaired, format!("{where_}, repaired: {repaired}"))),
        None => Ok((false, "its WAL was too short".to_owned())),
    }
}

/// What it lacks when it returns is nowhere any more but in snapshots.
async fn away(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    if !converged(cluster).await? {
        return Ok((false, "the replicas were never equal".to_owned()));
    }
    cluster.kill(&[victim]).await?;
    let since = Instant::now();
    sleep(lasts).await;
    // By now the others have gone on from all that it had.
    let passed = of_others(cluster, victim, "commit_index").await;
    let passed = passed.into_iter().max().unwrap_or(0);
    let mut beyond = false;
    while !beyond && since.elapsed() < AWAY_MAX {
        sleep(WATCH).await;
        let floors = of_others(cluster, victim, "trim_floor").await;
        beyond = floors.into_iter().all(|floor| floor > passed);
    }
    let away_ms = since.elapsed().as_millis();
    cluster.restart(&[victim]).await?;
    let back = converged(cluster).await?;
    let installed = counter_of(cluster, victim, "snapshots_installed").await;
    Ok((
        beyond && back && installed > 0,
        format!(
            "away for {away_ms} ms, beyond the trim floor: {beyond}, snapshots installed: {installed}, \
             complete again: {back}"
        ),
    ))
}

async fn of_others(cluster: &Cluster<'_>, victim: ReplicaId, name: &str) -> Vec<u64> {
    let mut values = Vec::new();
    for id in cluster.replicas().into_iter().filter(|id| *id != victim) {
        values.push(counter_of(cluster, id, name).await);
    }
    values
}

/// Zero for whoever does not answer.
pub async fn counter_of(cluster: &Cluster<'_>, id: ReplicaId, name: &str) -> u64 {
    let status = cluster.statuses(&[id]).await.unwrap_or_default();
    let status = status.get(&id).and_then(|status| status.get(name));
    status.copied().unwrap_or(0)
}

async fn wipe(
    cluster: &mut Cluster<'_>,
    victim: ReplicaId,
    lasts: Duration,
) -> anyhow::Result<(bool, String)> {
    if !converged(cluster).await? {
        return Ok((false, "the replicas were never equal".to_owned()));
    }
    end_cleanly(cluster, victim).await?;
    let data = cluster.layout.replica_data(victim);
    damage::empty(&data).with_context(|| format!("{} cannot be emptied", data.display()))?;
    sleep(lasts).await;
    cluster.start_with(victim, &["--readmit"]).await?;
    let back = converged(cluster).await?;
    Ok((
        back,
        format!("its data was removed, complete again: {back}"),
    ))
}

pub async fn end_cleanly(cluster: &mut Cluster<'_>, victim: ReplicaId) -> anyhow::Result<()> {
    let ended = cluster.process(victim)?.terminate().await?;
    anyhow::ensure!(ended, "replica {} did not end by SIGTERM", victim.0);
    Ok(())
}

/// Waits until every replica has applied what any of them had when this was asked.
pub async fn converged(cluster: &mut Cluster<'_>) -> anyhow::Result<bool> {
    let since = Instant::now();
    let mut goal = 0;
    while since.elapsed() < CONVERGE_MAX {
        cluster.check().await?;
        if let Ok(statuses) = cluster.statuses(&cluster.replicas()).await {
            let of = |name: &str| -> Vec<u64> {
                let each = statuses.values();
                each.map(|status| status.get(name).copied().unwrap_or(0))
                    .collect()
            };
            if goal == 0 {
                goal = of("commit_index").into_iter().max().unwrap_or(0);
            }
            if of("applied").into_iter().all(|applied| applied >= goal) {
                return Ok(true);
            }
        }
        sleep(WATCH).await;
    }
    Ok(false)
}

/// The state of a process as the kernel gives it, the letter after its name.
fn state_of(stat: &str) -> anyhow::Result<Option<char>> {
    let text = std::fs::read_to_string(stat).with_context(|| format!("{stat} cannot be read"))?;
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest);
    Ok(after_name.and_then(|rest| rest.chars().next()))
}
