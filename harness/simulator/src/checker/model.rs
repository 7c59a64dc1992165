//! What the agreed log means, computed once and naively: sessions, a key-value map, and for each command its slot and
//! reply. Every replica must execute exactly this, and every client must be told exactly this.
//!
//! Because the slot order is known, linearizability takes one pass: applies follow slot order, each reply equals the
//! model's, and each operation's slot is committed between its invocation and its return.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::batch;
use synod_engine::client::Replies;
use synod_engine::ids::{CommandNumber, ReplicaId, SessionId, Slot};
use synod_engine::machine::kv::{KvCommand, KvMachine};
use synod_engine::message::Value;
use synod_engine::sessions::{RECENT_SLOTS, SESSIONS_MAX, Sessions};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

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
    /// Of each owner every session: how much it was used, and the slot that last did anything for it.
    owned: BTreeMap<u64, BTreeSet<(u8, Slot, SessionId)>>,
    active: BTreeMap<SessionId, (u8, Slot)>,
    evicted: BTreeSet<SessionId>,
    /// What opened each session, and those that it closed again.
    tokens: BTreeMap<SessionId, u64>,
    owners: BTreeMap<SessionId, u64>,
    closed: BTreeSet<SessionId>,
    executed: Vec<(Executed, Slot)>,
    /// How many commands are executed after each slot.
    after_slot: Vec<usize>,
    /// Where each command stands in `executed`. Only looked up, never iterated.
    positions: HashMap<(SessionId, CommandNumber), usize>,
    /// The state machine's hash after each slot, as the first replica there had it.
    state_hashes: Vec<Option<u64>>,
    /// The content of the map after each slot, and of the sessions.
    contents: Vec<(u64, u64)>,
    /// Over every session with its last command and its token.
    sessions_hash: u64,
    reply: BytesMut,
}

impl Model {
    /// Executes the next slot of the agreed log.
    pub fn execute(&mut self, slot: Slot, value: Value) {
        for (index, request) in batch::requests(value).into_iter().flatten().enumerate() {
            if request.session == SessionId::NONE {
                let id = SessionId(slot.0 << 16 | index as u64);
                let owner = request.acknowledged.0;
                if !self.make_room(owner, slot) {
                    continue;
                }
                self.tokens.insert(id, request.first.0);
                self.owners.insert(id, owner);
                self.note_session(id, CommandNumber(0));
                self.place(id, slot);
                continue;
            }
            let Some(last) = self.sessions.get(&request.session).copied() else {
                continue;
            };
            if request.count == 0 {
                let token = self.tokens.get(&request.session).copied();
                if request.first.0 == 0 && request.acknowledged.0 == 0 {
                    self.place(request.session, slot);
                }
                let ends = request.acknowledged == CommandNumber(u64::MAX);
                if ends && token == Some(request.first.0) {
                    self.forget(request.session);
                    self.closed.insert(request.session);
                }
                continue;
            }
            self.place(request.session, slot);
            for (number, command) in (request.first.0..).zip(request.iter()) {
                let number = CommandNumber(number);
                if self.sessions[&request.session].plus(1) != number || number <= last {
                    continue;
                }
                self.note_session(request.session, number);
                self.reply.clear();
                run(&mut self.values, command, &mut self.reply);
                let executed = Executed {
                    command: xxh3_64(command),
                    reply: xxh3_64(&self.reply),
                };
                self.place(request.session, slot);
                self.positions
                    .insert((request.session, number), self.executed.len());
                self.executed.push((executed, slot));
            }
        }
        self.after_slot.push(self.executed.len());
        self.state_hashes.push(None);
        let map = content_hash(
            self.values
                .iter()
                .map(|(key, value)| (&key[..], &value[..])),
        );
        self.contents.push((map, self.sessions_hash));
    }

