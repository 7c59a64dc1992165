//! Runs of many systems under many conditions, interleaved: what `synod compare` and `synod sweep` have in common.

pub mod arguments;
mod schedule;
mod session;
mod table;

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use session::{Contestants, Session, finish};

use crate::cli::{DurabilityChoice, MachineChoice};
use crate::cluster::inventory::Inventory;
use crate::failure::usage;
use crate::links::Links;
use crate::load::load_file::Load;
use crate::run::fault::{self, Fault};
use crate::system::{System, Transport};

/// Nobody waits for more; a mistyped list ends here and not after a week.
const RUNS_MAX: usize = 4_096;

/// What is varied, and what all runs share: a `sweep.toml`, in which everything that is left out has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matrix {
    /// What it shows, for people.
    pub title: String,
    pub systems: Vec<System>,
    pub transports: Vec<Transport>,
    pub replicas: Vec<u8>,
    pub payload_bytes: Vec<u32>,
    /// Closed loops.
    pub outstanding: Vec<u32>,
    /// Open loops, in commands per second.
    pub rates: Vec<u64>,
    pub repeat: u32,
    pub seconds: u32,
    pub warmup_s: u32,
    pub clients: u32,
    pub durability: DurabilityChoice,
    pub state_machine: MachineChoice,
    /// As `synod run --links`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<f64>,
    /// What is done to the cluster in each run, in the words of `synod run --fault`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_leader_after_s: Option<u32>,
}

impl Default for Matrix {
    fn default() -> Matrix {
        Matrix {
            title: String::new(),
            systems: vec![System::Synod],
            transports: vec![Transport::Quic],
            replicas: vec![3],
            payload_bytes: vec![128],
            outstanding: Vec::new(),
            rates: Vec::new(),
            repeat: 5,
            seconds: 10,
            warmup_s: 2,
            clients: 4,
            durability: DurabilityChoice::Sync,
            state_machine: MachineChoice::Log,
            links: None,
            loss_percent: None,
            faults: Vec::new(),
            kill_leader_after_s: None,
        }
    }
}

/// One system under one set of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub system: System,
    pub transport: Transport,
    pub conditions: Conditions,
}

/// What systems are compared under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    pub replicas: u8,
    pub payload_bytes: u32,
    pub load: Load,
}

impl Matrix {
    pub fn check(&self) -> anyhow::Result<()> {
        for (empty, what) in [
            (self.systems.is_empty(), "systems"),
            (self.transports.is_empty(), "transports"),
            (self.replicas.is_empty(), "replicas"),
            (self.payload_bytes.is_empty(), "payload_bytes"),
            (
                self.outstanding.is_empty() && self.rates.is_empty(),
                "outstanding or rates",
            ),
        ] {
            if empty {
                return Err(usage(format!("{what}: at least one is needed")));
            }
        }
        let runs = self.points().len() * self.repeat as usize;
        if runs > RUNS_MAX {
            return Err(usage(format!(
                "{runs} runs are asked for, {RUNS_MAX} are the limit"
            )));
        }
        self.check_links()?;
        self.replicas
            .iter()
            .try_for_each(|replicas| fault::check_all(&self.faults, *replicas, self.seconds))
    }

