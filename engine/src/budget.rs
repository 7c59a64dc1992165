//! What the engine may hold in memory: every queue, window, table and buffer by its name. The state machine is not in it:
//! its size is the application's, and for the moment of an install it is there twice.

use crate::config::Config;
use crate::driver::READS_WAITING_MAX;
use crate::persist::OWED_PROMISE_BYTES_MAX;
use crate::replica::CACHE_SLOTS_MAX;
use crate::sessions::{REPLY_BYTES_MAX, SESSION_REPLY_BYTES_MAX, SESSIONS_MAX};
use crate::snapshot::{PART_BYTES_MAX, PARTS_AHEAD, READING_MAX};

/// Bytes of one session's places in the table, its index, and the door's maps, replies not counted.
const SESSION_BYTES: u64 = 400;
/// Bytes of one slot's entry in memory, its value not counted.
const SLOT_BYTES: u64 = 80;

/// The named limits, in bytes; their sum is what a replica prints at its start.
pub fn memory_budget(config: &Config) -> Vec<(&'static str, u64)> {
    let limits = &config.limits;
    let slots = CACHE_SLOTS_MAX + config.accept_ahead_slots_max();
    let fetch = limits.fetch_bytes_max as u64;
    // A piece holds whole entries, so one may stand out by a session with all its replies or by the longest command.
    let piece = limits.snapshot_step_bytes.max(limits.command_bytes_max) + SESSION_REPLY_BYTES_MAX;
    vec![
        ("intake_bytes_max", limits.intake_bytes_max as u64),
        (
            "accept_ahead_bytes_max",
            config.accept_ahead_bytes_max() as u64,
        ),
        ("cache_bytes_max", limits.cache_bytes_max as u64),
        ("slot_entries", slots * SLOT_BYTES),
        (
            "owed_bytes_max",
            (limits.owed_bytes_max + OWED_PROMISE_BYTES_MAX) as u64,
        ),
        ("session_table", SESSIONS_MAX as u64 * SESSION_BYTES),
        ("reply_bytes_max", REPLY_BYTES_MAX as u64),
        ("fetches_waiting", READS_WAITING_MAX as u64 * fetch),
        (
            "fetches_under_way",
            (limits.fetches_max * (limits.fetch_bytes_max + limits.batch_bytes_max)) as u64,
        ),
        (
            "snapshot_kept_bytes_max",
            limits.snapshot_kept_bytes_max as u64,
        ),
        (
            "snapshot_backlog_bytes_max",
            (limits.snapshot_backlog_bytes_max + piece) as u64,
        ),
        ("snapshot_parts_out", (READING_MAX * PART_BYTES_MAX) as u64),
        (
            "snapshot_parts_in",
            PARTS_AHEAD * u64::from(limits.snapshot_part_bytes),
        ),
    ]
}
