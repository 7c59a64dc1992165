//! `synod diff`: which figures moved from one result to another, by how much, and how certain that is.

pub mod arguments;
mod judge;
mod verdict;

use serde::Serialize;

use crate::diff::arguments::DiffArguments;
use crate::failure::usage;
use crate::load::load_file::Load;
use crate::log::note;
use crate::output::say;
use crate::report::format;
use crate::results::{Collection, Figure, LoadedCell, RunResult};
use crate::statistics::Family;
use judge::Judged;
use verdict::Verdict;

/// Of what `--json` prints.
const SCHEMA_VERSION: u32 = 2;

pub fn run(arguments: &DiffArguments) -> anyhow::Result<()> {
    let before = Collection::read(&arguments.before)?;
    let after = Collection::read(&arguments.after)?;
    let diff = Diff::new(&before, &after, arguments.threshold)?;
    for collection in [&before, &after] {
        for note in &collection.notes {
            note!("note: {note}");
        }
    }
    for note in differing_conditions(&before, &after) {
        note!("note: {note}");
    }
    for failed in &diff.failed_runs {
        note!("note: {failed}");
    }
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&diff)?)?;
    } else {
        say!("{}", diff.table())?;
    }
    if arguments.fail_on_regression {
        diff.judge_gate(arguments.min_runs as usize)?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Diff {
    schema_version: u32,
    before: Side,
    after: Side,
    /// Changes below this share do not matter.
    threshold: f64,
    confidence: f64,
    /// Of each interval, so that all of them hold together at `confidence`.
    interval_confidence: f64,
    cells: Vec<CellDiff>,
    only_before: Vec<String>,
    only_after: Vec<String>,
    /// Runs that did not pass their checks, on either side.
    failed_runs: Vec<FailedRun>,
}

#[derive(Debug, Serialize)]
struct FailedRun {
    side: &'static str,
    run: String,
    problems: Vec<String>,
}

impl std::fmt::Display for FailedRun {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let problems = match &self.problems[..] {
            [] => "no reason is given".to_owned(),
            problems => problems.join("; "),
        };
        write!(out, "{} ({}) did not pass: {problems}", self.run, self.side)
    }
}

#[derive(Debug, Serialize)]
struct Side {
    directory: String,
    commit: String,
    runs: usize,
}

#[derive(Debug, Serialize)]
struct CellDiff {
    cell: String,
    runs_before: usize,
    runs_after: usize,
    figures: Vec<FigureDiff>,
}

#[derive(Debug, Serialize)]
struct FigureDiff {
    figure: &'static str,
    #[serde(skip)]
    of: Figure,
    before: f64,
    after: f64,
    /// 0.1 is 10 % more; absent if it can't be told.
    change: Option<f64>,
    /// The interval of the change that the verdict was read from.
    low: Option<f64>,
    high: Option<f64>,
    /// Of this figure alone, not corrected for the others.
    p: Option<f64>,
    verdict: Verdict,
    words: String,
}

