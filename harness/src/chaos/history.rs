//! The history as it is kept: one JSON object per line and operation, by invocation, for any checker.
//!
//! ```text
//! {"process":3,"key":"k0.0.1","op":"put","value":"3.17","invoked_ns":1200,"returned_ns":1900,"reply":"done"}
//! {"process":4,"key":"k0.0.1","op":"cas","expected":"3.17","value":"4.2","invoked_ns":1500}
//! ```
//! `op` is get, put, delete or cas (without `expected` it expects the key to be absent); `reply` is done, value (with
//! `found`), not-found or mismatch (with `found`, unless the key is absent). Without `returned_ns` the outcome is
//! unknown. A value is the number of the client process and that of its write.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use synod_simulator::linearizability::{Action, Operation, Reply, Returned};

use crate::failure::usage;
use crate::verify::STAMP_BYTES;

/// What makes every written value unique; the same as the stamps of [`crate::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub process: u64,
    pub number: u64,
}

impl Stamp {
    pub fn text(self) -> String {
        format!("{}.{}", self.process, self.number)
    }

    pub fn parse(text: &[u8]) -> Option<Stamp> {
        let (process, number) = std::str::from_utf8(text).ok()?.split_once('.')?;
        Some(Stamp {
            process: process.parse().ok()?,
            number: number.parse().ok()?,
        })
    }

