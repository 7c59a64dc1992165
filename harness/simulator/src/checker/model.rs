//! What the agreed log means, computed once and naively: sessions, a key-value map, and for each command its slot and
//! reply. Every replica must execute exactly this, and every client must be told exactly this.
//!
//! Because the slot order is known, linearizability takes one pass: applies follow slot order, each reply equals the
//! model's, and each operation's slot is committed between its invocation and its return.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::batch;
use synod_engine::client::Replies;
use synod_engine::ids::{CommandNumber, ReplicaId, SessionId, Slot};
use synod_engine::machine::kv::KvCommand;
use synod_engine::message::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{EQUAL_STATE, EXACTLY_ONCE, LINEARIZABLE, Violation};

/// One executed command: hashes of it and of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    pub command: u64,
    pub reply: u64,
}

#[derive(Default)]
pub struct Model {
    values: BTreeMap<Bytes, Bytes>,
    /// The last command of each session.
    sessions: BTreeMap<SessionId, CommandNumber>,
    executed: Vec<(Executed, Slot)>,
    /// How many commands are executed after each slot.
    after_slot: Vec<usize>,
    /// Where each command stands in `executed`. Only looked up, never iterated.
    positions: HashMap<(SessionId, CommandNumber), usize>,
    /// The state machine's hash after each slot, as the first replica there had it.
    state_hashes: Vec<Option<u64>>,
    reply: BytesMut,
}

impl Model {
    /// Executes the next slot of the agreed log.
    pub fn execute(&mut self, slot: Slot, value: Value) {
        for (index, request) in batch::requests(value).enumerate() {
            if request.session == SessionId::NONE {
                let id = SessionId(slot.0 << 16 | index as u64);
                self.sessions.insert(id, CommandNumber(0));
                continue;
            }
            let Some(last) = self.sessions.get(&request.session).copied() else {
                continue;
            };
            for (number, command) in (request.first.0..).zip(request.iter()) {
                let number = CommandNumber(number);
                if self.sessions[&request.session].plus(1) != number || number <= last {
                    continue;
                }
                self.sessions.insert(request.session, number);
                self.reply.clear();
                run(&mut self.values, command, &mut self.reply);
                let executed = Executed {
                    command: xxh3_64(command),
                    reply: xxh3_64(&self.reply),
                };
                self.positions
                    .insert((request.session, number), self.executed.len());
                self.executed.push((executed, slot));
            }
        }
        self.after_slot.push(self.executed.len());
        self.state_hashes.push(None);
    }

    pub fn operations(&self) -> usize {
        self.executed.len()
    }

    /// `replica` executed `done` from the `position`-th command on.
    pub fn check_applied(
        &self,
        replica: ReplicaId,
        position: usize,
        done: &[Executed],
    ) -> Result<(), Violation> {
        for (index, executed) in (position..).zip(done) {
            let expected = self.executed.get(index);
            if expected.map(|(expected, _)| expected) != Some(executed) {
                let what = match expected {
                    None => "the agreed log has no such command".to_string(),
                    Some((expected, slot)) if expected.command == executed.command => {
                        format!("its reply differs from the model's, in {slot}")
                    }
                    Some((_, slot)) => {
                        format!("the agreed log has another command there, in {slot}")
                    }
                };
                let what = format!("{replica} executes its {}th command: {what}", index + 1);
                return Err(Violation::new(EXACTLY_ONCE, what));
            }
        }
        Ok(())
    }

    /// `replica` executed so many commands up to `slot` and has this state now.
    pub fn check_state(
        &mut self,
        replica: ReplicaId,
        slot: Slot,
        position: usize,
        state_hash: u64,
    ) -> Result<(), Violation> {
        let Some(index) = (slot.0 as usize).checked_sub(1) else {
            return Ok(());
        };
        if self.after_slot.get(index) != Some(&position) {
            let what =
                format!("{replica} executed {position} commands up to {slot}, not as the model");
            return Err(Violation::new(EXACTLY_ONCE, what));
        }
        let known = self.state_hashes[index].get_or_insert(state_hash);
        if *known != state_hash {
            let what =
                format!("the state of {replica} after {slot} differs from another replica's");
            return Err(Violation::new(EQUAL_STATE, what));
        }
        Ok(())
    }

    /// A replica sends these replies: each belongs to a command of the agreed log and says what the model says.
    pub fn check_replies(&self, replica: ReplicaId, replies: &Replies) -> Result<(), Violation> {
        for (number, reply) in (replies.first.0..).zip(replies.iter()) {
            let number = CommandNumber(number);
            let expected = self
                .lookup(replies.session, number)
                .map(|(executed, _)| executed.reply);
            if expected != Some(xxh3_64(reply)) {
                let why = match expected {
                    None => "which the agreed log does not hold",
                    Some(_) => "but not with the reply of the model",
                };
                let what = format!(
                    "{replica} answers {number:?} of {:?}, {why}",
                    replies.session
                );
                return Err(Violation::new(LINEARIZABLE, what));
            }
        }
        Ok(())
    }

    pub fn lookup(&self, session: SessionId, number: CommandNumber) -> Option<(Executed, Slot)> {
        let position = self.positions.get(&(session, number))?;
        Some(self.executed[*position])
    }
}

/// The key-value machine once more, from its documentation.
fn run(values: &mut BTreeMap<Bytes, Bytes>, command: &[u8], reply: &mut BytesMut) {
    match KvCommand::decode(command) {
        None => reply.put_u8(4),
        Some(KvCommand::Get { key }) => match values.get(key) {
            None => reply.put_u8(2),
            Some(value) => {
                reply.put_u8(1);
                reply.put_slice(value);
            }
        },
        Some(KvCommand::Put { key, value }) => {
            values.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            reply.put_u8(0);
        }
        Some(KvCommand::Delete { key }) => {
            reply.put_u8(if values.remove(key).is_some() { 0 } else { 2 });
        }
        Some(KvCommand::Cas {
            key,
            expected,
            value,
        }) => {
            let present = values.get(key).cloned();
            if present.as_deref() == expected {
                values.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                reply.put_u8(0);
            } else {
                reply.put_u8(3);
                reply.put_u8(u8::from(present.is_some()));
                reply.put_slice(&present.unwrap_or_default());
            }
        }
    }
}
