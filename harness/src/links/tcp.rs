//! TCP between the replicas passes through this process as well: each connection is relayed, and what enters is handed
//! on when a link of this kind would have delivered it.
//!
//! A relay does not see packets, so loss is a model: what was read at once counts as a train of segments of
//! [`SEGMENT_BYTES`], and each is lost with the link's probability. A lost one holds up itself and everything behind it
//! until its retransmission arrives, by RFC 8985 (RACK-TLP): one round trip after the next segment that was sent, or, if
//! there is none, after a probe, which is sent after two round trips, and 200 ms later if nothing else is in flight, since
//! the receiver may delay its acknowledgement then. A retransmission may be lost again. What a lossy path carries is
//! bounded by the congestion window of Reno, which at such windows is that of Cubic as well: 1.2 / sqrt(loss) segments per
//! round trip (RFC 9438, section 5.1). It holds on average, from the first byte on: there is no slow start, and no window
//! that varies. Over QUIC the datagrams themselves are lost and the real congestion control sees it.
//!
//! A link with a rate has a queue in front of it. A train that makes it longer than it may be loses a segment, which is sent
//! again after a round trip, and nothing more is read until the queue is half as long: so the sender's own buffers fill, as
//! they do when its window was halved, and the link is used all the same.

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
    dropped: Cell<u64>,
}

