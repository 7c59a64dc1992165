//! The event loop around one replica, whatever protocol it runs.
//!
//! One thread owns everything mutable: it takes what arrived, gives the replica a turn, and sleeps until something
//! arrives, the disk finishes something, or the replica's deadline comes.

use std::future::{Future, pending};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use synod_engine::ids::Time;
use synod_engine::seams::Arrival;
use synod_transport::Inbox;
use tokio::signal::unix::{SignalKind, signal};

use crate::counter_fd::CounterFd;
use crate::idle_spin::IdleSpin;
use crate::parent;

/// What the event loop drives: a replica with its disk and its links.
pub trait Node {
    /// Takes everything that arrived and acts on it. Fails when the replica must end: its disk failed, or another
    /// one has its place.
    fn turn(&mut self, now: Time, arrivals: &mut Vec<Arrival>) -> anyhow::Result<()>;

    /// When to call [`Node::turn`] at the latest.
    fn deadline(&self) -> Time;

    /// Whether something happened since the last turn that is not in the inbox, so that another one is due.
    fn has_news(&mut self) -> bool;

    /// Returns when something happened that neither the inbox nor the disk's event tells of.
    fn woken(&self) -> impl Future<Output = ()> {
        pending()
    }

    /// Tells peers and clients that this replica goes, and gives its resources back.
    fn close(self) -> impl Future<Output = ()>;
}

/// An opened replica and what its loop sleeps on.
pub struct Opened<N> {
    pub node: N,
    pub inbox: Inbox,
    /// Readable when the disk finished something.
    pub wal_event: OwnedFd,
    pub idle_spin: Duration,
}

/// Opens a replica and runs it until it is told to end or its disk fails. `open` is given the origin of time.
pub async fn run<N: Node>(
    exit_with_parent: bool,
    open: impl FnOnce(Instant) -> anyhow::Result<Opened<N>>,
) -> anyhow::Result<()> {
    // Signals are caught before anything is open, so that an early SIGTERM is graceful as well.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // It means "read the certificates again", which is done elsewhere; before that is ready it must not end the process.
    let _hangup = signal(SignalKind::hangup())?;
    // A limit on file sizes is an error of the write that meets it, reported like a full disk; the signal would end
    // the process without a word.
    let _file_size_limit = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let parent_gone = async move {
        match exit_with_parent {
            true => parent::gone().await,
            false => pending().await,
        }
    };
    let clock = Instant::now();
    let mut event_loop = EventLoop::new(clock, open(clock)?)?;
    tokio::select! {
        result = event_loop.turns() => return result,
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = parent_gone => tracing::info!("the parent is gone: stopping"),
    }
    // Nothing is owed to the disk that anyone was told about. Peers and clients learn at once that we are gone.
    event_loop.node.close().await;
    Ok(())
}

/// Time on the loop's clock.
pub fn now(clock: Instant) -> Time {
    Time(clock.elapsed().as_nanos() as u64)
}

struct EventLoop<N> {
    node: N,
    inbox: Inbox,
    wal_event: CounterFd,
    idle_spin: IdleSpin,
    clock: Instant,
}

impl<N: Node> EventLoop<N> {
    fn new(clock: Instant, opened: Opened<N>) -> anyhow::Result<EventLoop<N>> {
        let wal_event =
            CounterFd::new(opened.wal_event).context("the event of the WAL cannot be watched")?;
        Ok(EventLoop {
            node: opened.node,
            inbox: opened.inbox,
            wal_event,
            idle_spin: IdleSpin::new(opened.idle_spin),
            clock,
        })
    }

    /// Runs until the disk fails.
    async fn turns(&mut self) -> anyhow::Result<()> {
        let mut arrivals = Vec::new();
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        #[cfg(feature = "slowdown")]
        let mut slowdown = crate::slowdown::Slowdown::from_environment();
        loop {
            if let Some(why) = self.inbox.failure() {
                anyhow::bail!(why);
            }
            self.inbox.drain(&mut arrivals);
            self.idle_spin.note(now(self.clock), &arrivals);
            self.node.turn(now(self.clock), &mut arrivals)?;
            #[cfg(feature = "slowdown")]
            slowdown.pause();
            let deadline = self.clock + Duration::from_nanos(self.node.deadline().0);
            if sleep.deadline() != deadline.into() {
                sleep.as_mut().reset(deadline.into());
            }
            // Everything that is ready now comes in before the next turn, so that batches grow under load.
            tokio::task::yield_now().await;
            if self.idle_spin.worthwhile(now(self.clock)) {
                self.spin().await;
            }
            tokio::select! {
                biased;
                () = self.inbox.notified() => {}
                () = self.node.woken() => {}
                result = self.wal_event.counted() => {
                    result.context("the event of the WAL is gone")?;
                }
                () = &mut sleep => {}
            }
        }
    }

    /// Stays awake for a moment, until there is news or somebody else wants the core.
    async fn spin(&mut self) {
        let mut spinning = self.idle_spin.start();
        while self.inbox.is_empty() && !self.node.has_news() && spinning.goes_on() {
            tokio::task::yield_now().await;
        }
    }
}
