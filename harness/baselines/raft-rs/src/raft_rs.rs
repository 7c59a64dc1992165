//! raft-rs with asynchronous persistence: the leader's messages leave before its own sync, everybody's
//! acknowledgements after it.

use std::collections::VecDeque;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Config, RawNode, Ready, StateRole};
use synod_baseline_shell::{Malformed, Output, Protocol, Setting};
use synod_engine::config::Timers;
use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot, Time};
use synod_engine::message::Value;
use synod_engine::output::Leadership;
use synod_engine::seams::{Lane, WalRead};

use crate::codec;
use crate::store::Store;

/// The library counts time in ticks; heartbeats and elections are a few of them.
const TICKS_PER_HEARTBEAT: u64 = 3;
const TICKS_PER_TURN_MAX: u64 = 2 * TICKS_PER_HEARTBEAT;

#[derive(Args, Clone)]
pub struct Flags {}

pub struct RaftRs {
    node: RawNode<Store>,
    cache_bytes_max: usize,
    durable: Lsn,
    /// Readies that wait for the disk, in order.
    pending: VecDeque<Pending>,
    tick_ns: u64,
    next_tick: Time,
    counters: Counters,
}

struct Pending {
    /// The ready is durable with this record.
    lsn: Lsn,
    number: u64,
    messages: Vec<Message>,
}

#[derive(Default)]
struct Counters {
    elections: u64,
    proposals_dropped: u64,
    step_errors: u64,
    fetches: u64,
}

impl RaftRs {
    fn handle(&mut self, mut ready: Ready, out: &mut Output) {
        if ready
            .ss()
            .is_some_and(|soft| soft.raft_state == StateRole::Candidate)
        {
            self.counters.elections += 1;
        }
        for message in ready.take_messages() {
            send(message, out);
        }
        let committed = self.node.raft.raft_log.committed;
        let entries = ready.take_entries();
        let store = self.node.mut_store();
        // Before the entries: no record may be of a term that a restart would not know.
        if let Some(hard_state) = ready.hs() {
            store.set_hard_state(hard_state, out);
        }
        for entry in entries {
            store.append(entry, committed, out);
        }
        let mut applied = None;
        for entry in ready.take_committed_entries() {
            applied = Some(entry.index);
            out.choose(entry.data);
        }
        self.pending.push_back(Pending {
            lsn: out.appended(),
            number: ready.number(),
            messages: ready.take_persisted_messages(),
        });
        self.node.advance_append_async(ready);
        if let Some(applied) = applied {
            self.node.advance_apply_to(applied);
        }
    }

    /// Tells the library what the disk has, and sends what waited for it.
    fn release(&mut self, out: &mut Output) {
        while let Some(pending) = self
            .pending
            .pop_front_if(|pending| pending.lsn <= self.durable)
        {
            self.node.on_persist_ready(pending.number);
            for message in pending.messages {
                send(message, out);
            }
        }
    }
}

impl Protocol for RaftRs {
    const LIBRARY: &'static str = "raft 0.7.0";
    const SETTINGS: &'static str = "asynchronous persistence, one proposal per turn, batch_append, 256 messages in flight, 1 MiB per message";
    type Flags = Flags;

    fn start(setting: Setting<Flags>) -> anyhow::Result<RaftRs> {
        let Setting {
            config,
            recovered,
            flags: Flags {},
            now,
        } = setting;
        let raft = raft_config(
            u64::from(config.replica.0),
            recovered.commit_index,
            &config.timers,
        );
        let durable = recovered.last;
        let store = Store::new(recovered, config.replicas);
        // What it logs is for its developers.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft, store, &logger).context("raft-rs refuses its settings")?;
        let tick_ns = tick_ns(&config.timers);
        Ok(RaftRs {
            node,
            cache_bytes_max: config.limits.cache_bytes_max,
            durable,
            pending: VecDeque::new(),
            tick_ns,
            next_tick: now.plus(tick_ns),
            counters: Counters::default(),
        })
    }

    fn receive(&mut self, from: ReplicaId, frame: Bytes) -> Result<(), Malformed> {
        let message = codec::decode(frame)?;
        if message.from != u64::from(from.0) {
            return Err(Malformed);
        }
        if self.node.step(message).is_err() {
            self.counters.step_errors += 1;
        }
        Ok(())
    }

    /// One message for everything of a turn: stepping them one by one costs 15 % of the throughput.
    fn propose(&mut self, values: Vec<Value>) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        let entry = |data| Entry {
            data,
            ..Entry::default()
        };
        message.set_entries(values.into_iter().map(entry).collect::<Vec<_>>().into());
        if self.node.step(message).is_err() {
            self.counters.proposals_dropped += 1;
        }
    }

    fn durable(&mut self, lsn: Lsn) {
        self.durable = lsn;
    }

    fn read_back(&mut self, read: WalRead) {
        self.counters.fetches += 1;
        if let Some(context) = self.node.mut_store().fetched(read) {
            self.node.on_entries_fetched(context);
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output) {
        // A late turn catches up, but not so far that one long pause elects somebody.
        for _ in 0..TICKS_PER_TURN_MAX {
            if now < self.next_tick {
                break;
            }
            self.node.tick();
            self.next_tick = self.next_tick.plus(self.tick_ns);
        }
        self.next_tick = self.next_tick.max(now);
        loop {
            self.release(out);
            if !self.node.has_ready() {
                break;
            }
            let ready = self.node.ready();
            self.handle(ready, out);
        }
        let applied = Slot(self.node.raft.raft_log.applied);
        let (durable, bytes_max) = (self.durable, self.cache_bytes_max);
        let store = self.node.mut_store();
        store.log.evict(applied, durable, bytes_max);
        store.fetch(out);
    }

    fn deadline(&self) -> Time {
        self.next_tick
    }

    fn leadership(&self) -> Leadership {
        let raft = &self.node.raft;
        let leader = ReplicaId(raft.leader_id as u8);
        Leadership {
            ballot: Ballot {
                round: raft.term,
                replica: leader,
            },
            leader: (leader.0 > 0).then_some(leader),
        }
    }

    fn serves(&self) -> bool {
        self.node.raft.state == StateRole::Leader && self.node.raft.apply_to_current_term()
    }

    fn commit_index(&self) -> Slot {
        Slot(self.node.raft.raft_log.committed)
    }

    fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.counters;
        report("elections", counters.elections);
        report("proposals_dropped", counters.proposals_dropped);
        report("step_errors", counters.step_errors);
        report("fetches_served", counters.fetches);
    }
}

fn tick_ns(timers: &Timers) -> u64 {
    timers.heartbeat_ns / TICKS_PER_HEARTBEAT
}

/// Each setting's reason is in README.md.
fn raft_config(id: u64, applied: Slot, timers: &Timers) -> Config {
    let ticks = |nanos: u64| (nanos / tick_ns(timers)) as usize;
    let election_tick = ticks(timers.election_timeout_ns);
    Config {
        id,
        applied: applied.0,
        heartbeat_tick: TICKS_PER_HEARTBEAT as usize,
        election_tick,
        min_election_tick: election_tick,
        max_election_tick: election_tick + ticks(timers.election_jitter_ns).max(1),
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        batch_append: true,
        skip_bcast_commit: true,
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    }
}

fn send(message: Message, out: &mut Output) {
    let to = ReplicaId(message.to as u8);
    // Entries and what must stay in order with them; the rest is small and urgent.
    let lane = match message.get_msg_type() {
        MessageType::MsgAppend => Lane::Data,
        _ => Lane::Control,
    };
    let (head, body) = codec::encode(message);
    out.send(to, lane, head, body);
}
