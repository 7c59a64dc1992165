//! Finds the programs of the systems that are compared; builds those of `harness/baselines` on demand, so that none of
//! their dependencies is ever part of the product's build.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;

use crate::failure::usage;
use crate::run::progress::Progress;
use crate::system::System;

/// The package that runs servers and clients of other projects.
const EXTERNAL_PACKAGE: &str = "synod-external";
const EXTERNAL_PROGRAM: &str = "external";
/// Names the folder of the baselines' sources where this program was not built from a checkout.
const SOURCES_VARIABLE: &str = "SYNOD_BASELINES";
/// The checkout that this program was built from.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baselines");

/// Where the programs are taken from.
#[derive(Debug)]
pub enum Programs {
    /// Given by the user: nothing is built then.
    Given(PathBuf),
    /// Those of a package are built when the first is asked for.
    Built {
        baselines: OnceCell<Executables>,
        external: OnceCell<Executables>,
    },
}

type Executables = BTreeMap<String, PathBuf>;

/// What a program says about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Description {
    /// Name and version of the library.
    pub library: String,
    /// How it was set up, in one line.
    pub settings: String,
}

impl Programs {
    pub fn new(directory: Option<&Path>) -> anyhow::Result<Programs> {
        match directory {
            None => Ok(Programs::Built {
                baselines: OnceCell::new(),
                external: OnceCell::new(),
            }),
            Some(directory) if directory.is_dir() => Ok(Programs::Given(directory.to_owned())),
            Some(directory) => Err(usage(format!(
                "--programs {}: no such folder; leave the flag out to build the programs",
                directory.display()
            ))),
        }
    }

    /// The program of a system: of the given folder, or built now if it is out of date.
    pub fn find(&self, system: System, progress: &Progress) -> anyhow::Result<PathBuf> {
        let name = match system.is_external() {
            true => EXTERNAL_PROGRAM.to_owned(),
            false => format!("synod-baseline-{}", system.name()),
        };
        match self {
            Programs::Given(directory) => {
                let path = directory.join(&name);
                path.canonicalize().map_err(|error| {
                    usage(format!(
                        "{}: {error}; build it with `cargo build --release` in harness/baselines, or leave \
                         --programs out",
                        path.display()
                    ))
                })
            }
            Programs::Built {
                baselines,
                external,
            } => {
                let (cell, package) = match system.is_external() {
                    true => (external, Some(EXTERNAL_PACKAGE)),
                    false => (baselines, None),
                };
                let built = match cell.get() {
                    Some(built) => built,
                    None => {
                        let built = build(package, progress)?;
                        cell.get_or_init(|| built)
                    }
                };
                let path = built.get(&name).cloned();
                path.with_context(|| format!("cargo did not say where it put {name}"))
            }
        }
    }
}

/// Builds a package of `harness/baselines`, or all baselines. They are built together, since cargo would build what
/// they share once for each otherwise. It knows whether anything is to be done, and takes a moment if not.
fn build(package: Option<&str>, progress: &Progress) -> anyhow::Result<Executables> {
    let sources = std::env::var_os(SOURCES_VARIABLE).map_or_else(|| SOURCES.into(), PathBuf::from);
    let manifest = sources.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(usage(format!(
            "{}: not there, so the other systems can't be built; give a folder with the built programs \
             (--programs), or the sources' (environment variable {SOURCES_VARIABLE})",
            manifest.display()
        )));
    }
    progress.step(&format!(
        "building {} if it is out of date (the first time takes minutes)",
        package.unwrap_or("the baselines")
    ));
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked"])
        .args([
            "--message-format=json-render-diagnostics",
            "--manifest-path",
        ])
        .arg(&manifest);
    if let Some(package) = package {
        command.args(["--package", package]);
        // The client of etcd can't be built without it; the adapter then says so when it is asked for etcd.
        if !has_protoc() {
            command.arg("--no-default-features");
        }
    }
    let output = command
        .stdin(Stdio::null())
        // Its progress is ours.
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            usage(format!(
                "cargo: {error}; the other systems can't be built without it: give a folder with the built programs \
                 (--programs)"
            ))
        })?;
    anyhow::ensure!(
        output.status.success(),
        "the other systems could not be built: cargo said above what is wrong with {}",
        sources.display()
    );
    Ok(executables(&output.stdout))
}

fn has_protoc() -> bool {
    let named = std::env::var_os("PROTOC").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("protoc"));
    named.into_iter().chain(on_path).any(|file| file.is_file())
}

/// The executables that cargo's messages name.
fn executables(messages: &[u8]) -> Executables {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let lines = messages.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let paths = messages.filter_map(|message| message.executable);
    paths
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect()
}

impl Description {
    /// Asks a baseline's program.
    pub fn ask(program: &Path) -> anyhow::Result<Description> {
        let output = Command::new(program)
            .arg("--describe")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| usage(format!("{}: {error}", program.display())))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            usage(format!(
                "{} --describe: gave no description: not a baseline of this version",
                program.display()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_messages() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
not json
{"reason":"compiler-artifact","executable":"/t/release/other"}
{"reason":"compiler-artifact","executable":"/t/release/synod-baseline-raft-rs"}
{"reason":"build-finished","success":true}
"#;
        let found = executables(messages);
        assert_eq!(found.len(), 2);
        let raft = Path::new("/t/release/synod-baseline-raft-rs");
        assert_eq!(found["synod-baseline-raft-rs"], raft);
    }
}
