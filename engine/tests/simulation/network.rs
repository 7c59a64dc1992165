//! A simulated network: what a replica sent in a turn, and links that delay, drop, repeat and part.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Frame, Lane, Network};

use super::random::Random;

/// What one replica sent and the simulation has not picked up yet.
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

    fn announce(&mut self, frame: Bytes) {
        self.0.borrow_mut().announced = Some(frame.slice(4..));
    }

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

/// Fault rates in permille and delays in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: u64,
    pub repeat: u64,
    pub delay_min_us: u64,
    pub delay_max_us: u64,
    pub disk_min_us: u64,
    pub disk_max_us: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        loss: 0,
        repeat: 0,
        delay_min_us: 50,
        delay_max_us: 60,
        disk_min_us: 100,
        disk_max_us: 120,
    };

    /// Drawn from the seed: some runs are calm, some are hell.
    pub fn draw(random: &mut Random) -> Faults {
        let delay_max_us = [100, 1_000, 20_000, 60_000][random.below(4) as usize];
        let disk_max_us = [200, 2_000, 30_000][random.below(3) as usize];
        Faults {
            loss: [0, 0, 10, 100, 250][random.below(5) as usize],
            repeat: [0, 0, 50, 300][random.below(4) as usize],
            delay_min_us: 20,
            delay_max_us,
            disk_min_us: 50,
            disk_max_us,
        }
    }
}

/// Directed links that are cut, and when each lane last delivered: order holds within a lane.
#[derive(Debug, Default)]
pub struct Links {
    pub cut: Vec<(ReplicaId, ReplicaId)>,
    last: BTreeMap<(ReplicaId, ReplicaId, u8), u64>,
}

impl Links {
    pub fn open(&self, from: ReplicaId, to: ReplicaId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// When frames sent now arrive: none if lost, two if repeated.
    pub fn arrivals(
        &mut self,
        now: u64,
        from: ReplicaId,
        to: ReplicaId,
        lane: Lane,
        faults: &Faults,
        random: &mut Random,
    ) -> Vec<u64> {
        if !self.open(from, to) || random.below(1000) < faults.loss {
            return Vec::new();
        }
        let copies = if random.below(1000) < faults.repeat {
            2
        } else {
            1
        };
        let last = self.last.entry((from, to, lane as u8)).or_default();
        (0..copies)
            .map(|_| {
                let delay = random.between(faults.delay_min_us, faults.delay_max_us) * 1_000;
                *last = (*last + 1).max(now + delay);
                *last
            })
            .collect()
    }
}