    /// Where there are too many sessions, one goes of the owner who has most: never used before little used before
    /// others, then by idle time. Unless it is of the same owner and was active lately.
    fn make_room(&mut self, opener: u64, slot: Slot) -> bool {
        if self.sessions.len() < SESSIONS_MAX {
            return true;
        }
        let count = |owned: Option<&BTreeSet<_>>| owned.map_or(0, BTreeSet::len);
        let own = count(self.owned.get(&opener));
        let more = self.owned.iter().filter(|(_, owned)| owned.len() > own + 1);
        let greediest = more.max_by_key(|(owner, owned)| (owned.len(), **owner));
        let owner = greediest.map_or(opener, |(owner, _)| *owner);
        let first = self.owned.get(&owner).and_then(BTreeSet::first).copied();
        let Some((_, active, id)) = first else {
            return false;
        };
        if owner == opener && slot.0 - active.0 < RECENT_SLOTS {
            return false;
        }
        self.forget(id);
        self.evicted.insert(id);
        true
    }

    /// Something was done for a session in `slot`, or it executed more.
    fn place(&mut self, id: SessionId, slot: Slot) {
        let used = match self.sessions[&id].0 {
            0 => 0,
            1..=7 => 1,
            _ => 2,
        };
        let owned = self.owned.entry(self.owners[&id]).or_default();
        if let Some((used, slot)) = self.active.insert(id, (used, slot)) {
            owned.remove(&(used, slot, id));
        }
        owned.insert((used, slot, id));
    }

    fn forget(&mut self, id: SessionId) {
        if let Some((used, slot)) = self.active.remove(&id)
            && let Some(owned) = self.owned.get_mut(&self.owners[&id])
        {
            owned.remove(&(used, slot, id));
        }
        if let Some(last) = self.sessions.remove(&id) {
            let hash = session_hash(id, last, self.tokens[&id]);
            self.sessions_hash = self.sessions_hash.wrapping_sub(hash);
        }
    }

    /// Whether the agreed log closed this session.
    pub fn closed(&self, id: SessionId) -> bool {
        self.closed.contains(&id)
    }

    /// Whether the agreed log evicted this session.
    pub fn evicted(&self, id: SessionId) -> bool {
        self.evicted.contains(&id)
    }

    pub fn evictions(&self) -> u64 {
        self.evicted.len() as u64
    }

    fn note_session(&mut self, id: SessionId, last: CommandNumber) {
        let before = self.sessions.insert(id, last);
        let token = self.tokens[&id];
        let before = before.map_or(0, |before| session_hash(id, before, token));
        self.sessions_hash = self
            .sessions_hash
            .wrapping_sub(before)
            .wrapping_add(session_hash(id, last, token));
    }

    /// How many commands are executed up to `slot`.
    pub fn operations_through(&self, slot: Slot) -> usize {
        (slot.0 as usize)
            .checked_sub(1)
            .and_then(|index| self.after_slot.get(index).copied())
            .unwrap_or(0)
    }

