//! `result.json` as a reader sees it. Unknown keys are fine, and so are missing ones that not every system can tell.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::comparison::Equality;
use crate::environment::Environment;
use crate::load::event::SurgeResult;
use crate::load::load_file::Load;
use crate::load::punctuality::Generator;
use crate::results::file;
use crate::run::outcome::OfferRates;

pub const SCHEMA_VERSION: u32 = 1;
pub const FILE_NAME: &str = "result.json";

/// What else than a run wrote the result in `folder`, if that is so: other experiments keep theirs in the same place.
pub fn other_experiment(folder: &Path) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Experiment {
        experiment: Option<String>,
    }
    let bytes = file::read(&folder.join(FILE_NAME))?;
    // Whatever is wrong with the file is told when it is read as a run.
    let found = bytes.and_then(|bytes| serde_json::from_slice::<Experiment>(&bytes).ok());
    Ok(found.and_then(|found| found.experiment))
}

#[derive(Clone, Debug, Deserialize)]
pub struct RunResult {
    pub system: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub settings: String,
    #[serde(default)]
    pub unix_time_s: u64,
    #[serde(default)]
    pub commit: String,
    #[serde(default)]
    pub ok: bool,
    #[serde(default)]
    pub problems: Vec<String>,

    pub throughput_per_s: f64,
    pub latency_us: Latency,
    #[serde(default)]
    pub acknowledged: u64,
    #[serde(default)]
    pub failed: u64,
    #[serde(default)]
    pub lost: u64,
    #[serde(default)]
    pub duplicated: u64,
    #[serde(default)]
    pub disordered: u64,
    #[serde(default)]
    pub diverged: u64,
    #[serde(default)]
    pub longest_gap_ms: f64,
    #[serde(default)]
    pub replica_cpu_us_per_command: f64,
    #[serde(default)]
    pub client_cpu_us_per_command: f64,
    #[serde(default)]
    pub commands_per_sync: f64,
    #[serde(default)]
    pub elections: u64,

    #[serde(default)]
    pub offer: Option<OfferRates>,
    #[serde(default)]
    pub generator: Option<Generator>,
    #[serde(default)]
    pub surge: Option<SurgeResult>,
    pub load: Load,
    pub replicas: u8,
    pub payload_bytes: u32,
    #[serde(default)]
    pub state_machine: String,
    #[serde(default)]
    pub durability: String,
    #[serde(default)]
    pub backend: String,
    #[serde(default)]
    pub transport: String,
    #[serde(default)]
    pub client_path: String,
    #[serde(default)]
    pub equality: Vec<Equality>,
    pub seconds: u32,
    #[serde(default)]
    pub warmup_s: u32,
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What was emulated between the replicas.
    #[serde(default)]
    pub links: Option<String>,
    #[serde(default)]
    pub verification: Option<Verification>,
    pub machine: Environment,
    #[serde(default)]
    pub command_line: String,
    #[serde(default)]
    pub replica_counters: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Latency {
    pub p50: f64,
    #[serde(default)]
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    #[serde(default)]
    pub max: f64,
}

/// In milliseconds from the start of the measured window.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Fault {
    pub kind: String,
    /// As it was asked for; empty in older results.
    #[serde(default)]
    pub fault: String,
    #[serde(default)]
    pub replicas: Vec<u8>,
    pub killed_at_ms: u64,
    #[serde(default)]
    pub ready_at_ms: u64,
    #[serde(default)]
    pub gap_ms: Option<f64>,
    #[serde(default)]
    pub full_after_ms: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Verification {
    #[serde(default)]
    pub slots: u64,
    #[serde(default)]
    pub commands_executed: u64,
}

impl Fault {
    pub fn label(&self) -> String {
        match self.fault.as_str() {
            "" => self.kind.replace('-', " "),
            asked => asked.to_owned(),
        }
    }
}

impl RunResult {
    /// What the cluster went through, such as `kill leader` or `5-region`; empty for nothing.
    pub fn hardships(&self) -> Vec<String> {
        let faults = self.faults.iter().map(|fault| fault.kind.replace('-', " "));
        faults.chain(self.links.clone()).collect()
    }

    /// `quic` of `quic, mTLS 1.3`: what is drawn with one marker.
    pub fn transport_name(&self) -> String {
        let name = self.transport.split(',').next().unwrap_or("").trim();
        if name.is_empty() {
            "unknown".into()
        } else {
            name.into()
        }
    }
}
