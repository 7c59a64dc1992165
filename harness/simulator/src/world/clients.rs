//! The way between clients and replicas, and what hostile clients do with it.

use bytes::Bytes;

use synod_engine::client::{ClientMessage, ServerMessage};
use synod_engine::codec::FRAME_PREFIX_BYTES;
use synod_engine::ids::{ClientId, CommandNumber, Owner, ReplicaId};
use synod_engine::seams::Arrival;

use crate::checker::{LINEARIZABLE, Violation};
use crate::client::Client;
use crate::faults::Fault;
use crate::random::Random;
use crate::seams::Seams;
use crate::swarm::ClientPlan;

use super::event::{Event, Mending};
use super::{World, stream};

const MS: u64 = 1_000_000;

/// Client frames that arrive twice, or out of order, of a thousand.
const CLIENT_DUPLICATES: u64 = 100;
const CLIENT_REORDERS: u64 = 100;

/// Sessions that one burst of a crowd opens.
const CROWD_OPENS: u64 = 250;

/// Sessions that floods open, over the whole simulation: together with the clients' own they stay below
/// `SESSIONS_MAX`, so that only crowds evict live sessions.
const OPENS_FLOODED_MAX: u64 = 3_000;

/// One connection of a client to one replica. Never used again once closed.
pub struct Connection {
    /// `None` for connections of hostile clients, which listen to nothing.
    client: Option<usize>,
    replica: ReplicaId,
    open: bool,
    /// When the last frame arrives, each way.
    last_to_client: u64,
    last_to_replica: u64,
}

impl<S: Seams> World<S> {
    pub fn add_client(&mut self, plan: ClientPlan) {
        let index = self.clients.len();
        let random = Random::new(self.plan.seed, stream::CLIENT + index as u64);
        let replicas = self.plan.replicas;
        self.clients
            .push(Client::new(index, plan, replicas, random));
        for replica in self.replicas() {
            if self.alive(replica) {
                self.schedule(
                    self.now,
                    Event::Connect {
                        client: index,
                        replica,
                    },
                );
            }
        }
    }

    fn new_connection(&mut self, client: Option<usize>, replica: ReplicaId) -> ClientId {
        self.connections.push(Connection {
            client,
            replica,
            open: true,
            last_to_client: 0,
            last_to_replica: 0,
        });
        ClientId(self.connections.len() as u64)
    }

    fn connection_mut(&mut self, connection: ClientId) -> &mut Connection {
        &mut self.connections[connection.0 as usize - 1]
    }

    pub(super) fn connect(&mut self, client: usize, replica: ReplicaId) {
        if !self.alive(replica) || self.clients[client].connection(replica).is_some() {
            return;
        }
        let connection = self.new_connection(Some(client), replica);
        self.clients[client].connected(self.now, replica, connection);
        let announcement = self.member(replica).running.as_ref();
        if let Some(frame) = announcement.and_then(|running| running.announcement.clone()) {
            self.send_to_client(connection, frame);
        }
        self.client_acts(client);
    }

    /// Clients find a replica that started, each in its own time.
    pub(super) fn connect_all(&mut self, replica: ReplicaId) {
        for client in 0..self.clients.len() {
            let pause = self.client_links.below(50 * MS);
            self.schedule(self.now + pause, Event::Connect { client, replica });
        }
    }

    pub(super) fn disconnect_all(&mut self, replica: ReplicaId) {
        for client in 0..self.clients.len() {
            self.disconnect(client, replica);
        }
    }

    fn disconnect(&mut self, client: usize, replica: ReplicaId) {
        let Some(connection) = self.clients[client].disconnected(replica) else {
            return;
        };
        self.connection_mut(connection).open = false;
        if self.alive(replica) {
            let arrival = Arrival::ClientGone { client: connection };
            let life = self.member(replica).life;
            let at = self.now + self.plan.client_delay_ns;
            self.schedule(
                at,
                Event::Deliver {
                    to: replica,
                    life,
                    arrival,
                },
            );
        }
    }

