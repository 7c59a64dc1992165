//! The command line: every command, flag and example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::chaos::fault::Fault;
use crate::load::load_file::Load;
use crate::load::surge::Surge;
use crate::matrix::arguments::{CompareArguments, SweepArguments};
use crate::system::{System, Transport};

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
    /// Run Synod and other systems side by side under equal conditions, interleaved, and compare the figures
    Compare(Box<CompareArguments>),
    /// Run a matrix of systems, cluster sizes, payloads and loads from a file; goes on where it was interrupted
    Sweep(SweepArguments),
    /// Load a cluster while its processes, disks and links fail; check that clients saw nothing but waits
    Chaos(Box<ChaosArguments>),
    /// Run one replica in the foreground until SIGTERM
    Replica(ReplicaArguments),
    /// Make the certificates of a cluster: its authority, one per replica, one for clients
    Certs(CertsArguments),
    /// Read and write the key-value store of a cluster
    Client(ClientArguments),
    /// Look into the write-ahead log of a stopped replica
    Wal(WalArguments),
    /// Run whole clusters in simulated time under every fault, and check everything
    Simulate(SimulateArguments),
    /// Make one HTML page, plots and a CSV of a run, of several runs or of a comparison
    Report(ReportArguments),
    /// Tell what changed from one result to another, by how much, and how certain that is
    Diff(DiffArguments),
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
    /// Make an empty data directory for a replica that lost its disk: it fetches everything from the others, and has
    /// no vote until the cluster has readmitted it
    #[arg(long, conflicts_with = "init")]
    pub readmit: bool,
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
#[command(
    after_help = SIMULATE_EXAMPLES
)]
pub struct SimulateArguments {
    /// How many seeds, each a cluster with its own size, faults and load [default: 1000; 100 for --partial-partitions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// The first seed; the default is fixed, so that two runs are the same
    #[arg(long, default_value_t = synod_simulator::sweep::FIRST_SEED, value_name = "N")]
    pub first_seed: u64,
    /// Only this seed
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "first_seed"])]
    pub seed: Option<u64>,
    /// Print every event of the seed
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// The cluster sizes to draw from
    #[arg(long, value_delimiter = ',', default_value = "3,5,7", value_name = "N,…", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub replicas: Vec<u8>,
    /// Simulated seconds per seed; in the last sixth, a quorum is healed and must converge
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(6..=86_400))]
    pub virtual_seconds: u64,
    /// Which faults may strike: all, none, or names separated by commas
    #[arg(long, default_value = "all", value_name = "LIST", value_parser = synod_simulator::faults::FaultSet::parse)]
    pub faults: synod_simulator::faults::FaultSet,
    /// Threads; each runs whole seeds
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Measure instead how long each of the three partial partitions leaves a loaded cluster without progress
    #[arg(long, conflicts_with_all = ["seed", "replicas", "virtual_seconds", "faults"])]
    pub partial_partitions: bool,
    /// Print one JSON object to stdout
    #[arg(long, conflicts_with = "trace")]
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
    /// Open loop: commands per second on a fixed schedule. What finds no room for 100 ms is refused and counted; the
    /// run fails if the rate is not held
    #[arg(long, value_name = "PER_S", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Overload in the middle of an open loop: 5x@3s+2s offers five times the rate from second 3 of the measured
    /// window on, for 2 s. Then the rate need not be held
    #[arg(long, value_name = "Fx@S+S", requires = "rate")]
    pub surge: Option<Surge>,
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
    /// Bytes of WAL from one snapshot to the next, at least 65536 [default: 268435456]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(65_536..))]
    pub snapshot_distance: Option<u64>,
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
    /// What is put under test; all but synod are for comparison
    #[arg(long, value_enum, default_value = "synod")]
    pub system: System,
    /// How its replicas talk to each other [default: quic; the system's own for etcd, zookeeper and nats]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// Where the programs of other systems are; they are built if this is not given
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Keep the data directories of the replicas after the run
    #[arg(long)]
    pub keep_data: bool,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
}

impl RunArguments {
    /// The defaults of `synod run`, with another load.
    pub fn of(load: Load) -> RunArguments {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            run: RunArguments,
        }
        let mut arguments = Flags::parse_from(["run"]).run;
        match load {
            Load::Closed {
                outstanding,
                clients,
            } => {
                arguments.outstanding = Some(outstanding);
                arguments.clients = clients;
            }
            Load::Open { rate, clients } => {
                arguments.rate = Some(rate);
                arguments.clients = clients;
            }
        }
        arguments
    }
}

#[derive(Args)]
#[command(
    after_help = CHAOS_EXAMPLES
)]
pub struct ChaosArguments {
    /// Seconds of load; the last quarter of it, 3 to 8 s, is calm
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u32).range(5..=86_400))]
    pub seconds: u32,
    /// What to do, separated by commas; each strikes at least once [default: all]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub faults: Vec<Fault>,
    /// How many replicas, each a process of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=9))]
    pub replicas: u8,
    /// Where the schedule of the faults and the load begin [default: random, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Clients, each with one operation at a time; eight at most share keys
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Where results are kept
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub out: PathBuf,
    /// Where the replicas write; next to the results if not given
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The name of the result directory [default: chaos-DATE-TIME]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Keep the data directories of the replicas after the run
    #[arg(long)]
    pub keep_data: bool,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
    /// Only check a history that was recorded before, and do nothing else
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub check: Option<PathBuf>,
}

