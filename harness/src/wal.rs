//! `synod wal inspect` and `synod wal verify`: a stopped replica's log, read without changing it.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use synod_engine::message::Record;
use synod_storage::{Hole, OpenError, Replayed, ScanReport, scan};

use crate::cli::{WalArguments, WalCommand, WalTarget};
use crate::failure::usage;
use crate::output::say;

pub fn run(arguments: &WalArguments) -> anyhow::Result<()> {
    match &arguments.command {
        WalCommand::Inspect(target) => inspect(target),
        WalCommand::Verify(target) => verify(target),
    }
}

/// Records by kind, and the slots that they are about.
#[derive(Default)]
struct Census {
    promised: u64,
    accepted: u64,
    chosen: u64,
    trimmed: u64,
    value_bytes: u64,
    slot_min: Option<u64>,
    slot_max: Option<u64>,
}

impl Census {
    fn count(&mut self, record: &Record) {
        let (slot, bytes) = match record {
            Record::Promised { .. } => {
                self.promised += 1;
                return;
            }
            Record::Trimmed { .. } => {
                self.trimmed += 1;
                return;
            }
            Record::Accepted(accept) => {
                self.accepted += 1;
                (accept.slot.0, accept.value.len())
            }
            Record::Chosen { slot, value } => {
                self.chosen += 1;
                (slot.0, value.len())
            }
        };
        self.value_bytes += bytes as u64;
        self.slot_min = Some(self.slot_min.map_or(slot, |min| min.min(slot)));
        self.slot_max = Some(self.slot_max.map_or(slot, |max| max.max(slot)));
    }
}

fn read(target: &WalTarget) -> Result<(ScanReport, Census), OpenError> {
    let mut census = Census::default();
    let report = scan(&target.directory, &mut |replayed| match replayed {
        Replayed::Record(_, record) => census.count(&record),
        Replayed::Hole(_) => {}
    })?;
    Ok((report, census))
}

fn inspect(target: &WalTarget) -> anyhow::Result<()> {
    let (report, census) = read(target).map_err(|error| classify(error, &target.directory))?;
    if target.json {
        say!(
            "{}",
            serde_json::to_string_pretty(&describe(&report, &census))?
        )?;
        return Ok(());
    }
    let identity = &report.identity;
    say!("cluster      {}", identity.cluster)?;
    say!("replica      {}", identity.replica.0)?;
    say!(
        "records      {} in {} bytes, last lsn {}",
        report.records,
        report.bytes,
        report.last_lsn.0
    )?;
    say!(
        "             {} accepted, {} chosen, {} promised, {} trimmed; {} bytes of values",
        census.accepted,
        census.chosen,
        census.promised,
        census.trimmed,
        census.value_bytes
    )?;
    say!(
        "slots        {} to {}",
        census.slot_min.unwrap_or(0),
        census.slot_max.unwrap_or(0)
    )?;
    say!("promised     {}", report.promised)?;
    say!("trim floor   {}", lowest_kept(&report))?;
    for segment in &report.segments {
        say!(
            "segment      {}: {} groups, {} bytes, through lsn {}",
            segment.sequence.0,
            segment.groups,
            segment.end,
            segment.last.0
        )?;
    }
    say!(
        "prepared     {} empty segments, {} ready files",
        report.empty_segments.len(),
        report.ready_files.len()
    )?;
    for snapshot in &report.snapshots {
        say!(
            "snapshot     through slot {}, {} bytes",
            snapshot.slot.0,
            snapshot.bytes
        )?;
    }
    for refused in &report.snapshots_refused {
        say!("not used     {refused}")?;
    }
    for hole in &report.holes {
        say!("hole         {}", describe_hole(hole))?;
    }
    if let Some(tail) = &report.tail {
        say!("torn tail    {}", describe_tail(tail))?;
    }
    Ok(())
}

