//! The client side of a replica: cuts requests from client streams, and queues replies to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quinn::Connection;
use synod_engine::client::{ClientMessage, Reason, Refused, ServerMessage};
use synod_engine::ids::{ClientId, CommandNumber, Owner, SessionId};

use crate::close::CloseCode;
use crate::counters::Counters;
use crate::endpoint::{self, CLIENT_WINDOW_BYTES_MAX, CLIENT_WINDOW_BYTES_MIN};
use crate::handshake::ClientConnection;
use crate::holder::ClientIdentity;
use crate::inbox::{ClientShare, InboxShared};
use crate::limits::Limits;
use crate::notices::Notices;
use crate::outqueue::{OutQueue, Pushed};
use crate::reader::{FrameReader, ReadFailed};
use crate::total::Total;

pub struct Gateway {
    state: Mutex<State>,
    inbox: Arc<InboxShared>,
    counters: Arc<Counters>,
    limits: Limits,
    notices: Notices,
    /// Replies that wait, of all clients.
    queued: Total,
    /// Requests that did not arrive in full.
    unfinished: Total,
}

#[derive(Default)]
struct State {
    clients: HashMap<ClientId, Arc<ClientLink>>,
    /// What every client, also a later one, has to know.
    announcement: Option<Bytes>,
    last_id: u64,
    /// Bytes of QUIC windows that clients have, in each direction.
    granted_bytes: usize,
}

struct ClientLink {
    /// Whom its certificate speaks for.
    identity: ClientIdentity,
    connection: Connection,
    queue: Arc<OutQueue>,
    granted_bytes: usize,
}

impl State {
    /// What waits for it is given up, and its windows are there for others.
    fn remove(&mut self, id: ClientId) {
        if let Some(link) = self.clients.remove(&id) {
            link.queue.close();
            self.granted_bytes -= link.granted_bytes;
        }
    }
}

impl Gateway {
    pub fn new(inbox: Arc<InboxShared>, counters: Arc<Counters>, limits: Limits) -> Gateway {
        Gateway {
            state: Mutex::default(),
            inbox,
            counters,
            limits,
            notices: Notices::default(),
            queued: Total::default(),
            unfinished: Total::default(),
        }
    }

    /// Queues a frame for one client. Returns the queue if it is the first there since its last flush.
    pub fn reply(&self, client: ClientId, frame: &Bytes) -> Option<Arc<OutQueue>> {
        let mut state = self.lock();
        let link = state.clients.get(&client)?;
        match self.push(link, frame) {
            Ok(queue) => {
                self.relieve(&mut state);
                queue
            }
            Err(()) => {
                state.remove(client);
                None
            }
        }
    }

    /// Queues a frame for every client and keeps it for later ones. Returns the queues to flush.
    pub fn announce(&self, frame: Bytes) -> Vec<Arc<OutQueue>> {
        let mut state = self.lock();
        let (mut queues, mut slow) = (Vec::new(), Vec::new());
        for (id, link) in &state.clients {
            match self.push(link, &frame) {
                Ok(queue) => queues.extend(queue),
                Err(()) => slow.push(*id),
            }
        }
        for id in slow {
            state.remove(id);
        }
        self.relieve(&mut state);
        state.announcement = Some(frame);
        queues
    }

    /// Whether one more client would be turned away.
    pub fn is_full(&self) -> bool {
        self.clients() >= self.limits.clients_max
    }

    /// Disconnects a client whose frames are no messages.
    pub fn expel(&self, client: ClientId) {
        let mut state = self.lock();
        if let Some(link) = state.clients.get(&client) {
            self.violation(&link.connection, "its frames are no messages");
        }
        state.remove(client);
    }

    pub fn clients(&self) -> usize {
        self.lock().clients.len()
    }

    pub fn connections(&self) -> Vec<Connection> {
        let state = self.lock();
        let links = state.clients.values();
        links.map(|link| link.connection.clone()).collect()
    }

    /// Serves one client until its connection ends.
    pub async fn serve(&self, client: ClientConnection, identity: ClientIdentity) {
        let connection = client.connection;
        let owner = identity.name().map(Owner::named);
        let Some((id, queue)) = self.register(connection.clone(), identity) else {
            self.counters.gateway_over_limit_clients.add(1);
            let reason = format!(
                "this replica serves {} clients already, its limit (clients_max)",
                self.limits.clients_max
            );
            return CloseCode::ClientsMax.close(&connection, &reason);
        };
        self.counters.gateway_accepted.add(1);
        if let Some(owner) = owner {
            self.inbox.push_client_named(id, owner);
        }
        let mut send = client.send;
        tokio::select! {
            _ = queue.write_to(&mut send, |_| ()) => {}
            () = self.read(ClientShare::new(id), &queue, client.receive, &connection) => {}
            _ = connection.closed() => {}
        }
        self.lock().remove(id);
        queue.close();
        // The client may end its stream and keep the connection; it is of no use any more.
        CloseCode::Shutdown.close(&connection, "the client's stream ended");
        self.inbox.push_client_gone(id);
    }

    /// `Err` if the client is too slow: replies must not be skipped silently, so it is disconnected instead.
    fn push(&self, link: &ClientLink, frame: &Bytes) -> Result<Option<Arc<OutQueue>>, ()> {
        match link.queue.push(frame, &Bytes::new()) {
            pushed @ (Pushed::First | Pushed::Queued) => {
                self.counters.client_sent.add(1, frame.len() as u64);
                Ok((pushed == Pushed::First).then(|| Arc::clone(&link.queue)))
            }
            Pushed::Full => {
                self.too_slow(link, "this client", self.limits.client_queue_bytes_max);
                Err(())
            }
            Pushed::Closed => Err(()),
        }
    }

