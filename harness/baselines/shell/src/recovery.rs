//! From the records of a WAL back to a log and a state.
//!
//! An entry of a baseline's log is a record `Accepted` of Synod's WAL: its slot is the entry's index, its ballot the
//! entry's term, its commit index what was known to be committed before it. The newest record of a slot counts, and an
//! entry that is written over takes everything above it along, as logs of this kind demand. A term and a vote are a
//! record `Promised`.

use synod_engine::ids::{Ballot, Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::StateMachine;
use synod_engine::state::State;

use crate::log::Log;

/// What a protocol finds on its disk.
#[derive(Debug, Default)]
pub struct Recovered {
    pub log: Log,
    /// The last [`Record::Promised`].
    pub promised: Ballot,
    /// Everything up to here is committed, and applied already.
    pub commit_index: Slot,
    /// The last record: all of them are durable.
    pub last: Lsn,
}

/// Takes records in order and applies what they prove to be committed, in bounded memory.
pub struct Recovery<M> {
    recovered: Recovered,
    state: State<M>,
    cache_bytes_max: usize,
}

impl<M: StateMachine> Recovery<M> {
    pub fn new(machine: M, cache_bytes_max: usize) -> Recovery<M> {
        Recovery {
            recovered: Recovered::default(),
            state: State::new(machine),
            cache_bytes_max,
        }
    }

    pub fn visit(&mut self, lsn: Lsn, record: Record) {
        let last = std::mem::replace(&mut self.recovered.last, lsn);
        assert!(lsn == last.next(), "{lsn:?} came after {last:?}");
        match record {
            Record::Promised { ballot } => self.recovered.promised = ballot,
            Record::Accepted(accept) => {
                let log = &mut self.recovered.log;
                assert!(
                    accept.slot <= log.last().next(),
                    "slot {} was written after {}",
                    accept.slot,
                    log.last()
                );
                log.truncate(accept.slot.previous());
                log.push(accept.ballot, lsn, accept.value);
                self.commit(accept.commit_index);
            }
            Record::Chosen { slot, .. } => unreachable!("no baseline writes {slot} as chosen"),
            Record::Trimmed { floor } => unreachable!("no baseline trims, but to {floor}"),
        }
    }

    pub fn finish(self) -> (Recovered, State<M>) {
        (self.recovered, self.state)
    }

    fn commit(&mut self, commit_index: Slot) {
        let Recovered {
            log,
            commit_index: known,
            last,
            ..
        } = &mut self.recovered;
        assert!(
            commit_index <= log.last(),
            "committed to {commit_index}, written to {}",
            log.last()
        );
        *known = commit_index.max(*known);
        while self.state.applied() < *known {
            let slot = self.state.applied().next();
            let value = log.value(slot).expect("only what is applied leaves memory");
            self.state.apply(slot, value.clone(), |_, _| {});
        }
        log.evict(*known, *last, self.cache_bytes_max);
    }
}
