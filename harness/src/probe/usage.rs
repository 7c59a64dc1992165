//! `synod probe usage`: what the kernel counts for a program of this host.

use anyhow::Context;
use rustix::process::Pid;

use crate::probe::arguments::UsageArguments;
use crate::probe::pid_file::PidFile;
use crate::run::usage::Usage;

pub fn run(arguments: &UsageArguments) -> anyhow::Result<Usage> {
    let process = PidFile::read(&arguments.pid_file)?.context("it was never started")?;
    anyhow::ensure!(process.is_running()?, "it does not run");
    let pid = Pid::from_raw(process.pid).context("a process id is not zero")?;
    Usage::of(pid)
}
