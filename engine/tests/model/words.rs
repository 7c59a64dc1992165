//! Values and messages in few words, for the path to a violation.

use bytes::{BufMut, BytesMut};

use synod_engine::batch;
use synod_engine::client::Request;
use synod_engine::ids::{CommandNumber, SessionId};
use synod_engine::message::{Message, Value};

/// The request of the client's value number `index`: A, B, C, …
pub fn request(index: u8) -> Request {
    let mut commands = BytesMut::new();
    commands.put_u32_le(1);
    commands.put_u8(b'A' + index);
    Request {
        session: SessionId(1),
        first: CommandNumber(u64::from(index) + 1),
        acknowledged: CommandNumber(1),
        count: 1,
        commands: commands.freeze(),
    }
}

/// The numbers of the client values that a slot's value is made of; none in a no-op.
pub fn client_values(value: &Value) -> impl Iterator<Item = u8> {
    batch::requests(value.clone())
        .into_iter()
        .flatten()
        .map(|request| request.commands[4] - b'A')
}

pub fn of_value(value: &Value) -> String {
    if value.is_empty() {
        return "no-op".into();
    }
    client_values(value)
        .map(|index| char::from(b'A' + index))
        .collect()
}

pub fn of_message(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => format!("Prepare {}", prepare.ballot),
        Message::Promise(promise) => {
            let accepted: Vec<String> = promise
                .accepted
                .iter()
                .map(|a| format!("{} {} at {}", a.slot, of_value(&a.value), a.ballot))
                .collect();
            format!(
                "Promise {} (commit index {}, accepted [{}])",
                promise.ballot,
                promise.commit_index,
                accepted.join(", ")
            )
        }
        Message::Known(known) => format!("{known:?}"),
        Message::Reject(reject) => format!("Reject (promised {})", reject.promised),
        Message::Accept(accept) => format!(
            "Accept {} {} at {} (commit index {})",
            accept.slot,
            of_value(&accept.value),
            accept.ballot,
            accept.commit_index
        ),
        Message::Accepted(accepted) => {
            format!(
                "Accepted through {} at {}",
                accepted.through, accepted.ballot
            )
        }
        Message::Heartbeat(heartbeat) => format!(
            "Heartbeat {:?} {} (commit index {})",
            heartbeat.role, heartbeat.ballot, heartbeat.commit_index
        ),
        Message::Fetch(fetch) => format!("Fetch {} to {}", fetch.from, fetch.through),
        Message::Chosen(chosen) => {
            let values: Vec<String> = chosen.values.iter().map(of_value).collect();
            format!("Chosen from {} [{}]", chosen.from, values.join(", "))
        }
        Message::FetchSnapshot(_) => "FetchSnapshot".into(),
        Message::SnapshotPart(part) => format!("SnapshotPart of {}", part.snapshot.slot),
        Message::StateHash(hash) => format!("StateHash after {}", hash.slot),
    }
}