    /// While more waits than all clients may let wait, the one for whom most does is disconnected.
    fn relieve(&self, state: &mut State) {
        while self.queued.bytes() > self.limits.clients_queue_bytes_max {
            let each = state.clients.iter();
            let longest = each.max_by_key(|(_, link)| link.queue.bytes());
            let Some((id, link)) = longest.map(|(id, link)| (*id, Arc::clone(link))) else {
                return;
            };
            let bytes_max = self.limits.clients_queue_bytes_max;
            self.too_slow(
                &link,
                "all clients, and most of them for this one",
                bytes_max,
            );
            state.remove(id);
        }
    }

    fn too_slow(&self, link: &ClientLink, whom: &str, bytes_max: usize) {
        self.counters.gateway_slow_clients.add(1);
        let reason = format!(
            "more than {bytes_max} bytes of replies wait for {whom}: it has to read faster"
        );
        self.notices.warn(format!(
            "{} at {} is disconnected: {reason}",
            link.identity,
            link.connection.remote_address()
        ));
        CloseCode::SlowClient.close(&link.connection, &reason);
    }

    fn register(
        &self,
        connection: Connection,
        identity: ClientIdentity,
    ) -> Option<(ClientId, Arc<OutQueue>)> {
        let mut state = self.lock();
        if state.clients.len() >= self.limits.clients_max {
            return None;
        }
        state.last_id += 1;
        let id = ClientId(state.last_id);
        let bytes_max = self.limits.client_queue_bytes_max;
        let queue = Arc::new(OutQueue::counted(bytes_max, self.queued.clone()));
        if let Some(frame) = &state.announcement {
            queue.push(frame, &Bytes::new());
            queue.flush();
        }
        let granted_bytes = self.share_of_windows(&state);
        endpoint::open_to_client(&connection, granted_bytes);
        state.granted_bytes += granted_bytes;
        let link = ClientLink {
            identity,
            connection,
            queue: Arc::clone(&queue),
            granted_bytes,
        };
        state.clients.insert(id, Arc::new(link));
        Some((id, queue))
    }

    /// What one more client may have on its way: a part of what is left once everybody who may still come has the least.
    fn share_of_windows(&self, state: &State) -> usize {
        let to_come = self.limits.clients_max - state.clients.len();
        let left = self.limits.clients_window_bytes() - state.granted_bytes;
        let spare = left.saturating_sub(to_come * CLIENT_WINDOW_BYTES_MIN);
        (CLIENT_WINDOW_BYTES_MIN + spare / 8).min(CLIENT_WINDOW_BYTES_MAX)
    }

    async fn read(
        &self,
        mut share: ClientShare,
        queue: &OutQueue,
        mut reader: FrameReader,
        connection: &Connection,
    ) {
        let bytes_max = self.limits.clients_unfinished_bytes_max;
        reader.share(self.unfinished.clone(), bytes_max);
        let mut frames = Vec::new();
        loop {
            match reader.many(&mut frames).await {
                Ok(()) => {}
                Err(ReadFailed::Frame(error)) => {
                    return self.violation(connection, &error.to_string());
                }
                Err(ReadFailed::Finished | ReadFailed::Stream(_)) => return,
            }
            let bytes: usize = frames.iter().map(Bytes::len).sum();
            self.counters
                .client_received
                .add(frames.len() as u64, bytes as u64);
            self.inbox.offer_client(&mut share, &mut frames);
            for frame in frames.drain(..) {
                if let Err(reason) = self.refuse(queue, frame) {
                    return self.violation(connection, &reason);
                }
            }
        }
    }

    /// Answers Busy at the door: under overload a refusal has to be cheaper than the work it refuses.
    fn refuse(&self, queue: &OutQueue, frame: Bytes) -> Result<(), String> {
        self.counters.inbox_refused.add(1);
        let (session, expected) = match ClientMessage::decode(frame) {
            Ok(ClientMessage::Request(request)) => (request.session, request.first),
            // What follows will be refused, and the client says again whose session it is.
            Ok(ClientMessage::Attach { session, .. }) => (session, CommandNumber::default()),
            Ok(ClientMessage::Close { session }) => (session, CommandNumber(u64::MAX)),
            // Nothing to name: the client comes back with whatever it asked.
            Ok(ClientMessage::Open { .. } | ClientMessage::Status) => {
                (SessionId::NONE, CommandNumber::default())
            }
            Err(error) => return Err(error.to_string()),
        };
        let reason = Reason::Busy {
            retry_after_us: self.limits.busy_retry_us,
        };
        let refused = ServerMessage::Refused(Refused {
            session,
            expected,
            reason,
        });
        match queue.push(&refused.encode(), &Bytes::new()) {
            Pushed::First | Pushed::Queued => queue.flush(),
            // A client that sends without reading its refusals is closed by the next reply; it loses nothing here.
            Pushed::Full | Pushed::Closed => return Err("refusals are not read".to_owned()),
        }
        Ok(())
    }

    fn violation(&self, connection: &Connection, reason: &str) {
        self.counters.protocol_violations.add(1);
        self.notices.warn(format!(
            "the client at {} broke the protocol and is disconnected: {reason}",
            connection.remote_address()
        ));
        CloseCode::Violation.close(connection, reason);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the gateway panics")
    }
}
