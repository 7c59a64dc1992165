//! Which process a program is, told so that a process id that was given again is never mistaken for it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PidFile {
    pub pid: i32,
    /// Clock ticks from the boot to the start of the process (`proc_pid_stat(5)`, field 22).
    started_ticks: u64,
    /// Process ids and ticks begin anew with each boot.
    boot: String,
    /// The systemd unit that it runs in.
    pub unit: Option<String>,
}

impl PidFile {
    /// Of this process; `exec` keeps it true.
    pub fn of_self(unit: Option<String>) -> anyhow::Result<PidFile> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let started_ticks = started_ticks(pid).context("/proc/self/stat cannot be read")?;
        Ok(PidFile {
            pid,
            started_ticks,
            boot: boot()?,
            unit,
        })
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string(self)?)
            .with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// `None` if there is no such file: nothing was started.
    pub fn read(path: &Path) -> anyhow::Result<Option<PidFile>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let file = serde_json::from_str(&text)
            .with_context(|| format!("{}: is no file of a process", path.display()))?;
        Ok(Some(file))
    }

    /// A handle of the process, if it still runs. What is done with the handle reaches this process or none.
    pub fn open(&self) -> anyhow::Result<Option<OwnedFd>> {
        if self.boot != boot()? {
            return Ok(None);
        }
        let pid = Pid::from_raw(self.pid).context("a process id is not zero")?;
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        // Looked at with the handle held: from now on the id can't be given to another.
        let same = started_ticks(self.pid) == Some(self.started_ticks);
        Ok(same.then_some(handle))
    }

    pub fn is_running(&self) -> anyhow::Result<bool> {
        Ok(self.open()?.is_some())
    }
}

fn boot() -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("the boot has no id")?;
    Ok(text.trim().to_owned())
}

/// `None` if there is no such process, or only what is left of one that ended.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted behind it, from the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_id_is_another_process() {
        let file = PidFile::of_self(None).unwrap();
        assert!(file.is_running().unwrap());
        let mut older = file.clone();
        older.started_ticks -= 1;
        assert!(!older.is_running().unwrap(), "the same id at another time");
        let mut other_boot = file.clone();
        other_boot.boot = "another".into();
        assert!(!other_boot.is_running().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        assert_eq!(PidFile::read(&path).unwrap(), None);
        file.write(&path).unwrap();
        assert_eq!(PidFile::read(&path).unwrap(), Some(file));
    }

    #[test]
    fn a_process_that_nobody_waited_for_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let mut ended = false;
        for _ in 0..1_000 {
            ended = started_ticks(pid).is_none();
            if ended {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(ended);
        child.wait().unwrap();
    }
}
