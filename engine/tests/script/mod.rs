//! The language of the golden traces: a few replicas, the messages between them, and a disk each, moved by hand.
//!
//! ```text
//! cluster N              starts replicas 1 to N with empty disks; heartbeats are hidden until `show heartbeats`
//! at MS                  sets the clock
//! tick R                 the deadline of R has come (if it has)
//! request R COUNT BYTES  clients hand COUNT commands of BYTES bytes each to R, as one request
//! turn R                 ends a turn of R: batches are proposed
//! disk R                 everything R appended becomes durable
//! deliver A B [N]        delivers the oldest (N) messages from A to B;  `deliver all` until nothing moves
//! drop A B [N]           loses them;  `repeat A B` delivers the oldest one and keeps it
//! hear A B               A and B exchange heartbeats (so that they know of each other)
//! crash R / start R      forgets what is not durable / rebuilds from the WAL
//! promise R B SLOT.BALLOT=VALUE...   hands R a promise from B for R's ballot, made up
//! trimmed R FLOOR        R's WAL begins at FLOOR, as if trimmed
//! damage R FIRST LAST    crashes R; its records FIRST to LAST are a hole from now on
//! wipe R INCARNATION     crashes R; its disk is empty, and of another incarnation from now on
//! snapshot R BYTES       R's snapshot of its commit index is durable, of so many bytes
//! part A B SLOT TOTAL OFFSET   A sends B the part at OFFSET of its snapshot of SLOT
//! install R SLOT TOTAL   the snapshot that came to R is durable
//! ```

mod brief;
mod snapshots;

use std::collections::VecDeque;
use std::fmt::Write;

use brief::{brief, brief_record, bytes};
use bytes::{BufMut, Bytes, BytesMut};
use snapshots::{PART_BYTES, info, part};

use synod_engine::client::Request;
use synod_engine::config::Config;
use synod_engine::ids::{
    Ballot, CommandNumber, Incarnation, Lsn, ReplicaId, SessionId, Slot, Time,
};
use synod_engine::message::{AcceptedValue, Message, Promise, Record, Value};
use synod_engine::output::Output;
use synod_engine::replica::{Input, Replay, Replica};

pub fn replay(file: &str) -> String {
    let mut script = Script::default();
    let mut printed = String::new();
    for line in file.lines() {
        if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(printed, "{line}");
        } else if let Some(command) = line.strip_prefix("> ") {
            let _ = writeln!(printed, "{line}");
            let words: Vec<&str> = command.split_whitespace().collect();
            script.run(&words);
            printed.push_str(&std::mem::take(&mut script.printed));
        }
    }
    printed
}

#[derive(Default)]
struct Script {
    now: u64,
    members: Vec<Member>,
    /// In flight, in order of sending.
    messages: VecDeque<(ReplicaId, ReplicaId, Message)>,
    number: u64,
    printed: String,
    show_heartbeats: bool,
}

struct Member {
    replica: Option<Replica>,
    records: Vec<(Lsn, Record)>,
    durable: Lsn,
    incarnation: Incarnation,
    /// The records, first to last, that can't be read any more.
    hole: Option<(Lsn, Lsn)>,
}

impl Member {
    /// The newest value of each slot outside the hole.
    fn newest(&self, from: Slot, through: Slot) -> Vec<Value> {
        let readable = |lsn: &Lsn| {
            self.hole
                .is_none_or(|(first, last)| !(first..=last).contains(lsn))
        };
        (from.0..=through.0)
            .map_while(|wanted| {
                self.records
                    .iter()
                    .rev()
                    .filter(|(lsn, _)| readable(lsn))
                    .find_map(|(_, record)| match record {
                        Record::Accepted(accept) if accept.slot.0 == wanted => {
                            Some(accept.value.clone())
                        }
                        Record::Chosen { slot, value } if slot.0 == wanted => Some(value.clone()),
                        _ => None,
                    })
            })
            .collect()
    }
}