    pub(super) fn client_due(&mut self, index: usize) {
        if self.clients[index].tick_at == Some(self.now) {
            self.clients[index].tick_at = None;
            self.client_acts(index);
        }
    }

    /// Lets a client do what is due, and wakes it when something is due again.
    pub(super) fn client_acts(&mut self, index: usize) {
        let mut frames = Vec::new();
        self.clients[index].act(self.now, |to, frame| frames.push((to, frame)));
        for (to, frame) in frames {
            if let Some(connection) = self.clients[index].connection(to) {
                self.send_to_replica(connection, frame);
            }
        }
        let due = self.clients[index].due(self.now);
        let pending = self.clients[index].tick_at;
        if due < u64::MAX && pending.is_none_or(|pending| due < pending) {
            self.clients[index].tick_at = Some(due);
            self.schedule(due, Event::Client { index });
        }
    }

    pub(super) fn send_to_replica(&mut self, connection: ClientId, frame: Bytes) {
        let faults = self.plan.faults;
        let on = |fault| !self.healed && faults.contains(fault);
        let (duplicates, reorders) = (on(Fault::ClientDuplicate), on(Fault::ClientReorder));
        let delay = self.plan.client_delay_ns;
        let mut at = self.now + delay + self.client_links.exponential(delay / 4);
        let known = &mut self.connections[connection.0 as usize - 1];
        let to = known.replica;
        if reorders && self.client_links.permille(CLIENT_REORDERS) {
            at += self.client_links.below(20 * delay + MS);
            self.strikes.note(Fault::ClientReorder);
            return self.send_late(connection, at, frame);
        }
        at = at.max(known.last_to_replica + 1);
        known.last_to_replica = at;
        if duplicates && self.client_links.permille(CLIENT_DUPLICATES) {
            self.strikes.note(Fault::ClientDuplicate);
            let again = at + self.client_links.below(100 * MS);
            self.send_late(connection, again, frame.clone());
        }
        let life = self.member(to).life;
        let arrival = Arrival::Client {
            client: connection,
            frame,
        };
        self.schedule(at, Event::Deliver { to, life, arrival });
    }

    /// A frame that comes late comes over a former connection of its client: streams keep their order. Nobody hears
    /// what it is answered, and the connection goes soon after.
    fn send_late(&mut self, over: ClientId, at: u64, frame: Bytes) {
        let known = self.connection_mut(over);
        let (to, sender) = (known.replica, known.client);
        let client = self.new_connection(None, to);
        let life = self.member(to).life;
        // What opened that connection comes late as well, and takes the session away from the present one.
        let attach = sender.and_then(|index| self.clients[index].attach());
        if let Some(frame) = attach {
            let arrival = Arrival::Client { client, frame };
            self.schedule(at, Event::Deliver { to, life, arrival });
        }
        let arrival = Arrival::Client { client, frame };
        self.schedule(at, Event::Deliver { to, life, arrival });
        let arrival = Arrival::ClientGone { client };
        self.schedule(at + 100 * MS, Event::Deliver { to, life, arrival });
    }

    fn send_to_client(&mut self, connection: ClientId, frame: Bytes) {
        let delay = self.plan.client_delay_ns;
        let at = self.now + delay + self.client_links.exponential(delay / 4);
        let known = self.connection_mut(connection);
        let at = at.max(known.last_to_client + 1);
        known.last_to_client = at;
        self.schedule(at, Event::ToClient { connection, frame });
    }

    pub(super) fn hand_to_client(&mut self, connection: ClientId, frame: Bytes) {
        let known = self.connection_mut(connection);
        let (from, open) = (known.replica, known.open);
        let Some(index) = known.client.filter(|_| open) else {
            return;
        };
        let message = ServerMessage::decode(frame).expect("replicas send well-formed frames");
        self.trace_answer(from, index, &message);
        let client = &mut self.clients[index];
        match client.on_message(self.now, from, message, &self.agreement, &self.model) {
            Ok(checked) => self.operations += checked,
            Err(violation) => self.violate(Err(violation)),
        }
        self.client_acts(index);
    }

