//! The network as a replica sees it: what it sent in a turn, to be picked up by the simulation.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use synod_engine::codec::FRAME_PREFIX_BYTES;
use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Frame, Lane, Network};

/// A handle: clones share the outbox.
#[derive(Clone, Default)]
pub struct Outbox(Rc<RefCell<Sent>>);

#[derive(Default)]
pub struct Sent {
    /// Without length prefix.
    pub frames: Vec<(ReplicaId, Lane, Bytes)>,
    pub replies: Vec<(ClientId, Bytes)>,
    /// Clients to be disconnected.
    pub expelled: Vec<ClientId>,
    pub announced: Option<Bytes>,
    /// The frame that was joined last: a broadcast is joined once.
    joined: Option<(Frame, Bytes)>,
}

impl Outbox {
    /// Moves everything sent into `taken`, which must be empty.
    pub fn take(&self, taken: &mut Sent) {
        std::mem::swap(&mut *self.0.borrow_mut(), taken);
    }
}

impl Sent {
    fn join(&mut self, frame: Frame) -> Bytes {
        if let Some((last, joined)) = &self.joined
            && last.head.as_ptr() == frame.head.as_ptr()
        {
            return joined.clone();
        }
        let joined = if frame.body.is_empty() {
            frame.head.slice(FRAME_PREFIX_BYTES..)
        } else {
            let mut whole = BytesMut::with_capacity(frame.len());
            whole.extend_from_slice(&frame.head[FRAME_PREFIX_BYTES..]);
            whole.extend_from_slice(&frame.body);
            whole.freeze()
        };
        self.joined = Some((frame, joined.clone()));
        joined
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
            && self.replies.is_empty()
            && self.expelled.is_empty()
            && self.announced.is_none()
    }
}

impl Network for Outbox {
    fn send(&mut self, to: ReplicaId, lane: Lane, frame: Frame) {
        let mut sent = self.0.borrow_mut();
        let joined = sent.join(frame);
        sent.frames.push((to, lane, joined));
    }

    fn reply(&mut self, client: ClientId, frame: Bytes) {
        let frame = frame.slice(FRAME_PREFIX_BYTES..);
        self.0.borrow_mut().replies.push((client, frame));
    }

    fn expel(&mut self, client: ClientId) {
        self.0.borrow_mut().expelled.push(client);
    }

    fn announce(&mut self, frame: Bytes) {
        self.0.borrow_mut().announced = Some(frame.slice(FRAME_PREFIX_BYTES..));
    }

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
