//! Finds the programs of the systems that are compared; builds those of `harness/baselines` on demand, so that none of
//! their dependencies is ever part of the product's build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;

use crate::failure::usage;
use crate::run::progress::Progress;
use crate::system::System;

/// Names the folder of the baselines' sources where this program was not built from a checkout.
const SOURCES_VARIABLE: &str = "SYNOD_BASELINES";
/// The checkout that this program was built from.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baselines");

/// Where the programs are taken from.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Given by the user: nothing is built then.
    directory: Option<PathBuf>,
}

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
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            return Err(usage(format!(
                "--programs {}: no such folder; leave the flag out to build the programs",
                directory.display()
            )));
        }
        Ok(Programs {
            directory: directory.map(Path::to_owned),
        })
    }

    /// The program of a system: of the given folder, or built now if it is out of date.
    pub fn find(&self, system: System, progress: &Progress) -> anyhow::Result<PathBuf> {
        let name = if system.is_external() {
            "synod-external".to_owned()
        } else {
            format!("synod-baseline-{}", system.name())
        };
        let Some(directory) = &self.directory else {
            return build(&name, progress);
        };
        let path = directory.join(&name);
        path.canonicalize().map_err(|error| {
            usage(format!(
                "{}: {error}; build it with `cargo build --release` in harness/baselines, or leave --programs out",
                path.display()
            ))
        })
    }
}

/// `cargo` knows whether anything is to be done; it takes a moment if not.
fn build(package: &str, progress: &Progress) -> anyhow::Result<PathBuf> {
    let sources = std::env::var_os(SOURCES_VARIABLE).map_or_else(|| SOURCES.into(), PathBuf::from);
    let manifest = sources.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(usage(format!(
            "{}: not there, so {package} can't be built; give a folder with the built programs (--programs), or the \
             sources' (environment variable {SOURCES_VARIABLE})",
            manifest.display()
        )));
    }
    progress.step(&format!(
        "building {package} if it is out of date (the first time takes minutes)"
    ));
    let output = Command::new("cargo")
        .args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--package", package, "--manifest-path"])
        .arg(&manifest)
        .stdin(Stdio::null())
        // Its progress is ours.
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            usage(format!(
                "cargo: {error}; {package} can't be built without it: give a folder with the built programs (--programs)"
            ))
        })?;
    anyhow::ensure!(
        output.status.success(),
        "{package} could not be built: {} has the sources, cargo said above what is wrong",
        sources.display()
    );
    executable(&output.stdout, package)
        .with_context(|| format!("cargo did not say where it put {package}"))
}

/// The executable that cargo's messages name for a package.
fn executable(messages: &[u8], package: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let lines = messages.split(|byte| *byte == b'\n');
    let executables = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    executables
        .filter_map(|message| message.executable)
        .find(|path| path.file_name().is_some_and(|name| name == package))
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
    fn the_executable_is_found_among_messages() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
not json
{"reason":"compiler-artifact","executable":"/t/release/other"}
{"reason":"compiler-artifact","executable":"/t/release/synod-baseline-raft-rs"}
{"reason":"build-finished","success":true}
"#;
        let found = executable(messages, "synod-baseline-raft-rs");
        assert_eq!(
            found.as_deref(),
            Some(Path::new("/t/release/synod-baseline-raft-rs"))
        );
        assert_eq!(executable(messages, "synod-baseline-openraft"), None);
    }
}
