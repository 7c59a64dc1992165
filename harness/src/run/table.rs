//! The result of a run for people.

use std::fmt::Write;

use crate::cli::DurabilityChoice;
use crate::load::punctuality::Generator;
use crate::run::counters::Status;
use crate::run::minutes::Taken;
use crate::run::outcome::Outcome;
use crate::run::plan::Plan;
use crate::run::progress::thousands;
use crate::run::spoiled::BUSY_SHARE_MAX;
use crate::turn_watch::{LONGEST_TURN_US, longest_part};

pub fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut rows = Rows::default();
    load_rows(&mut rows, plan, outcome);
    cost_rows(&mut rows, outcome);
    minute_rows(&mut rows, outcome);
    check_rows(&mut rows, outcome);
    rows.text
}

/// Lines of a name and a value each.
#[derive(Default)]
pub struct Rows {
    pub text: String,
}

impl Rows {
    pub fn row(&mut self, name: &str, value: &str) {
        writeln!(self.text, "  {name:<15} {value}").expect("a string takes every row");
    }

    pub fn blank(&mut self) {
        self.text.push('\n');
    }
}

fn load_rows(rows: &mut Rows, plan: &Plan, outcome: &Outcome) {
    let durability = match outcome.durability {
        DurabilityChoice::Sync => "durable",
        DurabilityChoice::None => "NOT DURABLE (durability none)",
    };
    rows.blank();
    rows.row(
        "cluster",
        &format!(
            "{} replica{} of {}, {durability}, WAL by {}, {}, MTU up to {}",
            outcome.replicas,
            if outcome.replicas == 1 { "" } else { "s" },
            outcome.system.name(),
            outcome.backend,
            outcome.transport,
            outcome
                .mtu_max
                .map_or_else(|| "the interface's".to_owned(), |mtu| mtu.to_string())
        ),
    );
    rows.row(
        "load",
        &format!(
            "{}{}, {} B, {} s after {} s of warm-up",
            plan.load.label(),
            plan.surge
                .map_or_else(String::new, |surge| format!(", surge {surge}")),
            outcome.payload_bytes,
            outcome.seconds,
            outcome.warmup_s
        ),
    );
    rows.row("machine", &outcome.machine.summary());
    rows.row(
        "build",
        &format!("{}, {}", outcome.commit, outcome.machine.build_profile),
    );
    rows.blank();
    rows.row(
        "throughput",
        &format!(
            "{} commands/s",
            thousands(outcome.throughput_per_s.round() as u64)
        ),
    );
    offer_rows(rows, outcome);
    let latency = &outcome.latency_us;
    rows.row(
        "latency",
        &format!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            time(latency.p50),
            time(latency.p90),
            time(latency.p99),
            time(latency.p999),
            time(latency.max)
        ),
    );
    rows.row("longest gap", &time(outcome.longest_gap_ms * 1e3));
    if let Some(generator) = &outcome.generator {
        rows.row("load process", &punctual(generator));
    }
}

/// What a reader needs to trust the figures above: that they are not the generator's.
pub fn punctual(generator: &Generator) -> String {
    let mut text = format!(
        "busy for {:.0} % of its one thread{}, longest pause {}",
        generator.busy_share * 100.0,
        generator
            .waited_share
            .map_or_else(String::new, |share| format!(
                " and without a CPU for {:.0} %",
                share * 100.0
            )),
        time(generator.longest_pause_ms * 1e3),
    );
    if let Some(late) = &generator.lateness_us {
        let (p99, max) = (time(late.p99), time(late.max));
        text.push_str(&format!(", commands left late by p99 {p99}  max {max}"));
    }
    if generator.busy_share >= BUSY_SHARE_MAX {
        text.push_str("; BUSY ALL THE TIME: the throughput may be its limit, not the system's");
    }
    text
}

fn offer_rows(rows: &mut Rows, outcome: &Outcome) {
    if let Some(offer) = &outcome.offer {
        rows.row(
            "offered",
            &format!(
                "{} commands/s: {} commands, {} admitted, {} refused; {} requests were told to come back",
                thousands(offer.offered_per_s.round() as u64),
                thousands(offer.commands.offered),
                thousands(offer.commands.admitted),
                thousands(offer.commands.refused),
                thousands(offer.busy_replies)
            ),
        );
    }
    if let Some(surge) = &outcome.surge {
        rows.row(
            "surge",
            &format!(
                "goodput {} commands/s ({} before)  p50 {}  p99 {}  max {}; {}",
                thousands(surge.goodput_per_s.round() as u64),
                thousands(surge.goodput_before_per_s.round() as u64),
                time(surge.p50_us),
                time(surge.p99_us),
                time(surge.max_us),
                match surge.normal_after_ms {
                    Some(ms) => format!("as before within {ms} ms of its end"),
                    None => "never as before again".into(),
                }
            ),
        );
    }
}

