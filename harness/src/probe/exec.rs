//! `synod probe exec`: becomes a program.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::probe::arguments::ExecArguments;
use crate::probe::pid_file::PidFile;

/// Returns only if the program cannot be started.
pub fn run(arguments: &ExecArguments) -> anyhow::Result<()> {
    if arguments.detach {
        rustix::process::setsid().context("the session cannot be left")?;
    }
    if let Some(parent) = arguments.parent {
        end_with(parent)?;
    }
    if let Some(cpus) = &arguments.cpus {
        cpus.confine()?;
    }
    PidFile::of_self(arguments.unit.clone())?.write(&arguments.pid_file)?;
    let program = &arguments.program[0];
    let error = Command::new(program).args(&arguments.program[1..]).exec();
    Err(error).with_context(|| format!("{program} cannot be started"))
}

/// From now on, and through `exec`, the kernel kills this process when its parent ends.
fn end_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("the parent's end cannot be followed")?;
    // It may have ended before: then another process is our parent by now.
    let now = getppid().map(|now| now.as_raw_nonzero().get());
    anyhow::ensure!(now == Some(parent), "process {parent} has ended");
    Ok(())
}