impl Direction {
    pub fn new(random: Random) -> Direction {
        Direction {
            weather: Cell::default(),
            changed: Notify::new(),
            course: RefCell::new(Course::new(random)),
            achieved: Cell::default(),
            stalls: Cell::new(0),
            dropped: Cell::new(0),
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

    /// Trains that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// The weather as TCP has it.
    fn weather(&self) -> Weather {
        let weather = self.weather.get();
        let (link, window) = (weather.bytes_per_s, window_bytes_per_s(&weather));
        // Where the window lets through less than the link carries, what waits does so at the sender, not in a queue.
        let queues = link.is_some_and(|link| window.is_none_or(|window| link <= window));
        Weather {
            in_order: true,
            reorder_ppm: 0,
            bytes_per_s: [link, window].into_iter().flatten().min(),
            queue_max: weather.queue_max.filter(|_| queues),
            ..weather
        }
    }

    /// How much may enter at once: what the queue has room for, and one segment that it may have no room for.
    fn room_bytes(&self, now: Instant) -> usize {
        let weather = self.weather();
        let Some((most, bytes_per_s)) = weather.queue_max.zip(weather.bytes_per_s) else {
            return READ_BYTES;
        };
        let room = most.saturating_sub(self.course.borrow().queue(now));
        let bytes = (room.as_secs_f64() * bytes_per_s as f64) as usize;
        (bytes + SEGMENT_BYTES).min(READ_BYTES)
    }

    /// Waits, if the queue is full, until it is half as long.
    async fn until_drained(&self) {
        let weather = self.weather();
        let (now, Some(most)) = (Instant::now(), weather.queue_max) else {
            return;
        };
        let queue = self.course.borrow().queue(now);
        if queue >= most {
            tokio::time::sleep_until(now + queue - most / 2).await;
        }
    }

    /// What happens to a train of `bytes` that enters now.
    fn enter(&self, now: Instant, bytes: usize) -> Train {
        let weather = self.weather();
        let mut course = self.course.borrow_mut();
        let last = bytes.min(SEGMENT_BYTES);
        if bytes > last {
            course.leaves(now, bytes - last, &weather);
        }
        // The last segment finds what the others left of the queue.
        let overflows = course.is_full(now, &weather);
        let leaves = course.leaves(now, last, &weather);
        let segments = bytes.div_ceil(SEGMENT_BYTES);
        let (mut retransmissions, mut followed) = (0, true);
        for nth in 1..=segments {
            let mut lost = 0;
            while lost < RETRANSMISSIONS_MAX && course.happens(weather.loss_ppm) {
                lost += 1;
            }
            self.stalls.set(self.stalls.get() + u64::from(lost));
            retransmissions = retransmissions.max(lost);
            followed &= lost == 0 || nth < segments;
        }
        if overflows {
            self.dropped.set(self.dropped.get() + 1);
            retransmissions = retransmissions.max(1);
        }
        Train {
            entered: now,
            leaves,
            round_trip: 2 * weather.delay,
            retransmissions,
            followed,
            single: segments == 1,
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

/// The bytes that a congestion window lets through, in each second.
fn window_bytes_per_s(weather: &Weather) -> Option<u64> {
    let round_trip_s = 2.0 * weather.delay.as_secs_f64();
    let loss = f64::from(weather.loss_ppm) / 1e6;
    let lossy = round_trip_s > 0.0 && loss > 0.0;
    lossy.then(|| (1.2 / loss.sqrt() * SEGMENT_BYTES as f64 / round_trip_s).ceil() as u64)
}

/// Segments that were read at once.
#[derive(Clone, Copy, Debug)]
struct Train {
    entered: Instant,
    /// If nothing of it is lost.
    leaves: Instant,
    round_trip: Duration,
    /// Of the segment that was lost most often.
    retransmissions: u32,
    /// Every segment that was lost has one behind it in this train.
    followed: bool,
    single: bool,
}

impl Train {
    /// When all of it has arrived, with what is known by now: when the trains before and after it entered.
    fn arrives(&self, before: Option<Instant>, after: Option<Instant>) -> Instant {
        if self.retransmissions == 0 {
            return self.leaves;
        }
        let in_flight = before.is_some_and(|before| self.entered - before < self.round_trip);
        let mut probe = self.round_trip;
        if self.single && !in_flight {
            probe += DELAYED_ACKNOWLEDGEMENT;
        }
        let noticed = match (self.followed, after) {
            (true, _) => Duration::ZERO,
            (false, Some(after)) => (after - self.entered).min(probe),
            (false, None) => probe,
        };
        self.leaves + noticed + self.round_trip * self.retransmissions
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
    let waiting: RefCell<VecDeque<(Train, Vec<u8>)>> = RefCell::default();
    let alarm = Alarm::new()?;
    let (bytes, filled, drained) = (Cell::new(0), Notify::new(), Notify::new());
    let reading = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            while bytes.get() >= WAITING_BYTES_MAX {
                drained.notified().await;
            }
            direction.until_drained().await;
            let room = direction.room_bytes(Instant::now());
            let count = from.read(&mut buffer[..room]).await?;
            if count == 0 {
                return io::Result::Ok(());
            }
            let train = direction.enter(Instant::now(), count);
            bytes.set(bytes.get() + count);
            let mut waiting = waiting.borrow_mut();
            waiting.push_back((train, buffer[..count].to_vec()));
            filled.notify_one();
        }
    };
    let writing = async {
        let mut before = None;
        loop {
            let front = {
                let waiting = waiting.borrow();
                let after = waiting.get(1).map(|(train, _)| train.entered);
                let front = waiting.front();
                front.map(|(train, _)| train.arrives(before, after))
            };
            let Some(arrives) = front else {
                filled.notified().await;
                continue;
            };
            // The next train may tell the sender earlier that this one was lost.
            tokio::select! {
                rung = alarm.until(arrives) => rung?,
                () = filled.notified() => continue,
            }
            direction.until_open().await;
            let next = waiting.borrow_mut().pop_front();
            let (train, segments) = next.expect("only this loop takes trains away");
            to.write_all(&segments).await?;
            direction.passed(train.entered);
            before = Some(train.entered);
            bytes.set(bytes.get() - segments.len());
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

    const MS: Duration = Duration::from_millis(1);

    fn direction(seed: u64, loss_ppm: u32) -> Direction {
        let direction = Direction::new(Random::new(seed, 1));
        direction.set(Weather {
            delay: 50 * MS,
            loss_ppm,
            ..Weather::default()
        });
        direction
    }

    #[test]
    fn a_lost_segment_waits_until_its_loss_is_noticed_and_for_a_round_trip() {
        let now = Instant::now();
        let train = |retransmissions, followed, single| Train {
            entered: now,
            leaves: now + 50 * MS,
            round_trip: 100 * MS,
            retransmissions,
            followed,
            single,
        };
        let (long_ago, just, soon, late) = (now - 101 * MS, now - MS, now + 7 * MS, now + 900 * MS);
        for (train, before, after, ms) in [
            (train(0, true, true), None, None, 50),
            (train(1, true, false), None, None, 150),
            (train(1, false, false), None, None, 250),
            (train(1, false, true), None, None, 450),
            (train(1, false, true), Some(long_ago), None, 450),
            (train(1, false, true), Some(just), None, 250),
            (train(1, false, true), None, Some(soon), 157),
            (train(1, false, true), None, Some(late), 450),
            (train(2, false, true), None, Some(soon), 257),
        ] {
            let arrives = train.arrives(before, after) - now;
            assert_eq!(arrives, ms * MS, "{train:?} {before:?} {after:?}");
        }
    }

    #[test]
    fn trains_are_delayed_and_lost_as_often_as_asked() {
        let direction = direction(7, 10_000);
        let start = Instant::now();
        let mut last = start;
        for nth in 0..10_000 {
            let now = start + nth * MS;
            let train = direction.enter(now, 100);
            assert!(train.leaves >= now + 50 * MS && train.leaves >= last);
            assert!(train.single && (train.retransmissions == 0 || !train.followed));
            last = train.leaves;
        }
        // 10,000 single segments at 1 %: six standard deviations are 60.
        let stalls = direction.stalls();
        assert!((40..=160).contains(&stalls), "{stalls}");
    }

    #[test]
    fn a_full_queue_costs_a_segment_and_takes_no_more_than_it_may() {
        let direction = Direction::new(Random::new(9, 1));
        direction.set(Weather {
            delay: 10 * MS,
            bytes_per_s: Some(1_250_000),
            queue_max: Some(100 * MS),
            ..Weather::default()
        });
        // 100 ms are 125,000 bytes.
        let (now, mut entered) = (Instant::now(), 0);
        while direction.dropped() == 0 {
            let bytes = direction.room_bytes(now);
            assert!((SEGMENT_BYTES..=READ_BYTES).contains(&bytes));
            let train = direction.enter(now, bytes);
            assert_eq!(train.retransmissions, direction.dropped() as u32);
            entered += bytes;
        }
        assert!(
            (125_000..=125_000 + 2 * SEGMENT_BYTES).contains(&entered),
            "{entered}"
        );
        assert!(direction.room_bytes(now + 60 * MS) > 60_000);
    }

    #[test]
    fn a_lossy_path_carries_what_its_window_lets_through() {
        // 12 segments in 100 ms are 173,760 bytes per second.
        let direction = direction(8, 10_000);
        let start = Instant::now();
        let trains = (0..1_000).map(|_| direction.enter(start, 10 * SEGMENT_BYTES));
        let last = trains.last().unwrap().leaves - start - 50 * MS;
        let bytes_per_s = (10_000 * SEGMENT_BYTES) as f64 / last.as_secs_f64();
        assert!(
            (bytes_per_s / 173_760.0 - 1.0).abs() < 0.01,
            "{bytes_per_s}"
        );
    }
}