    /// Fails now rather than in every run.
    fn check_links(&self) -> anyhow::Result<()> {
        let mut emulated = self.faults.iter().any(Fault::is_of_links);
        for replicas in &self.replicas {
            let links = Links::find(self.links.as_deref(), self.loss_percent, *replicas)?;
            emulated |= links.is_some();
        }
        let external = self.systems.iter().find(|system| system.is_external());
        match external {
            Some(system) if emulated => Err(usage(format!(
                "links, loss and partitions: the replicas of {} find each other without us, so their links do not \
                 pass the emulator; kill and stop work",
                system.name()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// The machines, if there are any, must do for all runs.
    pub fn check_inventory(&self, inventory: Option<&Path>) -> anyhow::Result<()> {
        let most = self.replicas.iter().max();
        match inventory.zip(most) {
            Some((path, most)) => Inventory::read(path)?.take_replicas(*most),
            None => Ok(()),
        }
    }

    /// All points, those of the same conditions next to each other.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for conditions in self.conditions() {
            for (system, transport) in self.contestants() {
                points.push(Point {
                    system,
                    transport,
                    conditions,
                });
            }
        }
        points
    }

    /// Each system over each transport that it has.
    pub fn contestants(&self) -> Vec<(System, Transport)> {
        let mut contestants = Vec::new();
        for system in &self.systems {
            let transports = match system.is_external() {
                true => &[Transport::Own][..],
                false => &self.transports,
            };
            contestants.extend(transports.iter().map(|transport| (*system, *transport)));
        }
        // Users of Synod get QUIC: a comparison over plaintext alone would not show them what they get.
        let product = (System::Synod, Transport::Quic);
        if self.systems.contains(&System::Synod) && !contestants.contains(&product) {
            contestants.push(product);
        }
        contestants
    }

    fn conditions(&self) -> Vec<Conditions> {
        let closed = self.outstanding.iter().map(|outstanding| Load::Closed {
            outstanding: *outstanding,
            clients: self.clients.min(*outstanding),
        });
        let open = self.rates.iter().map(|rate| Load::Open {
            rate: *rate,
            clients: self.clients,
        });
        let loads: Vec<Load> = closed.chain(open).collect();
        let mut conditions = Vec::new();
        for replicas in &self.replicas {
            for payload_bytes in &self.payload_bytes {
                conditions.extend(loads.iter().map(|load| Conditions {
                    replicas: *replicas,
                    payload_bytes: *payload_bytes,
                    load: *load,
                }));
            }
        }
        conditions
    }
}

impl Point {
    /// As progress and tables name the system.
    pub fn label(&self) -> String {
        match self.transport {
            Transport::Own => self.system.name(),
            transport => format!("{} ({})", self.system.name(), transport.name()),
        }
    }

    /// The name of the folder of a run.
    pub fn folder(&self, repeat: u32) -> String {
        let Conditions {
            replicas,
            payload_bytes,
            load,
        } = self.conditions;
        let load = match load {
            Load::Closed { outstanding, .. } => format!("c{outstanding}"),
            Load::Open { rate, .. } => format!("r{rate}"),
        };
        format!(
            "{}-{}-n{replicas}-{payload_bytes}B-{load}-{}",
            self.system.name(),
            self.transport.name(),
            repeat + 1
        )
    }
}

impl Conditions {
    pub fn label(&self) -> String {
        format!(
            "{} replicas, {} B, {}",
            self.replicas,
            self.payload_bytes,
            self.load.label()
        )
    }
}

/// The systems that a list without an explicit choice means: those in the box.
pub fn systems_in_the_box() -> Vec<System> {
    let all = System::value_variants().iter().copied();
    all.filter(|system| !system.is_external()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_file;

    fn matrix() -> Matrix {
        Matrix {
            systems: vec![System::Synod, System::RaftRs, System::Etcd],
            transports: vec![Transport::Tcp],
            outstanding: vec![1, 64],
            ..Matrix::default()
        }
    }

    #[test]
    fn every_system_runs_over_what_it_has_and_the_product_always_takes_part() {
        let labels: Vec<String> = matrix().points()[..4].iter().map(Point::label).collect();
        assert_eq!(
            labels,
            ["synod (tcp)", "raft-rs (tcp)", "etcd", "synod (quic)"]
        );
        assert_eq!(matrix().points().len(), 8);
    }

    #[test]
    fn folders_are_different() {
        let points = matrix().points();
        let mut folders: Vec<String> = points
            .iter()
            .flat_map(|point| [point.folder(0), point.folder(1)])
            .collect();
        assert_eq!(folders[0], "synod-tcp-n3-128B-c1-1");
        folders.sort();
        folders.dedup();
        assert_eq!(folders.len(), 16);
    }

    #[test]
    fn an_empty_or_endless_matrix_is_refused() {
        let mut empty = matrix();
        empty.outstanding.clear();
        assert!(empty.check().is_err());
        let mut endless = matrix();
        endless.repeat = 10_000;
        assert!(endless.check().is_err());
        assert!(matrix().check().is_ok());
    }

    #[test]
    fn links_that_a_system_does_not_pass_are_refused_before_the_first_run() {
        let (partition, kill) = ["partition 1|2 at 1s for 1s", "kill leader at 1s"]
            .map(|fault| vec![fault.parse().unwrap()])
            .into();
        let with = |links: Option<&str>, loss_percent, faults: &Vec<Fault>| Matrix {
            links: links.map(str::to_owned),
            loss_percent,
            faults: faults.clone(),
            ..matrix()
        };
        for refused in [
            with(Some("lan"), None, &kill),
            with(None, Some(1.0), &kill),
            with(None, None, &partition),
        ] {
            assert!(refused.check().unwrap_err().to_string().contains("etcd"));
            let ours = Matrix {
                systems: vec![System::Synod, System::RaftRs],
                ..refused
            };
            assert!(ours.check().is_ok());
        }
        assert!(with(None, None, &kill).check().is_ok());
        assert!(with(Some("moon"), None, &kill).check().is_err());
    }

    #[test]
    fn every_scenario_is_a_matrix_that_says_what_it_shows() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let matrix: Matrix = toml_file::read(&path).unwrap();
            matrix
                .check()
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(!matrix.title.is_empty(), "{name} has no title");
            let text = std::fs::read_to_string(&path).unwrap();
            let heading: String = text
                .lines()
                .take_while(|line| line.starts_with('#'))
                .collect();
            assert!(
                heading.contains("minutes."),
                "{name}: how long does it take?"
            );
            let runs = matrix.points().len() * matrix.repeat as usize;
            let row = table
                .lines()
                .find(|line| line.contains(&format!("`{name}`")));
            let told = row.is_some_and(|row| row.contains(&format!("| {runs} |")));
            assert!(
                told,
                "{name}: README.md does not say its {runs} runs: {row:?}"
            );
            names.push(name);
        }
        assert!(names.len() >= 8, "{names:?}");
    }
}
