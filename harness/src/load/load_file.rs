//! What the load process is told, as a file: part of the published configuration of a run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cli::MachineChoice;
use crate::client_file::Certificates;
use crate::load::surge::Surge;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadFile {
    pub cluster: String,
    pub state_machine: MachineChoice,
    pub clients: u32,
    pub payload_bytes: u32,
    pub warmup_s: u32,
    pub seconds: u32,
    pub seed: u64,
    /// A command without a reply for this long has failed.
    pub deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_max: Option<u16>,
    /// Of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surge: Option<Surge>,
    /// Where `latency.hlog` and `timeline.csv` go.
    pub out: PathBuf,
    pub load: Load,
    /// One of several processes that play the clients together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<LoadPart>,
    pub replicas: BTreeMap<String, SocketAddr>,
    pub certificates: Certificates,
}

/// Which of the clients a process plays. It begins when it is told to, by a line on stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadPart {
    pub first_client: u32,
    pub clients: u32,
}

/// How commands are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Load {
    /// A new command for each reply: what is measured is the system's own pace.
    Closed { outstanding: u32, clients: u32 },
    /// Commands on a fixed schedule, whatever the system does.
    Open { rate: u64, clients: u32 },
}

impl Load {
    pub fn kind(&self) -> &'static str {
        match self {
            Load::Closed { .. } => "closed loop",
            Load::Open { .. } => "open loop",
        }
    }

    /// As the report says it.
    pub fn label(&self) -> String {
        match self {
            Load::Closed {
                outstanding,
                clients,
            } => format!("closed loop, {outstanding} outstanding, {clients} clients"),
            Load::Open { rate, clients } => {
                format!("open loop, {rate}/s, {clients} clients")
            }
        }
    }
}