fn cost_rows(rows: &mut Rows, outcome: &Outcome) {
    rows.row(
        "CPU",
        &format!(
            "replicas {} µs, clients {} µs per command",
            outcome.replica_cpu_us_per_command, outcome.client_cpu_us_per_command
        ),
    );
    rows.row(
        "syncs",
        &format!(
            "{} over all replicas, {} commands each",
            thousands(outcome.syncs),
            outcome.commands_per_sync
        ),
    );
    if let Some(links) = &outcome.links {
        rows.row("links", &format!("{links}; {}", achieved(outcome)));
    }
    for fault in &outcome.faults {
        rows.row(
            "fault",
            &format!(
                "{} ({:?}): from {} to {} ms, gap {}, full throughput {}",
                fault.fault,
                fault.replicas,
                fault.killed_at_ms,
                fault.ready_at_ms,
                fault
                    .gap_ms
                    .map_or("below 5 ms".into(), |ms| time(ms * 1e3)),
                fault
                    .full_after_ms
                    .map_or("did not come back".into(), |ms| format!("after {ms} ms"))
            ),
        );
    }
    rows.row("elections", &outcome.elections.to_string());
    rows.blank();
}

/// How exactly the emulator kept to the delays: the mean beyond what was asked for, of the worst link.
fn achieved(outcome: &Outcome) -> String {
    let Some(report) = &outcome.link_report else {
        return "the emulator did not report".into();
    };
    let used = report.links.iter().filter(|link| link.count > 0);
    let late = used.map(|link| link.mean_us.saturating_sub(link.delay_us));
    let lost: u64 = report.links.iter().map(|link| link.lost).sum();
    let dropped: u64 = report.links.iter().map(|link| link.dropped).sum();
    format!(
        "delays were exceeded by {} on average on the worst link, {} losses, {} dropped by full queues, {} of CPU",
        time(late.max().unwrap_or(0) as f64),
        thousands(lost),
        thousands(dropped),
        time(report.cpu_us as f64)
    )
}

/// Only a run of several minutes can show whether anything grows.
fn minute_rows(rows: &mut Rows, outcome: &Outcome) {
    if outcome.minutes.len() < 2 {
        return;
    }
    for (minute, number) in outcome.minutes.iter().zip(1..) {
        let most = |of: fn(&Taken) -> u64| minute.replicas.iter().map(of).max();
        let taken = most(|taken| taken.memory_bytes).zip(most(|taken| taken.disk_bytes));
        // Other machines are not looked at.
        let taken = taken.map_or_else(String::new, |(memory, disk)| {
            let (memory, disk) = (memory >> 20, disk >> 20);
            format!("  memory {memory:>6} MiB  disk {disk:>6} MiB of a replica at most")
        });
        rows.row(
            &format!("minute {number}"),
            &format!(
                "{:>11} commands/s  p99 {:>9}{taken}",
                thousands(minute.load.throughput_per_s.round() as u64),
                time(minute.load.p99_us)
            ),
        );
    }
    rows.blank();
}

fn check_rows(rows: &mut Rows, outcome: &Outcome) {
    rows.row(
        "acknowledged",
        &format!(
            "{} ({} with warm-up), {} failed",
            thousands(outcome.acknowledged),
            thousands(outcome.acknowledged_total),
            outcome.failed
        ),
    );
    rows.row(
        "checked",
        &format!(
            "lost {}, duplicated {}, disordered {}, diverged {} ({} slots in {} WALs in {:.1} s)",
            outcome.lost,
            outcome.duplicated,
            outcome.disordered,
            outcome.diverged,
            thousands(outcome.verification.slots),
            outcome.replicas,
            outcome.verification.seconds
        ),
    );
    if outcome.verification.from_slot > 1 {
        rows.row(
            "",
            &format!(
                "replayed from slot {} on; {} commands before it are known by a snapshot's session table",
                thousands(outcome.verification.from_slot),
                thousands(outcome.verification.commands_vouched)
            ),
        );
    }
    turn_row(rows, &outcome.replica_counters);
    for finding in &outcome.verification.findings {
        rows.row("finding", finding);
    }
    for problem in &outcome.problems {
        rows.row("PROBLEM", problem);
    }
}

/// The longest that anything else had to wait in a replica, heartbeats too.
fn turn_row(rows: &mut Rows, counters: &Status) {
    let counter = |name: &str| counters.get(name).copied();
    if let (Some(whole), Some((part, micros))) = (counter(LONGEST_TURN_US), longest_part(counter)) {
        let (whole, micros) = (time(whole as f64), time(micros as f64));
        let text = format!("{whole}, of which {micros} for `{part}`");
        rows.row("longest turn", &text);
    }
}

/// Microseconds in the unit that reads best.
pub fn time(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{micros:.0} µs"),
        micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}
