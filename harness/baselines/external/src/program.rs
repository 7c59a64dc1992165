//! Finds the servers on this machine and asks them for their version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::system::System;

/// Debian puts servers where a user's PATH may not look.
const MORE_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin"];

/// The system cannot take part on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// Numbers that are compared from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Version {
        Version {
            major,
            minor,
            patch,
        }
    }

    /// The first three numbers with points between them in `text`.
    pub fn find(text: &str) -> Option<Version> {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .find_map(|word| {
                let mut numbers = word
                    .trim_matches('.')
                    .split('.')
                    .map(|number| number.parse().ok());
                Some(Version {
                    major: numbers.next()??,
                    minor: numbers.next()??,
                    patch: numbers.next()??,
                })
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The executable `name`: the given one, or the first on PATH and in the places where Debian puts servers.
///
/// # Errors
/// [`Missing`], with the package that has it.
pub fn executable(name: &str, given: Option<&Path>, package: &str) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return match given.is_file() {
            true => Ok(std::path::absolute(given)?),
            false => Err(Missing(format!("{}: no such file", given.display())).into()),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(MORE_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| not_installed(name, package).into())
}

/// Says which package to install.
pub fn not_installed(what: &str, package: &str) -> Missing {
    Missing(format!(
        "{what} is not installed (Debian: apt-get install {package})"
    ))
}

/// What `program` says of itself.
pub fn version(system: System, program: &Path) -> anyhow::Result<Version> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("{}: cannot be run", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::find(&text).with_context(|| {
        format!(
            "{}: `--version` of {} has no version",
            program.display(),
            system.name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_servers_print() {
        for (text, version) in [
            (
                "etcd Version: 3.4.23\nGit SHA: Not provided\nGo Version: go1.19.8",
                (3, 4, 23),
            ),
            ("nats-server: v2.15.1\n", (2, 15, 1)),
            ("zookeeper-3.8.0.jar", (3, 8, 0)),
            ("zookeeper-3.9.2-SNAPSHOT.jar", (3, 9, 2)),
        ] {
            let (major, minor, patch) = version;
            assert_eq!(
                Version::find(text),
                Some(Version::new(major, minor, patch)),
                "{text}"
            );
        }
        for text in ["", "nats-server", "version 2", "go1.19", "..."] {
            assert_eq!(Version::find(text), None, "{text}");
        }
        assert!(Version::new(2, 9, 10) < Version::new(2, 10, 0));
    }

    #[test]
    fn what_is_missing_is_said_with_its_package() {
        let error = executable("no-such-server", None, "no-package").unwrap_err();
        let missing = error.downcast_ref::<Missing>().expect("missing");
        assert_eq!(
            missing.to_string(),
            "no-such-server is not installed (Debian: apt-get install no-package)"
        );
    }
}
