//! Does the runs of a matrix and keeps what they found; what an earlier session did is not done again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;

use super::schedule::{Turn, schedule};
use super::{Matrix, Point, table};
use crate::cli::RunArguments;
use crate::comparison::{self, Comparison, Kind, Skipped};
use crate::interrupt;
use crate::log::note;
use crate::output::{say, write_whole};
use crate::report;
use crate::results::{Collection, RunFolder, Source};
use crate::run::hosts::look::Hosts;
use crate::run::layout::reclaim_data;
use crate::run::outcome::Outcome;
use crate::run::plan::{Plan, Subject};
use crate::run::progress::{Progress, thousands};
use crate::run::table::time;
use crate::run::{self, Stopped};
use crate::system::{NotInstalled, Programs, System, Transport};

/// The folder of the runs in that of the comparison.
const RUNS: &str = "runs";

/// The systems of a matrix, found before anything is written: a mistake leaves no trace.
pub struct Contestants {
    subjects: BTreeMap<(System, Transport), Subject>,
    skipped: Vec<Skipped>,
}

impl Contestants {
    /// Finds or builds the programs of all systems; those that are not installed are skipped, and said to be.
    pub fn find(
        matrix: &Matrix,
        programs: &Programs,
        inventory: Option<&Path>,
    ) -> anyhow::Result<Contestants> {
        let progress = Progress::new();
        let mut contestants = Contestants {
            subjects: BTreeMap::new(),
            skipped: Vec::new(),
        };
        let most = matrix.replicas.iter().max().copied();
        let hosts = inventory.zip(most).map(|(inventory, replicas)| Hosts {
            inventory,
            replicas,
        });
        for (system, transport) in matrix.contestants() {
            match Subject::find(system, transport, programs, hosts, &progress) {
                Ok(subject) => {
                    contestants.subjects.insert((system, transport), subject);
                }
                Err(error) => {
                    let NotInstalled(why) = error.downcast::<NotInstalled>()?;
                    progress.step(&format!("skipped: {}: {why}", system.name()));
                    contestants.skipped.push(Skipped {
                        system: system.name(),
                        why,
                    });
                }
            }
        }
        Ok(contestants)
    }
}

pub struct Session<'a> {
    pub matrix: &'a Matrix,
    pub kind: Kind,
    /// Where everything goes; exists.
    pub directory: PathBuf,
    /// Where the replicas write, if not there.
    pub data: Option<PathBuf>,
    /// The machines to run on, if not this one alone.
    pub inventory: Option<PathBuf>,
    pub contestants: Contestants,
    pub command_line: String,
}

/// What came of a session, in full or up to where it was stopped.
pub struct Finished {
    pub comparison: Comparison,
    /// Runs that failed or could not be done, in words.
    pub problems: Vec<String>,
}

