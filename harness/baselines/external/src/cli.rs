//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::system::System;

/// Servers of a cluster. Larger ones exist nowhere in practice.
pub const REPLICAS_MAX: u8 = 9;
/// A value of NATS is limited to 1 MiB, a node of ZooKeeper to a little less.
const PAYLOAD_BYTES_MAX: i64 = 1_000_000;
/// The stamp that tells a value from every other.
const PAYLOAD_BYTES_MIN: i64 = crate::values::STAMP_BYTES as i64;

/// etcd, ZooKeeper and NATS JetStream as systems under test.
#[derive(Parser)]
#[command(name = "external", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Prints the processes of a fresh cluster as JSON and writes their configuration. Starts nothing.
    ///
    /// Exit code 3: the system is not installed.
    Servers(ServersArguments),
    /// Returns when every server follows one leader and a write was served.
    Wait(WaitArguments),
    /// Prints the position of the leader's address, from 1.
    Leader(ClusterArguments),
    /// Plays the clients; prints the same events as `synod load`, one JSON object per line.
    Load(LoadArguments),
}

#[derive(Args)]
pub struct ServersArguments {
    #[arg(long, value_enum)]
    pub system: System,
    /// Gets one folder per server; must not exist or be empty.
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(REPLICAS_MAX)))]
    pub replicas: u8,
    /// `auto` takes free ports; a number is the first of a row.
    #[arg(long, default_value = "auto", value_parser = parse_ports)]
    pub ports_from: PortsFrom,
    /// The server's executable, or ZooKeeper's jar, instead of the installed one.
    #[arg(long)]
    pub program: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortsFrom {
    Auto,
    First(NonZeroU16),
}

#[derive(Args)]
pub struct ClusterArguments {
    #[arg(long, value_enum)]
    pub system: System,
    /// The servers' client addresses, in the order that `servers` gave.
    #[arg(long, value_delimiter = ',', required = true)]
    pub addresses: Vec<SocketAddr>,
}

#[derive(Args)]
pub struct WaitArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Gives up after this long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
}

#[derive(Args)]
#[group(id = "offer", required = true, multiple = false, args = ["outstanding", "rate"])]
pub struct LoadArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Closed loop: writes in flight, over all connections.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::load::OUTSTANDING_MAX)))]
    pub outstanding: Option<u32>,
    /// Open loop: writes per second, each timed from its intended start.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Connections; by default a few, see README.md.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: Option<u32>,
    /// The measured window.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Before the window, in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub warmup: u32,
    /// Bytes of a value; keys come on top.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX))]
    pub payload: u32,
    /// A write that is not acknowledged for this long, over all its attempts, has failed.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    pub deadline_ms: u64,
    /// What the values are filled from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Takes `latency.hlog` and `timeline.csv`.
    #[arg(long)]
    pub out: PathBuf,
}

fn parse_ports(text: &str) -> Result<PortsFrom, String> {
    match text {
        "auto" => Ok(PortsFrom::Auto),
        number => number
            .parse()
            .map(PortsFrom::First)
            .map_err(|_| "neither `auto` nor a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn ports_are_auto_or_a_number() {
        assert_eq!(parse_ports("auto"), Ok(PortsFrom::Auto));
        let first = NonZeroU16::new(4_000).expect("not zero");
        assert_eq!(parse_ports("4000"), Ok(PortsFrom::First(first)));
        for wrong in ["0", "65536", "-1", "none", ""] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_load_is_either_closed_or_open() {
        let load = |offer: &[&str]| {
            let mut line = vec!["external", "load", "--system", "etcd", "--out", "."];
            line.extend(["--addresses", "127.0.0.1:1,127.0.0.1:2"]);
            line.extend(offer);
            Cli::try_parse_from(line).is_ok()
        };
        assert!(load(&["--outstanding", "64"]));
        assert!(load(&["--rate", "1000"]));
        assert!(!load(&["--rate", "1000", "--outstanding", "64"]));
        assert!(!load(&[]));
        assert!(!load(&["--rate", "1", "--payload", "15"]));
    }
}
