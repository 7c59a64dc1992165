//! OmniPaxos with the leader's own accept counted when it is durable.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use omnipaxos::messages::Message;
use omnipaxos::messages::sequence_paxos::{PaxosMessage, PaxosMsg};
use omnipaxos::util::NodeId;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use synod_baseline_shell::{Malformed, Output, Protocol, Setting};
use synod_engine::config::Timers;
use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot, Time};
use synod_engine::message::Value;
use synod_engine::output::Leadership;
use synod_engine::seams::{Lane, WalRead};
use synod_transport::Limits;

use crate::codec::{self, Batch};
use crate::gate::Gate;
use crate::store::{CONFIGURATION, Store, to_synod};

const TICK_NS: u64 = 10_000_000;
/// A late turn catches up with its ticks, but not so far that one long pause elects somebody.
const TICKS_PER_TURN_MAX: u64 = 6;
/// Messages that may have been lost are sent again after this many ticks: the library's default.
const RESEND_TICKS: u64 = 100;
/// A repeated promise is not answered again for this long: each answer carries everything that its sender lacks.
const SYNC_PATIENCE_NS: u64 = 3_000_000_000;
/// The library answers a replica that lags with everything it lacks in one message.
const SYNC_BYTES_MAX: usize = 1 << 30;

#[derive(Args, Clone)]
pub struct Flags {
    /// Entries (each one batch of a turn) that the library gathers before it sends them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch_size: u32,
}

pub struct Omni {
    id: NodeId,
    library: OmniPaxos<Batch, Store>,
    store: Store,
    gate: Gate,
    cache_bytes_max: usize,
    durable: Lsn,
    /// Every slot up to here was handed out.
    chosen: Slot,
    /// As leader: what has to be decided before clients are served, and the round it was noted in.
    inherited: Option<(Ballot, usize)>,
    /// Messages whose answer needs values that are only in the WAL.
    waiting: Vec<Waiting>,
    /// A part of them is being read.
    recalling: bool,
    /// When the promise of each peer was last handed on, and for which round.
    promises: BTreeMap<NodeId, (Ballot, Time)>,
    now: Time,
    next_tick: Time,
    buffer: Vec<Message<Batch>>,
    counters: Counters,
}

struct Waiting {
    from: Slot,
    message: Message<Batch>,
}

#[derive(Default)]
struct Counters {
    elections: u64,
    recalls: u64,
}

impl Omni {
    fn tick(&mut self, now: Time) {
        for _ in 0..TICKS_PER_TURN_MAX {
            if now < self.next_tick {
                break;
            }
            let before = self.library.get_promise();
            self.library.tick();
            let promise = self.library.get_promise();
            if promise != before && promise.pid == self.id {
                self.counters.elections += 1;
            }
            self.next_tick = self.next_tick.plus(TICK_NS);
        }
        self.next_tick = self.next_tick.max(now);
    }

    fn leads(&self) -> bool {
        self.library.get_current_leader() == Some((self.id, true))
    }

    /// Notes where the log of former leaders ends.
    fn note_leadership(&mut self) {
        let ballot = to_synod(self.library.get_promise());
        if !self.leads() {
            self.inherited = None;
        } else if self.inherited.is_none_or(|(noted, _)| noted != ballot) {
            self.inherited = Some((ballot, self.library.get_accepted_idx()));
        }
    }

    /// The first slot that the answer to a message may need.
    fn needs(message: &Message<Batch>) -> Option<Slot> {
        let Message::SequencePaxos(PaxosMessage { msg, .. }) = message else {
            return None;
        };
        match msg {
            PaxosMsg::Prepare(prepare) => Some(Slot(prepare.decided_idx as u64 + 1)),
            PaxosMsg::Promise(promise) => Some(Slot(promise.decided_idx as u64 + 1)),
            _ => None,
        }
    }

