//! What a baseline has to bring: a library that agrees on a log.

use std::future::{Future, pending};

use bytes::Bytes;
use clap::Args;
use synod_engine::config::Config;
use synod_engine::ids::{Lsn, ReplicaId, Slot, Time};
use synod_engine::message::Value;
use synod_engine::output::Leadership;
use synod_engine::seams::WalRead;
use synod_transport::Limits;

use crate::output::Output;
use crate::recovery::Recovered;

/// What a protocol starts from.
pub struct Setting<F> {
    /// Who this replica is, its timers and limits: the same for Synod and all baselines.
    pub config: Config,
    /// What the disk held.
    pub recovered: Recovered,
    /// What the command line says for this library alone.
    pub flags: F,
    pub now: Time,
}

/// A frame that a peer should not have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame")]
pub struct Malformed;

/// One replica's end of a replicated log. The shell calls [`Protocol::flush`] once per turn, after everything that
/// arrived, and carries out what that asked for.
pub trait Protocol: Sized {
    /// The library and its version.
    const LIBRARY: &'static str;
    /// How it is set up, in one line: the README has all of it.
    const SETTINGS: &'static str;
    type Flags: Args + Clone;

    /// What links and inbox may hold: Synod's limits, unless the library can't live with them.
    fn transport_limits() -> Limits {
        Limits::default()
    }

    fn start(setting: Setting<Self::Flags>) -> anyhow::Result<Self>;

    /// Takes what a peer's [`Output::send`] sent, without the length prefix.
    fn receive(&mut self, from: ReplicaId, frame: Bytes) -> Result<(), Malformed>;

    /// Puts values at the end of the log, in this order. Only while [`Protocol::serves`].
    fn propose(&mut self, values: Vec<Value>);

    /// Every record up to here is on the disk.
    fn durable(&mut self, lsn: Lsn);

    /// The answer to the oldest unanswered [`Output::read`].
    fn read_back(&mut self, read: WalRead);

    /// Lets the library act on all of the above.
    fn flush(&mut self, now: Time, out: &mut Output);

    /// When to flush at the latest.
    fn deadline(&self) -> Time;

    /// Whether the library did something by itself, so that a turn is due.
    fn has_news(&self) -> bool {
        false
    }

    /// Returns when [`Protocol::has_news`] may have become true.
    fn woken(&self) -> impl Future<Output = ()> {
        pending()
    }

    /// Whether the library refused a proposal since it was asked last, though it seemed to lead. What was proposed and
    /// not chosen is then taken in again from the clients.
    fn take_refusal(&mut self) -> bool {
        false
    }

    /// Who leads, with a term or round that grows with each change.
    fn leadership(&self) -> Leadership;

    /// Whether this replica leads and has handed out everything that former leaders may have had chosen.
    fn serves(&self) -> bool;

    fn commit_index(&self) -> Slot;

    /// Reports counters of the library by name. `elections` is expected.
    fn report(&self, report: &mut dyn FnMut(&'static str, u64));
}
