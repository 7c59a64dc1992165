//! A network that keeps what a replica sent, for the test to look at.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Frame, Lane, Network};

/// What the replica sent and the test has not picked up yet.
#[derive(Debug, Default)]
pub struct Outbox {
    pub frames: Vec<(ReplicaId, Lane, Bytes)>,
    pub replies: Vec<(ClientId, Bytes)>,
    pub announced: Option<Bytes>,
}

#[derive(Clone, Debug, Default)]
pub struct OutboxHandle(pub Rc<RefCell<Outbox>>);

impl Network for OutboxHandle {
    fn send(&mut self, to: ReplicaId, lane: Lane, frame: Frame) {
        let mut whole = BytesMut::from(&frame.head[4..]);
        whole.extend_from_slice(&frame.body);
        self.0.borrow_mut().frames.push((to, lane, whole.freeze()));
    }

    fn reply(&mut self, client: ClientId, frame: Bytes) {
        self.0.borrow_mut().replies.push((client, frame.slice(4..)));
    }

    fn expel(&mut self, _client: ClientId) {}

    fn announce(&mut self, frame: Bytes) {
        self.0.borrow_mut().announced = Some(frame.slice(4..));
    }

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