fn verify(target: &WalTarget) -> anyhow::Result<()> {
    match read(target) {
        Ok((report, census)) => {
            if target.json {
                let mut description = describe(&report, &census);
                description["ok"] = json!(report.holes.is_empty());
                say!("{}", serde_json::to_string_pretty(&description)?)?;
            } else if report.holes.is_empty() {
                say!(
                    "ok: {} records in {} bytes, slots through {}",
                    report.records,
                    report.bytes,
                    census.slot_max.unwrap_or(0)
                )?;
                if let Some(tail) = &report.tail {
                    say!(
                        "a torn tail will be cut at the next start: {}",
                        describe_tail(tail)
                    )?;
                }
            }
            refuse_holes(&report, &target.directory)
        }
        Err(error) => {
            if target.json {
                let problem = json!({"ok": false, "error": error.to_string()});
                say!("{}", serde_json::to_string_pretty(&problem)?)?;
            }
            Err(classify(error, &target.directory))
        }
    }
}

/// The lowest slot that no trim has dropped, as the engine counts it: slot 1 while nothing was trimmed.
fn lowest_kept(report: &ScanReport) -> u64 {
    report.trim_floor.0.max(1)
}

/// Holes are damage, though not the end of this replica: its peers have what it lost.
fn refuse_holes(report: &ScanReport, directory: &Path) -> anyhow::Result<()> {
    let Some(first) = report.holes.first() else {
        return Ok(());
    };
    let more = match report.holes.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more holes"),
    };
    anyhow::bail!(
        "{}: damaged: {}{more}; start the replica, and it will repair this from its peers",
        directory.display(),
        describe_hole(first)
    )
}

fn describe_hole(hole: &Hole) -> String {
    format!(
        "{} at offset {} ({}); lost: lsn {} to {}, slots up to {}, promises up to {}",
        hole.file.display(),
        hole.offset,
        hole.why,
        hole.first.0,
        hole.next.0 - 1,
        hole.carried.slot_max.0,
        hole.carried.promised
    )
}

fn describe_tail(tail: &synod_storage::recovery::Cut) -> String {
    format!(
        "{} at offset {} ({})",
        tail.file.display(),
        tail.offset,
        tail.why
    )
}

fn describe(report: &ScanReport, census: &Census) -> Value {
    json!({
        "cluster": report.identity.cluster.to_string(),
        "replica": report.identity.replica.0,
        "records": report.records,
        "bytes": report.bytes,
        "last_lsn": report.last_lsn.0,
        "promised": report.promised.to_string(),
        "trim_floor": lowest_kept(report),
        "accepted": census.accepted,
        "chosen": census.chosen,
        "promises": census.promised,
        "trims": census.trimmed,
        "value_bytes": census.value_bytes,
        "slot_min": census.slot_min,
        "slot_max": census.slot_max,
        "segments": report.segments.iter().map(|segment| json!({
            "sequence": segment.sequence.0,
            "groups": segment.groups,
            "bytes": segment.end,
            "last_lsn": segment.last.0,
        })).collect::<Vec<_>>(),
        "empty_segments": report.empty_segments.len(),
        "ready_files": report.ready_files.len(),
        "snapshots": report.snapshots.iter().map(|snapshot| json!({
            "slot": snapshot.slot.0,
            "bytes": snapshot.bytes,
        })).collect::<Vec<_>>(),
        "snapshots_refused": report.snapshots_refused,
        "holes": report.holes.iter().map(|hole| json!({
            "file": hole.file.display().to_string(),
            "offset": hole.offset,
            "why": hole.why,
            "first_lsn": hole.first.0,
            "next_lsn": hole.next.0,
            "slot_max": hole.carried.slot_max.0,
            "promised": hole.carried.promised.to_string(),
        })).collect::<Vec<_>>(),
        "tail": report.tail.as_ref().map(|tail| json!({
            "file": tail.file.display().to_string(),
            "offset": tail.offset,
            "why": tail.why,
        })),
    })
}

/// Naming a wrong directory is the caller's mistake; damage is a failed check.
fn classify(error: OpenError, directory: &Path) -> anyhow::Error {
    match &error {
        OpenError::NotADirectory { .. }
        | OpenError::NotInitialised { .. }
        | OpenError::Locked { .. }
        | OpenError::Version { .. } => usage(error),
        _ => Err::<(), _>(error)
            .with_context(|| format!("{}: damaged", directory.display()))
            .expect_err("an error stays one"),
    }
}
