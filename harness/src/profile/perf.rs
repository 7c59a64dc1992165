//! `perf` as a tool: what it may do on this machine, a recording of one process, and its samples as stacks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{one_line, usage};
use crate::profile::stacks::Stacks;

/// Not a divisor of any timer's frequency, so that samples do not march in step with one.
pub const SAMPLES_PER_S: u32 = 997;
/// perf ends by itself within this time after it was told to.
const STOP_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// What perf may record here.
#[derive(Clone, Debug)]
pub struct Perf {
    event: &'static str,
    /// What it may not, each with the remedy.
    pub limits: Vec<String>,
}

impl Perf {
    /// Tries what the profile needs. An error is the caller's to correct: not installed, or not permitted at all.
    pub fn find(scratch: &Path) -> anyhow::Result<Perf> {
        let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
        let paranoid = paranoid.unwrap_or_default().trim().to_owned();
        let mut perf = Perf {
            event: "cpu-clock",
            limits: Vec::new(),
        };
        let all = perf.attempt(scratch)?;
        if !all.status.success() {
            perf.event = "cpu-clock:u";
            let user = perf.attempt(scratch)?;
            if !user.status.success() {
                return Err(usage(format!(
                    "perf may not record (kernel.perf_event_paranoid is {paranoid}): {}; remedy: \
                     `sysctl kernel.perf_event_paranoid=1` or root",
                    last_words(&user)
                )));
            }
            perf.limits.push(format!(
                "the kernel is not recorded (kernel.perf_event_paranoid is {paranoid}): its stages are missing and the \
                 residual is what it spent; remedy: `sysctl kernel.perf_event_paranoid=1` or root"
            ));
        }
        perf.limits.extend(hardware_limit());
        perf.limits.extend(scheduler_limit(scratch));
        Ok(perf)
    }

    /// Starts recording the process `pid`, at most for `seconds`.
    pub fn record(&self, pid: i32, data: &Path, seconds: u32) -> anyhow::Result<Recording> {
        let mut command = self.command(data);
        command.arg("--pid").arg(pid.to_string());
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
        let data = scratch.join("perf-probe.data");
        let output = self.command(&data).args(["--", "true"]).output();
        let _ = std::fs::remove_file(&data);
        output.map_err(|error| {
            usage(format!(
                "perf does not start ({error}); remedy: install it (Debian: `apt install linux-perf`)"
            ))
        })
    }

    fn command(&self, data: &Path) -> Command {
        let frequency = SAMPLES_PER_S.to_string();
        let mut command = Command::new("perf");
        command.args(["record", "--event", self.event, "--freq", &frequency]);
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

fn scheduler_limit(scratch: &Path) -> Option<String> {
    let data = scratch.join("perf-probe.data");
    let output = Command::new("perf")
        .args(["record", "--event", "sched:sched_switch", "--output"])
        .arg(&data)
        .args(["--", "true"])
        .output();
    let _ = std::fs::remove_file(&data);
    let output = output.ok()?;
    (!output.status.success()).then(|| {
        format!(
            "no scheduler events ({}): of the time off the CPU only the wait for one is known, from \
             /proc/PID/task/*/schedstat; remedy: root and `mount -t tracefs nodev /sys/kernel/tracing`",
            last_words(&output)
        )
    })
}

fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.map_or_else(|| output.status.to_string(), one_line)
}

/// A perf that records one process. Dropped before its end, it is stopped.
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

    /// The samples from `from` until `until`, in seconds of the monotonic clock.
    pub fn stacks(&self, from: f64, until: f64) -> anyhow::Result<Stacks> {
        let output = Command::new("perf")
            .args([
                "script",
                "--no-inline",
                "--ns",
                "--fields",
                "time,ip,sym,dso",
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
        }
    }
}
