//! The result of a chaos run for people.

use super::outcome::Outcome;
use super::timeline::Timeline;
use crate::run::progress::thousands;
use crate::run::table::{Rows, time};

pub fn table(outcome: &Outcome, timeline: &Timeline) -> String {
    let mut rows = Rows::default();
    load_rows(&mut rows, outcome);
    fault_rows(&mut rows, outcome, timeline);
    check_rows(&mut rows, outcome);
    rows.text
}

fn load_rows(rows: &mut Rows, outcome: &Outcome) {
    rows.blank();
    rows.row(
        "cluster",
        &format!(
            "{} replicas, durable, WAL by {}, {}",
            outcome.replicas, outcome.backend, outcome.transport
        ),
    );
    rows.row(
        "load",
        &format!(
            "{} clients, {} s, seed {}",
            outcome.clients, outcome.seconds, outcome.seed
        ),
    );
    rows.row("machine", &outcome.machine.summary());
    rows.row(
        "build",
        &format!("{}, {}", outcome.commit, outcome.machine.build_profile),
    );
    rows.blank();
    rows.row(
        "operations",
        &format!(
            "{} answered ({}/s), {} of unknown outcome, {} sessions",
            thousands(outcome.acknowledged),
            outcome.throughput_per_s,
            outcome.unknown,
            outcome.sessions
        ),
    );
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
    rows.row(
        "longest gap",
        &format!(
            "{}, {} changes of the leader",
            time(outcome.longest_gap_ms * 1e3),
            outcome.leader_changes
        ),
    );
    rows.blank();
}

/// Each fault with the longest time in which nobody was answered around it.
fn fault_rows(rows: &mut Rows, outcome: &Outcome, timeline: &Timeline) {
    let mut reports: Vec<_> = outcome.faults.iter().collect();
    reports.sort_by_key(|report| report.from_ms);
    for report in reports {
        let seconds = |ms: u64| ms as f64 / 1e3;
        let gap_ms = timeline.longest_gap_ms(report.from_ms, report.to_ms);
        let struck = if report.struck {
            ""
        } else {
            "DID NOT STRIKE: "
        };
        rows.row(
            &format!(
                "{:.1}-{:.1} s",
                seconds(report.from_ms),
                seconds(report.to_ms)
            ),
            &format!(
                "{}; {struck}{}; gap {}",
                report.what,
                report.evidence,
                time(gap_ms * 1e3)
            ),
        );
    }
    let strikes = outcome.strikes.iter();
    let strikes: Vec<String> = strikes
        .map(|(fault, count)| format!("{fault} {count}"))
        .collect();
    rows.row("struck", &strikes.join(", "));
    rows.blank();
}

fn check_rows(rows: &mut Rows, outcome: &Outcome) {
    let checked = &outcome.linearizability;
    let verdict = match checked.linearizable {
        Some(true) => format!(
            "yes ({} operations on {} keys in {:.2} s)",
            thousands(checked.operations),
            checked.keys,
            checked.seconds
        ),
        Some(false) => "NO".to_owned(),
        None => "NOT DECIDED".to_owned(),
    };
    rows.row("linearizable", &verdict);
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
    for finding in &outcome.verification.findings {
        rows.row("finding", finding);
    }
    if let Some(finding) = &checked.finding {
        for line in finding.lines() {
            rows.row("finding", line);
        }
    }
    for problem in &outcome.problems {
        rows.row("PROBLEM", problem);
    }
}
