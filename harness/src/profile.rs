//! `synod profile`: the run of `synod run`, and meanwhile who spends how much CPU per command, on what.
//!
//! perf samples the leader, one follower and the load inside the measured window. A sample belongs to a stage of the
//! command path by the names on its stack ([`stage`]); a stage's CPU is its share of the samples, of the CPU that the
//! kernel accounted to the process meanwhile. By how much samples and account differ is said as the residual.

pub mod arguments;
mod flame;
mod instructions;
mod observer;
mod perf;
mod processes;
pub mod replay_loop;
mod stacks;
pub mod stage;
pub mod table;
mod watched;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::failure::usage;
use crate::output::{make_folder, say, write_whole};
use crate::run::plan::Plan;
use crate::run::progress::Progress;
use crate::run::{self, table as run_table};
use crate::system::Family;
use arguments::ProfileArguments;
use observer::Observer;
use perf::Perf;
use table::Profile;

/// Recorded if nothing is said about it, where the window is that long.
const RECORD_S_DEFAULT: u32 = 10;
/// Of the measured window, what is left for attaching and for being late.
const MARGIN: Duration = Duration::from_millis(800);

pub fn run(arguments: &ProfileArguments) -> anyhow::Result<()> {
    if arguments.instructions {
        return instructions::run(arguments);
    }
    check(arguments)?;
    let out = make_folder(&arguments.run.out)?;
    let perf = Perf::find(&out)?;
    let progress = Arc::new(Progress::new());
    for limit in &perf.limits {
        progress.step(&format!("note: {limit}"));
    }
    let plan = Plan::find(&arguments.run, &progress)?;
    if plan.subject.system.family(plan.subject.transport) == Family::External {
        return Err(usage(format!(
            "--system {}: only systems in the box can be profiled",
            plan.subject.system.name()
        )));
    }
    let over = AtomicBool::new(false);
    let observer = Observer {
        perf: &perf,
        results: out.join(&plan.name),
        warmup: Duration::from_secs(u64::from(plan.warmup_s)),
        length: record_time(arguments),
        keep_perf: arguments.keep_perf,
        over: &over,
    };
    let (outcome, profile) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| observer.observe());
        let outcome = run::perform(&plan, &progress);
        over.store(true, Ordering::Relaxed);
        (outcome, watching.join())
    });
    let outcome = outcome?;
    let profile = profile.map_err(|_| anyhow::anyhow!("the profile's thread panicked"))??;
    write(&profile, &observer.results)?;
    if arguments.run.json {
        say!("{}", serde_json::to_string_pretty(&profile)?)?;
    } else {
        say!(
            "{}\n\n{}",
            run_table::table(&plan, &outcome),
            profile.table()
        )?;
    }
    progress.step(&format!("results: {}", observer.results.display()));
    anyhow::ensure!(outcome.ok, "{}", outcome.problems.join("; "));
    Ok(())
}

/// What cannot be profiled.
fn check(arguments: &ProfileArguments) -> anyhow::Result<()> {
    let flags = &arguments.run;
    if flags.inventory.is_some() {
        return Err(usage(
            "--inventory: a profile is of the processes on this machine",
        ));
    }
    if flags.kill_leader_after.is_some() || flags.crash_all_after.is_some() {
        return Err(usage(
            "a fault: a profile is of a steady run; use `synod run`",
        ));
    }
    match arguments.record_seconds {
        Some(seconds) if seconds >= flags.seconds => Err(usage(format!(
            "--record-seconds {seconds}: attaching takes time, so it must be less than --seconds {}",
            flags.seconds
        ))),
        None if flags.seconds < 2 => Err(usage(
            "--seconds 1: attaching takes time; 2 seconds are the least, 10 a good choice",
        )),
        Some(_) | None => Ok(()),
    }
}

fn record_time(arguments: &ProfileArguments) -> Duration {
    let window = Duration::from_secs(u64::from(arguments.run.seconds)).saturating_sub(MARGIN);
    let wanted = arguments.record_seconds.unwrap_or(RECORD_S_DEFAULT);
    Duration::from_secs(u64::from(wanted)).min(window)
}

fn write(profile: &Profile, results: &Path) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(profile).context("a profile is plain data")?;
    text.push('\n');
    write_whole(&results.join(table::FILE_NAME), &text)
}
