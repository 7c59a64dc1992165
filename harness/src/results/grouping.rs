//! Makes a comparison out of runs that nobody compared: cells by conditions, with summaries and ratios.

use std::path::Path;

use crate::comparison::{Cell, Comparison, Equality, Kind, Ratios, SCHEMA_VERSION, Summary};
use crate::load::load_file::Load;
use crate::results::collection::LoadedCell;
use crate::results::figure::Figure;
use crate::results::run_folder::RunFolder;
use crate::results::run_result::RunResult;
use crate::results::steadiness;
use crate::statistics::{Difference, Family, Spread};

const BASELINE: &str = "synod";
/// An interval of the throughput beyond this share of its median to either side decides little.
const HALF_WIDTH_MAX: f64 = 0.1;
/// A quantile with fewer samples than this beyond it moves by several percent with each of them.
const SAMPLES_BEYOND_MIN: u64 = 50;

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
    set_ratios(&mut cells, BASELINE);
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
    (
        (
            run.system.clone(),
            run.version.clone(),
            run.transport_name(),
        ),
        (run.replicas, run.payload_bytes, run.load, run.seconds),
        (
            run.durability.clone(),
            run.state_machine.clone(),
            run.hardships(),
        ),
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

/// Summaries, flags and ratios of a comparison's cells again from their runs, so that an older comparison is judged by
/// the same rule as a new one. A cell of which a run is missing keeps what was written.
pub fn judge_again(cells: &mut [LoadedCell], baseline: &str) {
    for loaded in cells.iter_mut() {
        let complete = !loaded.runs.is_empty() && loaded.runs.len() == loaded.cell.runs.len();
        if complete && let Some(summary) = summary(&loaded.runs) {
            loaded.cell.flags = flags(&loaded.runs, &summary);
            loaded.cell.summary = summary;
        }
    }
    set_ratios(cells, baseline);
}

fn flags(runs: &[RunFolder], summary: &Summary) -> Vec<String> {
    let mut flags = Vec::new();
    let failed = runs.iter().filter(|run| !run.result.problems.is_empty());
    let failed = failed.count();
    if failed > 0 {
        flags.push(format!("failed ({failed} of {} runs)", runs.len()));
    }
    let unsteady = runs.iter().filter(|run| !steadiness::is_steady(run));
    let unsteady = unsteady.count();
    if unsteady > 0 {
        flags.push(format!("not steady ({unsteady} of {} runs)", runs.len()));
    }
    let half_width = summary.throughput_per_s.relative_half_width();
    if half_width.is_some_and(|half| half > HALF_WIDTH_MAX) {
        flags.push("interval too wide".into());
    }
    let fewest = runs.iter().map(|run| run.result.acknowledged).min();
    for (name, one_in) in [("p99", 100), ("p99.9", 1_000)] {
        let beyond = fewest.unwrap_or(0) / one_in;
        if beyond < SAMPLES_BEYOND_MIN {
            flags.push(format!("{name} rests on {beyond} samples beyond it"));
        }
    }
    flags
}

/// Fills in what the baseline is compared with: the cell of the same conditions, over the same transport if it has it.
/// All ratios of the comparison are one family: each interval is as wide as that demands.
fn set_ratios(cells: &mut [LoadedCell], baseline: &str) {
    let pairs: Vec<(usize, usize)> = (0..cells.len())
        .filter(|index| cells[*index].cell.system != baseline)
        .filter_map(|index| Some((index, counterpart(cells, index, baseline)?)))
        .collect();
    let known: &[LoadedCell] = cells;
    let told = pairs.iter().flat_map(|(index, other)| {
        RATIOS.map(|figure| {
            let (over, under) = (
                figures(known, *other, figure),
                figures(known, *index, figure),
            );
            Difference::between(&under, &over)
        })
    });
    let family = Family::of(told.flatten().count());
    for (index, other) in pairs {
        let of = |figure| {
            let (over, under) = (figures(cells, other, figure), figures(cells, index, figure));
            family.ratio_or_estimate(&over, &under)
        };
        let ratios = of(Figure::Throughput).zip(of(Figure::P99));
        let ratios = ratios.map(|(throughput, p99)| Ratios {
            throughput,
            p99,
            cpu: of(Figure::ReplicaCpu),
        });
        if cells[index].runs.is_empty() || cells[other].runs.is_empty() {
            continue;
        }
        let equality = equality(&cells[other].runs[0].result, &cells[index].runs[0].result);
        cells[index].cell.ratio = ratios;
        cells[index].cell.equality = equality;
    }
}

const RATIOS: [Figure; 3] = [Figure::Throughput, Figure::P99, Figure::ReplicaCpu];

fn counterpart(cells: &[LoadedCell], index: usize, baseline: &str) -> Option<usize> {
    let this = &cells[index];
    let alike = |other: &usize| {
        let other = &cells[*other];
        let (a, b) = (&this.cell, &other.cell);
        b.system == baseline
            && (a.replicas, a.payload_bytes, a.load) == (b.replicas, b.payload_bytes, b.load)
            && this.faults() == other.faults()
    };
    let found = (0..cells.len()).filter(alike);
    found.max_by_key(|other| cells[*other].cell.transport == this.cell.transport)
}

fn figures(cells: &[LoadedCell], index: usize, figure: Figure) -> Vec<f64> {
    let runs = cells[index].runs.iter();
    runs.filter_map(|run| figure.of_run(&run.result)).collect()
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
