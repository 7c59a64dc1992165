//! The systems that can take part, and what is known of each before it runs.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    Etcd,
    Zookeeper,
    /// JetStream that syncs before it acknowledges.
    Nats,
    /// JetStream as it comes: acknowledges from the page cache.
    NatsDefault,
}

impl System {
    /// As on the command line and in every output.
    pub fn name(self) -> &'static str {
        match self {
            System::Etcd => "etcd",
            System::Zookeeper => "zookeeper",
            System::Nats => "nats",
            System::NatsDefault => "nats-default",
        }
    }

    /// The Debian package that has the server.
    pub fn package(self) -> &'static str {
        match self {
            System::Etcd => "etcd-server",
            System::Zookeeper => "zookeeper",
            System::Nats | System::NatsDefault => "nats-server",
        }
    }

    /// Whether an acknowledgement means that a quorum has synced.
    pub fn durable(self) -> bool {
        match self {
            System::Etcd | System::Zookeeper | System::Nats => true,
            System::NatsDefault => false,
        }
    }

    /// Connections of a load that is told none: a few, as its users would have (see README.md).
    pub fn clients_default(self) -> u32 {
        match self {
            System::Etcd => 3,
            System::Zookeeper => 6,
            System::Nats | System::NatsDefault => 3,
        }
    }

    /// The client library and its release line, as pinned in Cargo.toml.
    pub fn client(self) -> &'static str {
        match self {
            System::Etcd => "etcd-client 0.21",
            System::Zookeeper => "zookeeper-client 0.11",
            System::Nats | System::NatsDefault => "async-nats 0.51",
        }
    }
}