    /// Whether this is a promise that is being answered already.
    fn repeats(&mut self, message: &Message<Batch>) -> bool {
        let Message::SequencePaxos(PaxosMessage {
            from,
            msg: PaxosMsg::Promise(promise),
            ..
        }) = message
        else {
            return false;
        };
        let (ballot, now) = (to_synod(promise.n), self.now);
        let before = self.promises.get(from);
        let repeats = before
            .is_some_and(|(answered, at)| *answered == ballot && now.since(*at) < SYNC_PATIENCE_NS);
        if !repeats {
            self.promises.insert(*from, (ballot, now));
        }
        repeats
    }

    fn handle(&mut self, message: Message<Batch>) {
        self.library.handle_incoming(message);
        self.note_leadership();
    }

    /// Reads back what waiting messages need, and hands those on that have it.
    fn recall(&mut self, out: &mut Output) {
        if self.waiting.is_empty() || self.recalling {
            return;
        }
        let shared = self.store.shared();
        let first = self.waiting.iter().map(|waiting| waiting.from).min();
        let first = first.expect("somebody waits");
        let tail_first = shared.log.tail_first();
        let next = (first.0..tail_first.0)
            .map(Slot)
            .find(|slot| !shared.recalled.contains_key(slot));
        if let Some(next) = next {
            out.read(next, tail_first.previous());
            self.recalling = true;
            return;
        }
        drop(shared);
        for waiting in std::mem::take(&mut self.waiting) {
            self.handle(waiting.message);
        }
        self.store.shared().recalled.clear();
    }

    fn hand_out(&mut self, out: &mut Output) {
        let decided = Slot(self.library.get_decided_idx() as u64);
        let shared = self.store.shared();
        while self.chosen < decided {
            self.chosen = self.chosen.next();
            let value = shared.log.value(self.chosen);
            out.choose(value.expect("what is not applied stays in memory").clone());
        }
    }

    fn send(&mut self, out: &mut Output) {
        let mut messages = std::mem::take(&mut self.buffer);
        self.library.take_outgoing_messages(&mut messages);
        let appended = self.store.shared().appended;
        for message in messages.drain(..) {
            if let Some(message) = self.gate.hold_outgoing(appended, message) {
                send(message, out);
            }
        }
        self.buffer = messages;
        while let Some(message) = self.gate.release_outgoing(self.durable) {
            send(message, out);
        }
    }
}

impl Protocol for Omni {
    const LIBRARY: &'static str = "omnipaxos 0.2.4";
    const SETTINGS: &'static str =
        "batch_size 1, acknowledgements gated by the own disk, messages taken once per turn";
    type Flags = Flags;

    fn transport_limits() -> Limits {
        Limits {
            data_queue_bytes_max: SYNC_BYTES_MAX,
            frame_bytes_max: SYNC_BYTES_MAX,
            ..Limits::default()
        }
    }

    fn start(setting: Setting<Flags>) -> anyhow::Result<Omni> {
        let Setting {
            config,
            recovered,
            flags,
            now,
        } = setting;
        let (durable, chosen) = (recovered.last, recovered.commit_index);
        let store = Store::new(recovered);
        let id = u64::from(config.replica.0);
        let library = library_config(id, config.replicas, &config.timers, &flags)
            .build(store.clone())
            .map_err(|error| anyhow::anyhow!("{error:?}"))
            .context("omnipaxos refuses its settings")?;
        Ok(Omni {
            id,
            library,
            store,
            gate: Gate::default(),
            cache_bytes_max: config.limits.cache_bytes_max,
            durable,
            chosen,
            inherited: None,
            waiting: Vec::new(),
            recalling: false,
            promises: BTreeMap::new(),
            now,
            next_tick: now.plus(TICK_NS),
            buffer: Vec::new(),
            counters: Counters::default(),
        })
    }

