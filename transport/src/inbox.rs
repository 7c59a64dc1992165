//! What arrived and waits for the engine's turn: bounded by bytes, with a budget each for control, peers' data and
//! clients, so that none of them can starve another.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Arrival, Lane};
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::limits::Limits;

/// The engine's end: taken empty once per turn.
pub struct Inbox {
    shared: Arc<InboxShared>,
}

/// The readers' end.
pub struct InboxShared {
    state: Mutex<State>,
    limits: Limits,
    counters: Arc<Counters>,
    /// Something arrived.
    news: Notify,
    /// The inbox was drained.
    room: Notify,
}

#[derive(Default)]
struct State {
    control: Vec<Arrival>,
    control_bytes: usize,
    rest: Vec<Arrival>,
    peer_bytes: usize,
    client_bytes: usize,
    /// Readers wait for room, so the next drain has to wake them.
    waiting: bool,
}

impl Inbox {
    pub fn new(limits: Limits, counters: Arc<Counters>) -> Inbox {
        Inbox {
            shared: Arc::new(InboxShared {
                state: Mutex::default(),
                limits,
                counters,
                news: Notify::new(),
                room: Notify::new(),
            }),
        }
    }

    pub fn shared(&self) -> Arc<InboxShared> {
        Arc::clone(&self.shared)
    }

    /// Appends everything that arrived to `arrivals`: control frames first, each lane and client in order.
    pub fn drain(&mut self, arrivals: &mut Vec<Arrival>) {
        let waiting = {
            let mut state = self.shared.lock();
            arrivals.append(&mut state.control);
            arrivals.append(&mut state.rest);
            state.control_bytes = 0;
            state.peer_bytes = 0;
            state.client_bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        if waiting {
            self.shared.room.notify_waiters();
        }
    }

    /// Whether nothing arrived since the last drain.
    pub fn is_empty(&self) -> bool {
        self.shared.lock().is_empty()
    }

    /// Returns once something arrived since the last drain. May return early once.
    pub async fn notified(&self) {
        if self.shared.lock().is_empty() {
            self.shared.news.notified().await;
        }
    }
}

impl InboxShared {
    /// Takes frames of one lane in, whole batches at a time: a budget may be exceeded by one batch, because the
    /// reader asks for room before it reads.
    pub fn push_peer(&self, from: ReplicaId, lane: Lane, frames: &mut Vec<Bytes>) {
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        let arrivals = frames.drain(..).map(|frame| Arrival::Peer { from, frame });
        {
            let mut state = self.lock();
            match lane {
                Lane::Control => {
                    state.control.extend(arrivals);
                    state.control_bytes += bytes;
                }
                Lane::Data | Lane::Bulk => {
                    state.rest.extend(arrivals);
                    state.peer_bytes += bytes;
                }
            }
        }
        self.news.notify_one();
    }

    /// Takes one client frame in, or gives it back if the clients' budget is used up. A frame longer than the whole
    /// budget is taken by an empty inbox, so that it is not refused for ever.
    pub fn offer_client(&self, client: ClientId, frame: Bytes) -> Result<(), Bytes> {
        {
            let mut state = self.lock();
            let bytes = state.client_bytes + frame.len();
            if state.client_bytes > 0 && bytes > self.limits.inbox_client_bytes_max {
                return Err(frame);
            }
            state.client_bytes = bytes;
            state.rest.push(Arrival::Client { client, frame });
        }
        self.news.notify_one();
        Ok(())
    }

    /// Always taken in: there are at most `clients_max` of them between two drains, give or take reconnects.
    pub fn push_client_gone(&self, client: ClientId) {
        self.lock().rest.push(Arrival::ClientGone { client });
        self.news.notify_one();
    }

    /// Returns once the lane's budget has room. Control has its own, so it never waits behind data.
    pub async fn room_for(&self, lane: Lane) {
        let mut waited = false;
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                let (bytes, bytes_max) = match lane {
                    Lane::Control => (state.control_bytes, self.limits.inbox_control_bytes_max),
                    Lane::Data | Lane::Bulk => (state.peer_bytes, self.limits.inbox_peer_bytes_max),
                };
                if bytes < bytes_max {
                    return;
                }
                state.waiting = true;
            }
            if !waited {
                waited = true;
                match lane {
                    Lane::Control => self.counters.inbox_control_waits.add(1),
                    Lane::Data | Lane::Bulk => self.counters.inbox_peer_waits.add(1),
                }
            }
            // `room` was created before the check, and notify_waiters wakes it even if it was not polled yet: a
            // drain in between is not missed.
            room.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the inbox panics")
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.rest.is_empty()
    }
}