impl Diff {
    fn new(before: &Collection, after: &Collection, threshold: f64) -> anyhow::Result<Diff> {
        let keyed_before = keyed(before)?;
        let keyed_after = keyed(after)?;
        let (mut names, mut pairs) = (Vec::new(), Vec::new());
        for (key, old) in &keyed_before {
            if let Some((_, new)) = keyed_after.iter().find(|(other, _)| other == key) {
                names.push(key.clone());
                pairs.push((*old, *new));
            }
        }
        let missing = |from: &[(String, &LoadedCell)], to: &[(String, &LoadedCell)]| {
            let lacking = from
                .iter()
                .filter(|(key, _)| !to.iter().any(|(other, _)| other == key));
            lacking.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let only_before = missing(&keyed_before, &keyed_after);
        let only_after = missing(&keyed_after, &keyed_before);
        if pairs.is_empty() {
            return Err(usage(format!(
                "nothing to compare: {} has {}, {} has {}",
                before.directory.display(),
                only_before.join(" and "),
                after.directory.display(),
                only_after.join(" and ")
            )));
        }
        let (family, figures) = judge_together(&pairs, threshold);
        let cells = names.into_iter().zip(&pairs).zip(figures);
        let cells = cells.map(|((cell, (old, new)), figures)| CellDiff {
            cell,
            runs_before: old.runs.len(),
            runs_after: new.runs.len(),
            figures,
        });
        Ok(Diff {
            schema_version: SCHEMA_VERSION,
            before: Side::of(before),
            after: Side::of(after),
            threshold,
            confidence: crate::statistics::CONFIDENCE,
            interval_confidence: family.confidence(),
            cells: cells.collect(),
            only_before,
            only_after,
            failed_runs: failed_runs(before, "A")
                .chain(failed_runs(after, "B"))
                .collect(),
        })
    }

    /// For CI: an error says what got worse, or why that can't be told.
    fn judge_gate(&self, min_runs: usize) -> anyhow::Result<()> {
        let failed = self.failed_runs.iter().filter(|run| run.side == "B");
        let failed: Vec<String> = failed.map(FailedRun::to_string).collect();
        anyhow::ensure!(
            failed.is_empty(),
            "a run that failed its checks is a regression: {}",
            failed.join("; ")
        );
        let few = |cell: &&CellDiff| cell.runs_before.min(cell.runs_after) < min_runs;
        if let Some(cell) = self.cells.iter().find(few) {
            return Err(usage(format!(
                "--fail-on-regression needs {min_runs} runs on each side, and {} has {} and {}: repeat the runs, or lower \
                 --min-runs (2 at least)",
                cell.cell, cell.runs_before, cell.runs_after
            )));
        }
        let regressions: Vec<String> = self.regressions().collect();
        anyhow::ensure!(
            regressions.is_empty(),
            "certainly worse: {}",
            regressions.join("; ")
        );
        Ok(())
    }

    fn regressions(&self) -> impl Iterator<Item = String> {
        self.cells.iter().flat_map(|cell| {
            let worse = cell
                .figures
                .iter()
                .filter(|figure| figure.verdict == Verdict::Worse);
            worse
                .map(|figure| format!("{} of {} is {}", figure.of.label(), cell.cell, figure.words))
        })
    }

    fn table(&self) -> String {
        let mut text = format!("A  {}\nB  {}\n", self.before.line(), self.after.line());
        for cell in &self.cells {
            text.push_str(&format!("\n{}\n", cell.cell));
            for figure in &cell.figures {
                let show = |value| format::figure(figure.of, value);
                text.push_str(&format!(
                    "  {:<24} {:>9} → {:<9}  {}\n",
                    figure.of.label(),
                    show(figure.before),
                    show(figure.after),
                    figure.words
                ));
            }
        }
        for (cells, side) in [(&self.only_before, "A"), (&self.only_after, "B")] {
            for cell in cells {
                text.push_str(&format!("\nonly in {side}: {cell}\n"));
            }
        }
        text.push('\n');
        text.push_str(&self.footnote());
        text
    }

    fn footnote(&self) -> String {
        let figures = || self.cells.iter().flat_map(|cell| &cell.figures);
        let tested = figures().filter(|figure| figure.p.is_some()).count();
        format!(
            "Certain: all {tested} figures together at 95 % (intervals at {:.2} % each, Welch's t on logarithms of runs), and \
             at least {:.0} %.\nChanges are of geometric means of runs.",
            self.interval_confidence * 100.0,
            self.threshold * 100.0
        )
    }
}

/// All figures of all pairs: the more there are, the more each has to show.
fn judge_together(
    pairs: &[(&LoadedCell, &LoadedCell)],
    threshold: f64,
) -> (Family, Vec<Vec<FigureDiff>>) {
    let judged: Vec<Vec<Judged>> = pairs
        .iter()
        .map(|(old, new)| judge::cell(old, new))
        .collect();
    let told = judged.iter().flatten();
    let family = Family::of(told.filter(|figure| figure.difference.is_ok()).count());
    let figures = judged.iter().map(|figures| {
        let figures = figures.iter();
        figures
            .map(|figure| FigureDiff::new(figure, family, threshold))
            .collect()
    });
    (family, figures.collect())
}

impl Side {
    fn of(collection: &Collection) -> Side {
        Side {
            directory: collection.directory.display().to_string(),
            commit: collection.comparison.commit.clone(),
            runs: collection
                .cells
                .iter()
                .map(|loaded| loaded.runs.len())
                .sum(),
        }
    }