    /// A replica answers a client: whatever it says of a command must be what the agreed log says.
    pub(super) fn reply(&mut self, from: ReplicaId, client: ClientId, frame: Bytes) {
        let message =
            ServerMessage::decode(frame.clone()).expect("replicas send well-formed frames");
        match &message {
            ServerMessage::Replies(replies) => {
                let checked = self.model.check_replies(from, replies);
                self.violate(checked);
            }
            ServerMessage::Refused(refused) => {
                let busy = matches!(refused.reason, synod_engine::client::Reason::Busy { .. });
                if busy && self.plan.faults.contains(Fault::Overload) {
                    self.strikes.note(Fault::Overload);
                }
            }
            ServerMessage::Gone {
                session,
                first,
                end,
            } => {
                let missing = (first.0..end.0).find(|number| {
                    self.model
                        .lookup(*session, CommandNumber(*number))
                        .is_none()
                });
                if let Some(number) = missing {
                    let what = format!("{from} says that #{number} of {session:?} was executed");
                    self.violate(Err(Violation::new(LINEARIZABLE, what)));
                }
            }
            ServerMessage::Closed { session } if !self.model.closed(*session) => {
                let what = format!("{from} says that {session:?} is closed, and it is not");
                self.violate(Err(Violation::new(LINEARIZABLE, what)));
            }
            // One turn answers a client once, however often it asks.
            ServerMessage::StatusReply(_) if !self.told_status.insert(client) => {
                let what = format!("{from} tells {client:?} its status twice in one turn");
                self.violate(Err(Violation::new(LINEARIZABLE, what)));
            }
            ServerMessage::Closed { .. }
            | ServerMessage::Opened { .. }
            | ServerMessage::Leader { .. }
            | ServerMessage::StatusReply(_) => {}
        }
        if self.connection_mut(client).open {
            self.send_to_client(client, frame);
        }
    }

    /// A replica disconnects a client that breaks the protocol: only hostile ones do.
    pub(super) fn expel(&mut self, from: ReplicaId, client: ClientId) {
        let known = self.connection_mut(client);
        known.open = false;
        if let Some(index) = known.client {
            let what = format!("{from} expels client {index}, which broke no rule");
            return self.violate(Err(Violation::new(LINEARIZABLE, what)));
        }
        let life = self.member(from).life;
        let arrival = Arrival::ClientGone { client };
        let event = Event::Deliver {
            to: from,
            life,
            arrival,
        };
        self.schedule(self.now + MS, event);
    }

    pub(super) fn announce(&mut self, from: ReplicaId, frame: Bytes) {
        if let Some(running) = &mut self.member_mut(from).running {
            running.announcement = Some(frame.clone());
        }
        for index in 0..self.clients.len() {
            if let Some(connection) = self.clients[index].connection(from) {
                self.send_to_client(connection, frame.clone());
            }
        }
    }

    pub(super) fn strike_clients(&mut self, fault: Fault) {
        if self.clients.is_empty() {
            return;
        }
        let random = &mut self.faults[fault as usize];
        let index = random.below(self.clients.len() as u64) as usize;
        match fault {
            Fault::AbandonedSession => {
                self.strikes.note(fault);
                self.trace_line(format_args!("client {index} abandons its session"));
                self.clients[index].abandon(self.now);
                self.client_acts(index);
            }
            Fault::ClientDisconnect => self.disconnect_client(index),
            Fault::SharedSession => self.share_session(index),
            Fault::StatusFlood => self.flood_status(),
            Fault::Visitors => {
                if self.clients[index].leave(self.now) {
                    self.strikes.note(fault);
                    self.trace_line(format_args!("client {index} closes its session"));
                    self.client_acts(index);
                }
            }
            _ => self.flood(),
        }
    }

