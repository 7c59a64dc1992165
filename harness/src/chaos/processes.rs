//! The faults of the replicas' processes and disks, one after the other.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use synod_engine::ids::ReplicaId;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::damage;
use super::fault::{Fault, Lane};
use super::random::Random;
use super::schedule::Planned;
use super::shared::{Shared, Strike};
use crate::run::cluster::Cluster;
use crate::run::layout::{Layout, last_line};
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

pub struct Processes<'a> {
    pub cluster: Cluster<'a>,
    pub layout: &'a Layout,
    pub shared: &'a Shared,
}

impl Processes<'_> {
    /// Does every planned fault at its time. Ends with every replica running, or with an error if one is not that
    /// should be.
    pub async fn run(&mut self, plan: &[Planned], calm_from_ms: u64) -> anyhow::Result<()> {
        for planned in plan {
            self.watch_until(self.shared.at(planned.at_ms)).await?;
            if self.shared.now_ms() >= calm_from_ms {
                break;
            }
            let from_ms = self.shared.now_ms();
            let strike = self
                .strike(planned)
                .await
                .with_context(|| format!("fault {} at {from_ms} ms", planned.fault.name()))?;
            self.shared.end(planned, from_ms, strike);
        }
        self.watch_until(self.shared.at(self.shared.end_ms)).await
    }

    /// Fails as soon as a replica ends that nobody killed.
    async fn watch_until(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            self.cluster.check().await?;
            let next = Instant::now() + WATCH;
            sleep_until(next.min(until)).await;
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    async fn strike(&mut self, planned: &Planned) -> anyhow::Result<Strike> {
        let victim = self.victim(planned);
        let lasts = Duration::from_millis(planned.lasts_ms);
        let what = match planned.fault {
            Fault::KillAll => "all replicas killed".to_owned(),
            other => format!("{} {}", other.name(), self.title(victim)),
        };
        self.shared.begin(Lane::Processes, &what);
        let (struck, evidence) = match planned.fault {
            Fault::Kill => self.kill(&[victim], lasts).await?,
            Fault::KillAll => {
                let all = self.replicas();
                let (struck, evidence) = self.kill(&all, lasts).await?;
                let replicas = all;
                return Ok(Strike {
                    what,
                    replicas,
                    struck,
                    evidence,
                });
            }
            Fault::Stop => self.stop(victim, lasts).await?,
            Fault::DiskFull => self.disk_full(victim, lasts).await?,
            Fault::Corrupt => self.corrupt(victim, lasts, planned.draw).await?,
            Fault::Away => self.away(victim, lasts).await?,
            Fault::Wipe => self.wipe(victim, lasts).await?,
            Fault::Partition
            | Fault::OneWay
            | Fault::Partial
            | Fault::Loss
            | Fault::Duplicate
            | Fault::Delay
            | Fault::Clog => anyhow::bail!("{} is no fault of a process", planned.fault.name()),
        };
        Ok(Strike {
            what,
            replicas: vec![victim],
            struck,
            evidence,
        })
    }

    async fn kill(
        &mut self,
        victims: &[ReplicaId],
        gone: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let mut ends = Vec::new();
        for victim in victims {
            self.cluster.process(*victim)?.kill()?;
        }
        for victim in victims {
            ends.push(describe(self.cluster.process(*victim)?.reap().await?));
        }
        sleep(gone).await;
        self.cluster.restart(victims).await?;
        let killed = ends.iter().all(|end| end == "signal 9");
        Ok((killed, format!("ended by {}, ready again", ends.join(", "))))
    }

    async fn stop(&mut self, victim: ReplicaId, lasts: Duration) -> anyhow::Result<(bool, String)> {
        let process = self.cluster.process(victim)?;
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

    /// The replica's files may not grow beyond a limit (RLIMIT_FSIZE, which any process may set for its own
    /// children), and every write there fails with EFBIG. That is how a full disk looks to it: the WAL can neither
    /// fill its segment nor prepare another one. It must stop rather than go on.
    async fn disk_full(
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let process = self.cluster.process(victim)?;
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
        let said = last_line(&self.layout.replica_log(victim));
        sleep(lasts).await;
        self.cluster.restart(&[victim]).await?;
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
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
        draw: u64,
    ) -> anyhow::Result<(bool, String)> {
        if !self.converged().await? {
            return Ok((false, "the replicas were never equal".to_owned()));
        }
        self.end_cleanly(victim).await?;
        let flipped = damage::flip(&self.layout.replica_data(victim), draw);
        sleep(lasts).await;
        self.cluster.restart(&[victim]).await?;
        let repaired = self.converged().await?;
        match flipped? {
            Some(where_) => Ok((repaired, format!("{where_}, repaired: {repaired}"))),
            None => Ok((false, "its WAL was too short".to_owned())),
        }
    }

    /// What it lacks when it returns is nowhere any more but in snapshots.
    async fn away(&mut self, victim: ReplicaId, lasts: Duration) -> anyhow::Result<(bool, String)> {
        if !self.converged().await? {
            return Ok((false, "the replicas were never equal".to_owned()));
        }
        self.cluster.kill(&[victim]).await?;
        let since = Instant::now();
        sleep(lasts).await;
        // By now the others have gone on from all that it had.
        let passed = self.of_others(victim, "commit_index").await;
        let passed = passed.into_iter().max().unwrap_or(0);
        let mut beyond = false;
        while !beyond && since.elapsed() < AWAY_MAX {
            sleep(WATCH).await;
            let floors = self.of_others(victim, "trim_floor").await;
            beyond = floors.into_iter().all(|floor| floor > passed);
        }
        let away_ms = since.elapsed().as_millis();
        self.cluster.restart(&[victim]).await?;
        let back = self.converged().await?;
        let installed = self.cluster.status(victim).await?;
        let installed = installed.get("snapshots_installed").copied().unwrap_or(0);
        Ok((
            beyond && back && installed > 0,
            format!(
                "away for {away_ms} ms, beyond the trim floor: {beyond}, snapshots installed: {installed}, \
                 complete again: {back}"
            ),
        ))
    }

    async fn wipe(&mut self, victim: ReplicaId, lasts: Duration) -> anyhow::Result<(bool, String)> {
        if !self.converged().await? {
            return Ok((false, "the replicas were never equal".to_owned()));
        }
        self.end_cleanly(victim).await?;
        let data = self.layout.replica_data(victim);
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("{} cannot be removed", data.display()))?;
        sleep(lasts).await;
        self.cluster.start_with(victim, &["--readmit"]).await?;
        let back = self.converged().await?;
        Ok((
            back,
            format!("its data was removed, complete again: {back}"),
        ))
    }

    /// Zero for whoever does not answer.
    async fn of_others(&self, victim: ReplicaId, name: &str) -> Vec<u64> {
        let mut values = Vec::new();
        for id in self.replicas().into_iter().filter(|id| *id != victim) {
            let status = self.cluster.status(id).await.unwrap_or_default();
            values.push(status.get(name).copied().unwrap_or(0));
        }
        values
    }

    async fn end_cleanly(&mut self, victim: ReplicaId) -> anyhow::Result<()> {
        let ended = self.cluster.process(victim)?.terminate().await?;
        anyhow::ensure!(ended, "replica {} did not end by SIGTERM", victim.0);
        Ok(())
    }

    /// Waits until every replica has applied what any of them had when this was asked.
    async fn converged(&mut self) -> anyhow::Result<bool> {
        let since = Instant::now();
        let mut goal = 0;
        while since.elapsed() < CONVERGE_MAX {
            self.cluster.check().await?;
            if let Ok(statuses) = self.cluster.statuses().await {
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

    fn victim(&self, planned: &Planned) -> ReplicaId {
        let all = self.replicas();
        let mut random = Random::new(planned.draw, 2);
        let chosen = all[random.below(all.len() as u64) as usize];
        let leader = self.shared.leader.get();
        leader.filter(|_| planned.leader).unwrap_or(chosen)
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.layout.addresses.iter().map(|(id, _)| *id).collect()
    }

    fn title(&self, victim: ReplicaId) -> String {
        match self.shared.leader.get() == Some(victim) {
            true => format!("replica {}, the leader", victim.0),
            false => format!("replica {}", victim.0),
        }
    }
}

/// The state of a process as the kernel gives it, the letter after its name.
fn state_of(stat: &str) -> anyhow::Result<Option<char>> {
    let text = std::fs::read_to_string(stat).with_context(|| format!("{stat} cannot be read"))?;
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest);
    Ok(after_name.and_then(|rest| rest.chars().next()))
}
