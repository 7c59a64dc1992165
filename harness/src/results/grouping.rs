//! Makes a comparison out of runs that nobody compared: cells by conditions, with summaries and ratios.

use std::path::Path;

use crate::comparison::{Cell, Comparison, Equality, Kind, Ratios, SCHEMA_VERSION, Summary};
use crate::load::load_file::Load;
use crate::results::collection::LoadedCell;
use crate::results::figure::Figure;
use crate::results::run_folder::RunFolder;
use crate::results::run_result::RunResult;
use crate::statistics::{Ratio, Spread};

const BASELINE: &str = "synod";
/// An interval of the throughput beyond this share of its median to either side decides little.
const HALF_WIDTH_MAX: f64 = 0.1;
/// The last third of a steady run is as fast as the first, but for this share.
const DRIFT_MAX: f64 = 0.15;

/// `runs` is not empty.
pub fn group(directory: &Path, runs: Vec<RunFolder>) -> (Comparison, Vec<LoadedCell>) {
    let newest = runs.iter().max_by_key(|run| run.result.unix_time_s);
    let newest = newest.expect("at least one run").result.clone();
    let mut command_lines: Vec<String> = runs
        .iter()
        .map(|run| run.result.command_line.clone())
        .collect();
    command_lines.dedup();
    let mut groups: Vec<Vec<RunFolder>> = Vec::new();
    for run in runs {
        let same = |group: &&mut Vec<RunFolder>| key(&group[0].result) == key(&run.result);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let mut cells: Vec<LoadedCell> = groups
        .into_iter()
        .map(|runs| cell(directory, runs))
        .collect();
    cells.sort_by_key(|loaded| order(&loaded.cell));
    set_ratios(&mut cells);
    let comparison = Comparison {
        schema_version: SCHEMA_VERSION,
        kind: Kind::Comparison,
        command_line: command_lines.join("\n"),
        commit: newest.commit,
        unix_time_s: newest.unix_time_s,
        machine: newest.machine,
        baseline_system: BASELINE.into(),
        cells: Vec::new(),
        skipped: Vec::new(),
    };
    (comparison, cells)
}

/// Runs with the same key are repeats of each other.
fn key(run: &RunResult) -> impl PartialEq + use<> {
    let faults: Vec<String> = run.faults.iter().map(|fault| fault.kind.clone()).collect();
    (
        (
            run.system.clone(),
            run.version.clone(),
            run.transport_name(),
        ),
        (run.replicas, run.payload_bytes, run.load, run.seconds),
        (run.durability.clone(), run.state_machine.clone(), faults),
        run.commit.clone(),
    )
}

/// The baseline first, then by name, size and load.
fn order(cell: &Cell) -> impl Ord + use<> {
    let load = match cell.load {
        Load::Closed { outstanding, .. } => (0, u64::from(outstanding)),
        Load::Open { rate, .. } => (1, rate),
    };
    (
        cell.system != BASELINE,
        cell.series(),
        (cell.replicas, cell.payload_bytes, load),
    )
}

/// `runs` is not empty.
fn cell(directory: &Path, runs: Vec<RunFolder>) -> LoadedCell {
    let first = &runs[0].result;
    let relative = |run: &RunFolder| {
        let path = run.path.strip_prefix(directory).unwrap_or(&run.path);
        match path.to_string_lossy().into_owned() {
            own if own.is_empty() => ".".to_owned(),
            below => below,
        }
    };
    let summary = summary(&runs).expect("every result has a throughput and latencies");
    let version = match first.version.as_str() {
        "" => first.commit.clone(),
        version => version.to_owned(),
    };
    let cell = Cell {
        system: first.system.clone(),
        version,
        transport: first.transport_name(),
        replicas: first.replicas,
        payload_bytes: first.payload_bytes,
        load: first.load,
        seconds: first.seconds,
        warmup_s: first.warmup_s,
        durability: first.durability.clone(),
        state_machine: first.state_machine.clone(),
        equality: Vec::new(),
        settings: settings(first),
        runs: runs.iter().map(relative).collect(),
        flags: flags(&runs, &summary),
        summary,
        ratio: None,
    };
    LoadedCell { cell, runs }
}

/// How a system is set up, and how it writes its log.
fn settings(run: &RunResult) -> String {
    let told = [run.settings.as_str(), run.backend.as_str()];
    let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
    told.join("; log by ")
}

/// `None` without runs.
fn summary(runs: &[RunFolder]) -> Option<Summary> {
    let spread = |figure: Figure| {
        let told: Vec<f64> = runs
            .iter()
            .filter_map(|run| figure.of_run(&run.result))
            .collect();
        Spread::of(&told)
    };
    // A run in which nothing was acknowledged has figures of 0, which count.
    let always = |of: fn(&RunResult) -> f64| {
        let figures: Vec<f64> = runs.iter().map(|run| of(&run.result)).collect();
        Spread::of(&figures)
    };
    Some(Summary {
        throughput_per_s: always(|run| run.throughput_per_s)?,
        p50_us: always(|run| run.latency_us.p50)?,
        p99_us: always(|run| run.latency_us.p99)?,
        p999_us: always(|run| run.latency_us.p999)?,
        replica_cpu_us_per_command: spread(Figure::ReplicaCpu),
        commands_per_sync: spread(Figure::CommandsPerSync),
        gap_ms: spread(Figure::Gap),
    })
}

fn flags(runs: &[RunFolder], summary: &Summary) -> Vec<String> {
    let mut flags = Vec::new();
    let unsteady = runs.iter().filter(|run| !is_steady(run)).count();
    if unsteady > 0 {
        flags.push(format!("not steady ({unsteady} of {} runs)", runs.len()));
    }
    let half_width = summary.throughput_per_s.relative_half_width();
    if half_width.is_some_and(|half| half > HALF_WIDTH_MAX) {
        flags.push("interval too wide".into());
    }
    flags
}

/// A run with a fault is not meant to be steady.
fn is_steady(run: &RunFolder) -> bool {
    let Some(timeline) = &run.timeline else {
        return true;
    };
    let seconds = timeline.per_second();
    if !run.result.faults.is_empty() || seconds.len() < 6 {
        return true;
    }
    let third = seconds.len() / 3;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (
        mean(&seconds[..third]),
        mean(&seconds[seconds.len() - third..]),
    );
    (last - first).abs() <= DRIFT_MAX * first.max(last)
}

/// Fills in what the baseline is compared with: the cell of the same conditions, over the same transport if it has it.
fn set_ratios(cells: &mut [LoadedCell]) {
    for index in 0..cells.len() {
        let this = &cells[index];
        if this.cell.system == BASELINE {
            continue;
        }
        let alike = |other: &&LoadedCell| {
            let (a, b) = (&this.cell, &other.cell);
            b.system == BASELINE
                && (a.replicas, a.payload_bytes, a.load) == (b.replicas, b.payload_bytes, b.load)
                && this.faults() == other.faults()
        };
        let found = cells.iter().filter(alike);
        let Some(baseline) = found.max_by_key(|other| other.cell.transport == this.cell.transport)
        else {
            continue;
        };
        let ratio = ratios(&baseline.runs, &this.runs);
        let equality = equality(&baseline.runs[0].result, &this.runs[0].result);
        cells[index].cell.ratio = ratio;
        cells[index].cell.equality = equality;
    }
}

fn ratios(baseline: &[RunFolder], other: &[RunFolder]) -> Option<Ratios> {
    let of = |figure: Figure| {
        let told = |runs: &[RunFolder]| -> Vec<f64> {
            runs.iter()
                .filter_map(|run| figure.of_run(&run.result))
                .collect()
        };
        Ratio::of(&told(baseline), &told(other))
    };
    Some(Ratios {
        throughput: of(Figure::Throughput)?,
        p99: of(Figure::P99)?,
        cpu: of(Figure::ReplicaCpu),
    })
}

/// What was the same for a system as for the baseline, and what was not.
fn equality(baseline: &RunResult, run: &RunResult) -> Vec<Equality> {
    let row = |what: &str, of: fn(&RunResult) -> String| Equality {
        what: what.into(),
        value: of(run),
        equal: of(run) == of(baseline),
    };
    // A system that has nothing in common with ours but the promise says for itself how far that goes.
    if !run.equality.is_empty() {
        return run.equality.clone();
    }
    vec![
        row("durability", |run| run.durability.clone()),
        row("transport and encryption", |run| run.transport.clone()),
        row("client path", |run| run.client_path.clone()),
        row("batching and settings", |run| run.settings.clone()),
        row("state machine", |run| run.state_machine.clone()),
        row("log", |run| run.backend.clone()),
        row("measured", |run| {
            format!("{} s after {} s", run.seconds, run.warmup_s)
        }),
    ]
}
