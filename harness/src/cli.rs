//! The command line: every command, flag and example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(
    name = "synod",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SYNOD_COMMIT"), ")"),
    about = "Synod: a durable, replicated command log (Multi-Paxos over QUIC)",
    after_help = SYNOD_EXAMPLES,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster on this machine, load it, measure it, check that nothing was lost
    Run(Box<RunArguments>),
    /// Run one replica in the foreground until SIGTERM
    Replica(ReplicaArguments),
    /// Make the certificates of a cluster: its authority, one per replica, one for clients
    Certs(CertsArguments),
    /// Read and write the key-value store of a cluster
    Client(ClientArguments),
    /// Look into the write-ahead log of a stopped replica
    Wal(WalArguments),
    #[command(hide = true)]
    Load(LoadArguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineChoice {
    /// Get, put, delete and compare-and-swap on byte strings
    Kv,
    /// A hash chain over the commands: the pure cost of replication
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityChoice {
    /// A reply leaves after its record is on the disk
    Sync,
    /// For comparison only: a power cut loses what was acknowledged
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum BackendChoice {
    /// io_uring where the kernel allows it, otherwise blocking
    Auto,
    IoUring,
    /// pwrite and fdatasync on a thread
    Blocking,
}

#[derive(Args)]
#[command(
    after_help = REPLICA_EXAMPLES
)]
pub struct ReplicaArguments {
    /// The replica's configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Make an empty data directory first. Never for a replica that lost its disk: it would forget its promises
    #[arg(long)]
    pub init: bool,
    /// End when stdin closes, so that no replica outlives the run that started it
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

#[derive(Args)]
#[command(
    after_help = CERTS_EXAMPLES
)]
pub struct CertsArguments {
    /// The directory to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How many replicas the cluster has
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub replicas: u8,
    /// The cluster id in hexadecimal; drawn at random if not given
    #[arg(long, value_name = "HEX")]
    pub cluster: Option<String>,
    /// A further host name or address by which replicas are reached
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
}

#[derive(Args)]
#[command(
    after_help = CLIENT_EXAMPLES
)]
pub struct ClientArguments {
    /// Where the cluster is and who we are; the flags below override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The authority's certificate
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The client's private key
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The cluster id in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub cluster: Option<String>,
    /// A replica, as ID=ADDRESS:PORT; once per replica
    #[arg(long = "replica", value_name = "ID=ADDR")]
    pub replicas: Vec<String>,
    /// Give up a command after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub deadline_ms: Option<u64>,
    #[command(subcommand)]
    pub command: ClientCommand,
}

#[derive(Subcommand)]
pub enum ClientCommand {
    /// Set KEY to VALUE
    Put { key: String, value: String },
    /// Print the value of KEY; exit code 1 if there is none
    Get { key: String },
    /// Remove KEY
    Delete { key: String },
    /// Set KEY to NEW if its value is OLD (or if it has none, with --absent); exit code 1 if it was not
    Cas {
        key: String,
        /// OLD and NEW, or only NEW with --absent
        #[arg(num_args = 1..=2, required = true)]
        values: Vec<String>,
        #[arg(long)]
        absent: bool,
    },
    /// Print the counters of every replica
    Status,
    /// Read commands from stdin, one per line (`help` lists them)
    Repl,
}

#[derive(Args)]
pub struct WalArguments {
    #[command(subcommand)]
    pub command: WalCommand,
}

#[derive(Subcommand)]
pub enum WalCommand {
    /// Print what the log holds
    Inspect(WalTarget),
    /// Check every record; exit code 1 with file and offset on damage
    Verify(WalTarget),
}

