//! The event trace: one line per event, the same bytes for the same seed on any machine.

use std::fmt::Arguments;
use std::fmt::Write;

use synod_engine::client::ServerMessage;
use synod_engine::message::Message;
use xxhash_rust::xxh3::xxh3_64;

/// Takes each line, without its line break.
pub type Sink = Box<dyn FnMut(&str)>;

/// Costs nothing while nobody listens.
#[derive(Default)]
pub struct Trace {
    sink: Option<Sink>,
    line: String,
}

impl Trace {
    pub fn to(sink: Sink) -> Trace {
        Trace {
            sink: Some(sink),
            line: String::new(),
        }
    }

    pub fn listens(&self) -> bool {
        self.sink.is_some()
    }

    /// `now` in nanoseconds of simulated time.
    pub fn line(&mut self, now: u64, what: Arguments<'_>) {
        let Some(sink) = &mut self.sink else {
            return;
        };
        self.line.clear();
        let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
        write!(self.line, "{seconds:>3}.{nanos:09} {what}").expect("strings take everything");
        sink(&self.line);
    }
}

/// A value in a few characters: equal values, equal text.
pub fn value(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "no-op".to_string();
    }
    format!("{}B:{:08x}", bytes.len(), xxh3_64(bytes) as u32)
}

/// A message between replicas, values shortened.
pub fn message(message: &Message) -> String {
    match message {
        Message::Prepare(m) => format!("Prepare {} commit {}", m.ballot, m.commit_index),
        Message::Promise(m) => {
            let accepted: Vec<String> = m
                .accepted
                .iter()
                .map(|a| format!("{}@{}={}", a.slot, a.ballot, value(&a.value)))
                .collect();
            let (ballot, commit) = (m.ballot, m.commit_index);
            format!("Promise {ballot} commit {commit} [{}]", accepted.join(" "))
        }
        Message::Known(m) => format!("{m:?}"),
        Message::Reject(m) => format!("Reject, promised {}", m.promised),
        Message::Accept(m) => {
            let value = value(&m.value);
            format!(
                "Accept {} {} commit {} {value}",
                m.ballot, m.slot, m.commit_index
            )
        }
        Message::Accepted(m) => format!("Accepted {} through {}", m.ballot, m.through),
        Message::Heartbeat(m) => format!(
            "Heartbeat {} {:?} hears {} commit {} received {}",
            m.ballot, m.role, m.hears, m.commit_index, m.received
        ),
        Message::Fetch(m) => format!("Fetch {} through {}", m.from, m.through),
        Message::Chosen(m) => {
            let values: Vec<String> = m.values.iter().map(|v| value(v)).collect();
            format!("Chosen from {} [{}]", m.from, values.join(" "))
        }
        Message::FetchSnapshot(m) => match m.snapshot {
            None => "FetchSnapshot newest".to_string(),
            Some(snapshot) => format!("FetchSnapshot {} from {}", snapshot.slot, m.offset),
        },
        Message::StateHash(m) => {
            let (machine, sessions) = (m.machine, m.sessions);
            format!("StateHash {} {machine:016x} {sessions:016x}", m.slot)
        }
        Message::SnapshotPart(m) => {
            let (slot, bytes) = (m.snapshot.slot, m.snapshot.bytes);
            let end = m.offset + m.bytes.len() as u64;
            format!("SnapshotPart {slot} {}..{end} of {bytes}", m.offset)
        }
    }
}

/// What a replica tells a client.
pub fn answer(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Replies(r) => {
            let (session, first) = (r.session, r.first);
            format!(
                "Replies {session:?} {first:?} × {} {}",
                r.count,
                value(&r.replies)
            )
        }
        ServerMessage::Opened { token, session } => format!("Opened token {token:x} {session:?}"),
        ServerMessage::Closed { session } => format!("Closed {session:?}"),
        ServerMessage::Gone {
            session,
            first,
            end,
        } => format!("Gone {session:?} {first:?}..{end:?}"),
        ServerMessage::Refused(r) => {
            format!(
                "Refused {:?} expected {:?} {:?}",
                r.session, r.expected, r.reason
            )
        }
        ServerMessage::Leader { ballot, leader } => match leader {
            Some(leader) => format!("Leader {leader} at {ballot}"),
            None => format!("Leader unknown at {ballot}"),
        },
        ServerMessage::StatusReply(values) => format!("Status of {} counters", values.len()),
    }
}