impl Session<'_> {
    /// A run that fails is noted, and the next one is done.
    pub fn perform(&self) -> anyhow::Result<Finished> {
        let progress = Progress::new();
        let subjects = &self.contestants.subjects;
        let turns: Vec<Turn> = schedule(self.matrix)
            .into_iter()
            .filter(|turn| subjects.contains_key(&(turn.point.system, turn.point.transport)))
            .collect();
        let mut runs = Vec::new();
        let mut problems = Vec::new();
        let mut pace = Pace::new(turns.len());
        for (index, turn) in turns.iter().enumerate() {
            // Heard between two runs.
            interrupt::check()?;
            let name = turn.point.folder(turn.repeat);
            if let Some(run) = self.kept(&name)? {
                pace.kept();
                runs.push(run);
                continue;
            }
            let head = format!("run {} of {}{}", index + 1, turns.len(), pace.left());
            let subject = &subjects[&(turn.point.system, turn.point.transport)];
            match self.run(turn, subject, &name, &head) {
                Ok(outcome) => {
                    progress.step(&format!("{head}  {}", line(turn, &outcome)));
                    let what = |problem| format!("{name}: {problem}");
                    problems.extend(outcome.problems.iter().map(what));
                    runs.extend(self.kept(&name)?);
                }
                Err(error) if error.is::<Stopped>() => {
                    return Err(error.context(format!(
                        "{} of {} runs are done and kept in {}",
                        runs.len(),
                        turns.len(),
                        self.directory.display()
                    )));
                }
                Err(error) => {
                    progress.step(&format!(
                        "{head}  {}: FAILED: {error:#}",
                        turn.point.label()
                    ));
                    problems.push(format!("{name}: {error:#}"));
                }
            }
            pace.done();
        }
        anyhow::ensure!(
            !runs.is_empty(),
            "no run succeeded: {}",
            problems.join("; ")
        );
        let comparison = self.write(runs)?;
        Ok(Finished {
            comparison,
            problems,
        })
    }

    /// A run that is complete. What an interruption left of another is removed.
    fn kept(&self, name: &str) -> anyhow::Result<Option<RunFolder>> {
        let path = self.directory.join(RUNS).join(name);
        if !path.exists() {
            return Ok(None);
        }
        let run = RunFolder::read(&path)?;
        if run.is_none() {
            self.remove_interrupted(&path, name)?;
        }
        Ok(run)
    }

    /// Only what a run of this sweep made: its data by their owner, its results by the plan that they begin with.
    fn remove_interrupted(&self, path: &Path, name: &str) -> anyhow::Result<()> {
        reclaim_data(path, self.data.as_deref())?;
        let cannot = || format!("{}: cannot be removed", path.display());
        let empty = std::fs::read_dir(path)
            .with_context(cannot)?
            .next()
            .is_none();
        anyhow::ensure!(
            empty || is_plan_of(&path.join("config.toml"), name),
            "{}: is no run of this sweep; move it away",
            path.display()
        );
        anyhow::ensure!(
            !path.join("data").exists(),
            "{}: was kept, or is not of a run of this sweep; move it away",
            path.join("data").display()
        );
        std::fs::remove_dir_all(path).with_context(cannot)
    }

    fn run(
        &self,
        turn: &Turn,
        subject: &Subject,
        name: &str,
        head: &str,
    ) -> anyhow::Result<Outcome> {
        let arguments = self.arguments(&turn.point, turn.repeat, name);
        let mut plan = Plan::new(&arguments, subject.clone())?;
        plan.command_line = self.command_line.clone();
        let progress = Arc::new(Progress::within(format!("{head}: {}:", turn.point.label())));
        run::perform(&plan, &progress)
    }

    fn arguments(&self, point: &Point, repeat: u32, name: &str) -> RunArguments {
        let matrix = self.matrix;
        let mut arguments = RunArguments::of(point.conditions.load);
        arguments.replicas = point.conditions.replicas;
        arguments.payload = point.conditions.payload_bytes;
        arguments.seconds = matrix.seconds;
        arguments.warmup = matrix.warmup_s;
        arguments.state_machine = matrix.state_machine;
        arguments.links = matrix.links.clone();
        arguments.loss = matrix.loss_percent;
        arguments.fault = matrix.faults.clone();
        arguments.kill_leader_after = matrix.kill_leader_after_s;
        arguments.durability = matrix.durability;
        arguments.seed = u64::from(repeat) + 1;
        arguments.out = self.directory.join(RUNS);
        arguments.data = self.data.clone();
        arguments.inventory = self.inventory.clone();
        arguments.name = Some(name.to_owned());
        arguments
    }

    /// Puts the runs together as `comparison.json`, with the report beside it.
    fn write(&self, runs: Vec<RunFolder>) -> anyhow::Result<Comparison> {
        let collection = Collection::of_runs(&self.directory, Source::Comparison, runs, Vec::new());
        let mut comparison = collection.comparison;
        comparison.kind = self.kind;
        comparison.command_line = self.command_line.clone();
        comparison.skipped.clone_from(&self.contestants.skipped);
        comparison.cells = collection
            .cells
            .into_iter()
            .map(|loaded| loaded.cell)
            .collect();
        let path = self.directory.join(comparison::FILE_NAME);
        let mut text = serde_json::to_string_pretty(&comparison)?;
        text.push('\n');
        write_whole(&path, &text)?;
        report::write_beside(&self.directory)?;
        Ok(comparison)
    }
}

/// Whether a run of this name wrote the file before it began.
fn is_plan_of(path: &Path, name: &str) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let plan: Option<toml::Table> = toml::from_str(&text).ok();
    plan.and_then(|plan| plan.get("name")?.as_str().map(|found| found == name))
        .unwrap_or(false)
}

/// Prints what came of a session; fails if a run did.
pub fn finish(session: &Session<'_>, finished: &Finished, json: bool) -> anyhow::Result<()> {
    let said = if json {
        say!("{}", serde_json::to_string_pretty(&finished.comparison)?)
    } else {
        say!("{}", table::table(&finished.comparison))
    };
    note!("results: {0}, {0}/report.html", session.directory.display());
    anyhow::ensure!(
        finished.problems.is_empty(),
        "{}",
        finished.problems.join("; ")
    );
    said
}

/// A run in one line.
fn line(turn: &Turn, outcome: &Outcome) -> String {
    format!(
        "{:<18} {}, repeat {}: {}/s, p50 {}, p99 {}{}",
        turn.point.label(),
        turn.point.conditions.label(),
        turn.repeat + 1,
        thousands(outcome.throughput_per_s.round() as u64),
        time(outcome.latency_us.p50),
        time(outcome.latency_us.p99),
        if outcome.ok { "" } else { "  FAILED" }
    )
}

/// How long the rest will take, from how long the runs so far took.
struct Pace {
    started: Instant,
    done: usize,
    left: usize,
}

impl Pace {
    fn new(runs: usize) -> Pace {
        Pace {
            started: Instant::now(),
            done: 0,
            left: runs,
        }
    }

    fn kept(&mut self) {
        self.left -= 1;
    }

    fn done(&mut self) {
        self.done += 1;
        self.left -= 1;
    }

    fn left(&self) -> String {
        if self.done == 0 {
            return String::new();
        }
        let each = self.started.elapsed() / self.done as u32;
        let seconds = each.as_secs_f64() * self.left as f64;
        format!(", {:.0} min left", (seconds / 60.0).ceil())
    }
}
