//! `perf` as a tool: what it may do on this machine, a recording of one process, and its samples as stacks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{one_line, usage};
use crate::profile::stacks::Stacks;

/// Not a divisor of any timer's frequency, so that samples do not march in step with one. Often enough that a process
/// which uses a tenth of a CPU has thousands of samples in ten seconds: the error of its sum by chance is 2 %.
pub const SAMPLES_PER_S: u32 = 3_989;
/// perf ends by itself within this time after it was told to.
const STOP_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// What perf may record here.
#[derive(Clone, Debug)]
pub struct Perf {
    scope: Scope,
    /// What it may not, each with the remedy.
    pub limits: Vec<String>,
}

/// Whom the timer interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Every CPU, whoever runs there; our processes are picked out afterwards. Nothing is done at a context switch, so
    /// processes that switch often neither pay for it nor lose samples: with a timer per thread, a tenth is lost.
    Machine,
    /// Only our processes, kernel included.
    Processes,
    /// Only our processes, and only their user space.
    ProcessesInUserSpace,
}

impl Scope {
    const ALL: [Scope; 3] = [
        Scope::Machine,
        Scope::Processes,
        Scope::ProcessesInUserSpace,
    ];

    fn event(self) -> &'static str {
        match self {
            // Idle CPUs are not recorded.
            Scope::Machine => "cpu-clock:I",
            Scope::Processes => "cpu-clock",
            Scope::ProcessesInUserSpace => "cpu-clock:u",
        }
    }

    fn limit(self, paranoid: &str) -> Option<String> {
        let remedy = "remedy: root, or `sysctl kernel.perf_event_paranoid=-1`";
        let set_to = format!("kernel.perf_event_paranoid is {paranoid}");
        match self {
            Scope::Machine => None,
            Scope::Processes => Some(format!(
                "each thread is sampled by itself ({set_to}): what happens around context switches is missed and is in \
                 the residual; {remedy}"
            )),
            Scope::ProcessesInUserSpace => Some(format!(
                "the kernel is not recorded ({set_to}): its stages are missing and the residual is what it spent; \
                 {remedy}"
            )),
        }
    }
}

impl Perf {
    /// Tries what the profile needs. An error is the caller's to correct: not installed, or not permitted at all.
    pub fn find(scratch: &Path) -> anyhow::Result<Perf> {
        let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
        let paranoid = paranoid.unwrap_or_default().trim().to_owned();
        let mut refusal = String::new();
        for scope in Scope::ALL {
            let mut perf = Perf {
                scope,
                limits: scope.limit(&paranoid).into_iter().collect(),
            };
            let tried = perf.attempt(scratch)?;
            if tried.status.success() {
                perf.limits.extend(hardware_limit());
                return Ok(perf);
            }
            refusal = last_words(&tried);
        }
        Err(usage(format!(
            "perf may not record (kernel.perf_event_paranoid is {paranoid}): {refusal}; remedy: root, or \
             `sysctl kernel.perf_event_paranoid=-1`"
        )))
    }

    /// Starts recording the processes `pids`, at most for `seconds`.
    pub fn record(&self, pids: &[i32], data: &Path, seconds: u32) -> anyhow::Result<Recording> {
        let mut command = self.command(data);
        match self.scope {
            Scope::Machine => {
                command.arg("--all-cpus");
            }
            Scope::Processes | Scope::ProcessesInUserSpace => {
                let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
                command.arg("--pid").arg(pids.join(","));
            }
        }
        command.args(["--", "sleep", &seconds.to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("perf does not start")?;
        Ok(Recording {
            child: Some(child),
            data: data.to_owned(),
        })
    }

    fn attempt(&self, scratch: &Path) -> anyhow::Result<Output> {
        let folder = tempfile::tempdir_in(scratch)
            .with_context(|| format!("{}: cannot be written", scratch.display()))?;
        let data = folder.path().join("perf.data");
        let mut command = self.command(&data);
        if self.scope == Scope::Machine {
            command.arg("--all-cpus");
        }
        let output = command.args(["--", "true"]).output();
        output.map_err(|error| {
            usage(format!(
                "perf does not start ({error}); remedy: install it (Debian: `apt install linux-perf`)"
            ))
        })
    }

    fn command(&self, data: &Path) -> Command {
        let frequency = SAMPLES_PER_S.to_string();
        let mut command = Command::new("perf");
        command.args([
            "record",
            "--event",
            self.scope.event(),
            "--freq",
            &frequency,
        ]);
        command.args(["--call-graph", "fp", "--clockid", "CLOCK_MONOTONIC"]);
        command.args(["--no-buildid", "--no-buildid-cache", "--output"]);
        command.arg(data);
        command
    }
}

/// No counters of the CPU: samples come from a timer, and nothing is known about cache misses.
fn hardware_limit() -> Option<String> {
    let output = Command::new("perf")
        .args(["stat", "--event", "cycles", "--", "true"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    (!output.status.success() || text.contains("not supported") || text.contains("not counted")).then(|| {
        "no hardware counters (usual in a virtual machine): samples come from a timer, cycles and cache misses are \
         unknown; remedy: bare metal, or `synod profile --instructions`"
            .to_owned()
    })
}

fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.map_or_else(|| output.status.to_string(), one_line)
}

/// A perf that records. Dropped before its end, it is stopped, and what it recorded goes.
pub struct Recording {
    child: Option<Child>,
    data: PathBuf,
}

impl Recording {
    /// Ends the recording and waits until its file is whole.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("perf was stopped twice")?;
        let pid = Pid::from_child(&child);
        // It may have ended by itself already.
        let _ = kill_process(pid, Signal::INT);
        let started = Instant::now();
        while child.try_wait()?.is_none() {
            if started.elapsed() > STOP_MAX {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("perf did not end within {} s", STOP_MAX.as_secs());
            }
            std::thread::sleep(POLL);
        }
        // perf passes on the signal that ended it: the file tells whether the recording is good.
        let recorded = std::fs::metadata(&self.data).map_or(0, |metadata| metadata.len());
        anyhow::ensure!(
            recorded > 0,
            "perf recorded nothing: {}",
            last_words(&child.wait_with_output()?)
        );
        Ok(())
    }

    /// The samples of the process `pid` from `from` until `until`, in seconds of the monotonic clock.
    pub fn stacks(&self, pid: i32, from: f64, until: f64) -> anyhow::Result<Stacks> {
        let output = Command::new("perf")
            .args([
                "script",
                "--no-inline",
                "--ns",
                "--fields",
                "time,ip,sym,dso",
                "--pid",
                &pid.to_string(),
                "--input",
            ])
            .arg(&self.data)
            .stdin(Stdio::null())
            .output()
            .context("perf does not start")?;
        anyhow::ensure!(
            output.status.success(),
            "perf script: {}",
            last_words(&output)
        );
        Stacks::of_script(&String::from_utf8_lossy(&output.stdout), from, until)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.child.is_some() {
            // The recording is given up: only that perf is gone matters, and `stop` sees to that.
            let _ = self.stop();
            let _ = std::fs::remove_file(&self.data);
        }
    }
}
