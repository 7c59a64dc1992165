//! `synod probe end`: ends every program of this host that was started from a folder.
//!
//! The kernel knows which file a process executes, so whatever the process is is found however far it has come: also
//! one that is just starting another, and has told nobody of it yet.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::probe::arguments::EndArguments;
use crate::probe::stop::{KILL_MAX, TERMINATE_MAX, ends_within, send};

/// A device and an inode: a file, under whatever path a process came to it.
type FileId = (u64, u64);

/// Returns when none of them is left.
pub fn run(arguments: &EndArguments) -> anyhow::Result<()> {
    end_all(&arguments.executables, TERMINATE_MAX)
}

/// SIGTERM first; after `terminate_max` whatever is left gets SIGKILL.
fn end_all(executables: &Path, terminate_max: Duration) -> anyhow::Result<()> {
    let files = file_ids(executables)
        .with_context(|| format!("{}: cannot be read", executables.display()))?;
    let started = Instant::now();
    loop {
        // Looked at again after each round: one that ended may have started another before.
        let running = running_from(&files)?;
        let Some((first, _)) = running.first() else {
            return Ok(());
        };
        let elapsed = started.elapsed();
        let kill_max = terminate_max + KILL_MAX;
        anyhow::ensure!(
            elapsed < kill_max,
            "process {first} does not end within {} s of SIGKILL",
            KILL_MAX.as_secs()
        );
        let (signal, until) = match elapsed < terminate_max {
            true => (Signal::TERM, terminate_max),
            false => (Signal::KILL, kill_max),
        };
        for (_, handle) in &running {
            send(handle, signal)?;
        }
        for (_, handle) in &running {
            ends_within(handle, until.saturating_sub(started.elapsed()))?;
        }
    }
}

fn file_ids(directory: &Path) -> std::io::Result<BTreeSet<FileId>> {
    std::fs::read_dir(directory)?
        .map(|entry| entry?.metadata().map(|found| (found.dev(), found.ino())))
        .collect()
}

/// Every process but this one that executes one of these files.
fn running_from(files: &BTreeSet<FileId>) -> anyhow::Result<Vec<(i32, OwnedFd)>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut running = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc cannot be read")? {
        let name = entry.context("/proc cannot be read")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own || !executes(pid, files) {
            continue;
        }
        let id = Pid::from_raw(pid).context("a process id is not zero")?;
        let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else {
            continue;
        };
        // Looked at with the handle held: from now on the id can't be given to another.
        if executes(pid, files) {
            running.push((pid, handle));
        }
    }
    Ok(running)
}

/// Of a process that ended, or that is somebody else's, there is nothing to see.
fn executes(pid: i32, files: &BTreeSet<FileId>) -> bool {
    let found = std::fs::metadata(format!("/proc/{pid}/exe"));
    found.is_ok_and(|found| files.contains(&(found.dev(), found.ino())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A program of its own in `directory`. `cp` writes it, since a file that this process had open for writing while
    /// another test starts a program may be "busy" still.
    fn copy_of(program: &str, directory: &Path) -> std::path::PathBuf {
        let to = directory.join("program");
        let copied = Command::new("cp").arg(program).arg(&to).status().unwrap();
        assert!(copied.success());
        to
    }

    fn start(program: &Path, script: &str) -> Child {
        let mut child = Command::new(program)
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says when its traps are set.
        let mut byte = [0];
        let stdout = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut byte).unwrap();
        child
    }

    #[test]
    fn what_runs_from_the_folder_ends_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let program = copy_of("/bin/sh", directory.path());
        const POLITE: &str = "echo; while :; do sleep 0.01; done";
        const DEAF: &str = "trap '' TERM; echo; while :; do sleep 0.01; done";
        let mut polite = start(&program, POLITE);
        let mut deaf = start(&program, DEAF);
        let mut other = start(Path::new("/bin/sh"), POLITE);
        // It goes on under another name, as of a folder that was moved.
        let moved = directory.path().join("moved");
        std::fs::rename(&program, &moved).unwrap();
        end_all(directory.path(), Duration::from_millis(300)).unwrap();
        let signal_of = |child: &mut Child| child.wait().unwrap().signal();
        assert_eq!(signal_of(&mut polite), Some(Signal::TERM.as_raw()));
        assert_eq!(signal_of(&mut deaf), Some(Signal::KILL.as_raw()));
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
        end_all(directory.path(), Duration::ZERO).unwrap();
    }
}