    fn line(&self) -> String {
        let plural = if self.runs == 1 { "" } else { "s" };
        format!(
            "{} (commit {}, {} run{plural})",
            self.directory, self.commit, self.runs
        )
    }
}

impl FigureDiff {
    fn new(judged: &Judged, family: Family, threshold: f64) -> FigureDiff {
        let difference = judged.difference.as_ref().ok();
        let ratio = difference.map(|difference| family.of_difference(difference));
        let (verdict, words) = verdict::of(judged, family, threshold);
        FigureDiff {
            figure: judged.figure.key(),
            of: judged.figure,
            before: judged.before,
            after: judged.after,
            change: ratio.map(|ratio| ratio.ratio - 1.0),
            low: ratio.map(|ratio| ratio.low - 1.0),
            high: ratio.map(|ratio| ratio.high - 1.0),
            p: difference.map(|difference| difference.p()),
            verdict,
            words,
        }
    }
}

/// The cells by what has to be the same on both sides: everything but the version and its figures.
fn keyed(collection: &Collection) -> anyhow::Result<Vec<(String, &LoadedCell)>> {
    let mut keyed: Vec<(String, &LoadedCell)> = Vec::new();
    for loaded in &collection.cells {
        let cell = &loaded.cell;
        let load = match cell.load {
            Load::Closed { outstanding, .. } => format!("{outstanding} outstanding"),
            Load::Open { rate, .. } => format!("open loop {rate}/s"),
        };
        let mut key = format!(
            "{}, {load}, {} replicas, {} B",
            cell.series(),
            cell.replicas,
            cell.payload_bytes
        );
        for part in [&cell.state_machine, &loaded.faults()] {
            if !part.is_empty() {
                key.push_str(&format!(", {part}"));
            }
        }
        if cell.durability == "none" {
            key.push_str(", not durable");
        }
        if let Some((_, other)) = keyed.iter().find(|(other, _)| *other == key) {
            return Err(usage(format!(
                "{}: {key} is there twice ({} and {}): keep each build, and each length of run, in a folder of its own",
                collection.directory.display(),
                other.cell.version,
                cell.version
            )));
        }
        keyed.push((key, loaded));
    }
    Ok(keyed)
}

fn failed_runs(collection: &Collection, side: &'static str) -> impl Iterator<Item = FailedRun> {
    let runs = collection.cells.iter().flat_map(|loaded| &loaded.runs);
    runs.filter(|run| !run.result.ok || !run.result.problems.is_empty())
        .map(move |run| FailedRun {
            side,
            run: run.path.display().to_string(),
            problems: run.result.problems.clone(),
        })
}

/// What is not part of a cell's conditions and yet may explain a change.
fn differing_conditions(before: &Collection, after: &Collection) -> Vec<String> {
    let told = |collection: &Collection, of: fn(&RunResult) -> String| {
        let runs = collection.cells.iter().flat_map(|loaded| &loaded.runs);
        let mut values: Vec<String> = runs.map(|run| of(&run.result)).collect();
        values.sort();
        values.dedup();
        values.join(" and ")
    };
    type Told = fn(&RunResult) -> String;
    let conditions: [(&str, Told); 4] = [
        ("machine", |run| {
            format!("{} x {}", run.machine.cores, run.machine.cpu)
        }),
        ("kernel", |run| run.machine.kernel.clone()),
        ("measured seconds", |run| run.seconds.to_string()),
        ("disk", |run| run.machine.data.filesystem.clone()),
    ];
    let differing = conditions.into_iter().filter_map(|(name, of)| {
        let (a, b) = (told(before, of), told(after, of));
        (a != b && !a.is_empty() && !b.is_empty())
            .then(|| format!("the {name} is not the same: A has {a}, B has {b}"))
    });
    differing.collect()
}

#[cfg(test)]
mod tests;