    /// `replica` took its state after `slot` from a snapshot.
    pub fn check_restored(
        &self,
        replica: ReplicaId,
        slot: Slot,
        machine: &KvMachine,
        sessions: &Sessions,
    ) -> Result<(), Violation> {
        let Some(index) = (slot.0 as usize).checked_sub(1) else {
            return Ok(());
        };
        let Some((map, known)) = self.contents.get(index).copied() else {
            let what = format!("{replica} restores the state after {slot}, which nobody committed");
            return Err(Violation::new(EXACTLY_ONCE, what));
        };
        if content_hash(machine.iter()) != map {
            let what = format!("{replica} restores another map than the model's after {slot}");
            return Err(Violation::new(EQUAL_STATE, what));
        }
        let token = |id| sessions.token(id).unwrap_or_default();
        let hashes = sessions
            .iter()
            .map(|(id, last)| session_hash(id, last, token(id)));
        if hashes.fold(0, u64::wrapping_add) != known {
            let what = format!("{replica} restores other sessions than the model's after {slot}");
            return Err(Violation::new(EXACTLY_ONCE, what));
        }
        Ok(())
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

/// Equal maps, equal hashes, in whatever order they are walked.
fn content_hash<'a>(entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
    entries.fold(0, |sum: u64, (key, value)| {
        sum.wrapping_add(xxh3_64_with_seed(value, xxh3_64(key)))
    })
}

fn session_hash(id: SessionId, last: CommandNumber, token: u64) -> u64 {
    xxh3_64_with_seed(
        &last.0.to_le_bytes(),
        xxh3_64_with_seed(&token.to_le_bytes(), id.0),
    )
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

#[cfg(test)]
mod tests {
    use synod_engine::client::Request;

    use super::*;

    const SLOT: Slot = Slot(2);
    const ME: ReplicaId = ReplicaId(1);

    fn batch(session: u64, first: u64, commands: &[Bytes]) -> Value {
        let mut encoded = BytesMut::new();
        for command in commands {
            encoded.put_u32_le(command.len() as u32);
            encoded.put_slice(command);
        }
        let request = Request {
            session: SessionId(session),
            first: CommandNumber(first),
            acknowledged: CommandNumber(0),
            count: commands.len() as u32,
            commands: encoded.freeze(),
        };
        let mut value = BytesMut::new();
        request.put(&mut value);
        value.freeze()
    }

    fn put(value: &[u8]) -> Bytes {
        let command = KvCommand::Put { key: b"k", value };
        command.encode().expect("the key is short")
    }

    /// Slot 1 opens a session; slot 2 puts twice in it and slot 3 repeats the second put and adds a third.
    fn model() -> (Model, SessionId) {
        let session = 1 << 16;
        let mut model = Model::default();
        model.execute(Slot(1), batch(0, 7, &[]));
        model.execute(SLOT, batch(session, 1, &[put(b"a"), put(b"b")]));
        model.execute(Slot(3), batch(session, 2, &[put(b"b"), put(b"c")]));
        (model, SessionId(session))
    }

    fn done(commands: &[Bytes]) -> Vec<Executed> {
        let done = |command: &Bytes| Executed {
            command: xxh3_64(command),
            reply: xxh3_64(&[0]),
        };
        commands.iter().map(done).collect()
    }

    #[test]
    fn executing_twice_not_at_all_or_something_else_is_found() {
        let (model, _) = model();
        let good = done(&[put(b"a"), put(b"b"), put(b"c")]);
        model.check_applied(ME, 0, &good).expect("as the log says");
        model.check_applied(ME, 2, &good[2..]).expect("the rest");
        let twice = done(&[put(b"a"), put(b"b"), put(b"b")]);
        model.check_applied(ME, 0, &twice).expect_err("b twice");
        model
            .check_applied(ME, 3, &good[..1])
            .expect_err("more than the log holds");
        let mut lied = good;
        lied[1].reply += 1;
        model
            .check_applied(ME, 0, &lied)
            .expect_err("another reply");
    }

    #[test]
    fn states_are_compared_slot_by_slot() {
        let (mut model, _) = model();
        model
            .check_state(ME, SLOT, 2, 77)
            .expect("the first sets it");
        model
            .check_state(ReplicaId(2), SLOT, 2, 77)
            .expect("the same");
        model
            .check_state(ReplicaId(3), SLOT, 2, 78)
            .expect_err("another state");
        model
            .check_state(ReplicaId(3), Slot(3), 2, 79)
            .expect_err("one command is missing");
    }

    #[test]
    fn replies_without_a_slot_or_with_another_text_are_found() {
        let (model, session) = model();
        let replies = |first: u64, reply: &[u8]| {
            let mut replies = BytesMut::new();
            replies.put_u32_le(reply.len() as u32);
            replies.put_slice(reply);
            Replies {
                session,
                first: CommandNumber(first),
                count: 1,
                replies: replies.freeze(),
            }
        };
        model.check_replies(ME, &replies(3, &[0])).expect("done");
        model
            .check_replies(ME, &replies(3, &[2]))
            .expect_err("not found");
        model
            .check_replies(ME, &replies(4, &[0]))
            .expect_err("never executed");
        assert_eq!(
            model
                .lookup(session, CommandNumber(2))
                .map(|(_, slot)| slot),
            Some(SLOT)
        );
    }
}
