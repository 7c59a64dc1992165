//! The command line: every command, flag and example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use synod_transport::{Holder, Life};

use crate::chaos::arguments::ChaosArguments;
use crate::client::arguments::ClientArguments;
use crate::cluster::arguments::ClusterArguments;
use crate::diff::arguments::DiffArguments;
use crate::load::load_file::Load;
use crate::load::surge::Surge;
use crate::manual::{CompletionsArguments, ManArguments};
use crate::matrix::arguments::{CompareArguments, SweepArguments};
use crate::probe::arguments::ProbeArguments;
use crate::profile::arguments::{ProfileArguments, ReplayLoopArguments};
use crate::report::arguments::ReportArguments;
use crate::run;
use crate::system::{System, Transport};

pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SYNOD_COMMIT"), ")");

#[derive(Parser)]
#[command(
    name = "synod",
    version = VERSION,
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
    /// Check, start, break and stop a cluster on several machines, named in an inventory
    Cluster(ClusterArguments),
    /// Run as `run` does, and tell who spends how much CPU per command, on what, with flame graphs
    Profile(Box<ProfileArguments>),
    /// Print the completions of a shell
    Completions(CompletionsArguments),
    /// Print the manual page, or write one per command
    Man(ManArguments),
    #[command(hide = true)]
    ReplayLoop(ReplayLoopArguments),
    #[command(hide = true)]
    Links(LinksArguments),
    #[command(hide = true)]
    Load(LoadArguments),
    #[command(hide = true)]
    Probe(ProbeArguments),
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
    #[arg(long, value_name = "DIR", required_unless_present = "show")]
    pub out: Option<PathBuf>,
    /// How many replicas the cluster has
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub replicas: u8,
    /// The cluster id in hexadecimal; drawn at random if not given
    #[arg(long, value_name = "HEX")]
    pub cluster: Option<String>,
    /// How long new certificates are valid, the CA's not meant: that one has ten years
    #[arg(long, default_value_t = Life::DAYS_DEFAULT, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// Add a certificate to those that are there: client:NAME, client or replica:N
    #[arg(long, value_name = "WHO", conflicts_with_all = ["renew", "replicas"])]
    pub add: Vec<Holder>,
    /// Replace every certificate but the CA's by one that is valid from now on, for the same key
    #[arg(long, conflicts_with = "replicas")]
    pub renew: bool,
    /// Renew only that of client:NAME, client or replica:N
    #[arg(long, value_name = "WHO", requires = "renew")]
    pub only: Vec<Holder>,
    /// Renew the keys as well: after one may have been read by others
    #[arg(long, requires = "renew")]
    pub new_keys: bool,
    /// List the certificates of a directory: whose they are, until when, and their fingerprints
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "add", "renew"])]
    pub show: Option<PathBuf>,
    /// The list in JSON
    #[arg(long, requires = "show")]
    pub json: bool,
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
pub struct LinksArguments {
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
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
    /// Run on the machines of this file instead of this one alone (see `synod cluster --help`)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "keep_data"])]
    pub inventory: Option<PathBuf>,
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
    /// What to break, as often as wanted: `kill leader at 5s`, `stop follower at 3s for 2s`, `isolate leader at 4s for
    /// 1s`, `partition 1,2|3 at 10s for 5s` (see below)
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<run::fault::Fault>,
    /// Links between the replicas as a preset (lan, 3-az, 5-region) or a file says; needs no privileges. At most 1452
    /// bytes of UDP payload then pass, as on the internet
    #[arg(long, value_name = "PRESET|FILE", conflicts_with = "inventory")]
    pub links: Option<String>,
    /// Every link between replicas loses this much, whatever else it does
    #[arg(long, value_name = "PERCENT", conflicts_with = "inventory")]
    pub loss: Option<f64>,
    /// The same as --fault 'kill leader at Ss': SIGKILL, and its restart a second later
    #[arg(long, value_name = "S", conflicts_with = "crash_all_after")]
    pub kill_leader_after: Option<u32>,
    /// The same as --fault 'kill all at Ss': SIGKILL to all replicas at once, and their restart
    #[arg(long, value_name = "S")]
    pub crash_all_after: Option<u32>,
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityChoice,
    /// How the disk is written
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// Largest UDP payload in bytes that path discovery may reach [default: what the interfaces to the replicas carry:
    /// 65000 on a loopback of 65536 bytes, which TCP uses as well, 8972 with jumbo frames, 1472 without]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1200..))]
    pub mtu: Option<u16>,
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

const SIMULATE_EXAMPLES: &str = "\
Examples:\n\
\x20 synod simulate                                   1000 seeds under every fault\n\
\x20 synod simulate --faults loss,crash --replicas 3  only these faults, on clusters of three\n\
\x20 synod simulate --seed 7 --trace                  one seed again, with every event\n\
\x20 synod simulate --partial-partitions              time to a leader under each partial partition\n\
\n\
One seed is one history, on any machine. A failure is printed with its seed, the faults it needs and the events\n\
before it. Exit codes: 0 nothing was wrong, 1 a check failed, 2 wrong usage.";

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
Examples:\n\
\x20 synod certs --out certs --replicas 3                 a CA, three replicas, one client without a name\n\
\x20 synod certs --out certs --add client:alice           one more; --add replica:4 likewise\n\
\x20 synod certs --show certs                             whose they are, until when, fingerprints\n\
\x20 synod certs --out certs --renew                      valid for a year from now; the keys stay\n\
\x20 synod certs --out certs --renew --only client:alice --new-keys\n\
\n\
Nothing is overwritten except by --renew; what was interrupted goes on when it is called again. ca.key signs all of\n\
this and nothing else: keep it away from the replicas.\n\
\n\
Replicas look at their files every few seconds, and at once on SIGHUP: new ones are taken in without a restart and\n\
without a broken connection. Files that are no good get a line in the log, and the old ones stay in use. Fourteen\n\
days before its end a replica warns of its certificate once a day; its status says certificate_expires_s.\n\
\n\
To revoke a certificate, write its fingerprint as a line into revoked.txt beside ca.pem of every replica, or into the\n\
file that `revoked` in [certificates] names: its connections end, and it gets no new ones.\n\
\n\
To change the CA: (1) make a second set with the same id, synod certs --out new --cluster ID; (2) append new/ca.pem\n\
to ca.pem of every replica and client: both CAs are trusted then; (3) replace certificates and keys by those of the\n\
second set; (4) replace ca.pem by new/ca.pem.";

const RUN_EXAMPLES: &str = "\
Examples:\n\
\x20 synod run                                        3 durable replicas, 1024 commands outstanding, 10 s\n\
\x20 synod run --outstanding 1                        the latency of a lone command\n\
\x20 synod run --rate 50000                           open loop: latency from the intended start of each command\n\
\x20 synod run --rate 400000 --surge 5x@3s+3s         five times as much for three seconds: goodput, and how soon it is over\n\
\x20 synod run --kill-leader-after 3                  SIGKILL of the leading process, and its return\n\
\x20 synod run --fault 'stop leader at 2s for 1s' --fault 'partition 1,2|3 at 5s for 2s'\n\
\x20 synod run --replicas 5 --payload 1024 --json     one JSON object on stdout\n\
\n\
A fault is ACTION at TIME [for TIME]; times count from the start of the measured window:\n\
\x20 kill WHO            SIGKILL, and a restart on the same disk after a second, or after `for`\n\
\x20 stop WHO            SIGSTOP, and SIGCONT after `for`\n\
\x20 isolate WHO         all links between it and the other replicas are cut for that long\n\
\x20 crowd WHO           3,000 first packets a second of strangers, who never go on, at its port for that long\n\
\x20 partition 1,2|3     the links between the sides are cut; who is on no side keeps all of its links\n\
WHO is leader, follower, all, or replicas such as 1,2. Faults may overlap. The result has the gap and the time to full\n\
throughput of each.\n\
\n\
Every run is checked: each acknowledged command is executed exactly once on every replica, and all\n\
replicas hold the same state. Exit codes: 0 all is well, 1 a check or the run failed, 2 wrong usage.";
