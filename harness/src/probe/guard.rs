//! `synod probe guard`: runs a program that knows nothing of us, such as another project's server, and ends it when we
//! end.
//!
//! The program is a child that the kernel kills with this process, however this one ends: by itself, because the
//! connection to whoever started it is gone, or by a signal of `synod probe end`.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::parent;
use crate::probe::arguments::GuardArguments;

/// A program that a signal ended has no exit code: shells tell this and the number of the signal.
const SIGNAL_CODE: i32 = 128;

/// Returns only if the program cannot be started; otherwise this process ends as the program does.
pub fn run(arguments: &GuardArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let status = runtime.block_on(guard(arguments))?;
    crate::log::flush();
    std::process::exit(code(status));
}

async fn guard(arguments: &GuardArguments) -> anyhow::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let own = std::env::current_exe().context("this executable has no path")?;
    let mut command = Command::new(own);
    let parent = std::process::id().to_string();
    command.args(["probe", "exec", "--parent", &parent, "--pid-file"]);
    command.arg(&arguments.pid_file);
    if let Some(cpus) = &arguments.cpus {
        command.args(["--cpus", &cpus.to_string()]);
    }
    let mut child = command
        .arg("--")
        .args(&arguments.program)
        .current_dir(&arguments.directory)
        .stdin(Stdio::null())
        // All that it says is its log.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{}: cannot be started in", arguments.directory.display()))?;
    tokio::select! {
        status = child.wait() => return status.context("the program's end is not known"),
        () = parent::gone() => {}
        _ = terminate.recv() => {}
    }
    child.kill().await.context("the program cannot be killed")?;
    child.wait().await.context("the program's end is not known")
}

fn code(status: ExitStatus) -> i32 {
    let by_signal = || status.signal().map_or(1, |signal| SIGNAL_CODE + signal);
    status.code().unwrap_or_else(by_signal)
}
