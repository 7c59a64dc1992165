//! What a run found: `result.json`, and what decides its exit code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cli::DurabilityChoice;
use crate::comparison::Equality;
use crate::environment::Environment;
use crate::links::{Links, LinksReport};
use crate::load::event::{Latency, LoadResult, Offer, SurgeResult, TimelineSummary};
use crate::load::load_file::Load;
use crate::load::punctuality::Generator;
use crate::run::counters::Status;
use crate::run::faults::FaultReport;
use crate::run::hosts::HostRecord;
use crate::run::minutes::Minute;
use crate::run::plan::Plan;
use crate::run::spoiled;
use crate::run::target::Conclusion;
use crate::system::System;
use crate::verify::Verdict;

/// Raised when a key changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;
/// An open loop must have had at least this share of the offered rate acknowledged.
const RATE_HELD_MIN: f64 = 0.99;

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub schema_version: u32,
    pub system: System,
    pub version: String,
    /// How the system was set up, in one line.
    pub settings: String,
    pub name: String,
    pub unix_time_s: u64,
    pub commit: String,
    /// Nothing was lost, duplicated or diverged, nothing failed, and the rate was held.
    pub ok: bool,
    pub problems: Vec<String>,
    /// Why the load ended before its time: the figures are those of the time before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,

    pub throughput_per_s: f64,
    /// Of the commands that started in the measured window; in an open loop from their intended start.
    pub latency_us: Latency,
    /// In the measured window.
    pub acknowledged: u64,
    pub acknowledged_total: u64,
    pub failed: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub disordered: u64,
    pub diverged: u64,
    pub longest_gap_ms: f64,
    /// Summed over all replicas.
    pub replica_cpu_us_per_command: f64,
    pub client_cpu_us_per_command: f64,
    /// Summed over all replicas.
    pub syncs: u64,
    /// Commands that one sync of one replica carried, on average.
    pub commands_per_sync: f64,
    pub elections: u64,
    /// Summed over all replicas, as the kernel counts.
    pub disk_bytes_per_command: f64,

    /// Of an open loop: what was offered in the measured window, and what became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<OfferRates>,
    /// How late the load process itself was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<SurgeResult>,
    pub load: Load,
    pub loop_kind: &'static str,
    pub replicas: u8,
    pub payload_bytes: u32,
    pub state_machine: String,
    /// What is the same as for Synod, where a system says it itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub equality: Vec<Equality>,
    pub durability: DurabilityChoice,
    pub backend: String,
    pub transport: &'static str,
    pub client_path: String,
    /// Absent where each process found out what its own interfaces carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_max: Option<u16>,
    pub seed: u64,
    pub seconds: u32,
    pub warmup_s: u32,
    pub faults: Vec<FaultReport>,
    /// The preset or file of the links between the replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_report: Option<LinksReport>,
    pub timeline: TimelineSummary,
    /// Of the measured window; the last one may be shorter.
    pub minutes: Vec<Minute>,
    pub verification: Verification,
    pub machine: Environment,
    /// Of a run on several machines, each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRecord>,
    /// How exactly the windows of several client machines begin together, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_uncertainty_us: Option<f64>,
    pub command_line: String,
    /// What the replicas counted in the measured window, summed.
    pub replica_counters: Status,
    pub client_counters: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfferRates {
    #[serde(flatten)]
    pub commands: Offer,
    pub offered_per_s: f64,
    /// Acknowledged in the measured window.
    pub goodput_per_s: f64,
    /// Requests, each a run of commands, that replicas refused for the time being. Their commands were sent again.
    pub busy_replies: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    pub slots: u64,
    /// The first slot that was replayed. 1: the whole run was. Otherwise see `harness/src/verify.rs` for what is proven
    /// of the slots before.
    pub from_slot: u64,
    /// By the replay.
    pub commands_executed: u64,
    /// Before `from_slot`, as the session table of the snapshot there says.
    pub commands_vouched: u64,
    /// Those that were compared with the replay.
    pub snapshots: u64,
    pub seconds: f64,
    pub findings: Vec<String>,
}

/// The parts that an outcome is put together from.
pub struct Measured {
    pub backend: String,
    pub load: LoadResult,
    pub minutes: Vec<Minute>,
    pub counters: Status,
    pub faults: Vec<FaultReport>,
    pub conclusion: Conclusion,
}

