//! The signals that end a command with a clean-up: ctrl-C, SIGTERM, and SIGHUP of a terminal that closes.
//!
//! They are heard from the first [`listen`] to the end of the process and remembered, so that none falls between two
//! waits of a command with many steps. SIGQUIT (ctrl-\) is left as it is: the way out if a clean-up itself hangs.

use std::sync::OnceLock;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A signal ended the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub &'static str);

type Heard = watch::Receiver<Option<Interrupted>>;

static HEARD: OnceLock<Result<Heard, String>> = OnceLock::new();

/// From now on a signal is a reason to end and not the end itself. Call before anything is made that has to go again.
pub fn listen() -> anyhow::Result<()> {
    heard().map(|_| ())
}

/// Returns when a signal was heard; at once if it was before.
pub async fn interrupted() -> anyhow::Result<Interrupted> {
    let mut heard = heard()?;
    let seen = heard.wait_for(Option::is_some).await;
    let seen = *seen.context("nobody listens for signals any more")?;
    seen.context("a signal that is none")
}

/// For work that does not wait: fails if a signal was heard.
pub fn check() -> anyhow::Result<()> {
    match *heard()?.borrow() {
        Some(interrupted) => Err(interrupted.into()),
        None => Ok(()),
    }
}

/// Whether a signal was heard.
pub fn is_heard() -> bool {
    check().is_err()
}

/// Does `work`, and no longer than until a signal is heard.
pub async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        heard = interrupted() => Err(heard?.into()),
    }
}

fn heard() -> anyhow::Result<Heard> {
    let heard = HEARD.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    heard.clone().map_err(anyhow::Error::msg)
}

/// On a thread of its own: commands have several runtimes, one after the other, and do much without any.
fn start() -> anyhow::Result<Heard> {
    let (sender, heard) = watch::channel(None);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            let signals = (|| {
                // Who starts us with SIGHUP ignored (`nohup`) wants us to outlive the terminal.
                let hangup = match ignores_hangup() {
                    true => None,
                    false => Some(signal(SignalKind::hangup())?),
                };
                let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
                std::io::Result::Ok((signal(interrupt)?, signal(terminate)?, hangup))
            })();
            let (mut interrupt, mut terminate, mut hangup) = match signals {
                Ok(signals) => signals,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            loop {
                let word = tokio::select! {
                    _ = interrupt.recv() => "interrupted",
                    _ = terminate.recv() => "terminated",
                    Some(_) = async { hangup.as_mut()?.recv().await } => "the terminal was closed",
                };
                sender.send_replace(Some(Interrupted(word)));
            }
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(body)
        .context("no thread for signals")?;
    is_ready
        .recv()
        .context("the thread for signals ended")?
        .context("signals can't be heard")?;
    Ok(heard)
}

/// As the kernel says it: a bit for each ignored signal, SIGHUP's is the lowest.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status) & 1 == 1
}

fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_kernel() {
        assert_eq!(ignored_in("Name:\tx\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored_in("Name:\tx\n"), 0);
        assert!(
            !ignores_hangup()
                || ignored_in(&std::fs::read_to_string("/proc/self/status").unwrap()) & 1 == 1
        );
    }
}
