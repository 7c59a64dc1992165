//! What a client asks of the loop besides commands: to open a session, to attach to one, to close it; and what becomes of one
//! that sends what is no message.

use super::{CLIENT_MALFORMED_MAX, Driver, OPEN_RETRY_US};
use crate::client::{Reason, Request};
use crate::ids::{ClientId, CommandNumber, SessionId, Time};
use crate::intake::{Attaching, Closing, Opening};
use crate::seams::{Network, SnapshotStore, StateMachine, Wal};

impl<W: Wal, N: Network, M: StateMachine, S: SnapshotStore> Driver<W, N, M, S> {
    pub(super) fn is_expelled(&self, client: ClientId) -> bool {
        // Nobody sends malformed frames, so that the common case costs one comparison.
        !self.malformed.is_empty() && self.malformed.get(&client) >= Some(&CLIENT_MALFORMED_MAX)
    }

    pub(super) fn note_malformed(&mut self, client: ClientId) {
        self.counters.frames_malformed += 1;
        let count = self.malformed.entry(client).or_insert(0);
        *count += 1;
        if *count == CLIENT_MALFORMED_MAX {
            self.counters.clients_expelled += 1;
            self.network.expel(client);
        }
    }

    pub(super) fn open(&mut self, now: Time, client: ClientId, token: u64) {
        let owner = self.door.owner(client);
        let request = Request::open(token, owner);
        if !self.serves() {
            self.door.counters.refused_not_leader += 1;
            self.refuse(client, SessionId::NONE, request.first, Reason::NotLeader);
            return;
        }
        let opening = if self.replica.has_room_for(&request) {
            self.door.opening(token, client)
        } else {
            Opening::Refused
        };
        match opening {
            Opening::New => {
                for session in self.door.to_touch(owner, &self.state.sessions) {
                    self.admit(now, Request::touch(session));
                }
                self.admit(now, request);
            }
            Opening::UnderWay => {}
            Opening::Refused => {
                self.refuse_busy(client, SessionId::NONE, request.first);
            }
        }
    }

    pub(super) fn attach(&mut self, client: ClientId, session: SessionId, token: u64) {
        let (sessions, applied) = (&self.state.sessions, self.state.applied());
        let attaching = self.door.attach(client, session, token, sessions, applied);
        if let Attaching::Refused(reason) = attaching {
            self.refuse(client, session, CommandNumber(0), reason);
        }
    }

    pub(super) fn close(&mut self, now: Time, client: ClientId, session: SessionId) {
        let none = CommandNumber(u64::MAX);
        if !self.serves() {
            self.door.counters.refused_not_leader += 1;
            return self.refuse(client, session, none, Reason::NotLeader);
        }
        if !self.replica.has_room_for(&Request::close(session, 0)) {
            return self.refuse_busy(client, session, none);
        }
        match self.door.close(client, session, &self.state.sessions) {
            Closing::New(token) => self.admit(now, Request::close(session, token)),
            Closing::UnderWay => {}
            Closing::Refused(reason) => self.refuse(client, session, none, reason),
        }
    }

    pub(super) fn refuse_busy(
        &mut self,
        client: ClientId,
        session: SessionId,
        expected: CommandNumber,
    ) {
        self.door.counters.refused_busy += 1;
        let reason = Reason::Busy {
            retry_after_us: OPEN_RETRY_US,
        };
        self.refuse(client, session, expected, reason);
    }
}
