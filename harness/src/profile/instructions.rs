//! `synod profile --instructions`: instructions per command under callgrind, and how far that is from the baseline.
//!
//! The loop runs twice, the second time with four times the commands: the difference is free of what starting costs, and
//! large beside what differs from start to start (the seeds of hash maps, where memory is mapped).

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::environment::{COMMIT, PROFILE, RUSTC};
use crate::failure::{one_line, usage};
use crate::interrupt;
use crate::output::{say, write_whole};
use crate::profile::arguments::ProfileArguments;
use crate::results::file;
use crate::run::progress::Progress;

/// Commands of the shorter of both runs.
const COMMANDS: u64 = 32_768;
/// Commands of the longer run. They still fit into one segment of the loop's WAL.
const COMMANDS_LONG: u64 = 4 * COMMANDS;
const SCHEMA_VERSION: u32 = 1;
const POLL: Duration = Duration::from_millis(50);
/// glibc copies and clears longer ranges by one repeated instruction, which callgrind counts once per byte: bytes would
/// outweigh everything else. With these it uses its vector loops for all lengths.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    pub schema_version: u32,
    /// Of all three replicas together.
    pub instructions_per_command: f64,
    /// Over so many it is the mean.
    pub commands: u64,
    pub commit: String,
    /// What the count depends on besides the code.
    pub built_with: String,
}

pub fn run(arguments: &ProfileArguments) -> anyhow::Result<()> {
    let baseline = match arguments.save_baseline {
        true => None,
        false => Some(read_baseline(&arguments.baseline)?),
    };
    interrupt::listen()?;
    let progress = Progress::new();
    progress.step("counting instructions of the deterministic loop under callgrind");
    let short = count(COMMANDS)?;
    let long = count(COMMANDS_LONG)?;
    let counted = Counted {
        schema_version: SCHEMA_VERSION,
        instructions_per_command: per_command(short, long, COMMANDS_LONG - COMMANDS)?,
        commands: COMMANDS_LONG - COMMANDS,
        commit: COMMIT.to_owned(),
        built_with: format!("{RUSTC}, {PROFILE}, {}", std::env::consts::ARCH),
    };
    if arguments.save_baseline {
        write_whole(
            &arguments.baseline,
            &format!("{}\n", serde_json::to_string_pretty(&counted)?),
        )?;
        progress.step(&format!("baseline: {}", arguments.baseline.display()));
    }
    if arguments.run.json {
        return say!("{}", serde_json::to_string_pretty(&counted)?);
    }
    say!("{}", compare(&counted, baseline.as_ref()))
}

/// The figure and, beside a baseline, the difference in percent.
fn compare(counted: &Counted, baseline: Option<&Counted>) -> String {
    let now = counted.instructions_per_command;
    let mut text = format!(
        "{now:.0} instructions per command, over three replicas ({})",
        counted.built_with
    );
    if let Some(baseline) = baseline {
        let before = baseline.instructions_per_command;
        let percent = 100.0 * (now - before) / before;
        text.push_str(&format!(
            "\n{percent:+.2} % from the baseline of {before:.0} (commit {})",
            baseline.commit
        ));
        if baseline.built_with != counted.built_with {
            text.push_str(&format!(
                "\nnote: the baseline was built with {}: part of the difference may be the compiler's",
                baseline.built_with
            ));
        }
    }
    text
}

fn read_baseline(path: &Path) -> anyhow::Result<Counted> {
    let Some(bytes) = file::read(path)? else {
        return Err(usage(format!(
            "--baseline {}: there is no such file; make it with --save-baseline",
            path.display()
        )));
    };
    let counted: Counted = file::parse(path, &bytes, SCHEMA_VERSION..=SCHEMA_VERSION)?;
    if counted.instructions_per_command <= 0.0 {
        return Err(usage(format!(
            "--baseline {}: counts no instructions",
            path.display()
        )));
    }
    Ok(counted)
}

fn per_command(short: u64, long: u64, commands: u64) -> anyhow::Result<f64> {
    let difference = long.checked_sub(short).filter(|difference| *difference > 0);
    let difference = difference.context("more commands took no more instructions")?;
    Ok(difference as f64 / commands as f64)
}

/// Instructions of the whole process.
fn count(commands: u64) -> anyhow::Result<u64> {
    let own = std::env::current_exe().context("the path of this program is unknown")?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let out = folder.path().join("callgrind.out");
    let child = Command::new("valgrind")
        .args(["--tool=callgrind", "--error-exitcode=99"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(own)
        .args(["replay-loop", "--commands", &commands.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            usage(format!(
                "valgrind does not start ({error}); remedy: install it (Debian: `apt install valgrind`)"
            ))
        })?;
    let output = finish(child)?;
    let text = std::fs::read_to_string(&out);
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "callgrind ended with {}: {}",
        output.status,
        one_line(errors.lines().last().unwrap_or(""))
    );
    let text = text.with_context(|| format!("{}: cannot be read", out.display()))?;
    total(&text).context("callgrind wrote no total")
}

/// Waits for the end, or ends it if a signal is heard: the folder for its file goes in any case.
fn finish(mut child: Child) -> anyhow::Result<Output> {
    while child.try_wait().context("valgrind was lost")?.is_none() {
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
        std::thread::sleep(POLL);
    }
    child.wait_with_output().context("valgrind was lost")
}

/// `totals: N`, or `summary: N` of older versions.
fn total(text: &str) -> Option<u64> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let value = value("totals:").or_else(|| value("summary:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(instructions_per_command: f64, built_with: &str) -> Counted {
        Counted {
            schema_version: SCHEMA_VERSION,
            instructions_per_command,
            commands: COMMANDS,
            commit: "abc".into(),
            built_with: built_with.into(),
        }
    }

    #[test]
    fn what_starting_costs_is_not_counted() {
        assert_eq!(per_command(1_500, 2_500, 10).expect("more"), 100.0);
        assert!(per_command(1_500, 1_500, 10).is_err());
    }

    #[test]
    fn the_difference_is_in_percent_and_another_compiler_is_said() {
        let text = compare(&counted(110.0, "new"), Some(&counted(100.0, "old")));
        assert!(
            text.contains("+10.00 % from the baseline of 100 (commit abc)"),
            "{text}"
        );
        assert!(text.contains("built with old"), "{text}");
        assert!(!compare(&counted(1.0, "x"), Some(&counted(1.0, "x"))).contains("note"));
    }

    #[test]
    fn the_total_is_found_or_missed() {
        assert_eq!(total("events: Ir\nsummary: 7\ntotals: 12\n"), Some(12));
        assert_eq!(total("summary: 7\n"), Some(7));
        assert_eq!(total("totals: x\n"), None);
    }
}