const SIMULATE_EXAMPLES: &str = "\
Examples:\n\
\x20 synod simulate                                   1000 seeds under every fault\n\
\x20 synod simulate --faults loss,crash --replicas 3  only these faults, on clusters of three\n\
\x20 synod simulate --seed 7 --trace                  one seed again, with every event\n\
\x20 synod simulate --partial-partitions              time to a leader under each partial partition\n\
\n\
One seed is one history, on any machine. A failure is printed with its seed, the faults it needs and the events\n\
before it. Exit codes: 0 nothing was wrong, 1 a check failed, 2 wrong usage.";

#[derive(Args)]
#[command(
    after_help = REPORT_EXAMPLES
)]
pub struct ReportArguments {
    /// A run's folder, a folder of several, or one of a comparison
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The page; its plots and summary.csv go beside it [default: DIR/report.html]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = DIFF_EXAMPLES
)]
pub struct DiffArguments {
    /// The result before: a run's folder, a folder of several, or one of a comparison
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The result after
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Print one JSON object to stdout instead of a table
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if a figure is certainly worse by at least the threshold
    #[arg(long)]
    pub fail_on_regression: bool,
    /// Changes below this do not matter
    #[arg(long, default_value = "5%", value_name = "PERCENT", value_parser = percent)]
    pub threshold: f64,
}

/// `5%` or `5` as 0.05.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=1_000.0).contains(&percent) => Ok(percent / 100.0),
        Ok(_) | Err(_) => Err("a percentage from 0 to 1000, such as 5%".into()),
    }
}

const SYNOD_EXAMPLES: &str = "\
Start here:\n\
\x20 synod run                      a whole cluster on this machine, loaded, measured and checked\n\
\x20 synod run --kill-leader-after 3  the same, with the leader killed on the way\n\
\x20 synod chaos                    a minute of killed processes, full disks and broken links";

const REPLICA_EXAMPLES: &str = "\
Examples:\n\
\x20 synod replica --config replica-1.toml --init   the first start: makes the data directory\n\
\x20 synod replica --config replica-1.toml          every later start\n\
\x20 synod replica --config replica-1.toml --readmit  with a new disk, after the old one was lost\n\
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

const REPORT_EXAMPLES: &str = "\
Examples:\n\
\x20 synod report results/run-20261122-101500   of one run\n\
\x20 synod report results                       of all runs in it; repeats of the same conditions are put together\n\
\n\
Writes report.html (opens offline), plots/*.svg and summary.csv. A file that is damaged or of another version is\n\
named, and nothing is written.";

const DIFF_EXAMPLES: &str = "\
Examples:\n\
\x20 synod diff results/before results/after                        what moved\n\
\x20 synod diff before after --fail-on-regression --threshold 10%   for CI\n\
\n\
Five runs on each side tell changes apart that matter; of one run each the noise between runs is unknown, so 5 % is\n\
assumed. Exit codes: 0 done, 1 a certain regression with --fail-on-regression, 2 wrong usage or a bad file.";

const RUN_EXAMPLES: &str = "\
Examples:\n\
\x20 synod run                                        3 durable replicas, 1024 commands outstanding, 10 s\n\
\x20 synod run --outstanding 1                        the latency of a lone command\n\
\x20 synod run --rate 50000                           open loop: latency from the intended start of each command\n\
\x20 synod run --rate 400000 --surge 5x@3s+3s         five times as much for three seconds: goodput, and how soon it is over\n\
\x20 synod run --kill-leader-after 3                  SIGKILL of the leading process, and its return\n\
\x20 synod run --replicas 5 --payload 1024 --json     one JSON object on stdout\n\
\n\
Every run is checked: each acknowledged command is executed exactly once on every replica, and all\n\
replicas hold the same state. Exit codes: 0 all is well, 1 a check or the run failed, 2 wrong usage.";

const CHAOS_EXAMPLES: &str = "\
Examples:\n\
\x20 synod chaos                                  a minute of everything\n\
\x20 synod chaos --seed 7                         the schedule of faults that this seed gives, again\n\
\x20 synod chaos --faults kill,stop --seconds 20  only these\n\
\x20 synod chaos --replicas 5 --faults partial    quorum-loss, constrained election and chained partitions\n\
\x20 synod chaos --check results/x/history.jsonl  check a recorded history once more\n\
\n\
Real replicas on a real disk; their links pass a UDP proxy in this process, which needs no privileges. Every\n\
operation of the clients is recorded: the history must be linearizable, and by the replicas' own disks nothing\n\
acknowledged may be lost, nothing executed twice. The result directory holds result.json, history.jsonl,\n\
timeline.csv (100 ms a row, with the faults) and the replicas' logs.\n\
Exit codes: 0 all is well and every fault struck, 1 a check or the run failed, 2 wrong usage.";
