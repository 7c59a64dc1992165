//! A simulated client: one session, a window of commands, retries under the same numbers.

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::client::{ClientMessage, Reason, Request, ServerMessage};
use synod_engine::ids::{Ballot, ClientId, CommandNumber, ReplicaId, SessionId};

use super::random::Random;

const RETRY_NS: u64 = 400_000_000;

#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    session: Option<SessionId>,
    leader: (Ballot, ReplicaId),
    /// Numbers from 1; everything below `acknowledged` was answered, everything below `sent` was sent.
    pub acknowledged: u64,
    sent: u64,
    pub total: u64,
    window: u64,
    retry_at: u64,
}

impl Client {
    pub fn new(id: u64, total: u64, window: u64) -> Client {
        Client {
            id: ClientId(id),
            session: None,
            leader: (Ballot::ZERO, ReplicaId(1)),
            acknowledged: 1,
            sent: 1,
            total,
            window,
            retry_at: 0,
        }
    }

    pub fn done(&self) -> bool {
        self.acknowledged > self.total
    }

    pub fn leader(&self) -> ReplicaId {
        self.leader.1
    }

    pub fn command(&self, number: u64) -> Vec<u8> {
        let mut command = self.id.0.to_le_bytes().to_vec();
        command.extend_from_slice(&number.to_le_bytes());
        command
    }

    pub fn on_message(&mut self, frame: Bytes) {
        match ServerMessage::decode(frame).expect("replicas send well-formed frames") {
            ServerMessage::Opened { token, session } if token == self.id.0 => {
                self.session.get_or_insert(session);
            }
            ServerMessage::Replies(replies) if Some(replies.session) == self.session => {
                for (number, reply) in (replies.first.0..).zip(replies.iter()) {
                    assert_eq!(reply, self.command(number), "the reply of another command");
                    if number == self.acknowledged {
                        self.acknowledged += 1;
                    }
                }
            }
            ServerMessage::Refused(refused) if Some(refused.session) == self.session => {
                assert_ne!(
                    refused.reason,
                    Reason::UnknownSession,
                    "a live session was lost"
                );
                if refused.expected.0 >= self.acknowledged && refused.reason == Reason::Gap {
                    self.sent = self.sent.min(refused.expected.0);
                }
            }
            ServerMessage::Leader {
                ballot,
                leader: Some(leader),
            } if (ballot, leader) > self.leader => {
                self.leader = (ballot, leader);
                self.sent = self.acknowledged;
                self.retry_at = 0;
            }
            _ => {}
        }
    }

    /// What to send now, to the supposed leader or, after a silence, to anyone.
    pub fn poll(
        &mut self,
        now: u64,
        replicas: u8,
        random: &mut Random,
    ) -> Option<(ReplicaId, Bytes)> {
        if self.done() {
            return None;
        }
        let retry = now >= self.retry_at;
        if retry {
            self.sent = self.acknowledged;
        }
        let to = if retry && random.below(2) == 0 {
            ReplicaId(1 + random.below(u64::from(replicas)) as u8)
        } else {
            self.leader.1
        };
        let Some(session) = self.session else {
            if !retry {
                return None;
            }
            self.retry_at = now + RETRY_NS;
            return Some((
                to,
                ClientMessage::Open { token: self.id.0 }.encode().slice(4..),
            ));
        };
        let end = (self.acknowledged + self.window).min(self.total + 1);
        if self.sent >= end {
            return None;
        }
        let end = end.min(self.sent + 1 + random.below(self.window));
        let request = self.request(session, self.sent, end);
        self.sent = end;
        self.retry_at = now + RETRY_NS;
        Some((to, ClientMessage::Request(request).encode().slice(4..)))
    }

    fn request(&self, session: SessionId, first: u64, end: u64) -> Request {
        let mut commands = BytesMut::new();
        for number in first..end {
            let command = self.command(number);
            commands.put_u32_le(command.len() as u32);
            commands.put_slice(&command);
        }
        Request {
            session,
            first: CommandNumber(first),
            acknowledged: CommandNumber(self.acknowledged),
            count: (end - first) as u32,
            commands: commands.freeze(),
        }
    }
}
