//! How messages and records read in a golden trace: one line each.

use bytes::Bytes;

use synod_engine::message::{Message, Record};

pub fn brief(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => {
            format!(
                "Prepare {} (commit {})",
                prepare.ballot, prepare.commit_index
            )
        }
        Message::Promise(promise) => {
            let accepted: Vec<String> = promise
                .accepted
                .iter()
                .map(|a| format!("{} at {} {}", a.slot, a.ballot, bytes(&a.value)))
                .collect();
            format!(
                "Promise {} (commit {}, floor {}) [{}]",
                promise.ballot,
                promise.commit_index,
                promise.trim_floor,
                accepted.join(", ")
            )
        }
        Message::Known(known) => format!("{known:?}"),
        Message::Reject(reject) => format!("Reject, promised {}", reject.promised),
        Message::Accept(accept) => format!(
            "Accept {} at {} {} (commit {})",
            accept.slot,
            accept.ballot,
            bytes(&accept.value),
            accept.commit_index
        ),
        Message::Accepted(accepted) => {
            format!(
                "Accepted through {} at {}",
                accepted.through, accepted.ballot
            )
        }
        Message::Heartbeat(heartbeat) => format!(
            "Heartbeat {:?} {} hears {} (commit {}, received {})",
            heartbeat.role,
            heartbeat.ballot,
            heartbeat.hears,
            heartbeat.commit_index,
            heartbeat.received
        ),
        Message::Fetch(fetch) => format!("Fetch {}..={}", fetch.from, fetch.through),
        Message::Chosen(chosen) => {
            let values: Vec<String> = chosen.values.iter().map(bytes).collect();
            format!("Chosen from {} [{}]", chosen.from, values.join(", "))
        }
        Message::FetchSnapshot(fetch) => match fetch.snapshot {
            None => "FetchSnapshot of the newest".into(),
            Some(snapshot) => format!(
                "FetchSnapshot of {} from byte {}",
                snapshot.slot, fetch.offset
            ),
        },
        Message::SnapshotPart(part) => format!(
            "SnapshotPart of {}: bytes {}..{} of {}",
            part.snapshot.slot,
            part.offset,
            part.offset + part.bytes.len() as u64,
            part.snapshot.bytes
        ),
        Message::StateHash(hash) => format!(
            "StateHash after {}: {:016x} {:016x}",
            hash.slot, hash.machine, hash.sessions
        ),
    }
}

pub fn brief_record(record: &Record) -> String {
    match record {
        Record::Promised { ballot } => format!("Promised {ballot}"),
        Record::Accepted(accept) => format!(
            "Accepted {} at {} {} (commit {})",
            accept.slot,
            accept.ballot,
            bytes(&accept.value),
            accept.commit_index
        ),
        Record::Chosen { slot, value } => format!("Chosen {slot} {}", bytes(value)),
        Record::Trimmed { floor } => format!("Trimmed {floor}"),
    }
}

pub fn bytes(value: &Bytes) -> String {
    match value.len() {
        0 => "no-op".into(),
        1..=8 => format!("'{}'", String::from_utf8_lossy(value)),
        length => format!("[{length} bytes]"),
    }
}
