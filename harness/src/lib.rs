//! `synod`: replicas, clients and experiments of the Synod replication engine.
//!
//! A library as well, because the baselines (`harness/baselines`) run their protocols in the same process around them:
//! the same files, event loop, exit codes and allocator.

// A macro that panics when its reader has gone, or waits for it, has no place in a process that serves: `say!` and
// `note!` are there instead.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod certificate_watch;
mod certs;
mod chaos;
pub mod cli;
mod client;
mod client_file;
mod cluster;
mod compare;
mod comparison;
mod counter_fd;
mod diff;
mod environment;
pub mod failure;
mod idle_spin;
mod input;
mod interrupt;
mod lines;
mod links;
pub mod load;
pub mod log;
mod manual;
mod matrix;
pub mod node;
pub mod open_files;
mod output;
mod own_folder;
pub mod parent;
pub mod ports;
mod probe;
mod profile;
pub mod replica;
pub mod replica_file;
mod report;
mod results;
mod run;
mod simulate;
#[cfg(feature = "slowdown")]
mod slowdown;
mod statistics;
mod strangers;
mod sweep;
mod system;
mod toml_file;
mod turn_watch;
mod utc;
mod verify;
mod wal;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// QUIC allocates per packet; under load this takes several percent less CPU than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole program: reads the command line, does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_parse(&error),
    };
    log::start();
    open_files::raise();
    let code = run(cli);
    log::flush();
    code
}

fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Replica(arguments) => replica::run(&arguments),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Client(arguments) => client::run(&arguments),
        Command::Wal(arguments) => wal::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Simulate(arguments) => return simulate::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Links(arguments) => links::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::ReplayLoop(arguments) => profile::replay_loop::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
