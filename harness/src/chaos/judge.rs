//! What is left of a run is written down, and checked from the clients' side and from the disks.

use std::time::Instant;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use synod_simulator::linearizability::{self, CheckError, Checked, Operation};

use super::battle::{Field, Survived};
use super::client::ClientEnd;
use super::fault::Fault;
use super::history;
use super::outcome::Measured;
use super::timeline::Timeline;
use crate::cli::MachineChoice;
use crate::run::progress::{Progress, thousands};
use crate::run::{check, evidence_of};
use crate::verify::{ClientAccount, Evidence};

/// `done` has what survived and which replicas did not stop cleanly; their WALs are where the layout has them.
pub async fn judge(
    field: &Field<'_>,
    done: anyhow::Result<(Survived, Vec<String>)>,
) -> anyhow::Result<(Measured, Timeline)> {
    let Field {
        plan,
        layout,
        progress,
        shared,
    } = field;
    // What was seen is written down however it ended.
    let history = shared.history.take();
    history::write(&layout.results.join("history.jsonl"), &history)?;
    let mut faults = shared.reports.take();
    faults.sort_by_key(|report| report.from_ms);
    let timeline = Timeline::new(&history, shared.end_ms);
    let leaders = shared.leaders.take();
    let csv = timeline.csv(&faults, &leaders);
    let path = layout.results.join("timeline.csv");
    std::fs::write(&path, csv).with_context(|| format!("{}: not written", path.display()))?;
    let (survived, complaints) = done?;
    let evidence = Evidence {
        machine: MachineChoice::Kv,
        commit_index: survived.commit_index,
        replicas: evidence_of(layout, survived.hashes),
        holes: plan.faults.contains(&Fault::Corrupt),
        clients: accounts(&survived.clients),
    };
    let started = Instant::now();
    let verdict = check(evidence, progress).await?;
    let verify_seconds = started.elapsed().as_secs_f64();
    let (checked, check_seconds) = check_history(history, progress).await?;
    let measured = Measured {
        backend: survived.backend,
        faults,
        leader_changes: leader_changes(&leaders),
        clients: survived.clients,
        checked,
        check_seconds,
        verdict,
        verify_seconds,
        complaints,
    };
    Ok((measured, timeline))
}

/// How often another replica led than before.
fn leader_changes(leaders: &[(u64, Option<ReplicaId>)]) -> u64 {
    let mut known: Vec<ReplicaId> = leaders.iter().filter_map(|(_, leader)| *leader).collect();
    known.dedup();
    known.len().saturating_sub(1) as u64
}

fn accounts(clients: &[ClientEnd]) -> Vec<ClientAccount> {
    let accounts = clients.iter().flat_map(|end| end.accounts.iter());
    accounts.copied().collect()
}

/// On a thread of its own, so that ctrl-C is still heard.
async fn check_history(
    history: Vec<Operation>,
    progress: &Progress,
) -> anyhow::Result<(Result<Checked, CheckError>, f64)> {
    progress.step(&format!(
        "checking whether {} operations are linearizable",
        thousands(history.len() as u64)
    ));
    let started = Instant::now();
    let checked = tokio::task::spawn_blocking(move || linearizability::check(&history))
        .await
        .context("the check panicked")?;
    Ok((checked, started.elapsed().as_secs_f64()))
}
