//! What a chaos run found: `result.json`, and what decides its exit code. Keys that `synod run` has as well mean the
//! same.

use std::collections::BTreeMap;

use serde::Serialize;
use synod_simulator::linearizability::{CheckError, Checked};
use synod_transport::ClientCounters;

use super::client::ClientEnd;
use super::plan::ChaosPlan;
use super::schedule::Schedule;
use super::shared::FaultReport;
use super::timeline::Timeline;
use crate::environment::Environment;
use crate::load::event::{Latency, TimelineSummary};
use crate::run::hosts::HostRecord;
use crate::verify::Verdict;

/// Raised when a key changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub schema_version: u32,
    pub system: &'static str,
    pub experiment: &'static str,
    pub name: String,
    pub unix_time_s: u64,
    pub commit: String,
    /// The history is linearizable, nothing was lost, executed twice or diverged, every fault struck, and the cluster
    /// served again at the end.
    pub ok: bool,
    pub problems: Vec<String>,

    pub linearizability: Linearizability,
    pub lost: u64,
    pub duplicated: u64,
    pub disordered: u64,
    pub diverged: u64,
    pub acknowledged: u64,
    /// Operations whose outcome the client does not know.
    pub unknown: u64,
    /// Client sessions: one more for each unknown outcome.
    pub sessions: u64,
    pub throughput_per_s: f64,
    pub latency_us: Latency,
    pub longest_gap_ms: f64,
    pub leader_changes: u64,

    /// How often each requested fault struck.
    pub strikes: BTreeMap<String, u64>,
    pub faults: Vec<FaultReport>,
    pub timeline: TimelineSummary,
    pub verification: Verification,

    pub seconds: u32,
    pub replicas: u8,
    pub clients: u32,
    pub seed: u64,
    pub schedule: Schedule,
    pub backend: String,
    pub durability: &'static str,
    pub transport: &'static str,
    pub machine: Environment,
    /// Of a run on several machines, each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRecord>,
    pub command_line: String,
    pub client_counters: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Linearizability {
    /// `null`: it could not be decided.
    pub linearizable: Option<bool>,
    pub operations: u64,
    pub keys: u64,
    pub configurations_max: usize,
    pub seconds: f64,
    /// Why not, or why it could not be decided.
    pub finding: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    pub slots: u64,
    /// The first slot that was replayed; what is proven of those before is said in `harness/src/verify.rs`.
    pub from_slot: u64,
    pub commands_executed: u64,
    /// Before `from_slot`.
    pub commands_vouched: u64,
    pub snapshots: u64,
    pub seconds: f64,
    pub findings: Vec<String>,
}

/// The parts that an outcome is put together from.
pub struct Measured {
    pub backend: String,
    pub faults: Vec<FaultReport>,
    pub leader_changes: u64,
    pub clients: Vec<ClientEnd>,
    pub checked: Result<Checked, CheckError>,
    pub check_seconds: f64,
    pub verdict: Verdict,
    pub verify_seconds: f64,
    pub complaints: Vec<String>,
}

impl Outcome {
    pub fn new(
        plan: &ChaosPlan,
        machine: Environment,
        timeline: &Timeline,
        measured: Measured,
    ) -> Outcome {
        let strikes = strikes(plan, &measured.faults);
        let problems = problems(plan, &strikes, &measured);
        let latency_us = timeline.latency();
        let sessions = measured.clients.iter().map(|end| end.accounts.len() as u64);
        let sessions = sessions.sum();
        let verdict = measured.verdict;
        let linearizability = linearizability(measured.checked, measured.check_seconds);
        Outcome {
            schema_version: SCHEMA_VERSION,
            system: "synod",
            experiment: "chaos",
            name: plan.name.clone(),
            unix_time_s: crate::utc::unix_seconds_now(),
            commit: machine.commit.clone(),
            ok: problems.is_empty(),
            problems,
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            disordered: verdict.disordered,
            diverged: verdict.diverged,
            acknowledged: latency_us.count,
            unknown: linearizability.operations.saturating_sub(latency_us.count),
            linearizability,
            sessions,
            throughput_per_s: (latency_us.count as f64 / f64::from(plan.seconds)).round(),
            latency_us,
            longest_gap_ms: timeline.longest_gap_ms(0, u64::from(plan.seconds) * 1_000),
            leader_changes: measured.leader_changes,
            strikes,
            faults: measured.faults,
            timeline: timeline.summary(),
            verification: Verification {
                slots: verdict.slots,
                from_slot: verdict.from_slot,
                commands_executed: verdict.executed,
                commands_vouched: verdict.vouched,
                snapshots: verdict.snapshots,
                seconds: measured.verify_seconds,
                findings: verdict.findings,
            },
            seconds: plan.seconds,
            replicas: plan.replicas,
            clients: plan.clients,
            seed: plan.seed,
            schedule: plan.schedule.clone(),
            backend: measured.backend,
            durability: "sync",
            transport: match plan.inventory {
                None => "quic, mTLS 1.3, links through a UDP fault proxy",
                Some(_) => "quic, mTLS 1.3, faults by the packet filters of the hosts",
            },
            machine,
            hosts: Vec::new(),
            command_line: plan.command_line.clone(),
            client_counters: counters(&measured.clients),
        }
    }
}

