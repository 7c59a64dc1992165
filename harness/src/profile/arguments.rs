//! The command line of `synod profile`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::RunArguments;

#[derive(Args)]
#[command(after_help = PROFILE_EXAMPLES)]
pub struct ProfileArguments {
    /// Seconds to record, inside the measured window [default: all of it, at most 10]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub record_seconds: Option<u32>,
    /// Keep what perf recorded (`perf.data`), for `perf report` and `perf annotate`
    #[arg(long)]
    pub keep_perf: bool,
    /// Count instructions per command instead, under callgrind on a deterministic loop, and compare with the baseline
    #[arg(long)]
    pub instructions: bool,
    /// With --instructions: the file to compare with
    #[arg(
        long,
        value_name = "FILE",
        default_value = "harness/instructions.json",
        requires = "instructions"
    )]
    pub baseline: PathBuf,
    /// With --instructions: write what was counted to the baseline
    #[arg(long, requires = "instructions")]
    pub save_baseline: bool,
    #[command(flatten)]
    pub run: RunArguments,
}

/// The loop that instructions are counted on.
#[derive(Args)]
pub struct ReplayLoopArguments {
    /// Commands to take through the loop
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub commands: u64,
}

const PROFILE_EXAMPLES: &str = "\
Examples:\n\
\x20 synod profile                             the flags of `synod run`; who spends how much CPU per command, on what\n\
\x20 synod profile --outstanding 64 --keep-perf\n\
\x20 synod profile --instructions              instructions per command: steady where time is not\n\
\n\
Writes into the result folder: profile.json, flame-leader.svg, flame-follower.svg, flame-client.svg, and the collapsed\n\
stacks beside them. Needs `perf` (Debian: linux-perf) or, for --instructions, `valgrind`. Exit codes: 0 all is well,\n\
1 the run or its check failed, 2 wrong usage or something that is not installed or not permitted.";
