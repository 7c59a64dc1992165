//! A child process: started, watched and ended by its id, in every path.
//!
//! It ends with us even if we are killed: it watches its stdin, whose other end only we hold. And it ends when its
//! handle is dropped, which covers every error and ctrl-C.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::cluster::answer::skip_to_mark;
use crate::cluster::host::Host;
use crate::run::layout::last_line;

/// How long a process may take to end after SIGTERM before it is killed.
const TERMINATE_MAX: Duration = Duration::from_secs(5);

pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    /// Held here, because waiting for a child would close it, and closing it tells the child to end.
    stdin: ChildStdin,
    /// None if it is part of the log.
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    /// A login shell may have printed something in front of it, which is to be skipped.
    noisy: bool,
}

/// A process to be.
pub struct Launch<'a> {
    pub program: &'a Path,
    /// For errors.
    pub name: &'a str,
    pub arguments: &'a [&'a str],
    /// On top of ours.
    pub environment: &'a BTreeMap<String, String>,
    /// Where it starts, if not here.
    pub directory: Option<&'a Path>,
    /// What it prints to stderr is appended to this.
    pub log: &'a Path,
    /// Nobody reads what it prints to stdout: that is logged as well.
    pub logs_stdout: bool,
}

impl Process {
    /// Starts this same executable with `arguments`; what it logs is appended to `log`.
    pub fn start(name: &str, arguments: &[&str], log: &Path) -> anyhow::Result<Process> {
        let executable = std::env::current_exe().context("this executable has no path")?;
        Process::start_program(&executable, name, arguments, log)
    }

    /// The same with another executable.
    pub fn start_program(
        program: &Path,
        name: &str,
        arguments: &[&str],
        log: &Path,
    ) -> anyhow::Result<Process> {
        Process::launch(Launch {
            program,
            name,
            arguments,
            environment: &BTreeMap::new(),
            directory: None,
            log,
            logs_stdout: false,
        })
    }

    /// Starts this same executable; what it logs goes to `stderr`, and reaches `log` in some other way.
    pub fn start_logging_to<'a>(
        name: &str,
        arguments: impl Iterator<Item = &'a OsStr>,
        log: &Path,
        stderr: OwnedFd,
    ) -> anyhow::Result<Process> {
        let executable = std::env::current_exe().context("this executable has no path")?;
        let mut command = Command::new(executable);
        command.args(arguments);
        Process::spawn_with(command, name, log, Stdio::piped(), stderr.into())
    }

    pub fn launch(launch: Launch<'_>) -> anyhow::Result<Process> {
        let mut command = Command::new(launch.program);
        command.args(launch.arguments).envs(launch.environment);
        if let Some(directory) = launch.directory {
            command.current_dir(directory);
        }
        Process::spawn(command, launch.name, launch.log, launch.logs_stdout)
    }

    /// Starts a command of a host; its stdout is to be read.
    pub fn start_on(
        host: &Host,
        words: &[&str],
        name: &str,
        log: &Path,
    ) -> anyhow::Result<Process> {
        let process = Process::spawn(host.command(words), name, log, false)?;
        Ok(Process {
            noisy: host.is_marked(),
            ..process
        })
    }

    fn spawn(
        command: Command,
        name: &str,
        log: &Path,
        logs_stdout: bool,
    ) -> anyhow::Result<Process> {
        let log_file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{}: cannot be opened", log.display()))?;
        let stdout = match logs_stdout {
            true => log_file
                .try_clone()
                .context("a log can't be shared")?
                .into(),
            false => Stdio::piped(),
        };
        Process::spawn_with(command, name, log, stdout, log_file.into())
    }

    fn spawn_with(
        mut command: Command,
        name: &str,
        log: &Path,
        stdout: Stdio,
        stderr: Stdio,
    ) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true)
            // A ctrl-C in the terminal is ours to handle, in our order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child
            .stdout
            .take()
            .map(|stdout| BufReader::new(stdout).lines());
        Ok(Process {
            name: name.into(),
            log: log.into(),
            child,
            stdin,
            stdout,
            noisy: false,
        })
    }

    /// The next line that the process prints; `None` when it is at its end.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        let stdout = self.stdout.as_mut().context("its output goes to its log")?;
        let line = async {
            // Once, and again if this was given up in the middle.
            if self.noisy {
                skip_to_mark(stdout.get_mut()).await?;
                self.noisy = false;
            }
            stdout.next_line().await
        };
        line.await
            .with_context(|| format!("{}: its output cannot be read", self.name))
    }

    /// Sends a line to its stdin.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let sent = self.stdin.write_all(format!("{line}\n").as_bytes()).await;
        sent.with_context(|| format!("{}: does not listen", self.name))
    }

    /// Why the process ended, once it did.
    pub async fn end(&mut self) -> anyhow::Error {
        let status = match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => error.to_string(),
        };
        anyhow::anyhow!("{} ended ({status}): {}", self.name, last_line(&self.log))
    }

    /// Fails unless the process, which printed all it had to, ends without an error.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        match self.child.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(_) | Err(_) => Err(self.end().await),
        }
    }

    /// Fails if the process is not running any more.
    pub async fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(self.end().await),
        }
    }

    /// SIGKILL, without waiting for the end.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Waits for the end.
    pub async fn reap(&mut self) -> anyhow::Result<ExitStatus> {
        self.child
            .wait()
            .await
            .with_context(|| format!("{}: its end is not known", self.name))
    }

    /// SIGTERM; SIGKILL if that is not enough. Returns whether it ended by itself and without an error.
    pub async fn terminate(&mut self) -> anyhow::Result<bool> {
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(TERMINATE_MAX, self.child.wait()).await {
            Ok(status) => Ok(status.is_ok_and(|status| status.success())),
            Err(_) => {
                self.kill()?;
                self.reap().await?;
                Ok(false)
            }
        }
    }

    /// SIGSTOP, or SIGCONT.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        self.signal(match paused {
            true => Signal::STOP,
            false => Signal::CONT,
        })
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.id()?, signal).with_context(|| format!("{}: no signal", self.name))
    }

    /// Fails if the process ended, because its id may be somebody else's by now.
    pub fn id(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        id.with_context(|| format!("{} ended already", self.name))
    }
}

pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}
