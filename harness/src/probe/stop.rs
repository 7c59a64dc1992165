//! `synod probe signal`: ends a program of this host, or has it stand still, by the file of its process.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::probe::arguments::{SignalArguments, SignalChoice};
use crate::probe::pid_file::PidFile;
use crate::probe::protocol::Stopped;

/// How long a process may take to end after SIGTERM before it is killed.
pub const TERMINATE_MAX: Duration = Duration::from_secs(5);
/// A process in the middle of a disk write ends late, whatever the signal.
pub const KILL_MAX: Duration = Duration::from_secs(30);

pub fn run(arguments: &SignalArguments) -> anyhow::Result<Stopped> {
    let Some(process) = PidFile::read(&arguments.pid_file)? else {
        return Ok(Stopped::NotRunning);
    };
    let Some(handle) = process.open()? else {
        return Ok(Stopped::NotRunning);
    };
    match arguments.signal {
        SignalChoice::Kill => {}
        SignalChoice::Term => {
            send(&handle, Signal::TERM)?;
            if ends_within(&handle, TERMINATE_MAX)? {
                return Ok(Stopped::ByItself);
            }
        }
        SignalChoice::Stop => return send(&handle, Signal::STOP).map(|()| Stopped::GoesOn),
        SignalChoice::Cont => return send(&handle, Signal::CONT).map(|()| Stopped::GoesOn),
    }
    send(&handle, Signal::KILL)?;
    let ended = ends_within(&handle, KILL_MAX)?;
    anyhow::ensure!(
        ended,
        "process {} does not end within {} s of SIGKILL",
        process.pid,
        KILL_MAX.as_secs()
    );
    Ok(Stopped::Killed)
}

pub fn send(handle: &OwnedFd, signal: Signal) -> anyhow::Result<()> {
    match pidfd_send_signal(handle, signal) {
        // It ended in this moment.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("no signal can be sent"),
    }
}

/// A handle becomes readable when its process ends.
pub fn ends_within(handle: &OwnedFd, max: Duration) -> anyhow::Result<bool> {
    let timeout = Timespec {
        tv_sec: max.as_secs() as i64,
        tv_nsec: i64::from(max.subsec_nanos()),
    };
    let mut handles = [PollFd::new(handle, PollFlags::IN)];
    let ready = poll(&mut handles, Some(&timeout)).context("the process cannot be watched")?;
    Ok(ready > 0)
}
