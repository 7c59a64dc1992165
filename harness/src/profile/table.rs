//! CPU per command by stage: `profile.json`, and the same as a table for people.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::profile::stacks::Stacks;
use crate::profile::stage::Stage;
use crate::results::file;

pub const FILE_NAME: &str = "profile.json";
/// Raised when a key changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;
/// Functions without a stage that are named.
const UNKNOWN_MAX: usize = 12;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    pub schema_version: u32,
    /// How long the processes were recorded, inside the measured window.
    pub recorded_s: f64,
    pub samples_per_s: u32,
    /// Commands that were applied meanwhile.
    pub commands: u64,
    /// What the machine does not permit, and what was done instead.
    pub limits: Vec<String>,
    pub processes: Vec<ProcessProfile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessProfile {
    /// `leader`, `follower` or `client`.
    pub role: String,
    pub pid: i32,
    pub samples: u64,
    /// As the kernel accounts it.
    pub measured_cpu_us: u64,
    /// As many samples as there were, times their period.
    pub sampled_cpu_us: u64,
    /// By how much the sampled CPU differs from the measured one, in percent of the latter.
    pub residual_percent: f64,
    pub cpu_us_per_command: f64,
    /// How long its threads were ready to run and waited for a CPU.
    pub wait_us_per_command: f64,
    pub stages: Vec<StageShare>,
    /// Functions that no row of the table of stages names, most frequent first: the leaves of `other` and `kernel
    /// other`, and those that fell to `event loop` only because it called them.
    pub unknown: Vec<Unknown>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageShare {
    pub stage: Stage,
    pub samples: u64,
    pub percent: f64,
    /// The share of the samples, of the measured CPU.
    pub cpu_us_per_command: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unknown {
    pub function: String,
    pub percent: f64,
}

/// What was found out about one process while it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub pid: i32,
    pub cpu_us: u64,
    pub wait_us: u64,
    pub commands: u64,
    pub samples_per_s: u32,
}

impl ProcessProfile {
    pub fn new(role: &str, stacks: &Stacks, spent: Spent) -> ProcessProfile {
        let samples = stacks.samples();
        let mut by_stage: BTreeMap<Stage, u64> = BTreeMap::new();
        for (frames, count) in stacks.iter() {
            *by_stage.entry(Stage::of(&frames)).or_insert(0) += count;
        }
        let cpu_us_per_command = ratio(spent.cpu_us as f64, spent.commands as f64);
        let stages = Stage::ALL.iter().filter_map(|stage| {
            let of_stage = *by_stage.get(stage)?;
            let share = ratio(of_stage as f64, samples as f64);
            Some(StageShare {
                stage: *stage,
                samples: of_stage,
                percent: 100.0 * share,
                cpu_us_per_command: share * cpu_us_per_command,
            })
        });
        let sampled_cpu_us = samples * 1_000_000 / u64::from(spent.samples_per_s);
        let difference = sampled_cpu_us as f64 - spent.cpu_us as f64;
        ProcessProfile {
            role: role.to_owned(),
            pid: spent.pid,
            samples,
            measured_cpu_us: spent.cpu_us,
            sampled_cpu_us,
            residual_percent: 100.0 * ratio(difference, spent.cpu_us as f64),
            cpu_us_per_command,
            wait_us_per_command: ratio(spent.wait_us as f64, spent.commands as f64),
            stages: stages.collect(),
            unknown: unknown(stacks),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn unknown(stacks: &Stacks) -> Vec<Unknown> {
    let mut by_leaf: BTreeMap<&str, u64> = BTreeMap::new();
    for (frames, count) in stacks.iter() {
        let leaf = frames.last().copied().unwrap_or("");
        if Stage::of(&frames).catches_all() && !Stage::knows(leaf) {
            *by_leaf.entry(leaf).or_insert(0) += count;
        }
    }
    let mut leaves: Vec<(&str, u64)> = by_leaf.into_iter().collect();
    leaves.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let leaves = leaves.into_iter().take(UNKNOWN_MAX);
    let named = leaves.map(|(function, count)| Unknown {
        function: function.to_owned(),
        percent: 100.0 * ratio(count as f64, stacks.samples() as f64),
    });
    named.collect()
}

impl Profile {
    /// The profile in a result folder, if there is one.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Profile>> {
        let path = folder.join(FILE_NAME);
        match file::read(&path)? {
            Some(bytes) => file::parse(&path, &bytes, SCHEMA_VERSION..=SCHEMA_VERSION).map(Some),
            None => Ok(None),
        }
    }

    /// Stages as rows, processes as columns.
    pub fn table(&self) -> String {
        let mut text = format!("{:<16}", "us per command");
        for process in &self.processes {
            text.push_str(&format!("{:>12} {:>6}", process.role, "%"));
        }
        for stage in Stage::ALL {
            if !self
                .processes
                .iter()
                .any(|process| process.of(stage).is_some())
            {
                continue;
            }
            text.push_str(&format!("\n{:<16}", stage.name()));
            for process in &self.processes {
                let (us, percent) = process.of(stage).map_or((0.0, 0.0), |share| {
                    (share.cpu_us_per_command, share.percent)
                });
                text.push_str(&format!("{us:>12.3} {percent:>6.1}"));
            }
        }
        self.add_sums(&mut text);
        for limit in &self.limits {
            text.push_str(&format!("\nnote: {limit}"));
        }
        text
    }

    fn add_sums(&self, text: &mut String) {
        let mut row = |name: &str, value: &dyn Fn(&ProcessProfile) -> String| {
            text.push_str(&format!("\n{name:<16}"));
            for process in &self.processes {
                text.push_str(&format!("{:>12} {:>6}", value(process), ""));
            }
        };
        row("all stages", &|process| {
            format!(
                "{:.3}",
                process
                    .stages
                    .iter()
                    .map(|share| share.cpu_us_per_command)
                    .sum::<f64>()
            )
        });
        row("measured CPU", &|process| {
            format!("{:.3}", process.cpu_us_per_command)
        });
        row("residual", &|process| {
            format!("{:+.1} %", process.residual_percent)
        });
        row("wait for a CPU", &|process| {
            format!("{:.3}", process.wait_us_per_command)
        });
    }
}

impl ProcessProfile {
    pub fn of(&self, stage: Stage) -> Option<&StageShare> {
        self.stages.iter().find(|share| share.stage == stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a recorded leader: its most frequent stacks, one for each leaf, with the counts they had.
    const LEADER: &str = include_str!("leader.collapsed");

    fn profile() -> ProcessProfile {
        let stacks = Stacks::parse(LEADER).expect("stored stacks are sound");
        let spent = Spent {
            pid: 1,
            cpu_us: 9_810_000,
            wait_us: 20_000,
            commands: 1_000,
            samples_per_s: 100,
        };
        ProcessProfile::new("leader", &stacks, spent)
    }

    #[test]
    fn stages_add_up_to_the_measured_cpu_and_the_residual_is_said() {
        let profile = profile();
        assert_eq!(profile.samples, 931);
        let sum: f64 = profile
            .stages
            .iter()
            .map(|share| share.cpu_us_per_command)
            .sum();
        assert!((sum - 9_810.0).abs() < 1e-6, "{sum}");
        assert_eq!(profile.sampled_cpu_us, 9_310_000);
        let residual = -100.0 * 500.0 / 9_810.0;
        assert!((profile.residual_percent - residual).abs() < 1e-6);
        assert_eq!(profile.wait_us_per_command, 20.0);
    }

    #[test]
    fn stored_stacks_fall_to_their_stages_and_the_rest_is_named() {
        let profile = profile();
        let samples = |stage| profile.of(stage).map_or(0, |share| share.samples);
        let found: Vec<u64> = Stage::ALL.into_iter().map(samples).collect();
        let expected = [
            0, 11, 0, 0, 100, 0, 0, 15, 58, 0, 44, 153, 9, 337, 94, 83, 16, 11, 0,
        ];
        assert_eq!(found, expected);
        let unknown: Vec<&str> = profile
            .unknown
            .iter()
            .map(|leaf| leaf.function.as_str())
            .collect();
        assert_eq!(unknown, ["do_syscall_64_[k]"]);
    }
}
