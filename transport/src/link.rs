//! The link to one peer: three lanes out, three lanes in, over whatever connection is current.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ConnectionStats, SendStream};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Frame, Lane};
use tokio::task::JoinSet;

use crate::close::CloseCode;
use crate::counters::{Counters, lane_index};
use crate::handshake::{PeerConnection, read_lane};
use crate::inbox::InboxShared;
use crate::limits::Limits;
use crate::notices::{self, Notices};
use crate::outqueue::{OutQueue, Pushed};
use crate::reader::{FrameReader, ReadFailed};

/// One peer, for as long as the process runs. Connections come and go.
pub struct Link {
    peer: ReplicaId,
    current: Mutex<Current>,
    inbox: Arc<InboxShared>,
    counters: Arc<Counters>,
    limits: Limits,
    notices: Notices,
}

#[derive(Default)]
struct Current {
    up: Option<Arc<Up>>,
    was_up: bool,
}

/// A link while it is connected. Its queues end with its connection, so nothing of it leaks into the next.
struct Up {
    connection: Connection,
    lanes: [Arc<OutQueue>; 3],
}

impl Link {
    pub fn new(
        peer: ReplicaId,
        inbox: Arc<InboxShared>,
        counters: Arc<Counters>,
        limits: Limits,
    ) -> Link {
        Link {
            peer,
            current: Mutex::default(),
            inbox,
            counters,
            limits,
            notices: Notices::default(),
        }
    }

    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Queues a frame, or drops and counts it. Returns the queue if it is the first there since its last flush.
    pub fn send(&self, lane: Lane, frame: &Frame) -> Option<Arc<OutQueue>> {
        let current = self.current.lock().expect("no holder of a link panics");
        let Some(up) = current.up.as_ref() else {
            self.counters.link_dropped_frames.add(1);
            return None;
        };
        let at = lane_index(lane);
        let pushed = up.lanes[at].push(&frame.head, &frame.body);
        match pushed {
            Pushed::First | Pushed::Queued => self.counters.sent[at].add(1, frame.len() as u64),
            Pushed::Full => {
                self.counters.link_full_frames.add(1);
                self.counters.link_dropped_frames.add(1);
            }
            Pushed::Closed => self.counters.link_dropped_frames.add(1),
        }
        (pushed == Pushed::First).then(|| Arc::clone(&up.lanes[at]))
    }

    /// Whether frames currently go somewhere.
    pub fn is_up(&self) -> bool {
        self.current
            .lock()
            .expect("no holder of a link panics")
            .up
            .is_some()
    }

    /// The current one.
    pub fn connection(&self) -> Option<Connection> {
        let current = self.current.lock().expect("no holder of a link panics");
        Some(current.up.as_ref()?.connection.clone())
    }

    /// What QUIC counts for the current connection.
    pub fn stats(&self) -> Option<ConnectionStats> {
        let current = self.current.lock().expect("no holder of a link panics");
        Some(current.up.as_ref()?.connection.stats())
    }

    /// Carries the link over `peer`'s connection until that breaks. A connection from before is closed: the peer
    /// would not have dialled again if it still had it.
    pub async fn run(self: &Arc<Link>, peer: PeerConnection) {
        assert_eq!(
            peer.peer, self.peer,
            "a connection reached the link of another peer"
        );
        let connection = peer.connection;
        let up = self.raise(connection.clone());
        let mut tasks = JoinSet::new();
        for ((lane, stream), queue) in Lane::ALL.into_iter().zip(peer.lanes).zip(&up.lanes) {
            let (link, queue) = (Arc::clone(self), Arc::clone(queue));
            tasks.spawn(async move { link.write(lane, stream, &queue).await });
        }
        let link = Arc::clone(self);
        let control = peer.control;
        let reading = connection.clone();
        tasks.spawn(async move { link.read(Lane::Control, control, &reading).await });
        let link = Arc::clone(self);
        let accepting = connection.clone();
        tasks.spawn(async move { link.read_others(&accepting).await });

        let reason = connection.closed().await;
        if matches!(reason, ConnectionError::Reset) {
            self.counters.link_resets.add(1);
        }
        tasks.shutdown().await;
        self.lower(&up);
        let why = notices::words(&reason);
        self.notices
            .warn(format!("the link to replica {} broke: {why}", self.peer.0));
    }

