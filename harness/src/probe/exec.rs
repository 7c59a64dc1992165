//! `synod probe exec`: becomes a program.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::probe::arguments::ExecArguments;
use crate::probe::pid_file::PidFile;

/// Returns only if the program cannot be started.
pub fn run(arguments: &ExecArguments) -> anyhow::Result<()> {
    if arguments.detach {
        rustix::process::setsid().context("the session cannot be left")?;
    }
    if let Some(cpus) = &arguments.cpus {
        cpus.confine()?;
    }
    PidFile::of_self(arguments.unit.clone())?.write(&arguments.pid_file)?;
    let program = &arguments.program[0];
    let error = Command::new(program).args(&arguments.program[1..]).exec();
    Err(error).with_context(|| format!("{program} cannot be started"))
}
