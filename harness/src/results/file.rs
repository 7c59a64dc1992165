//! Files that somebody else wrote, with the line that says what is wrong with one.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::{one_line, usage};

/// No result of ours comes near this; what is larger is something else.
const BYTES_MAX: u64 = 256 << 20;

/// The content of a file, or `None` if there is no such file.
pub fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let problem = |what: &dyn std::fmt::Display| usage(format!("{}: {what}", path.display()));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > BYTES_MAX => {
            return Err(problem(&format!("over {BYTES_MAX} bytes: not a result")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(&format!("cannot be read: {error}"))),
    }
    let bytes =
        std::fs::read(path).map_err(|error| problem(&format!("cannot be read: {error}")))?;
    Ok(Some(bytes))
}

#[derive(Deserialize)]
struct Versioned {
    schema_version: Option<u32>,
}

/// Parses JSON whose `schema_version` has to be one of `expected`; the version is looked at first, since in another one
/// anything else may be different.
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    expected: RangeInclusive<u32>,
) -> anyhow::Result<T> {
    let refuse = |error: serde_json::Error| {
        if error.is_eof() {
            usage(format!(
                "{}: cut off at line {}: its writer did not finish; repeat it, or take the folder away",
                path.display(),
                error.line()
            ))
        } else {
            usage(format!(
                "{}: not a result of ours: {}",
                path.display(),
                one_line(&error.to_string())
            ))
        }
    };
    let versioned: Versioned = serde_json::from_slice(bytes).map_err(refuse)?;
    match versioned.schema_version {
        Some(version) if expected.contains(&version) => {
            serde_json::from_slice(bytes).map_err(refuse)
        }
        Some(version) => Err(usage(format!(
            "{}: schema_version {version} found, {} expected: use the build that wrote it, or measure again",
            path.display(),
            expected.end()
        ))),
        None => Err(usage(format!(
            "{}: no schema_version in it: not a result of ours",
            path.display()
        ))),
    }
}
