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
use crate::results::{Collection, Figure, LoadedCell};
use crate::statistics::holm;
use judge::{Evidence, Judged};
use verdict::Verdict;

/// Of what `--json` prints.
const SCHEMA_VERSION: u32 = 1;

pub fn run(arguments: &DiffArguments) -> anyhow::Result<()> {
    let before = Collection::read(&arguments.before)?;
    let after = Collection::read(&arguments.after)?;
    let diff = Diff::new(&before, &after, arguments.threshold)?;
    for collection in [&before, &after] {
        for note in &collection.notes {
            note!("note: {note}");
        }
        for problem in failed_runs(collection) {
            note!("note: {problem}");
        }
    }
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&diff)?)?;
    } else {
        say!("{}", diff.table())?;
    }
    let regressions: Vec<String> = diff.regressions().collect();
    anyhow::ensure!(
        !arguments.fail_on_regression || regressions.is_empty(),
        "worse, and certainly so: {}",
        regressions.join("; ")
    );
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
    cells: Vec<CellDiff>,
    only_before: Vec<String>,
    only_after: Vec<String>,
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
    low: Option<f64>,
    high: Option<f64>,
    /// After Holm, over all figures of the diff.
    p: Option<f64>,
    evidence: &'static str,
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
        let figures = judge_together(&pairs, threshold);
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
            cells: cells.collect(),
            only_before,
            only_after,
        })
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
        let mut text = format!(
            "Certain: at 95 %, for all {tested} tested figures together (Holm), and at least {:.0} %. Changes and 95 % \
             intervals are of geometric means.\n",
            self.threshold * 100.0
        );
        let within = Evidence::WithinRuns.label();
        if figures().any(|figure| figure.evidence == within) {
            text.push_str(&format!(
                "One run each: judged by the seconds within each run (block bootstrap), assuming that runs of one \
                 build differ by {} by themselves (one standard deviation). Repeat the runs, five times each, to \
                 know instead of assuming.\n",
                judge::ASSUMED
            ));
        }
        text.trim_end().to_owned()
    }
}

/// All figures of all pairs: the more there are, the more each has to show.
fn judge_together(pairs: &[(&LoadedCell, &LoadedCell)], threshold: f64) -> Vec<Vec<FigureDiff>> {
    let judged: Vec<Vec<Judged>> = pairs
        .iter()
        .map(|(old, new)| judge::cell(old, new))
        .collect();
    let probabilities: Vec<f64> = judged.iter().flatten().filter_map(Judged::p).collect();
    let mut raised = holm(&probabilities).into_iter();
    let mut finish = |figure: &Judged| {
        let p = figure.p().and_then(|_| raised.next());
        FigureDiff::new(figure, p, threshold)
    };
    judged
        .iter()
        .map(|figures| figures.iter().map(&mut finish).collect())
        .collect()
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
    fn new(judged: &Judged, p: Option<f64>, threshold: f64) -> FigureDiff {
        let interval = judged.difference.map(|difference| difference.interval());
        let (verdict, words) = verdict::of(judged, p, interval, threshold);
        FigureDiff {
            figure: judged.figure.key(),
            of: judged.figure,
            before: judged.before,
            after: judged.after,
            change: judged.difference.map(|difference| difference.change()),
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            p,
            evidence: judged.evidence.label(),
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

fn failed_runs(collection: &Collection) -> impl Iterator<Item = String> {
    let runs = collection.cells.iter().flat_map(|loaded| &loaded.runs);
    runs.filter(|run| !run.result.problems.is_empty())
        .map(|run| format!("{}: {}", run.path.display(), run.result.problems.join("; ")))
}

#[cfg(test)]
mod tests;
