//! The command lines of `synod compare` and `synod sweep`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{DurabilityChoice, MachineChoice};
use crate::run::fault::Fault;
use crate::system::{System, Transport};

#[derive(Args)]
#[command(
    after_help = COMPARE_EXAMPLES
)]
pub struct CompareArguments {
    /// What to compare, separated by commas [default: the four in the box]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub systems: Vec<System>,
    /// How replicas talk to each other; etcd, zookeeper and nats have their own [default: quic]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub transport: Vec<Transport>,
    /// How many replicas, each a process of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub replicas: u8,
    /// Bytes of one command
    #[arg(long, default_value_t = 128, value_name = "BYTES")]
    pub payload: u32,
    /// Closed loops: commands in flight over all clients, separated by commas [default: 1,64,1024]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: Vec<u32>,
    /// Open loops: commands per second, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Vec<u64>,
    /// Client sessions, all in one process
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub clients: u32,
    /// Runs of each system under each load, interleaved
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Seconds of load before measuring
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub warmup: u32,
    /// What the replicas in the box apply the commands to
    #[arg(long, value_enum, default_value = "log")]
    pub state_machine: MachineChoice,
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityChoice,
    /// What to break in each run, as often as wanted (see `synod run --help`)
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Fault>,
    /// Links between the replicas as a preset (lan, 3-az, 5-region) or a file says (see `synod run --help`)
    #[arg(long, value_name = "PRESET|FILE", conflicts_with = "inventory")]
    pub links: Option<String>,
    /// Every link between replicas loses this much, whatever else it does
    #[arg(long, value_name = "PERCENT", conflicts_with = "inventory")]
    pub loss: Option<f64>,
    /// The same as --fault 'kill leader at Ss'
    #[arg(long, value_name = "S")]
    pub kill_leader_after: Option<u32>,
    /// Where the programs of other systems are; they are built if this is not given
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Where results are kept
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub out: PathBuf,
    /// Run on the machines of this file instead of this one alone (see `synod cluster --help`)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub inventory: Option<PathBuf>,
    /// Where the replicas write; next to the results if not given. Choose a real disk
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The name of the result directory [default: compare-DATE-TIME]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(
    after_help = SWEEP_EXAMPLES
)]
pub struct SweepArguments {
    /// The matrix, such as harness/scenarios/cluster-sizes.toml
    #[arg(value_name = "FILE")]
    pub matrix: PathBuf,
    /// Where the programs of other systems are; they are built if this is not given
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Where results are kept
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub out: PathBuf,
    /// Run on the machines of this file instead of this one alone (see `synod cluster --help`)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub inventory: Option<PathBuf>,
    /// Where the replicas write; next to the results if not given. Choose a real disk
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The name of the result directory; runs that are in it already are not done again [default: sweep-FILE]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
}

const COMPARE_EXAMPLES: &str = "\
Examples:\n\
\x20 synod compare                                          the four in the box over QUIC, at 1, 64 and 1024 outstanding\n\
\x20 synod compare --systems synod,raft-rs --transport tcp  over plaintext TCP; Synod over QUIC is shown beside it\n\
\x20 synod compare --systems synod,etcd,zookeeper,nats      against servers that are installed; others are skipped\n\
\x20 synod compare --fault 'kill leader at 3s'              how long each is silent when its leader is killed\n\
\x20 synod compare --transport quic,tcp --links 5-region --loss 1 --rate 200   five regions that lose packets\n\
\n\
Systems take turns (A B C, B C A, …). Prints medians with intervals and the ratio of Synod to each\n\
system, all ratios judged together at 95 %; writes comparison.json, report.html, plots/*.svg and every run. Runs that were not steady and intervals\n\
that are too wide are flagged. Exit codes: 0 all is well, 1 a run failed, 2 wrong usage.";

const SWEEP_EXAMPLES: &str = "\
Example of a matrix; whatever is left out has the default of `synod compare`:\n\
\x20 systems = [\"synod\", \"raft-rs\"]\n\
\x20 transports = [\"quic\"]\n\
\x20 replicas = [1, 3, 5, 7, 9]\n\
\x20 payload_bytes = [128, 1024]\n\
\x20 outstanding = [1024]          # and, or instead: rates = [100000]\n\
\x20 repeat = 5\n\
\n\
The same command again goes on where it was interrupted. Exit codes: 0 all is well, 1 a run failed, 2 wrong usage.";