    pub fn bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.process.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

/// A stored value as the history shows it. What is no stamp was never written by this load, and is shown as it is.
pub fn text_of(value: &[u8]) -> Vec<u8> {
    let number = |part: &[u8]| part.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    match (value.len(), number(value), value.get(8..).and_then(number)) {
        (STAMP_BYTES, Some(process), Some(number)) => Stamp { process, number }.text().into_bytes(),
        _ => value.escape_ascii().to_string().into_bytes(),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    process: u64,
    key: String,
    op: Op,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    invoked_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returned_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<Said>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Op {
    Get,
    Put,
    Delete,
    Cas,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Done,
    Value,
    NotFound,
    Mismatch,
}

pub fn write(path: &Path, history: &[Operation]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut out = BufWriter::new(std::fs::File::create(path)?);
        for operation in history {
            serde_json::to_writer(&mut out, &line(operation))?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    };
    write().with_context(|| format!("{}: not written", path.display()))
}

pub fn read(path: &Path) -> anyhow::Result<Vec<Operation>> {
    let file = std::fs::File::open(path)
        .map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
    let mut history = Vec::new();
    for (text, number) in BufReader::new(file).lines().zip(1..) {
        let wrong = |why: &str| usage(format!("{}:{number}: {why}", path.display()));
        let text = text.map_err(|error| wrong(&error.to_string()))?;
        let line: Line = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        history.push(operation(line).map_err(wrong)?);
    }
    Ok(history)
}

fn line(operation: &Operation) -> Line {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let (op, expected, value) = match &operation.action {
        Action::Get => (Op::Get, None, None),
        Action::Delete => (Op::Delete, None, None),
        Action::Put { value } => (Op::Put, None, Some(value)),
        Action::Cas { expected, value } => (Op::Cas, expected.as_ref(), Some(value)),
    };
    let reply = operation.returned.as_ref().map(|returned| &returned.reply);
    let (said, found) = match reply {
        None => (None, None),
        Some(Reply::Done) => (Some(Said::Done), None),
        Some(Reply::Value(value)) => (Some(Said::Value), Some(value)),
        Some(Reply::NotFound) => (Some(Said::NotFound), None),
        Some(Reply::Mismatch(actual)) => (Some(Said::Mismatch), actual.as_ref()),
    };
    Line {
        process: operation.client,
        key: text(&operation.key),
        op,
        expected: expected.map(text),
        value: value.map(text),
        invoked_ns: operation.invoked_ns,
        returned_ns: operation.returned.as_ref().map(|returned| returned.at_ns),
        reply: said,
        found: found.map(text),
    }
}

fn operation(line: Line) -> Result<Operation, &'static str> {
    let action = match (line.op, line.value, line.expected) {
        (Op::Get, None, None) => Action::Get,
        (Op::Delete, None, None) => Action::Delete,
        (Op::Put, Some(value), None) => Action::Put {
            value: value.into_bytes(),
        },
        (Op::Cas, Some(value), expected) => Action::Cas {
            expected: expected.map(String::into_bytes),
            value: value.into_bytes(),
        },
        _ => return Err("`value` and `expected` do not fit `op`"),
    };
    let reply = match (line.reply, line.found) {
        (None, None) => None,
        (Some(Said::Done), None) => Some(Reply::Done),
        (Some(Said::NotFound), None) => Some(Reply::NotFound),
        (Some(Said::Value), Some(value)) => Some(Reply::Value(value.into_bytes())),
        (Some(Said::Mismatch), found) => Some(Reply::Mismatch(found.map(String::into_bytes))),
        _ => return Err("`found` does not fit `reply`"),
    };
    let returned = match (line.returned_ns, reply) {
        (None, None) => None,
        (Some(at_ns), Some(reply)) if at_ns >= line.invoked_ns => Some(Returned { at_ns, reply }),
        (Some(_), Some(_)) => return Err("it returned before it was invoked"),
        (None, Some(_)) | (Some(_), None) => return Err("`returned_ns` and `reply` go together"),
    };
    Ok(Operation {
        client: line.process,
        key: line.key.into_bytes(),
        action,
        invoked_ns: line.invoked_ns,
        returned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Operation> {
        let value = || b"3.17".to_vec();
        let cases = [
            (Action::Get, Some(Reply::Value(value()))),
            (Action::Get, Some(Reply::NotFound)),
            (Action::Put { value: value() }, Some(Reply::Done)),
            (Action::Put { value: value() }, None),
            (Action::Delete, Some(Reply::NotFound)),
            (
                Action::Cas {
                    expected: None,
                    value: value(),
                },
                Some(Reply::Mismatch(Some(b"4.2".to_vec()))),
            ),
            (
                Action::Cas {
                    expected: Some(value()),
                    value: b"5.1".to_vec(),
                },
                Some(Reply::Mismatch(None)),
            ),
        ];
        let each = cases.into_iter().zip(1u64..);
        each.map(|((action, reply), number)| Operation {
            client: number,
            key: b"k0.0.1".to_vec(),
            action,
            invoked_ns: number,
            returned: reply.map(|reply| Returned {
                at_ns: 2 * number,
                reply,
            }),
        })
        .collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        write(&path, &all_kinds()).unwrap();
        assert_eq!(read(&path).unwrap(), all_kinds());
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let start = r#"{"process":1,"key":"k","invoked_ns":5,"op":"#;
        for (rest, why) in [
            (r#""get","value":"1.1"}"#, "do not fit `op`"),
            (r#""put"}"#, "do not fit `op`"),
            (r#""get","returned_ns":6}"#, "go together"),
            (
                r#""get","returned_ns":4,"reply":"not-found"}"#,
                "before it was invoked",
            ),
            (r#""get","returned_ns":6,"reply":"value"}"#, "`found`"),
            (r#""jump"}"#, "unknown variant"),
        ] {
            std::fs::write(&path, format!("{start}\"get\"}}\n{start}{rest}\n")).unwrap();
            let error = read(&path).expect_err(rest).to_string();
            assert!(
                error.contains("history.jsonl:2:") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn stamps_are_shown_and_found_again() {
        let stamp = Stamp {
            process: 3,
            number: 17,
        };
        assert_eq!(text_of(&stamp.bytes()), b"3.17");
        assert_eq!(Stamp::parse(b"3.17"), Some(stamp));
        assert_eq!(text_of(b"odd\n"), b"odd\\n");
        assert_eq!(Stamp::parse(b"odd"), None);
    }
}
