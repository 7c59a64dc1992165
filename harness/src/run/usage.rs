//! What the kernel counts for a process, the same for every system under test.

use anyhow::Context;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// Since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, in the kernel's ticks of (usually) 10 ms.
    pub cpu_us: u64,
    /// Sent to the disk, or on its way there from the page cache.
    pub disk_bytes_written: u64,
}

impl Usage {
    pub fn of(process: Pid) -> anyhow::Result<Usage> {
        let directory = format!("/proc/{}", process.as_raw_nonzero());
        let read = |name: &str| {
            let path = format!("{directory}/{name}");
            std::fs::read_to_string(&path).with_context(|| format!("{path}: cannot be read"))
        };
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        let ticks = ticks(&read("stat")?).context("/proc/PID/stat is not as expected")?;
        Ok(Usage {
            cpu_us: ticks * 1_000_000 / ticks_per_s,
            disk_bytes_written: bytes_written(&read("io")?)
                .context("/proc/PID/io is not as expected")?,
        })
    }
}

/// Resident memory of a process, if there is one.
pub fn memory_bytes(process: u32) -> Option<u64> {
    resident(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// `utime` and `stime`, fields 14 and 15; the name of the program before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn bytes_written(io: &str) -> Option<u64> {
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 1 1 1 0 -1 4194304 10 20 30 40 700 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some(750));
        assert_eq!(ticks("42"), None);
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        assert_eq!(
            resident("Name:\ta\nVmRSS:\t    12 kB\nVmData:\t 5 kB\n"),
            Some(12_288)
        );
        // A process that ended and was not waited for has none.
        assert_eq!(resident("Name:\ta\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn write_bytes_are_not_wchar() {
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 4096\n";
        assert_eq!(bytes_written(io), Some(4_096));
    }
}
