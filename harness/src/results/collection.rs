//! Whatever folder was given, as cells of runs.

use std::path::{Component, Path, PathBuf};

use crate::comparison::{self, Cell, Comparison, Kind};
use crate::failure::usage;
use crate::results::file;
use crate::results::grouping;
use crate::results::run_folder::RunFolder;
use crate::results::run_result;

/// More folders than this are not one experiment.
const RUNS_MAX: usize = 4_096;

/// What kind of folder it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Run,
    Runs,
    Comparison,
    Sweep,
}

pub struct Collection {
    pub source: Source,
    pub directory: PathBuf,
    /// Everything but the cells, which are in `cells` together with their runs.
    pub comparison: Comparison,
    pub cells: Vec<LoadedCell>,
    /// What is missing or does not fit, for people.
    pub notes: Vec<String>,
}

pub struct LoadedCell {
    pub cell: Cell,
    /// Fewer than the cell names if their folders are gone.
    pub runs: Vec<RunFolder>,
}

impl LoadedCell {
    /// The kinds of what was done to the cluster, such as `kill leader`; empty for nothing.
    pub fn faults(&self) -> String {
        let first = self.runs.first();
        let hardships = first.map_or_else(Vec::new, |run| run.result.hardships());
        hardships.join(", ")
    }
}

impl Collection {
    pub fn read(directory: &Path) -> anyhow::Result<Collection> {
        if !directory.is_dir() {
            return Err(usage(format!(
                "{}: no such folder; give one that `synod run` or `synod compare` wrote",
                directory.display()
            )));
        }
        let path = directory.join(comparison::FILE_NAME);
        if let Some(bytes) = file::read(&path)? {
            let versions = comparison::OLDEST_SCHEMA_VERSION..=comparison::SCHEMA_VERSION;
            let comparison = file::parse(&path, &bytes, versions)?;
            return Collection::of_comparison(directory, comparison);
        }
        if let Some(other) = run_result::other_experiment(directory)? {
            return Err(usage(format!(
                "{}: a result of `synod {other}`; give the folder of a run or of a comparison",
                directory.display()
            )));
        }
        if let Some(run) = RunFolder::read(directory)? {
            return Ok(Collection::of_runs(
                directory,
                Source::Run,
                vec![run],
                Vec::new(),
            ));
        }
        if directory.join("config.toml").exists() {
            return Err(usage(format!(
                "{}: no result.json beside config.toml: the run did not finish; repeat it",
                directory.display()
            )));
        }
        let (runs, notes) = runs_below(directory)?;
        if runs.is_empty() {
            return Err(usage(format!(
                "{}: neither result.json nor comparison.json in it, and no run below it; \
                 give a folder that `synod run` or `synod compare` wrote",
                directory.display()
            )));
        }
        Ok(Collection::of_runs(directory, Source::Runs, runs, notes))
    }

    pub fn of_runs(
        directory: &Path,
        source: Source,
        runs: Vec<RunFolder>,
        mut notes: Vec<String>,
    ) -> Collection {
        let runs = without_copies(runs, &mut notes);
        let (comparison, cells) = grouping::group(directory, runs);
        Collection {
            source,
            directory: directory.to_owned(),
            comparison,
            cells,
            notes,
        }
    }

    fn of_comparison(directory: &Path, mut comparison: Comparison) -> anyhow::Result<Collection> {
        let mut notes = Vec::new();
        let mut cells = Vec::new();
        for cell in std::mem::take(&mut comparison.cells) {
            let mut runs = Vec::new();
            for name in &cell.runs {
                match RunFolder::read(&below(directory, name)?)? {
                    Some(run) => runs.push(run),
                    None => notes.push(format!(
                        "{name} of {} has no result.json: plots that need it are left out",
                        cell.series()
                    )),
                }
            }
            cells.push(LoadedCell { cell, runs });
        }
        grouping::judge_again(&mut cells, &comparison.baseline_system);
        if cells.is_empty() {
            return Err(usage(format!(
                "{}: no cells in it: nothing was compared",
                directory.join(comparison::FILE_NAME).display()
            )));
        }
        Ok(Collection {
            source: match comparison.kind {
                Kind::Comparison => Source::Comparison,
                Kind::Sweep => Source::Sweep,
            },
            directory: directory.to_owned(),
            comparison,
            cells,
            notes,
        })
    }
}

/// A copy of a run is no repeat of it: it would make the scatter look smaller than it is.
fn without_copies(runs: Vec<RunFolder>, notes: &mut Vec<String>) -> Vec<RunFolder> {
    let mut kept: Vec<RunFolder> = Vec::with_capacity(runs.len());
    for run in runs {
        match kept.iter().find(|other| run.is_copy_of(other)) {
            Some(original) => notes.push(format!(
                "{} is a copy of {} and is not counted",
                run.path.display(),
                original.path.display()
            )),
            None => kept.push(run),
        }
    }
    kept
}

/// A comparison names folders below its own and no others.
fn below(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(name);
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside || name.is_empty() {
        return Err(usage(format!(
            "{}: run `{name}` is not a folder below it",
            directory.join(comparison::FILE_NAME).display()
        )));
    }
    Ok(directory.join(path))
}

/// The run folders in a folder, by name. One that did not finish is noted: leaving it out in silence would be
/// choosing among results.
fn runs_below(directory: &Path) -> anyhow::Result<(Vec<RunFolder>, Vec<String>)> {
    let unreadable =
        |error: std::io::Error| usage(format!("{}: cannot be read: {error}", directory.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            paths.push(path);
        }
    }
    if paths.len() > RUNS_MAX {
        return Err(usage(format!(
            "{}: more than {RUNS_MAX} folders in it",
            directory.display()
        )));
    }
    paths.sort();
    let (mut runs, mut notes) = (Vec::new(), Vec::new());
    for path in paths {
        if let Some(other) = run_result::other_experiment(&path)? {
            notes.push(format!(
                "{} is a result of `synod {other}`, which has no load to compare, and is left out",
                path.display()
            ));
            continue;
        }
        match RunFolder::read(&path)? {
            Some(run) => runs.push(run),
            None if path.join("config.toml").exists() => notes.push(format!(
                "{} has no result.json: that run did not finish and is not counted",
                path.display()
            )),
            None => {}
        }
    }
    Ok((runs, notes))
}
