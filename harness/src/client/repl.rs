//! Commands from stdin, one per line: for people and for pipes.

use std::io::IsTerminal;

use anyhow::Context;
use synod_engine::machine::kv::KvCommand;
use tokio::sync::mpsc;

use super::{Store, describe};
use crate::failure::describe as describe_error;
use crate::output::{answer, say};

const HELP: &str = "\
put KEY VALUE        set KEY; VALUE is the rest of the line
get KEY              print the value of KEY
delete KEY           remove KEY
cas KEY OLD NEW      set KEY to NEW if its value is OLD
create KEY VALUE     set KEY if it has no value
status               the counters of every replica
help, quit";

/// Lines read before they are executed.
const LINES_AHEAD_MAX: usize = 16;

/// Ends at `quit` or at the end of the input. A mistake costs a line, not the session.
pub async fn run(store: &mut Store) -> anyhow::Result<()> {
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        say!("connected; `help` lists the commands")?;
    }
    let mut lines = stdin_lines();
    loop {
        if terminal {
            answer(|stdout| stdout.write_all(b"> "))?;
        }
        let Some(line) = lines.recv().await else {
            return Ok(());
        };
        let line = line.context("stdin cannot be read")?;
        match parse(&line) {
            Line::Empty => {}
            Line::Quit => return Ok(()),
            Line::Help => say!("{HELP}")?,
            Line::Status => say!("{}", store.status().await?.trim_end())?,
            Line::Command(command) => match store.call(command).await {
                Ok(reply) => say!("{}", describe(&reply))?,
                Err(error) => say!("failed: {}", describe_error(&error))?,
            },
            Line::Wrong(why) => say!("{why}; `help` lists the commands")?,
        }
    }
}

/// Lines of stdin, read by a thread of its own: the connection has to be kept alive while somebody thinks. The
/// thread may sit in a read for ever, and ends with the process.
fn stdin_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

enum Line<'a> {
    Empty,
    Quit,
    Help,
    Status,
    Command(KvCommand<'a>),
    Wrong(&'static str),
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start();
    let (key, tail) = rest.split_once(' ').unwrap_or((rest, ""));
    let (key, tail) = (key.as_bytes(), tail.trim_start());
    let value = tail.as_bytes();
    match word {
        "" => Line::Empty,
        "quit" | "exit" => Line::Quit,
        "help" => Line::Help,
        "status" => Line::Status,
        "put" | "get" | "delete" | "cas" | "create" if key.is_empty() => {
            Line::Wrong("a key is missing")
        }
        "put" => Line::Command(KvCommand::Put { key, value }),
        "get" if tail.is_empty() => Line::Command(KvCommand::Get { key }),
        "delete" if tail.is_empty() => Line::Command(KvCommand::Delete { key }),
        "get" | "delete" => Line::Wrong("only a key is expected"),
        "create" => Line::Command(KvCommand::Cas {
            key,
            expected: None,
            value,
        }),
        "cas" => match tail.split_once(' ') {
            Some((expected, value)) => Line::Command(KvCommand::Cas {
                key,
                expected: Some(expected.as_bytes()),
                value: value.trim_start().as_bytes(),
            }),
            None => Line::Wrong("cas takes a key, the old value and the new one"),
        },
        _ => Line::Wrong("unknown command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let is = |line: &str, expected: KvCommand<'_>| match parse(line) {
            Line::Command(command) => assert_eq!(command, expected, "{line}"),
            _ => panic!("{line} is no command"),
        };
        is(
            " put a b c ",
            KvCommand::Put {
                key: b"a",
                value: b"b c",
            },
        );
        is("get a", KvCommand::Get { key: b"a" });
        is("delete  a", KvCommand::Delete { key: b"a" });
        is(
            "cas a b c",
            KvCommand::Cas {
                key: b"a",
                expected: Some(b"b"),
                value: b"c",
            },
        );
        is(
            "create a b",
            KvCommand::Cas {
                key: b"a",
                expected: None,
                value: b"b",
            },
        );
        assert!(matches!(parse(""), Line::Empty));
        for wrong in ["put", "get a b", "cas a b", "frob"] {
            assert!(matches!(parse(wrong), Line::Wrong(_)), "{wrong}");
        }
    }
}
