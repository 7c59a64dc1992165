//! The faults of the replicas' processes and disks, one after the other.

use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use tokio::time::{Instant, sleep, sleep_until};

use super::fault::{Fault, Lane};
use super::random::Random;
use super::schedule::Planned;
use super::shared::{Shared, Strike};
use super::victims::Victims;
use crate::run::layout::Layout;

/// How often the replicas are looked at.
const WATCH: Duration = Duration::from_millis(100);

pub struct Processes<'a, V> {
    pub cluster: &'a mut V,
    pub layout: &'a Layout,
    pub shared: &'a Shared,
}

impl<V: Victims> Processes<'_, V> {
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
            Fault::Stop => self.cluster.stop_for(victim, lasts).await?,
            Fault::DiskFull
            | Fault::Corrupt
            | Fault::Away
            | Fault::Wipe
            | Fault::FrozenDisk
            | Fault::SlowDisk
            | Fault::HungLogReader => self.cluster.harm_disk(planned, victim).await?,
            Fault::Partition
            | Fault::OneWay
            | Fault::Partial
            | Fault::Loss
            | Fault::Duplicate
            | Fault::Delay
            | Fault::Clog
            | Fault::Strangers => {
                anyhow::bail!("{} is no fault of a process", planned.fault.name())
            }
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
        let (killed, how) = self.cluster.kill_and_see(victims).await?;
        sleep(gone).await;
        self.cluster.restart(victims).await?;
        Ok((killed, format!("{how}, ready again")))
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
