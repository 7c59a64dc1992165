//! The session rule, written a second time and as plainly as possible: which commands of a slot are executed.
//!
//! It shares nothing with the engine but the format of a batch, so that a mistake there is not repeated here. A value
//! that is no batch is nothing, as a whole: no replica may execute any of it.

use std::collections::HashMap;

use synod_engine::client::Request;
use synod_engine::ids::Slot;
use synod_engine::message::Value;
use synod_engine::sessions::SESSIONS_MAX;

/// The number of the last executed command of each session.
pub type LastCommands = HashMap<u64, u64>;

/// None is ever evicted: a run opens far fewer sessions than the engine keeps.
#[derive(Default)]
pub struct Sessions {
    last: LastCommands,
    /// What opened those that were opened since the beginning: it closes them as well.
    tokens: HashMap<u64, u64>,
}

impl Sessions {
    /// As a snapshot has them.
    pub fn restored(last: LastCommands) -> Sessions {
        Sessions {
            last,
            tokens: HashMap::new(),
        }
    }

    /// Whether the table of a snapshot says the same. Once more sessions were opened than the engine keeps, it lacks
    /// some.
    pub fn agree_with(&self, last: &LastCommands) -> bool {
        let complete = last.len() == self.last.len() || self.last.len() > SESSIONS_MAX;
        let equal = |(session, number): (&u64, &u64)| self.last.get(session) == Some(number);
        complete && last.iter().all(equal)
    }

    /// Goes through one slot's value and calls `execute` with session and command, and whether it is the first of its
    /// request, for each command that counts. Returns whether the value is a batch.
    pub fn apply(
        &mut self,
        slot: Slot,
        value: &Value,
        execute: &mut dyn FnMut(u64, &[u8], bool),
    ) -> bool {
        let Some(entries) = entries(value) else {
            return false;
        };
        for (position, entry) in (0..).zip(entries) {
            if entry.session.0 == 0 {
                // A session is named by the place in the log that opened it: slot, then position in its batch.
                let session = slot.0 * 65_536 + position;
                self.last.insert(session, 0);
                self.tokens.insert(session, entry.first.0);
                continue;
            }
            let Some(last) = self.last.get_mut(&entry.session.0) else {
                continue;
            };
            if entry.count == 0 && entry.acknowledged.0 == u64::MAX {
                let token = self.tokens.get(&entry.session.0);
                if token.is_none_or(|token| *token == entry.first.0) {
                    self.last.remove(&entry.session.0);
                }
                continue;
            }
            let mut is_first = true;
            for (number, command) in (entry.first.0..).zip(entry.iter()) {
                if number == *last + 1 {
                    *last = number;
                    execute(entry.session.0, command, is_first);
                    is_first = false;
                }
            }
        }
        true
    }
}

/// Every entry of a value, or nothing if any part of it is malformed.
fn entries(value: &Value) -> Option<Vec<Request>> {
    let mut rest = value.clone();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(Request::take(&mut rest).ok()?);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, Bytes, BytesMut};
    use synod_engine::ids::{CommandNumber, SessionId};

    fn entry(out: &mut BytesMut, session: u64, first: u64, commands: &[&[u8]]) {
        let mut encoded = BytesMut::new();
        for command in commands {
            encoded.put_u32_le(command.len() as u32);
            encoded.put_slice(command);
        }
        Request {
            session: SessionId(session),
            first: CommandNumber(first),
            acknowledged: CommandNumber(1),
            count: commands.len() as u32,
            commands: encoded.freeze(),
        }
        .put(out);
    }

    fn executed(sessions: &mut Sessions, slot: u64, value: Bytes) -> Vec<Vec<u8>> {
        let mut executed = Vec::new();
        let whole = sessions.apply(Slot(slot), &value, &mut |_, command, _| {
            executed.push(command.to_vec())
        });
        assert!(whole);
        executed
    }

    #[test]
    fn a_command_is_executed_once_and_only_after_the_one_before() {
        let mut sessions = Sessions::default();
        let session = 3 << 16 | 1;
        let mut batch = BytesMut::new();
        entry(&mut batch, 0, 8, &[]);
        entry(&mut batch, 0, 9, &[]);
        entry(&mut batch, session, 1, &[b"a", b"b"]);
        entry(&mut batch, session, 2, &[b"b", b"c"]);
        entry(&mut batch, session, 5, &[b"e"]);
        entry(&mut batch, 7 << 16, 1, &[b"x"]);
        assert_eq!(
            executed(&mut sessions, 3, batch.freeze()),
            [b"a", b"b", b"c"]
        );
        let mut batch = BytesMut::new();
        entry(&mut batch, session, 4, &[b"d", b"e"]);
        assert_eq!(executed(&mut sessions, 4, batch.freeze()), [b"d", b"e"]);
        assert!(executed(&mut sessions, 5, Bytes::new()).is_empty());
    }

    #[test]
    fn a_session_that_its_token_closes_executes_nothing_any_more() {
        let mut sessions = Sessions::default();
        let session = SessionId(1 << 16);
        let mut batch = BytesMut::new();
        entry(&mut batch, 0, 8, &[]);
        entry(&mut batch, session.0, 1, &[b"a"]);
        Request::close(session, 7).put(&mut batch);
        entry(&mut batch, session.0, 2, &[b"b"]);
        Request::close(session, 8).put(&mut batch);
        entry(&mut batch, session.0, 3, &[b"c"]);
        assert_eq!(executed(&mut sessions, 1, batch.freeze()), [b"a", b"b"]);
        assert!(sessions.agree_with(&LastCommands::new()));
    }

    #[test]
    fn a_table_with_another_number_or_session_disagrees() {
        let table = |last: &[(u64, u64)]| last.iter().copied().collect::<LastCommands>();
        let sessions = Sessions::restored(table(&[(1, 5), (2, 0)]));
        assert!(sessions.agree_with(&table(&[(2, 0), (1, 5)])));
        for other in [&[(1, 5)][..], &[(1, 5), (2, 1)], &[(1, 5), (3, 0)]] {
            assert!(!sessions.agree_with(&table(other)), "{other:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_batch_executes_nothing_at_all() {
        let mut sessions = Sessions::default();
        let mut batch = BytesMut::new();
        entry(&mut batch, 0, 8, &[]);
        entry(&mut batch, 1 << 16, 1, &[b"a"]);
        let whole = batch.freeze();
        for length in 1..whole.len() {
            let cut = whole.slice(..length);
            let mut executed = 0;
            let is_batch = sessions.apply(Slot(1), &cut, &mut |_, _, _| executed += 1);
            // Cut between its entries it is a shorter batch.
            assert_eq!(is_batch, length == 32, "{length}");
            assert_eq!(executed, 0);
        }
        assert!(sessions.apply(Slot(1), &whole, &mut |_, _, _| ()));
    }
}
