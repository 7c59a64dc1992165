//! What ends a command early, and the exit code that tells a script which kind it was.

use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;
use synod_engine::driver::Stopped;
use synod_engine::seams::WalFailed;

use crate::log;
use crate::output::Unheard;

/// A check or a run failed: the system did not do what it promises.
const EXIT_FAILED: u8 = 1;
/// The request itself was wrong: a flag, a configuration, a file. Nothing was started.
const EXIT_USAGE: u8 = 2;
/// The disk failed under a replica, which must not go on.
const EXIT_WAL_FAILED: u8 = 3;
/// The reader of stdout has gone (`| head`): what a shell shows for a program that SIGPIPE ended.
const EXIT_READER_GONE: u8 = 141;

/// Marks an error as the caller's to correct; everything else counts as a failed run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error that the caller can correct.
pub fn usage(message: impl fmt::Display) -> anyhow::Error {
    Usage(message.to_string()).into()
}

/// Prints the one line that says what went wrong, or none if the reader has what it wanted.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error
        .downcast_ref::<Unheard>()
        .is_some_and(Unheard::reader_is_gone)
    {
        return ExitCode::from(EXIT_READER_GONE);
    }
    complain(&one_line(&describe(error)));
    if error.downcast_ref::<Usage>().is_some() {
        ExitCode::from(EXIT_USAGE)
    } else if is_wal_failed(error) {
        ExitCode::from(EXIT_WAL_FAILED)
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}

fn is_wal_failed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<WalFailed>().is_some()
        || matches!(error.downcast_ref::<Stopped>(), Some(Stopped::Wal(_)))
}

/// An error and its causes; a cause that the error above it quotes is not said again.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Handles what the command line parser returns instead of a command: help, or a mistake in one line.
pub fn report_parse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help may go into a closed pipe (`| head`), which is not an error of ours.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain("a command is missing (see `synod --help`)");
        return ExitCode::from(EXIT_USAGE);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // The usage block that follows repeats what --help says.
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or(text);
    complain(&format!("{} (see `synod --help`)", one_line(text)));
    ExitCode::from(EXIT_USAGE)
}

/// The last line of a process: it is given time to arrive, but not for ever.
fn complain(what: &str) {
    log::text(&format!("synod: {what}\n"));
    log::flush();
}

/// Joins lines, because one mistake gives one line; and what would command a terminal is spelled out, because a host or a
/// store may have said it.
pub fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.contains(char::is_control) {
        true => spelled_out(&line),
        false => line,
    }
}

fn spelled_out(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use synod_engine::divergence::{Divergence, Verdict};
    use synod_engine::ids::{ReplicaId, Slot};

    #[test]
    fn a_failed_wal_is_told_from_a_state_that_diverged() {
        let failed = WalFailed("no".to_owned());
        assert!(is_wal_failed(&failed.clone().into()));
        let stopped = anyhow::Error::from(Stopped::Wal(failed.clone()));
        assert!(is_wal_failed(&stopped));
        assert_eq!(describe(&stopped), failed.to_string());
        let diverged = Stopped::Diverged(Divergence {
            own: ReplicaId(1),
            slot: Slot(1_024),
            said: Vec::new(),
            verdict: Verdict::OwnIsWrong,
        });
        assert!(!is_wal_failed(&diverged.into()));
    }

    #[test]
    fn a_usage_error_is_found_below_its_context() {
        let error = Err::<(), _>(usage("payload is too small"))
            .context("run")
            .unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some());
        assert_eq!(one_line("a\n  b\n\nc"), "a b c");
        assert_eq!(one_line("a\u{1b}[2J\rb"), "a\\u{1b}[2J b");
        assert_eq!(describe(&error), "run: payload is too small");
        let quoted = Err::<(), _>(usage("no room")).context("write: no room");
        assert_eq!(describe(&quoted.unwrap_err()), "write: no room");
    }
}