    fn disconnect_client(&mut self, index: usize) {
        self.strikes.note(Fault::ClientDisconnect);
        self.trace_line(format_args!("client {index} loses its connections"));
        for replica in self.replicas() {
            let random = &mut self.faults[Fault::ClientDisconnect as usize];
            let (lost, pause) = (random.permille(700), random.below(2_000 * MS));
            if lost {
                self.disconnect(index, replica);
                let event = Event::Connect {
                    client: index,
                    replica,
                };
                self.schedule(self.now + pause, event);
            }
        }
    }

    /// Somebody sends in the session of another one without knowing its token: a request of that one again, or other
    /// commands under the same numbers. It must change nothing for that one.
    fn share_session(&mut self, index: usize) {
        let random = &mut self.faults[Fault::SharedSession as usize];
        let forges = random.permille(500);
        let any = ReplicaId(1 + random.below(u64::from(self.plan.replicas)) as u8);
        let to = self.clients[index].leader().unwrap_or(any);
        let client = &mut self.clients[index];
        let frame = if forges {
            client.forged_request()
        } else {
            client.last_request()
        };
        if let Some(frame) = frame.filter(|_| self.alive(to)) {
            self.strikes.note(Fault::SharedSession);
            self.trace_line(format_args!(
                "somebody sends in the session of client {index}"
            ));
            let connection = self.new_connection(None, to);
            self.send_to_replica(connection, frame);
        }
    }

    /// More sessions are opened than there may be, in bursts that the door can take.
    pub(super) fn crowd(&mut self, left: u64) {
        let pause = self.faults[Fault::Eviction as usize].between(50, 400) * MS;
        let mending = Mending::Crowd { left: left - 1 };
        self.schedule(self.now + pause, Event::Mend { mending });
        let token = self.faults[Fault::Eviction as usize].draw();
        if let Some(to) = self.serving() {
            self.open_sessions(to, token, CROWD_OPENS);
        }
    }

    fn open_sessions(&mut self, to: ReplicaId, token: u64, opens: u64) -> ClientId {
        let connection = self.new_connection(None, to);
        // Half of the crowds have the certificate of the others, and the rest one of three.
        if token.is_multiple_of(2) {
            let owner = Owner(1 + token / 2 % 3);
            let life = self.member(to).life;
            let arrival = Arrival::ClientNamed {
                client: connection,
                owner,
            };
            self.schedule(self.now, Event::Deliver { to, life, arrival });
        }
        for i in 0..opens {
            let open = ClientMessage::Open {
                token: token.wrapping_add(i),
            };
            self.send_to_replica(connection, open.encode().slice(FRAME_PREFIX_BYTES..));
        }
        connection
    }

    /// One connection asks for the status a thousand times, within a few turns.
    fn flood_status(&mut self) {
        let random = &mut self.faults[Fault::StatusFlood as usize];
        let (questions, replica) = (random.between(100, 1_000), random.draw());
        let to = ReplicaId(1 + (replica % u64::from(self.plan.replicas)) as u8);
        if !self.alive(to) {
            return;
        }
        self.strikes.note(Fault::StatusFlood);
        self.trace_line(format_args!("{questions} questions for the status of {to}"));
        let connection = self.new_connection(None, to);
        let frame = ClientMessage::Status.encode().slice(FRAME_PREFIX_BYTES..);
        for _ in 0..questions {
            self.send_to_replica(connection, frame.clone());
        }
    }

    /// Hundreds of sessions are opened at once, and bytes come that are no frames.
    fn flood(&mut self) {
        let random = &mut self.faults[Fault::Overload as usize];
        let opens = random.between(50, 400);
        let token = random.draw();
        let any = ReplicaId(1 + random.below(u64::from(self.plan.replicas)) as u8);
        let to = self.serving().unwrap_or(any);
        if !self.alive(to) || self.opens_flooded + opens > OPENS_FLOODED_MAX {
            return;
        }
        self.opens_flooded += opens;
        self.strikes.note(Fault::Overload);
        self.trace_line(format_args!("{opens} sessions are to be opened at {to}"));
        let connection = self.open_sessions(to, token, opens);
        let garbage = Bytes::copy_from_slice(&token.to_le_bytes());
        self.send_to_replica(connection, garbage);
    }
}