/// A requested fault that never struck counts zero.
fn strikes(plan: &ChaosPlan, faults: &[FaultReport]) -> BTreeMap<String, u64> {
    let mut strikes: BTreeMap<String, u64> =
        plan.faults.iter().map(|fault| (fault.name(), 0)).collect();
    for report in faults.iter().filter(|report| report.struck) {
        *strikes.entry(report.fault.name()).or_insert(0) += 1;
    }
    strikes
}

fn linearizability(checked: Result<Checked, CheckError>, seconds: f64) -> Linearizability {
    let (linearizable, checked, finding) = match checked {
        Ok(checked) => (Some(true), checked, None),
        Err(error @ CheckError::NotLinearizable(_)) => {
            (Some(false), Checked::default(), Some(error.to_string()))
        }
        Err(error @ CheckError::TooHard { .. }) => {
            (None, Checked::default(), Some(error.to_string()))
        }
    };
    Linearizability {
        linearizable,
        operations: checked.operations,
        keys: checked.keys,
        configurations_max: checked.configurations_max,
        seconds,
        finding,
    }
}

/// Everything that makes a run fail, in words.
fn problems(plan: &ChaosPlan, strikes: &BTreeMap<String, u64>, measured: &Measured) -> Vec<String> {
    let mut problems = measured.complaints.clone();
    match &measured.checked {
        Ok(_) => {}
        Err(CheckError::NotLinearizable(_)) => {
            problems.push("the history is not linearizable".to_owned());
        }
        Err(error @ CheckError::TooHard { .. }) => problems.push(error.to_string()),
    }
    let verdict = &measured.verdict;
    for (count, what) in [
        (verdict.lost, "acknowledged commands were lost"),
        (verdict.duplicated, "commands were executed twice"),
        (verdict.disordered, "commands were executed out of order"),
        (verdict.diverged, "slots or states differ between replicas"),
    ] {
        if count > 0 {
            problems.push(format!("{count} {what}"));
        }
    }
    for (fault, count) in strikes {
        if *count == 0 {
            problems.push(format!("fault {fault} never struck"));
        }
    }
    // The second half of the calm: the first is for elections and reconnecting.
    let calm_from_ms = plan.schedule.calm_from_ms;
    let served_from_ms = (calm_from_ms + u64::from(plan.seconds) * 1_000) / 2;
    for (end, index) in measured.clients.iter().zip(1..) {
        if end.last_reply_ns / 1_000_000 < served_from_ms {
            problems.push(format!(
                "client {index} was not served any more after everything was healed at {calm_from_ms} ms"
            ));
        }
    }
    problems
}

fn counters(clients: &[ClientEnd]) -> BTreeMap<&'static str, u64> {
    let sum = |of: fn(&ClientCounters) -> u64| clients.iter().map(|end| of(&end.counters)).sum();
    BTreeMap::from([
        ("retries", sum(|counters| counters.retries)),
        ("redirects", sum(|counters| counters.redirects)),
        ("resent", sum(|counters| counters.resent)),
        ("busy", sum(|counters| counters.busy)),
        ("timed_out", sum(|counters| counters.timed_out)),
        ("reconnects", sum(|counters| counters.reconnects)),
    ])
}
