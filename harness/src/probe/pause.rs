//! `synod probe pause`: a program of this host stands still for a while. The time is kept here: whatever becomes of the
//! connection, the program goes on.

use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use crate::probe::arguments::PauseArguments;
use crate::probe::pid_file::PidFile;
use crate::probe::protocol::Paused;
use crate::probe::stop::send;

/// A stopped process stands still after this time at most.
const STOP_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

pub fn run(arguments: &PauseArguments) -> anyhow::Result<Paused> {
    let process = PidFile::read(&arguments.pid_file)?.context("it was never started")?;
    let handle = process.open()?.context("it does not run")?;
    send(&handle, Signal::STOP)?;
    let since = Instant::now();
    let mut stopped = is_stopped(process.pid);
    while !stopped && since.elapsed() < STOP_MAX {
        std::thread::sleep(POLL);
        stopped = is_stopped(process.pid);
    }
    let lasts = Duration::from_millis(arguments.milliseconds);
    std::thread::sleep(lasts.saturating_sub(since.elapsed()));
    let still = is_stopped(process.pid);
    send(&handle, Signal::CONT)?;
    Ok(Paused { stopped, still })
}

/// Of a process that ended there is nothing to see.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    after_name.is_some_and(|rest| rest.starts_with('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_program_stands_still_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        // It writes down who it is, as `synod probe exec` does, by the name of this test's own process file.
        PidFile::of_self(None).unwrap().write(&pid_file).unwrap();
        let own = std::fs::read_to_string(&pid_file).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let started = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(19)
            .unwrap();
        let mut file: serde_json::Value = serde_json::from_str(&own).unwrap();
        file["pid"] = child.id().into();
        file["started_ticks"] = started.parse::<u64>().unwrap().into();
        std::fs::write(&pid_file, file.to_string()).unwrap();
        let arguments = PauseArguments {
            pid_file,
            milliseconds: 20,
        };
        let both = Paused {
            stopped: true,
            still: true,
        };
        assert_eq!(run(&arguments).unwrap(), both);
        let running = || !is_stopped(child.id() as i32);
        assert!((0..1_000).any(|_| {
            std::thread::sleep(POLL);
            running()
        }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(run(&arguments).is_err(), "it has ended");
    }
}
