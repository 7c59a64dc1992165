//! One direction between two replicas.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Course, Weather};
use crate::chaos::random::Random;
use crate::links::alarm::Alarm;

/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Bytes that may be on their way or held, as a bound on our own memory; a router's is [`Weather::queue_max`].
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The sockets of one direction, and the replicas' own addresses at its ends.
pub struct Pair {
    pub arrival: Rc<UdpSocket>,
    pub from: SocketAddr,
    pub departure: Rc<UdpSocket>,
    pub to: SocketAddr,
}

pub struct Link {
    pair: Pair,
    weather: Cell<Weather>,
    changed: Notify,
    course: RefCell<Course>,
    achieved: Cell<Achieved>,
    waiting: RefCell<Waiting>,
    counts: Cell<Counts>,
    alarm: Alarm,
}

/// What happened to the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub arrived: u64,
    pub forwarded: u64,
    pub cut: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub delayed: u64,
    pub held: u64,
    /// Found a full queue, or was refused by the kernel.
    pub dropped: u64,
    /// Not from the replica that this link belongs to.
    pub strangers: u64,
}

/// How long what was delayed was on its way, by the emulator's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Achieved {
    pub count: u64,
    pub sum_us: u64,
    /// 0 of none.
    pub least_us: u64,
    pub most_us: u64,
}

impl Achieved {
    pub fn add(&mut self, delay: Duration) {
        let us = delay.as_micros() as u64;
        self.least_us = match self.count {
            0 => us,
            _ => self.least_us.min(us),
        };
        self.count += 1;
        self.sum_us += us;
        self.most_us = self.most_us.max(us);
    }
}

impl Counts {
    pub fn plus(self, other: Counts) -> Counts {
        self.combine(other, |one, two| one + two)
    }

    /// What was counted since `earlier`.
    pub fn since(self, earlier: Counts) -> Counts {
        self.combine(earlier, |one, two| one - two)
    }

    fn combine(self, other: Counts, f: impl Fn(u64, u64) -> u64) -> Counts {
        Counts {
            arrived: f(self.arrived, other.arrived),
            forwarded: f(self.forwarded, other.forwarded),
            cut: f(self.cut, other.cut),
            lost: f(self.lost, other.lost),
            duplicated: f(self.duplicated, other.duplicated),
            delayed: f(self.delayed, other.delayed),
            held: f(self.held, other.held),
            dropped: f(self.dropped, other.dropped),
            strangers: f(self.strangers, other.strangers),
        }
    }
}

/// When a datagram leaves, its number in order of arrival, when it arrived, and itself.
type Delayed = (Instant, u64, Instant, Vec<u8>);

/// Datagrams that leave later.
#[derive(Default)]
struct Waiting {
    /// By the time to leave, then in order of arrival.
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Until the clog ends, in order.
    held: Vec<Vec<u8>>,
    bytes: usize,
    next: u64,
}

impl Link {
    pub fn new(pair: Pair, random: Random) -> anyhow::Result<Link> {
        Ok(Link {
            pair,
            weather: Cell::default(),
            changed: Notify::new(),
            course: RefCell::new(Course::new(random)),
            achieved: Cell::default(),
            waiting: RefCell::default(),
            counts: Cell::default(),
            alarm: Alarm::new().context("no timer for a link")?,
        })
    }

    pub fn set(&self, weather: Weather) {
        self.weather.set(weather);
        self.changed.notify_one();
    }

    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    pub fn achieved(&self) -> Achieved {
        self.achieved.get()
    }

