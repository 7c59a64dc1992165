//! TCP between the replicas passes through this process as well: each connection is relayed, and what enters is handed
//! on when a link of this kind would have delivered it.
//!
//! A relay does not see packets, so loss is a model: what was read at once counts as a train of segments of
//! [`SEGMENT_BYTES`], each is lost with the link's probability, and a lost one holds up itself and everything behind it
//! for as long as its retransmission would take, by RFC 8985 (RACK-TLP): one round trip if more segments of the train
//! follow, two round trips if it was the last, and 200 ms more if it was alone, where the receiver's acknowledgement may
//! be delayed; a retransmission may be lost again. The congestion window is not modelled: a lossy path costs TCP time
//! here, but never rate, which flatters TCP. Over QUIC the datagrams themselves are lost and the real congestion
//! control sees it.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::proxy::{Achieved, Course, Weather};
use crate::chaos::random::Random;

/// What a segment carries over Ethernet with timestamps.
const SEGMENT_BYTES: usize = 1_448;
const DELAYED_ACKNOWLEDGEMENT: Duration = Duration::from_millis(200);
/// A retransmission of a retransmission of …: beyond this the connection would be given up anyway.
const RETRANSMISSIONS_MAX: u32 = 8;
const READ_BYTES: usize = 64 << 10;
/// On their way in one direction of one connection; beyond it nothing is read, as with a full window.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Connections of one pair at once.
const CONNECTIONS_MAX: usize = 16;

/// What all connections from one replica to another share.
pub struct Relay {
    listener: TcpListener,
    to: SocketAddr,
    pub forth: Direction,
    /// What the other replica answers on these connections.
    pub back: Direction,
}

pub struct Direction {
    weather: Cell<Weather>,
    changed: Notify,
    course: RefCell<Course>,
    achieved: Cell<Achieved>,
    stalls: Cell<u64>,
}

impl Direction {
    pub fn new(random: Random) -> Direction {
        Direction {
            weather: Cell::default(),
            changed: Notify::new(),
            course: RefCell::new(Course::new(random)),
            achieved: Cell::default(),
            stalls: Cell::new(0),
        }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.set(weather);
        self.changed.notify_waiters();
    }

    pub fn achieved(&self) -> Achieved {
        self.achieved.get()
    }

    /// Retransmissions that were waited for.
    pub fn stalls(&self) -> u64 {
        self.stalls.get()
    }

    /// When a train of `bytes` that enters now has left.
    fn leaves(&self, now: Instant, bytes: usize) -> Instant {
        let weather = Weather {
            in_order: true,
            reorder_ppm: 0,
            ..self.weather.get()
        };
        let mut course = self.course.borrow_mut();
        let leaves = course.leaves(now, bytes, &weather);
        let round_trip = 2 * weather.delay;
        let (segments, mut stall) = (bytes.div_ceil(SEGMENT_BYTES), Duration::ZERO);
        for nth in 1..=segments {
            let mut lost = 0;
            while lost < RETRANSMISSIONS_MAX && course.happens(weather.loss_ppm) {
                lost += 1;
            }
            if lost > 0 {
                self.stalls.set(self.stalls.get() + u64::from(lost));
                stall = stall.max(retransmission(round_trip, segments, nth) * lost);
            }
        }
        match stall.is_zero() {
            true => leaves,
            false => course.stall(leaves, stall),
        }
    }

    /// While it is cut, what was sent waits: TCP sends it again when the path is back.
    async fn until_open(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.weather.get().cut {
                return;
            }
            changed.await;
        }
    }

    fn passed(&self, entered: Instant) {
        let mut achieved = self.achieved.get();
        achieved.add(entered.elapsed());
        self.achieved.set(achieved);
    }
}

/// How much later a lost segment arrives, the `nth` of a train.
fn retransmission(round_trip: Duration, segments: usize, nth: usize) -> Duration {
    match (nth < segments, segments) {
        (true, _) => round_trip,
        (false, 1) => 2 * round_trip + DELAYED_ACKNOWLEDGEMENT,
        (false, _) => 2 * round_trip,
    }
}

impl Relay {
    pub fn new(listener: TcpListener, to: SocketAddr, forth: Random, back: Random) -> Relay {
        Relay {
            listener,
            to,
            forth: Direction::new(forth),
            back: Direction::new(back),
        }
    }

    /// Relays connections until dropped. Has to be called within a `LocalSet`.
    pub async fn run(self: Rc<Relay>) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let (dialled, _) = self.listener.accept().await?;
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS_MAX {
                continue; // The dialler finds its connection closed, and tries again.
            }
            let relay = Rc::clone(&self);
            connections.spawn_local(async move {
                // Why a connection ended is its owners' affair; both see the end.
                let _ = relay.carry(dialled).await;
            });
        }
    }

    async fn carry(&self, dialled: TcpStream) -> io::Result<()> {
        self.forth.until_open().await;
        let reached = TcpStream::connect(self.to).await?;
        dialled.set_nodelay(true)?;
        reached.set_nodelay(true)?;
        let (from, to) = (dialled.into_split(), reached.into_split());
        tokio::select! {
            ended = pass(&self.forth, from.0, to.1) => ended,
            ended = pass(&self.back, to.0, from.1) => ended,
        }
    }
}

/// One direction of one connection, to the end of what is read.
async fn pass(
    direction: &Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    let waiting: RefCell<VecDeque<(Instant, Instant, Vec<u8>)>> = RefCell::default();
    let alarm = Alarm::new()?;
    let (bytes, filled, drained) = (Cell::new(0), Notify::new(), Notify::new());
    let reading = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while bytes.get() >= WAITING_BYTES_MAX {
                drained.notified().await;
            }
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return io::Result::Ok(());
            }
            let now = Instant::now();
            let leaves = direction.leaves(now, count);
            bytes.set(bytes.get() + count);
            let mut waiting = waiting.borrow_mut();
            waiting.push_back((leaves, now, buffer[..count].to_vec()));
            filled.notify_one();
        }
    };
    let writing = async {
        loop {
            let next = waiting.borrow_mut().pop_front();
            let Some((leaves, entered, train)) = next else {
                filled.notified().await;
                continue;
            };
            alarm.until(leaves).await?;
            direction.until_open().await;
            to.write_all(&train).await?;
            direction.passed(entered);
            bytes.set(bytes.get() - train.len());
            drained.notify_one();
        }
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_segment_waits_for_its_retransmission() {
        let trip = Duration::from_millis(100);
        for (segments, nth, ms) in [(10, 1, 100), (10, 9, 100), (10, 10, 200), (1, 1, 400)] {
            let late = retransmission(trip, segments, nth);
            assert_eq!(late, Duration::from_millis(ms), "{nth} of {segments}");
        }
    }

    #[test]
    fn trains_are_delayed_stalled_by_loss_and_never_overtake() {
        let direction = Direction::new(Random::new(7, 1));
        direction.set(Weather {
            delay: Duration::from_millis(50),
            loss_ppm: 10_000,
            ..Weather::default()
        });
        let start = Instant::now();
        let mut last = start;
        let mut late = 0;
        for nth in 0..10_000 {
            let now = start + nth * Duration::from_millis(1);
            let leaves = direction.leaves(now, 100);
            assert!(leaves >= now + Duration::from_millis(50) && leaves >= last);
            late += u64::from(leaves >= now + Duration::from_millis(400));
            last = leaves;
        }
        // 10,000 lone segments at 1 %: six standard deviations are 60.
        assert!(
            (40..=160).contains(&direction.stalls()),
            "{}",
            direction.stalls()
        );
        assert!(late > 0);
    }
}