    fn receive(&mut self, from: ReplicaId, frame: Bytes) -> Result<(), Malformed> {
        let message = codec::decode(frame)?;
        let sender = u64::from(from.0);
        if message.get_sender() != sender || message.get_receiver() != self.id {
            return Err(Malformed);
        }
        if let Message::SequencePaxos(PaxosMessage {
            msg: PaxosMsg::Accepted(accepted),
            ..
        }) = &message
        {
            self.gate.hold_incoming(sender, accepted);
            return Ok(());
        }
        if self.repeats(&message) {
            return Ok(());
        }
        let tail_first = self.store.shared().log.tail_first();
        match Omni::needs(&message) {
            Some(from) if from < tail_first => {
                // A repeat replaces what the same peer asked before.
                self.waiting
                    .retain(|waiting| waiting.message.get_sender() != sender);
                self.waiting.push(Waiting { from, message });
            }
            Some(_) | None => self.handle(message),
        }
        Ok(())
    }

    fn propose(&mut self, values: Vec<Value>) {
        for value in values {
            let appended = self.library.append(Batch::new(value));
            assert!(appended.is_ok(), "only a reconfiguration refuses entries");
        }
    }

    fn durable(&mut self, lsn: Lsn) {
        self.durable = lsn;
        self.store.shared().durable(lsn);
    }

    fn read_back(&mut self, read: WalRead) {
        self.counters.recalls += 1;
        self.recalling = false;
        let slots = (read.from.0..).map(Slot);
        let mut shared = self.store.shared();
        shared.recalled.extend(slots.zip(read.values));
    }

    fn flush(&mut self, now: Time, out: &mut Output) {
        self.now = now;
        self.tick(now);
        self.recall(out);
        let durable_idx = self.store.shared().durable_idx();
        for message in self.gate.release_incoming(self.id, durable_idx) {
            self.handle(message);
        }
        self.note_leadership();
        self.hand_out(out);
        self.send(out);
        let mut shared = self.store.shared();
        for record in shared.records.drain(..) {
            out.append(record);
        }
        assert!(out.appended() == shared.appended, "a record got lost");
        if self.waiting.is_empty() {
            shared
                .log
                .evict(self.chosen, self.durable, self.cache_bytes_max);
        }
    }

    fn deadline(&self) -> Time {
        match self.waiting.is_empty() || self.recalling {
            true => self.next_tick,
            false => Time(0),
        }
    }

    fn leadership(&self) -> Leadership {
        let leader = self.library.get_current_leader();
        let leader = leader.filter(|(_, established)| *established);
        Leadership {
            ballot: to_synod(self.library.get_promise()),
            leader: leader.map(|(leader, _)| ReplicaId(leader as u8)),
        }
    }

    fn serves(&self) -> bool {
        self.leads()
            && self
                .inherited
                .is_some_and(|(_, inherited)| self.chosen.0 as usize >= inherited)
    }

    fn commit_index(&self) -> Slot {
        Slot(self.library.get_decided_idx() as u64)
    }

    fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("elections", self.counters.elections);
        report("recalls", self.counters.recalls);
    }
}

/// Each setting's reason is in README.md.
fn library_config(id: NodeId, replicas: u8, timers: &Timers, flags: &Flags) -> OmniPaxosConfig {
    OmniPaxosConfig {
        cluster_config: ClusterConfig {
            configuration_id: CONFIGURATION,
            nodes: (1..=u64::from(replicas)).collect(),
            flexible_quorum: None,
        },
        server_config: ServerConfig {
            pid: id,
            election_tick_timeout: timers.election_timeout_ns / TICK_NS,
            resend_message_tick_timeout: RESEND_TICKS,
            buffer_size: 1_024,
            batch_size: flags.batch_size as usize,
            flush_batch_tick_timeout: 1,
            leader_priority: 0,
        },
    }
}

fn send(message: Message<Batch>, out: &mut Output) {
    let to = ReplicaId(message.get_receiver() as u8);
    // What is numbered has to stay in order; the rest is small and urgent.
    let lane = match &message {
        Message::SequencePaxos(PaxosMessage { msg, .. }) => match msg {
            PaxosMsg::AcceptSync(_)
            | PaxosMsg::AcceptDecide(_)
            | PaxosMsg::Decide(_)
            | PaxosMsg::Promise(_) => Lane::Data,
            _ => Lane::Control,
        },
        Message::BLE(_) => Lane::Control,
    };
    let (head, body) = codec::encode(message);
    out.send(to, lane, head, body);
}