    pub async fn run(&self) -> anyhow::Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                () = self.changed.notified() => self.release().await,
                rung = self.alarm.until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    rung.context("the timer of a link fails")?;
                    self.send_due().await;
                }
                received = self.pair.arrival.recv_from(&mut buffer) => {
                    let (bytes, sender) = received.context("the fault proxy cannot receive")?;
                    self.arrived(&buffer[..bytes], sender).await;
                }
            }
        }
    }

    async fn arrived(&self, datagram: &[u8], sender: SocketAddr) {
        if sender != self.pair.from {
            return self.count(|counts| counts.strangers += 1);
        }
        self.count(|counts| counts.arrived += 1);
        let weather = self.weather.get();
        if weather.cut {
            return self.count(|counts| counts.cut += 1);
        }
        if self.course.borrow_mut().happens(weather.loss_ppm) {
            return self.count(|counts| counts.lost += 1);
        }
        if self.happens(weather.duplicate_percent) {
            self.count(|counts| counts.duplicated += 1);
            self.pass(datagram, weather).await;
        }
        self.pass(datagram, weather).await;
    }

    /// Forwards a datagram, now or later.
    async fn pass(&self, datagram: &[u8], weather: Weather) {
        if weather.clogged {
            let waits = self.waiting.borrow_mut().hold(datagram);
            self.count(|counts| match waits {
                true => counts.held += 1,
                false => counts.dropped += 1,
            });
        } else if weather.is_immediate() {
            self.send(datagram).await;
        } else {
            let now = Instant::now();
            let mut course = self.course.borrow_mut();
            if course.is_full(now, &weather) {
                return self.count(|counts| counts.dropped += 1);
            }
            let at = course.leaves(now, datagram.len(), &weather);
            let waits = self.waiting.borrow_mut().delay(at, now, datagram);
            self.count(|counts| match waits {
                true => counts.delayed += 1,
                false => counts.dropped += 1,
            });
        }
    }

    /// Sends what was held, if nothing holds it any more.
    async fn release(&self) {
        if self.weather.get().clogged {
            return;
        }
        let held = self.waiting.borrow_mut().take_held();
        for datagram in held {
            self.send(&datagram).await;
        }
    }

    async fn send_due(&self) {
        let now = Instant::now();
        loop {
            let datagram = self.waiting.borrow_mut().take_due(now);
            let Some((arrived, datagram)) = datagram else {
                return;
            };
            // What was under way when the link was cut does not arrive either.
            if self.weather.get().cut {
                self.count(|counts| counts.cut += 1);
            } else {
                self.send(&datagram).await;
                let mut achieved = self.achieved.get();
                achieved.add(arrived.elapsed());
                self.achieved.set(achieved);
            }
        }
    }

    async fn send(&self, datagram: &[u8]) {
        let sent = self.pair.departure.send_to(datagram, self.pair.to).await;
        // A network tells nobody either.
        self.count(|counts| match sent {
            Ok(_) => counts.forwarded += 1,
            Err(_) => counts.dropped += 1,
        });
    }

    fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.delayed.peek().map(|Reverse((at, ..))| *at)
    }

    fn happens(&self, percent: u8) -> bool {
        self.course
            .borrow_mut()
            .happens(u32::from(percent) * 10_000)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

impl Waiting {
    fn hold(&mut self, datagram: &[u8]) -> bool {
        let room = self.admit(datagram);
        if room {
            self.held.push(datagram.to_vec());
        }
        room
    }

    fn delay(&mut self, at: Instant, arrived: Instant, datagram: &[u8]) -> bool {
        let room = self.admit(datagram);
        if room {
            let number = self.next;
            self.next += 1;
            self.delayed
                .push(Reverse((at, number, arrived, datagram.to_vec())));
        }
        room
    }

    fn take_held(&mut self) -> Vec<Vec<u8>> {
        let held = std::mem::take(&mut self.held);
        self.bytes -= held.iter().map(Vec::len).sum::<usize>();
        held
    }

    fn take_due(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        let Reverse((at, ..)) = self.delayed.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, _, arrived, datagram)) = self.delayed.pop()?;
        self.bytes -= datagram.len();
        Some((arrived, datagram))
    }

    fn admit(&mut self, datagram: &[u8]) -> bool {
        let room = self.bytes + datagram.len() <= WAITING_BYTES_MAX;
        if room {
            self.bytes += datagram.len();
        }
        room
    }
}