#[derive(Args)]
pub struct WalTarget {
    /// The data directory of a stopped replica
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print JSON instead of lines for people
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct LoadArguments {
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Args)]
#[command(
    after_help = RUN_EXAMPLES
)]
pub struct RunArguments {
    /// How many replicas, each a process of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub replicas: u8,
    /// Closed loop: commands in flight, over all clients [default: 1024]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: Option<u32>,
    /// Open loop: commands per second on a fixed schedule; the run fails if it is not held
    #[arg(long, value_name = "PER_S", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Client sessions, all in one process
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: u32,
    /// Bytes of one command (at least 16 for log, 40 for kv: it carries a stamp)
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    pub payload: u32,
    /// Seconds measured
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub warmup: u32,
    /// What the replicas apply the commands to
    #[arg(long, value_enum, default_value = "log")]
    pub state_machine: MachineChoice,
    /// SIGKILL the leader this many seconds into the measured window; restart it a second later
    #[arg(long, value_name = "S", conflicts_with = "crash_all_after")]
    pub kill_leader_after: Option<u32>,
    /// SIGKILL all replicas at once this many seconds into the measured window; restart them
    #[arg(long, value_name = "S")]
    pub crash_all_after: Option<u32>,
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityChoice,
    /// How the disk is written
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// Largest UDP payload in bytes that path discovery may reach. The default suits the loopback interface, whose
    /// MTU of 65536 TCP uses as well; 8952 is what a network with jumbo frames allows, 1452 one without
    #[arg(long, value_name = "BYTES", default_value_t = 65_000, value_parser = clap::value_parser!(u16).range(1200..))]
    pub mtu: u16,
    /// Where all randomness of the run begins
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Where results are kept
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub out: PathBuf,
    /// Where the replicas write; next to the results if not given. Choose a real disk
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The name of the result directory [default: run-DATE-TIME]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Run this program as every replica instead of ourselves: it takes the flags and files of `synod replica`
    #[arg(long, value_name = "PATH", hide = true)]
    pub replica_binary: Option<PathBuf>,
    /// A further argument for it
    #[arg(
        long = "replica-flag",
        value_name = "ARGUMENT",
        hide = true,
        allow_hyphen_values = true,
        requires = "replica_binary"
    )]
    pub replica_flags: Vec<String>,
    /// Keep the data directories of the replicas after the run
    #[arg(long)]
    pub keep_data: bool,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
}

const SYNOD_EXAMPLES: &str = "\
Start here:\n\
\x20 synod run                      a whole cluster on this machine, loaded, measured and checked\n\
\x20 synod run --kill-leader-after 3  the same, with the leader killed on the way";

const REPLICA_EXAMPLES: &str = "\
Examples:\n\
\x20 synod replica --config replica-1.toml --init   the first start: makes the data directory\n\
\x20 synod replica --config replica-1.toml          every later start\n\
\n\
When it is ready it prints one line to stdout: ready replica=1 listen=… backend=…\n\
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 wrong configuration, 3 the disk failed.";

const CERTS_EXAMPLES: &str = "\
Example:\n\
\x20 synod certs --out certs --replicas 3 --host db1.example --host 10.0.0.1";

const CLIENT_EXAMPLES: &str = "\
Examples:\n\
\x20 synod client --config client.toml put colour blue\n\
\x20 synod client --config client.toml get colour\n\
\x20 synod client --config client.toml repl\n\
\x20 synod client --ca ca.pem --cert client.pem --key client.key --cluster 1f… --replica 1=127.0.0.1:7001 get colour";

const RUN_EXAMPLES: &str = "\
Examples:\n\
\x20 synod run                                        3 durable replicas, 1024 commands outstanding, 10 s\n\
\x20 synod run --outstanding 1                        the latency of a lone command\n\
\x20 synod run --rate 50000                           open loop: latency from the intended start of each command\n\
\x20 synod run --kill-leader-after 3                  SIGKILL of the leading process, and its return\n\
\x20 synod run --replicas 5 --payload 1024 --json     one JSON object on stdout\n\
\n\
Every run is checked: each acknowledged command is executed exactly once on every replica, and all\n\
replicas hold the same state. Exit codes: 0 all is well, 1 a check or the run failed, 2 wrong usage.";