    fn raise(&self, connection: Connection) -> Arc<Up> {
        let lanes =
            Lane::ALL.map(|lane| Arc::new(OutQueue::new(self.limits.lane_queue_bytes_max(lane))));
        let up = Arc::new(Up { connection, lanes });
        let mut current = self.current.lock().expect("no holder of a link panics");
        if current.was_up {
            self.counters.link_reconnects.add(1);
        }
        current.was_up = true;
        if let Some(before) = current.up.replace(Arc::clone(&up)) {
            CloseCode::Replaced.close(&before.connection, "replaced by a newer connection");
        }
        tracing::info!("the link to replica {} is up", self.peer.0);
        up
    }

    fn lower(&self, up: &Arc<Up>) {
        let mut current = self.current.lock().expect("no holder of a link panics");
        if current.up.as_ref().is_some_and(|now| Arc::ptr_eq(now, up)) {
            current.up = None;
        }
        let lost: u64 = up.lanes.iter().map(|queue| queue.close()).sum();
        self.counters.link_dropped_frames.add(lost);
    }

    async fn write(&self, lane: Lane, mut stream: SendStream, queue: &OutQueue) {
        let error = queue.write_to(&mut stream, |_| ()).await;
        tracing::debug!(
            "writing lane {lane:?} to replica {} ended: {error}",
            self.peer.0
        );
    }

    /// Data and Bulk, in whatever order they show up; each may show up once.
    async fn read_others(self: &Arc<Link>, connection: &Connection) {
        let mut readers = JoinSet::new();
        let mut missing = vec![Lane::Data, Lane::Bulk];
        while !missing.is_empty() {
            let Ok(stream) = connection.accept_uni().await else {
                return;
            };
            let opened = read_lane(stream, self.limits.frame_bytes_max).await;
            let Ok((lane, reader)) = opened else {
                return self.violation(connection, "a stream names no lane");
            };
            let Some(at) = missing.iter().position(|waiting| *waiting == lane) else {
                return self.violation(connection, "a lane was opened twice");
            };
            missing.swap_remove(at);
            let (link, connection) = (Arc::clone(self), connection.clone());
            readers.spawn(async move { link.read(lane, reader, &connection).await });
        }
        while readers.join_next().await.is_some() {}
    }

    async fn read(&self, lane: Lane, mut reader: FrameReader, connection: &Connection) {
        let traffic = &self.counters.received[lane_index(lane)];
        let mut frames = Vec::new();
        loop {
            // Not reading is what holds the peer back: its stream runs out of credit. Control has a budget of
            // its own, so heartbeats pass while data stands still.
            self.inbox.room_for(lane).await;
            match reader.many(&mut frames).await {
                Ok(()) => {}
                Err(ReadFailed::Frame(error)) => {
                    return self.violation(connection, &error.to_string());
                }
                Err(ReadFailed::Finished) => {
                    return self.violation(connection, "the peer ended a lane");
                }
                // The connection is gone, which run() notices too.
                Err(ReadFailed::Stream(_)) => return,
            }
            let bytes: usize = frames.iter().map(Bytes::len).sum();
            traffic.add(frames.len() as u64, bytes as u64);
            self.inbox.push_peer(self.peer, lane, &mut frames);
        }
    }

    fn violation(&self, connection: &Connection, reason: &str) {
        // A lane that ends because the connection was closed is no violation.
        if connection.close_reason().is_some() {
            return;
        }
        self.counters.protocol_violations.add(1);
        self.notices.warn(format!(
            "replica {} broke the protocol, its connection is closed: {reason}",
            self.peer.0
        ));
        CloseCode::Violation.close(connection, reason);
    }
}