impl Outcome {
    pub fn new(plan: &Plan, machine: Environment, measured: Measured) -> Outcome {
        let problems = problems(plan, &measured);
        let Measured {
            backend,
            load,
            minutes,
            counters,
            faults,
            conclusion,
        } = measured;
        let offer = OfferRates::of(plan, &load);
        let counter = |name: &str| counters.get(name).copied().unwrap_or(0);
        let syncs = syncs(plan, &counters);
        let commands = load.acknowledged as f64;
        let syncs_of_one = syncs as f64 / f64::from(plan.replicas);
        let verdict = &conclusion.verdict;
        Outcome {
            schema_version: SCHEMA_VERSION,
            system: plan.subject.system,
            version: plan.subject.version.clone(),
            settings: plan.subject.settings.clone(),
            name: plan.name.clone(),
            unix_time_s: crate::utc::unix_seconds_now(),
            commit: machine.commit.clone(),
            ok: problems.is_empty(),
            problems,
            throughput_per_s: ratio(commands, measured_seconds(plan, &load), 1),
            incomplete: load.incomplete,
            latency_us: load.latency_us,
            acknowledged: load.acknowledged,
            acknowledged_total: load.acknowledged_total,
            failed: load.failed,
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            disordered: verdict.disordered,
            diverged: verdict.diverged,
            longest_gap_ms: load.longest_gap_ms,
            replica_cpu_us_per_command: ratio(counter("process_cpu_us") as f64, commands, 3),
            client_cpu_us_per_command: ratio(load.client_cpu_us as f64, commands, 3),
            syncs,
            commands_per_sync: ratio(commands, syncs_of_one, 2),
            elections: counter("elections"),
            disk_bytes_per_command: ratio(counter("disk_bytes_written") as f64, commands, 1),
            offer,
            generator: load.generator,
            surge: load.surge,
            load: plan.load,
            loop_kind: plan.load.kind(),
            replicas: plan.replicas,
            payload_bytes: plan.payload_bytes,
            state_machine: plan.machine_name(),
            equality: plan.subject.equality(),
            durability: plan.durability,
            backend,
            transport: plan.subject.transport.describe(),
            client_path: plan.subject.client_path.clone(),
            mtu_max: plan.mtu_max,
            seed: plan.seed,
            seconds: plan.seconds,
            warmup_s: plan.warmup_s,
            faults,
            links: plan.links.as_ref().map(Links::label),
            link_report: conclusion.links,
            timeline: load.timeline,
            minutes,
            verification: Verification::of(conclusion.verdict, conclusion.verify_seconds),
            machine,
            hosts: Vec::new(),
            start_uncertainty_us: load.start_uncertainty_us,
            command_line: plan.command_line.clone(),
            replica_counters: counters,
            client_counters: load.client_counters,
        }
    }
}

impl OfferRates {
    fn of(plan: &Plan, load: &LoadResult) -> Option<OfferRates> {
        let seconds = f64::from(plan.seconds);
        load.offer.map(|commands| OfferRates {
            commands,
            offered_per_s: ratio(commands.offered as f64, seconds, 1),
            goodput_per_s: ratio(load.acknowledged as f64, seconds, 1),
            busy_replies: load.client_counters.get("busy").copied().unwrap_or(0),
        })
    }
}

impl Verification {
    fn of(verdict: Verdict, seconds: f64) -> Verification {
        Verification {
            slots: verdict.slots,
            from_slot: verdict.from_slot,
            commands_executed: verdict.executed,
            commands_vouched: verdict.vouched,
            snapshots: verdict.snapshots,
            seconds,
            findings: verdict.findings,
        }
    }
}

/// Summed over all replicas.
fn syncs(plan: &Plan, counters: &Status) -> u64 {
    match plan.durability {
        DurabilityChoice::Sync => counters.get("wal_syncs").copied().unwrap_or(0),
        DurabilityChoice::None => 0, // Writes into the page cache, at most.
    }
}

/// How long the window was: of a load that ended early, until then.
fn measured_seconds(plan: &Plan, load: &LoadResult) -> f64 {
    match load.incomplete {
        None => f64::from(plan.seconds),
        Some(_) => (load.timeline.intervals * load.timeline.interval_ms) as f64 / 1e3,
    }
}

/// Everything that makes a run fail, in words.
fn problems(plan: &Plan, measured: &Measured) -> Vec<String> {
    let verdict = &measured.conclusion.verdict;
    let load = &measured.load;
    let mut problems = measured.conclusion.complaints.clone();
    if let Some(reason) = &load.incomplete {
        problems.insert(0, format!("incomplete: {reason}"));
    }
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
    if load.acknowledged_total == 0 {
        problems.push("nothing was acknowledged".into());
    }
    if plan.faults.is_empty() {
        if load.failed > 0 {
            problems.push(format!("{} commands failed without a fault", load.failed));
        }
        problems.extend(load.errors.iter().cloned());
    }
    problems.extend(spoiled::problem(load, measured_seconds(plan, load)));
    let expected = (plan.load, &load.incomplete, plan.surge);
    if let (Load::Open { rate, .. }, None, None) = expected {
        let offered = (rate * u64::from(plan.seconds)) as f64;
        let held = load.acknowledged as f64 / offered;
        if held < RATE_HELD_MIN {
            problems.push(format!(
                "the rate was not held: {:.1} % of {rate}/s was acknowledged in the measured window",
                held * 100.0
            ));
        }
        if load.held_back > 0 {
            problems.push(format!(
                "the rate was not held: {} commands of a client had to wait for room at once",
                load.held_back
            ));
        }
    }
    problems
}

/// A quotient rounded to `digits`; 0 of nothing.
fn ratio(value: f64, by: f64, digits: i32) -> f64 {
    if by == 0.0 {
        return 0.0;
    }
    let scale = 10f64.powi(digits);
    (value / by * scale).round() / scale
}
