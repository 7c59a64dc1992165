//! A comparison for people: one block per set of conditions.

use std::fmt::Write;

use super::Conditions;
use crate::comparison::{Cell, Comparison};
use crate::report::format::{self, count, micros};
use crate::statistics::{Ratio, Spread};

const HEADINGS: [&str; 8] = [
    "system",
    "commands/s (interval)",
    "Synod ÷ system",
    "p50",
    "p99 (interval)",
    "CPU µs",
    "per sync",
    "gap",
];

pub fn table(comparison: &Comparison) -> String {
    let mut blocks: Vec<(String, Vec<[String; 8]>)> = Vec::new();
    for cell in &comparison.cells {
        let place = format!("{}, {}", place(cell), cell.durability);
        let row = row(cell);
        match blocks.iter_mut().find(|(other, _)| *other == place) {
            Some((_, rows)) => rows.push(row),
            None => blocks.push((place, vec![row])),
        }
    }
    let mut text = String::new();
    for (place, rows) in &blocks {
        writeln!(text, "\n{place}").expect("a string takes every line");
        aligned(&mut text, rows);
    }
    for skipped in &comparison.skipped {
        writeln!(text, "\nskipped: {}: {}", skipped.system, skipped.why)
            .expect("a string takes every line");
    }
    text.push_str(&footnote(comparison));
    text
}

fn footnote(comparison: &Comparison) -> String {
    let cells = || comparison.cells.iter();
    let fewest = cells().map(|cell| cell.summary.throughput_per_s);
    let fewest = fewest.min_by_key(|spread| spread.n);
    let medians = match fewest {
        Some(spread) if spread.n > 1 => format!(
            "Medians of at least {} runs, and between which runs the true median lies in {:.0} % of cases.",
            spread.n,
            (spread.coverage * 100.0).floor()
        ),
        _ => "Single runs: how much they scatter is not known.".to_owned(),
    };
    let ratios: Vec<Ratio> = cells()
        .filter_map(|cell| cell.ratio)
        .map(|ratios| ratios.throughput)
        .collect();
    let judged = ratios.iter().find(|ratio| ratio.confidence > 0.0);
    let decided = match judged {
        Some(ratio) => format!(
            " Their intervals hold together at 95 % ({:.2} % each): one that leaves out 1 is a\ndifference.",
            ratio.confidence * 100.0
        ),
        None => String::new(),
    };
    format!(
        "\n{medians}\nSynod ÷ system: throughput of Synod over that of the system (geometric means), over the same transport \
         where it has it.{decided}\nCPU: of all replicas per command. per sync: commands that one sync of one replica carried."
    )
}

fn place(cell: &Cell) -> String {
    let conditions = Conditions {
        replicas: cell.replicas,
        payload_bytes: cell.payload_bytes,
        load: cell.load,
    };
    conditions.label()
}

fn row(cell: &Cell) -> [String; 8] {
    let summary = &cell.summary;
    let optional = |spread: Option<Spread>, show: fn(f64) -> String| {
        spread.map_or_else(|| "–".into(), |spread| show(spread.median))
    };
    let name = match cell.transport.as_str() {
        "own" => cell.system.clone(),
        transport => format!("{} ({transport})", cell.system),
    };
    let flags: String = cell
        .flags
        .iter()
        .map(|flag| format!("  [{flag}]"))
        .collect();
    [
        name,
        interval(&summary.throughput_per_s, count),
        cell.ratio
            .map_or_else(String::new, |ratios| ratio(ratios.throughput)),
        micros(summary.p50_us.median),
        interval(&summary.p99_us, micros),
        optional(summary.replica_cpu_us_per_command, |cpu| {
            format!("{cpu:.2}")
        }),
        optional(summary.commands_per_sync, |commands| {
            format!("{commands:.1}")
        }),
        format!(
            "{}{flags}",
            optional(summary.gap_ms, |gap| micros(gap * 1e3))
        ),
    ]
}

fn interval(spread: &Spread, show: fn(f64) -> String) -> String {
    if spread.n < 2 {
        return show(spread.median);
    }
    format!(
        "{} ({} – {})",
        show(spread.median),
        show(spread.low),
        show(spread.high)
    )
}

fn ratio(of: Ratio) -> String {
    format!("{} ({})", format::ratio(&of), format::ratio_interval(&of))
}

/// Columns as wide as their widest text.
fn aligned(text: &mut String, rows: &[[String; 8]]) {
    let headings = HEADINGS.map(str::to_owned);
    let lines = || std::iter::once(&headings).chain(rows);
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let widths = lines().map(|line| line[column].chars().count());
            widths.max().unwrap_or(0)
        })
        .collect();
    for line in lines() {
        let columns: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(value, width)| format!("{value:<width$}"))
            .collect();
        writeln!(text, "  {}", columns.join("  ").trim_end()).expect("a string takes every line");
    }
}