/// What the group behind a hole tells: the highest promise and slot up to there.
fn carried(records: &[(Lsn, Record)], last: Lsn) -> (Ballot, Slot) {
    let mut promised = Ballot::ZERO;
    let mut slot_max = Slot::ZERO;
    for (_, record) in records.iter().take_while(|(lsn, _)| *lsn <= last) {
        match record {
            Record::Promised { ballot } => promised = promised.max(*ballot),
            Record::Accepted(accept) => {
                promised = promised.max(accept.ballot);
                slot_max = slot_max.max(accept.slot);
            }
            Record::Chosen { slot, .. } => slot_max = slot_max.max(*slot),
            Record::Trimmed { .. } => {}
        }
    }
    (promised, slot_max)
}

fn id(word: &str) -> ReplicaId {
    ReplicaId(word.parse().expect("a replica's number"))
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn config(replica: ReplicaId, replicas: u8) -> Config {
    let mut config = Config::new(replica, replicas, 7);
    // Without randomness the scripts say who stands when.
    config.timers.election_jitter_ns = 1;
    config.limits.snapshot_part_bytes = PART_BYTES as u32;
    config
}

impl Script {
    fn run(&mut self, words: &[&str]) {
        match words {
            ["cluster", count] => {
                let count: u8 = count.parse().expect("a count");
                self.members = (0..count)
                    .map(|_| Member {
                        replica: None,
                        records: Vec::new(),
                        durable: Lsn::ZERO,
                        incarnation: Incarnation::FOUNDING,
                        hole: None,
                    })
                    .collect();
                for replica in 1..=count {
                    self.start(ReplicaId(replica), Slot(1));
                }
            }
            ["at", ms] => self.now = ms.parse::<u64>().expect("milliseconds") * 1_000_000,
            ["tick", replica] => self.step(id(replica), Input::Deadline),
            ["request", replica, count, bytes] => self.request(id(replica), count, bytes),
            ["turn", replica] => self.turn(id(replica)),
            ["disk", replica] => self.disk(id(replica)),
            ["deliver", "all"] => self.deliver_all(),
            ["deliver", from, to] => self.deliver(id(from), id(to), false),
            ["deliver", from, to, count] => {
                for _ in 0..count.parse::<u8>().expect("a count") {
                    self.deliver(id(from), id(to), false);
                }
            }
            ["repeat", from, to] => self.deliver(id(from), id(to), true),
            ["drop", from, to] => {
                let message = self.take(id(from), id(to), false);
                let _ = writeln!(self.printed, "lost: {}", brief(&message));
            }
            ["hear", one, other] => self.hear(id(one), id(other)),
            ["crash", replica] => self.crash(id(replica)),
            ["start", replica] => self.start(id(replica), Slot(1)),
            ["trimmed", replica, floor] => {
                self.crash(id(replica));
                self.start(id(replica), Slot(floor.parse().expect("a slot")));
            }
            ["damage", replica, first, last] => {
                let lsn = |word: &str| Lsn(word.parse().expect("an lsn"));
                self.crash(id(replica));
                self.member(id(replica)).hole = Some((lsn(first), lsn(last)));
            }
            ["wipe", replica, incarnation] => {
                self.crash(id(replica));
                let member = self.member(id(replica));
                member.records.clear();
                member.durable = Lsn::ZERO;
                member.incarnation = Incarnation(incarnation.parse().expect("a number"));
            }
            ["snapshot", replica, bytes] => self.snapshot(id(replica), number(bytes)),
            ["part", from, to, slot, total, offset] => {
                let part = part(Slot(number(slot)), number(total), number(offset));
                let (from, message) = (id(from), Message::SnapshotPart(part));
                self.step(id(to), Input::Message { from, message });
            }
            ["install", replica, slot, total] => {
                self.install(id(replica), info(Slot(number(slot)), number(total)));
            }
            ["promise", to, from, accepted @ ..] => self.promise(id(to), id(from), accepted),
            ["show", "heartbeats"] => self.show_heartbeats = true,
            ["show", replica] => self.show(id(replica)),
            other => panic!("unknown command {other:?}"),
        }
    }

    fn member(&mut self, replica: ReplicaId) -> &mut Member {
        &mut self.members[usize::from(replica.0) - 1]
    }

    fn start(&mut self, replica: ReplicaId, floor: Slot) {
        let mut replay = Replay::new(config(replica, self.members.len() as u8));
        let mut out = Output::default();
        let now = Time(self.now);
        if floor > Slot(1) {
            replay.record(Record::Trimmed { floor }, &mut out);
        }
        let member = self.member(replica);
        for (lsn, record) in &member.records {
            match member.hole {
                Some((first, last)) if (first..=last).contains(lsn) => {
                    if *lsn == last {
                        let (promised, slot_max) = carried(&member.records, last);
                        replay.promise(promised);
                        replay.hole(slot_max);
                    }
                }
                Some(_) | None => replay.record(record.clone(), &mut out),
            }
        }
        member.replica = Some(replay.finish(now, member.durable, member.incarnation, &[]));
        for (slot, value) in &out.chosen {
            let _ = writeln!(self.printed, "{replica} replays {slot} {}", bytes(value));
        }
    }

    fn crash(&mut self, replica: ReplicaId) {
        let member = self.member(replica);
        member.replica = None;
        let durable = member.durable;
        member.records.retain(|(lsn, _)| *lsn <= durable);
        self.messages
            .retain(|(from, to, _)| *from != replica && *to != replica);
    }

    fn step(&mut self, replica: ReplicaId, input: Input) {
        let now = Time(self.now);
        let mut out = Output::default();
        let member = self.member(replica);
        let Some(running) = member.replica.as_mut() else {
            return;
        };
        running.step(now, input, &mut out);
        running.flush(now, &mut out);
        self.collect(replica, out);
    }

    fn turn(&mut self, replica: ReplicaId) {
        let now = Time(self.now);
        let mut out = Output::default();
        if let Some(running) = self.member(replica).replica.as_mut() {
            running.flush(now, &mut out);
        }
        self.collect(replica, out);
    }

    fn collect(&mut self, replica: ReplicaId, out: Output) {
        for (lsn, record) in out.records {
            let _ = writeln!(
                self.printed,
                "{replica} writes {lsn:?} {}",
                brief_record(&record)
            );
            self.member(replica).records.push((lsn, record));
        }
        for outgoing in out.messages {
            let heartbeat = matches!(outgoing.message, Message::Heartbeat(_));
            if !heartbeat || self.show_heartbeats {
                let text = brief(&outgoing.message);
                let _ = writeln!(self.printed, "{replica} -> {} {text}", outgoing.to);
            }
            for to in outgoing.to.iter() {
                self.messages
                    .push_back((replica, to, outgoing.message.clone()));
            }
        }
        for (slot, value) in out.chosen {
            let _ = writeln!(self.printed, "{replica} chooses {slot} {}", bytes(&value));
        }
        for read in out.reads {
            assert_eq!(read.to, replica, "peers read from memory in these scripts");
            let _ = writeln!(
                self.printed,
                "{replica} reads {} to {} back",
                read.from, read.through
            );
            let values = self.member(replica).newest(read.from, read.through);
            let from = read.from;
            self.step(replica, Input::Recalled { from, values });
        }
        self.print_snapshots(replica, &out.parts, &out.incoming, out.trim);
        if let Some(leadership) = out.leadership {
            let _ = writeln!(
                self.printed,
                "{replica} tells clients: ballot {} leader {:?}",
                leadership.ballot, leadership.leader
            );
        }
    }

    /// Takes the oldest message of a link; heartbeats are only taken by `hear` and `deliver all`.
    fn take(&mut self, from: ReplicaId, to: ReplicaId, keep: bool) -> Message {
        let index = self
            .messages
            .iter()
            .position(|(f, t, message)| {
                *f == from && *t == to && !matches!(message, Message::Heartbeat(_))
            })
            .unwrap_or_else(|| panic!("nothing travels from {from} to {to}"));
        if keep {
            self.messages[index].2.clone()
        } else {
            self.messages.remove(index).expect("it was just found").2
        }
    }

    fn deliver(&mut self, from: ReplicaId, to: ReplicaId, keep: bool) {
        let message = self.take(from, to, keep);
        self.step(to, Input::Message { from, message });
    }

    fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            let Some((from, to, message)) = self.messages.pop_front() else {
                return;
            };
            self.step(to, Input::Message { from, message });
        }
        panic!("messages never come to rest");
    }

    fn hear(&mut self, one: ReplicaId, other: ReplicaId) {
        // Twice, since what a heartbeat says it hears is what came before it.
        for _ in 0..2 {
            self.now += 30_000_000;
            for (from, to) in [(one, other), (other, one)] {
                self.turn(from);
                let heartbeats: Vec<Message> = self
                    .messages
                    .iter()
                    .filter(|(f, t, m)| {
                        *f == from && *t == to && matches!(m, Message::Heartbeat(_))
                    })
                    .map(|(_, _, message)| message.clone())
                    .collect();
                self.messages.retain(|(f, t, m)| {
                    !(*f == from && *t == to && matches!(m, Message::Heartbeat(_)))
                });
                for message in heartbeats {
                    self.step(to, Input::Message { from, message });
                }
            }
        }
    }

    fn disk(&mut self, replica: ReplicaId) {
        let member = self.member(replica);
        let last = member.records.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        member.durable = last;
        self.step(replica, Input::Durable(last));
    }

    fn request(&mut self, replica: ReplicaId, count: &str, bytes: &str) {
        let count: u32 = count.parse().expect("a count");
        let bytes: usize = bytes.parse().expect("a size");
        let mut commands = BytesMut::new();
        for _ in 0..count {
            commands.put_u32_le(bytes as u32);
            commands.put_bytes(b'x', bytes);
        }
        let first = self.number + 1;
        self.number += u64::from(count);
        let request = Request {
            session: SessionId(9),
            first: CommandNumber(first),
            acknowledged: CommandNumber(1),
            count,
            commands: commands.freeze(),
        };
        let now = Time(self.now);
        let mut out = Output::default();
        let running = self.member(replica).replica.as_mut().expect("it runs");
        if !running.serves() {
            let _ = writeln!(self.printed, "{replica} does not lead");
            return;
        }
        running.step(now, Input::Request(request), &mut out);
        self.collect(replica, out);
    }

    fn promise(&mut self, to: ReplicaId, from: ReplicaId, accepted: &[&str]) {
        let ballot = self
            .member(to)
            .replica
            .as_ref()
            .expect("it runs")
            .promised();
        let mut promise = Promise {
            ballot,
            incarnation: Incarnation::FOUNDING,
            commit_index: Slot::ZERO,
            trim_floor: Slot(1),
            accepted: Vec::new(),
        };
        for item in accepted {
            let (place, value) = item.split_once('=').expect("NAME=VALUE");
            match place {
                "commit" => promise.commit_index = Slot(value.parse().expect("a slot")),
                "floor" => promise.trim_floor = Slot(value.parse().expect("a slot")),
                _ => {
                    let mut parts = place
                        .split('.')
                        .map(|n| n.parse::<u64>().expect("a number"));
                    let mut next = || parts.next().expect("SLOT.ROUND.REPLICA");
                    promise.accepted.push(AcceptedValue {
                        slot: Slot(next()),
                        ballot: Ballot {
                            round: next(),
                            replica: ReplicaId(next() as u8),
                        },
                        value: Bytes::copy_from_slice(value.as_bytes()),
                    });
                }
            }
        }
        let message = Message::Promise(promise);
        self.step(to, Input::Message { from, message });
    }

    fn show(&mut self, replica: ReplicaId) {
        let mut text = String::new();
        if let Some(running) = &self.member(replica).replica {
            running.report(&mut |name, value| {
                if value > 0 && name != "replica" {
                    let _ = write!(text, " {name}={value}");
                }
            });
        }
        let _ = writeln!(self.printed, "{replica}:{text}");
    }
}
