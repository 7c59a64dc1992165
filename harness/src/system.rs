//! The systems that a run can put under test, and how they are told apart.

mod programs;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use programs::{Description, Programs};

use crate::failure::usage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// This engine
    Synod,
    /// TiKV's Raft library (crate raft) inside Synod's replica process
    RaftRs,
    /// openraft inside Synod's replica process
    Openraft,
    /// OmniPaxos inside Synod's replica process
    Omnipaxos,
    /// etcd, if it is installed
    Etcd,
    /// Apache ZooKeeper, if it is installed
    Zookeeper,
    /// NATS JetStream with a sync per write, if it is installed
    Nats,
    /// NATS JetStream as it comes: acknowledges before the disk has it
    NatsDefault,
}

/// How the replicas of a system talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Synod's links: QUIC with mutual TLS
    Quic,
    /// Plaintext TCP, length-delimited, TCP_NODELAY: the best case of a Raft library
    Tcp,
    /// What the system brings along
    #[value(skip)]
    Own,
}

/// A system that could take part, but is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotInstalled(pub String);

/// What kind of program a system's replicas are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `synod replica`.
    Product,
    /// A program of `harness/baselines` with the flags and files of `synod replica`.
    Baseline,
    /// Somebody else's server with its own client.
    External,
}

impl System {
    /// As on the command line and in results.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn family(self, transport: Transport) -> Family {
        match (self, transport) {
            (System::Synod, Transport::Quic | Transport::Own) => Family::Product,
            (System::Synod, Transport::Tcp)
            | (System::RaftRs | System::Openraft | System::Omnipaxos, _) => Family::Baseline,
            (System::Etcd | System::Zookeeper | System::Nats | System::NatsDefault, _) => {
                Family::External
            }
        }
    }

    pub fn is_external(self) -> bool {
        self.family(Transport::Own) == Family::External
    }

    /// Fails if the system can't be run this way.
    pub fn check(self, transport: Transport) -> anyhow::Result<()> {
        if self.is_external() == (transport == Transport::Own) {
            return Ok(());
        }
        Err(usage(format!(
            "--transport {}: {} brings its own transport",
            transport.name(),
            self.name()
        )))
    }
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::Quic => "quic",
            Transport::Tcp => "tcp",
            Transport::Own => "own",
        }
    }

    /// As results say it: the name, then what it means.
    pub fn describe(self) -> &'static str {
        match self {
            Transport::Quic => "quic, mTLS 1.3",
            Transport::Tcp => "tcp, plaintext (clients: quic, mTLS 1.3)",
            Transport::Own => "own, plaintext",
        }
    }
}
