//! The links between replicas: three ordered lanes each, which delay, drop, repeat, clog and part.

use std::collections::VecDeque;

use bytes::Bytes;

use synod_engine::ids::ReplicaId;
use synod_engine::seams::Lane;

use crate::faults::{Fault, Strikes};
use crate::random::Random;

/// Frames of a lane that a reconnect may deliver once more.
const TAIL_FRAMES: usize = 4;

/// A frame that was delayed by more than this many times its base delay was struck by [`Fault::Delay`].
const DELAY_TAIL_FACTOR: u64 = 20;

/// How links behave when nothing special is wrong. Delays in nanoseconds, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    pub delay_min_ns: u64,
    /// Mean of what is added to it.
    pub jitter_ns: u64,
    /// Frames lost, of a thousand; 0 without [`Fault::Loss`].
    pub loss: u64,
    /// Frames after which a lane's tail is repeated, of a thousand.
    pub repeat: u64,
    /// Frames with a delay from the long tail, of a thousand, and the mean of that.
    pub tail: u64,
    pub tail_ns: u64,
    /// Lanes overtake each other.
    pub reorders: bool,
}

pub struct Links {
    replicas: usize,
    links: Vec<Link>,
    plan: LinkPlan,
    random: Random,
}

#[derive(Default)]
struct Link {
    /// Conditions that cut it.
    cuts: u32,
    /// Conditions that cut its data lane only.
    data_cuts: u32,
    /// Delays are multiplied by this plus one.
    slowness: u64,
    clogged_until: u64,
    /// No loss, repeats, tails: it was healed for good.
    healed: bool,
    /// When the newest frame of any lane arrives.
    newest: u64,
    lanes: [LaneState; 3],
}

#[derive(Default)]
struct LaneState {
    last: u64,
    tail: VecDeque<Bytes>,
}

impl Links {
    pub fn new(replicas: u8, plan: LinkPlan, random: Random) -> Links {
        let count = usize::from(replicas) * usize::from(replicas);
        Links {
            replicas: usize::from(replicas),
            links: (0..count).map(|_| Link::default()).collect(),
            plan,
            random,
        }
    }

    fn link(&mut self, from: ReplicaId, to: ReplicaId) -> &mut Link {
        let (from, to) = (usize::from(from.0) - 1, usize::from(to.0) - 1);
        &mut self.links[from * self.replicas + to]
    }

    /// Cuts one direction once more; as many [`Links::mend`] undo it.
    pub fn cut(&mut self, from: ReplicaId, to: ReplicaId) {
        self.link(from, to).cuts += 1;
    }

    pub fn mend(&mut self, from: ReplicaId, to: ReplicaId) {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// The same for what carries values.
    pub fn cut_data(&mut self, from: ReplicaId, to: ReplicaId) {
        self.link(from, to).data_cuts += 1;
    }

    pub fn mend_data(&mut self, from: ReplicaId, to: ReplicaId) {
        let link = self.link(from, to);
        link.data_cuts = link.data_cuts.saturating_sub(1);
    }

    /// Multiplies the delays of one direction by `slowness + 1`.
    pub fn slow(&mut self, from: ReplicaId, to: ReplicaId, slowness: u64) {
        self.link(from, to).slowness = slowness;
    }

    pub fn clog(&mut self, from: ReplicaId, to: ReplicaId, until: u64) {
        let link = self.link(from, to);
        link.clogged_until = link.clogged_until.max(until);
    }

    /// Nothing is wrong with this direction any more.
    pub fn heal(&mut self, from: ReplicaId, to: ReplicaId) {
        let link = self.link(from, to);
        link.cuts = 0;
        link.data_cuts = 0;
        link.slowness = 0;
        link.clogged_until = 0;
        link.healed = true;
    }

    /// When the last frame arrives that was sent so far: healing a link brings nothing back that it holds up.
    pub fn last_arrival(&self) -> u64 {
        let arrivals = self.links.iter().map(|link| link.newest);
        arrivals.max().unwrap_or(0)
    }

    pub fn open(&self, from: ReplicaId, to: ReplicaId) -> bool {
        let (from, to) = (usize::from(from.0) - 1, usize::from(to.0) - 1);
        self.links[from * self.replicas + to].cuts == 0
    }

    /// When `frame` arrives, if it does, and what else arrives with it: in order within the lane.
    pub fn transmit(
        &mut self,
        now: u64,
        (from, to, lane): (ReplicaId, ReplicaId, Lane),
        frame: Bytes,
        strikes: &mut Strikes,
        mut arrive: impl FnMut(u64, Bytes),
    ) {
        let plan = self.plan;
        let index = (usize::from(from.0) - 1) * self.replicas + usize::from(to.0) - 1;
        let (link, random) = (&mut self.links[index], &mut self.random);
        let unreliable = !link.healed;
        if link.cuts > 0 || link.data_cuts > 0 && lane == Lane::Data {
            return;
        }
        if unreliable && random.permille(plan.loss) {
            return strikes.note(Fault::Loss);
        }
        let mut delay = plan.delay_min_ns + random.exponential(plan.jitter_ns);
        delay *= link.slowness + 1;
        if unreliable && random.permille(plan.tail) {
            let tail = random.exponential(plan.tail_ns);
            delay += tail;
            if tail > DELAY_TAIL_FACTOR * (plan.delay_min_ns + plan.jitter_ns) {
                strikes.note(Fault::Delay);
            }
        }
        let mut at = (now + delay).max(link.clogged_until);
        if !plan.reorders {
            at = at.max(link.newest + 1);
        }
        let state = &mut link.lanes[lane as usize];
        at = at.max(state.last + 1);
        if at < link.newest {
            strikes.note(Fault::Reordering);
        }
        state.last = at;
        arrive(at, frame.clone());
        if plan.repeat > 0 && unreliable {
            state.tail.push_back(frame);
            if state.tail.len() > TAIL_FRAMES {
                state.tail.pop_front();
            }
            if random.permille(plan.repeat) {
                strikes.note(Fault::Duplication);
                let from = random.below(state.tail.len() as u64) as usize;
                for repeated in state.tail.range(from..) {
                    state.last += 1;
                    arrive(state.last, repeated.clone());
                }
            }
        }
        link.newest = link.newest.max(state.last);
    }
}
