//! The command line of `synod chaos`.

use std::path::PathBuf;

use clap::Args;

use super::fault::Fault;

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
    /// Run on the machines of this file instead of this one alone; the clients run here (see `synod cluster --help`)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub inventory: Option<PathBuf>,
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

const CHAOS_EXAMPLES: &str = "\
Examples:\n\
\x20 synod chaos                                  a minute of everything\n\
\x20 synod chaos --seed 7                         the schedule of faults that this seed gives, again\n\
\x20 synod chaos --faults kill,stop --seconds 20  only these\n\
\x20 synod chaos --replicas 5 --faults partial    quorum-loss, constrained election and chained partitions\n\
\x20 synod chaos --inventory cluster.toml           on hosts: kill, kill-all, stop, partition, one-way, partial, loss\n\
\x20 synod chaos --check results/x/history.jsonl  check a recorded history once more\n\
\n\
Real replicas on a real disk; their links pass a UDP proxy in this process, which needs no privileges. Every\n\
operation of the clients is recorded: the history must be linearizable, and by the replicas' own disks nothing\n\
acknowledged may be lost, nothing executed twice. The result directory holds result.json, history.jsonl,\n\
timeline.csv (100 ms a row, with the faults) and the replicas' logs.\n\
Exit codes: 0 all is well and every fault struck, 1 a check or the run failed, 2 wrong usage.";
