//! Who asked for this replica's counters. A question is a few bytes and its answer takes a hundred values to build, so
//! that nobody may ask as often as frames come in: each client waits with one question at most, and all that wait are
//! answered with one reply, built once in a while.

use std::collections::BTreeSet;

use crate::ids::{ClientId, Time};

/// A reply is built this often at most.
pub const BUILD_EVERY_NS: u64 = 10_000_000;
/// Clients answered in one turn; the others wait for the next reply.
pub const ANSWERS_PER_TURN_MAX: usize = 256;

#[derive(Clone, Debug, Default)]
pub struct StatusDesk {
    waiting: BTreeSet<ClientId>,
    next_at: Time,
    /// Replies that were built.
    pub built: u64,
    /// Questions of clients whose last one was not answered yet.
    pub coalesced: u64,
}

impl StatusDesk {
    pub fn ask(&mut self, client: ClientId) {
        if !self.waiting.insert(client) {
            self.coalesced += 1;
        }
    }

    pub fn client_gone(&mut self, client: ClientId) {
        self.waiting.remove(&client);
    }

    /// When the next reply is due, if anybody waits for one.
    pub fn deadline(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// Whom to answer now with one reply, which is to be built for them.
    pub fn take(&mut self, now: Time) -> Vec<ClientId> {
        if self.waiting.is_empty() || now < self.next_at {
            return Vec::new();
        }
        self.next_at = now.plus(BUILD_EVERY_NS);
        self.built += 1;
        let mut taken = Vec::new();
        while taken.len() < ANSWERS_PER_TURN_MAX
            && let Some(client) = self.waiting.pop_first()
        {
            taken.push(client);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_question_is_answered_at_once_and_a_flood_of_them_once_in_a_while() {
        let mut desk = StatusDesk::default();
        assert_eq!(desk.deadline(), None);
        for _ in 0..1_000 {
            desk.ask(ClientId(1));
        }
        assert_eq!(desk.take(Time(5)), [ClientId(1)]);
        desk.ask(ClientId(2));
        desk.ask(ClientId(1));
        let due = Time(5).plus(BUILD_EVERY_NS);
        assert_eq!(desk.take(Time(due.0 - 1)), []);
        assert_eq!(desk.deadline(), Some(due));
        assert_eq!(desk.take(due), [ClientId(1), ClientId(2)]);
        assert_eq!((desk.built, desk.coalesced), (2, 999));
    }

    #[test]
    fn so_many_are_answered_in_one_turn_and_who_left_is_not() {
        let mut desk = StatusDesk::default();
        for client in 0..=ANSWERS_PER_TURN_MAX as u64 + 1 {
            desk.ask(ClientId(client));
        }
        desk.client_gone(ClientId(0));
        assert_eq!(desk.take(Time(0)).len(), ANSWERS_PER_TURN_MAX);
        let last = ClientId(ANSWERS_PER_TURN_MAX as u64 + 1);
        assert_eq!(desk.take(Time(BUILD_EVERY_NS)), [last]);
        assert_eq!(desk.deadline(), None);
    }
}
