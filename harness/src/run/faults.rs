//! What a run does to its own cluster.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use synod_engine::ids::ReplicaId;
use tokio::time::Instant;

use crate::run::counters::WindowCounters;
use crate::run::plan::Fault;
use crate::run::progress::Progress;
use crate::run::target::Target;

/// A killed leader returns after its successor is at work.
const LEADER_RETURNS_AFTER: Duration = Duration::from_secs(1);
const ALL_RETURN_AFTER: Duration = Duration::from_millis(200);

/// What was done, in milliseconds from the start of the measured window.
#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    pub kind: &'static str,
    pub replicas: Vec<u8>,
    pub killed_at_ms: u64,
    /// When the killed replicas were running again, with their WALs read.
    pub ready_at_ms: u64,
}

/// Does `fault` at its time, counted from `window_start`.
pub async fn inject(
    fault: Fault,
    window_start: Instant,
    cluster: &mut impl Target,
    window: &mut WindowCounters,
    progress: &Progress,
) -> anyhow::Result<FaultReport> {
    tokio::time::sleep_until(window_start + Duration::from_secs(fault.after_s().into())).await;
    let statuses = cluster.statuses().await?;
    let (victims, pause) = match fault {
        Fault::KillLeader { .. } => {
            let leader = cluster.leader().await.context("no leader to kill")?;
            (vec![leader], LEADER_RETURNS_AFTER)
        }
        Fault::CrashAll { .. } => (statuses.keys().copied().collect(), ALL_RETURN_AFTER),
    };
    let killed_at = Instant::now();
    cluster.kill(&victims).await?;
    progress.step(&format!("SIGKILL: {}", names(&victims)));
    for victim in &victims {
        window.killed(*victim, &statuses[victim]);
    }
    tokio::time::sleep(pause).await;
    cluster.restart(&victims).await?;
    progress.step(&format!("running again: {}", names(&victims)));
    Ok(FaultReport {
        kind: fault.label(),
        replicas: victims.iter().map(|id| id.0).collect(),
        killed_at_ms: (killed_at - window_start).as_millis() as u64,
        ready_at_ms: window_start.elapsed().as_millis() as u64,
    })
}

fn names(victims: &[ReplicaId]) -> String {
    let ids: Vec<String> = victims.iter().map(|id| id.0.to_string()).collect();
    match ids.len() {
        1 => format!("replica {}, the leader", ids[0]),
        _ => format!("replicas {}", ids.join(", ")),
    }
}
