//! The processes of a run, found as our own children, and what the kernel accounts for them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use rustix::process::Pid;
use synod_engine::ids::ReplicaId;

use crate::run::usage::Usage;

/// Files under `/proc/PID/task`; far more threads than any process of ours has.
const THREADS_MAX: usize = 4_096;

#[derive(Clone, Debug, Default)]
pub struct Processes {
    pub replicas: BTreeMap<ReplicaId, i32>,
    pub load: Option<i32>,
}

impl Processes {
    /// Our children that were started with the configuration files in `results`.
    pub fn of_run(results: &Path) -> anyhow::Result<Processes> {
        let parent = std::process::id().to_string();
        let mut processes = Processes::default();
        for entry in std::fs::read_dir("/proc").context("/proc cannot be read")? {
            let entry = entry?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            // Processes come and go while we look.
            let (Ok(stat), Ok(line)) = (
                std::fs::read_to_string(entry.path().join("stat")),
                std::fs::read_to_string(entry.path().join("cmdline")),
            ) else {
                continue;
            };
            if parent_of(&stat) != Some(parent.as_str()) {
                continue;
            }
            let Some(config) = config_of(&line).map(Path::new) else {
                continue;
            };
            if config.parent() != Some(results) {
                continue;
            }
            let stem = config
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("");
            match stem.strip_prefix("replica-").map(str::parse) {
                Some(Ok(id)) => {
                    processes.replicas.insert(ReplicaId(id), pid);
                }
                Some(Err(_)) => {}
                None if stem == "load" => processes.load = Some(pid),
                None => {}
            }
        }
        Ok(processes)
    }
}

/// The field after the state; the name of the program before it may hold anything.
fn parent_of(stat: &str) -> Option<&str> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)
}

fn config_of(cmdline: &str) -> Option<&str> {
    let mut words = cmdline.split('\0');
    words.find(|word| *word == "--config")?;
    words.next()
}

/// What a process has spent since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spending {
    pub cpu_us: u64,
    /// Its threads' time ready to run without a CPU.
    pub wait_us: u64,
}

impl Spending {
    pub fn since(self, before: Spending) -> Spending {
        Spending {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            wait_us: self.wait_us.saturating_sub(before.wait_us),
        }
    }

    pub fn of(pid: i32) -> anyhow::Result<Spending> {
        let process = Pid::from_raw(pid).context("0 is no process")?;
        Ok(Spending {
            cpu_us: Usage::of(process)?.cpu_us,
            wait_us: wait_us(pid),
        })
    }
}

/// The second number of each thread's `schedstat`; 0 where the kernel does not keep it.
fn wait_us(pid: i32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let waits = threads.take(THREADS_MAX).filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waits.sum::<u64>() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_configuration_are_found_in_what_the_kernel_prints() {
        assert_eq!(parent_of("42 (a) b) S 17 42 42 0"), Some("17"));
        assert_eq!(parent_of("42"), None);
        assert_eq!(
            config_of("synod\0replica\0--config\0/r/replica-1.toml\0--init\0"),
            Some("/r/replica-1.toml")
        );
        assert_eq!(config_of("synod\0--config"), None);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(Spending::of(i32::MAX).is_err());
        assert!(Spending::of(std::process::id() as i32).is_ok());
    }
}
