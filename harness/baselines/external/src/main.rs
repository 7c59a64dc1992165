//! `external`: etcd, ZooKeeper and NATS JetStream as systems under test.
//!
//! `servers` says which processes make a cluster, `wait` and `leader` ask a running one, `load` plays its clients with
//! the same clock, recorder and output as `synod load`. Whoever measures starts and ends the processes.

mod books;
mod cli;
mod client_loop;
mod command;
mod keys;
mod load;
mod program;
mod recipe;
mod system;
mod target;
mod values;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use cli::{Cli, Command};
use program::Missing;
use synod_harness::failure::{Usage, describe, one_line};

/// The system did not do what was asked.
const EXIT_FAILED: u8 = 1;
/// The request was wrong, as with `synod`; nothing was done.
const EXIT_USAGE: u8 = 2;
/// The system is not installed on this machine: nothing is wrong with the request.
const EXIT_MISSING: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The client libraries tell every connection; that helps only who asks for it.
    if std::env::var_os("SYNOD_LOG").is_some() {
        synod_harness::log::start();
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("external: {}", one_line(&describe(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Missing>().is_some() {
        EXIT_MISSING
    } else if error.downcast_ref::<Usage>().is_some() {
        EXIT_USAGE
    } else {
        EXIT_FAILED
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Servers(arguments) => recipe::run(arguments),
        Command::Wait(arguments) => block_on(target::wait(arguments)),
        Command::Leader(arguments) => block_on(target::print_leader(arguments)),
        Command::Load(arguments) => block_on(load::run(arguments)),
    }
}

/// One thread, as in Synod's own load: the replicas need the cores.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
