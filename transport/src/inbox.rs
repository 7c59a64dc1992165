//! What arrived and waits for the engine's turn: bounded by bytes, with a budget each for control, peers' data and
//! clients, so that none of them can starve another.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use synod_engine::client::ClientMessage;
use synod_engine::ids::{ClientId, Owner, ReplicaId};
use synod_engine::seams::{Arrival, Lane};
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::limits::Limits;

/// What a frame costs here besides its bytes: its place in a queue, and the reference to its buffer. Without it the
/// shortest frames would hold fifty times the budget.
pub const ARRIVAL_BYTES: usize = 64;
/// One client may use this part of the clients' budget.
const CLIENT_SHARES: usize = 8;

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
    /// Clients that went since the last drain: what they sent is not worth the engine's time any more.
    gone: HashSet<ClientId>,
    /// How often the inbox was drained.
    drains: u64,
    /// Readers wait for room, so the next drain has to wake them.
    waiting: bool,
    /// Why nothing will arrive any more.
    failure: Option<String>,
}

/// What one client has in the inbox; kept by its reader.
pub struct ClientShare {
    client: ClientId,
    /// The rest holds until the next drain.
    drains: u64,
    bytes: usize,
    status: bool,
}

impl ClientShare {
    pub fn new(client: ClientId) -> ClientShare {
        ClientShare {
            client,
            drains: 0,
            bytes: 0,
            status: false,
        }
    }
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
            state.skip_gone();
            arrivals.append(&mut state.rest);
            state.drains += 1;
            state.control_bytes = 0;
            state.peer_bytes = 0;
            state.client_bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        if waiting {
            self.shared.room.notify_waiters();
        }
    }

    /// Why nothing will ever arrive any more, if the socket is gone: the process is of no use then.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
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
        let bytes: usize = frames.iter().map(cost).sum();
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

    /// Takes frames of one client in, and leaves in `frames` those for which the clients' budget, or this client's
    /// part of it, has no room. A frame longer than that is taken by an empty inbox, so that it is not refused for
    /// ever. One question for the status waits at most: more of them are dropped, since one answer serves them all.
    pub fn offer_client(&self, share: &mut ClientShare, frames: &mut Vec<Bytes>) {
        {
            let mut state = self.lock();
            if share.drains != state.drains {
                *share = ClientShare::new(share.client);
                share.drains = state.drains;
            }
            frames.retain(|frame| !self.takes(&mut state, share, frame));
        }
        self.news.notify_one();
    }

    /// Whether the frame needs no refusal.
    fn takes(&self, state: &mut State, share: &mut ClientShare, frame: &Bytes) -> bool {
        let bytes = cost(frame);
        if ClientMessage::is_status(frame) {
            if std::mem::replace(&mut share.status, true) {
                self.counters.inbox_status_coalesced.add(1);
                return true;
            }
        } else {
            let bytes_max = self.limits.inbox_client_bytes_max;
            let full = state.client_bytes > 0 && state.client_bytes + bytes > bytes_max;
            let over = share.bytes > 0 && share.bytes + bytes > bytes_max / CLIENT_SHARES;
            if full || over {
                return false;
            }
        }
        state.client_bytes += bytes;
        share.bytes += bytes;
        state.rest.push(Arrival::Client {
            client: share.client,
            frame: frame.clone(),
        });
        true
    }

    /// Whose client it is, before its first frame. Always taken in, like its end.
    pub fn push_client_named(&self, client: ClientId, owner: Owner) {
        self.lock()
            .rest
            .push(Arrival::ClientNamed { client, owner });
        self.news.notify_one();
    }

    /// Always taken in: there are at most `clients_max` of them between two drains, give or take reconnects.
    pub fn push_client_gone(&self, client: ClientId) {
        {
            let mut state = self.lock();
            state.gone.insert(client);
            state.rest.push(Arrival::ClientGone { client });
        }
        self.news.notify_one();
    }

    pub fn fail(&self, why: &str) {
        self.lock().failure = Some(why.to_owned());
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
    fn skip_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        self.rest.retain(|arrival| match arrival {
            Arrival::Client { client, .. } => !gone.contains(client),
            Arrival::Peer { .. } | Arrival::ClientNamed { .. } | Arrival::ClientGone { .. } => true,
        });
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.rest.is_empty() && self.failure.is_none()
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + ARRIVAL_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(client_bytes_max: usize) -> Inbox {
        let limits = Limits {
            inbox_client_bytes_max: client_bytes_max,
            ..Limits::default()
        };
        Inbox::new(limits, Arc::default())
    }

    /// How many of `count` frames of one byte are taken.
    fn offer(inbox: &Inbox, share: &mut ClientShare, kind: u8, count: usize) -> usize {
        let mut frames = vec![Bytes::from(vec![kind]); count];
        inbox.shared().offer_client(share, &mut frames);
        count - frames.len()
    }

    fn drained(inbox: &mut Inbox) -> usize {
        let mut arrivals = Vec::new();
        inbox.drain(&mut arrivals);
        arrivals.len()
    }

    #[test]
    fn the_shortest_frames_hold_no_more_memory_than_the_budget_and_a_client_its_part_of_it() {
        const BYTES: usize = 1 << 20;
        let mut inbox = inbox(BYTES);
        let mut shares: Vec<ClientShare> =
            (1..=12).map(|id| ClientShare::new(ClientId(id))).collect();
        let taken = offer(&inbox, &mut shares[0], 77, 4 << 20);
        assert_eq!(taken, BYTES / CLIENT_SHARES / (ARRIVAL_BYTES + 1));
        let mut all = taken;
        for share in &mut shares[1..] {
            all += offer(&inbox, share, 77, 1 << 16);
        }
        assert_eq!(all, BYTES / (ARRIVAL_BYTES + 1));
        assert!(all * size_of::<Arrival>() <= BYTES);
        assert_eq!(drained(&mut inbox), all);
        assert_eq!(offer(&inbox, &mut shares[0], 77, 1), 1);
    }

    #[test]
    fn one_question_for_the_status_waits_even_in_a_full_inbox_and_more_are_dropped() {
        let mut inbox = inbox(100);
        let (mut one, mut other) = (ClientShare::new(ClientId(1)), ClientShare::new(ClientId(2)));
        let status = ClientMessage::Status.encode()[4];
        assert_eq!(offer(&inbox, &mut one, 77, 3), 1);
        assert_eq!(offer(&inbox, &mut one, status, 4 << 20), 4 << 20);
        assert_eq!(offer(&inbox, &mut other, status, 2), 2);
        assert_eq!(drained(&mut inbox), 3);
        assert_eq!(offer(&inbox, &mut one, status, 2), 2);
        assert_eq!(drained(&mut inbox), 1);
    }

    #[test]
    fn what_a_client_sent_that_is_gone_is_skipped() {
        let mut inbox = inbox(1 << 20);
        let (mut gone, mut here) = (ClientShare::new(ClientId(1)), ClientShare::new(ClientId(2)));
        offer(&inbox, &mut gone, 77, 100);
        offer(&inbox, &mut here, 77, 3);
        inbox.shared().push_client_gone(ClientId(1));
        assert_eq!(drained(&mut inbox), 4);
    }
}
