//! openraft between the shell's turns: its tasks run whenever the loop yields.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use openraft::alias::OneshotReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use synod_baseline_shell::{Malformed, Output, Protocol, Setting};
use synod_engine::config::Timers;
use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot, Time};
use synod_engine::message::Value;
use synod_engine::output::Leadership;
use synod_engine::seams::WalRead;
use tokio::sync::mpsc;

use crate::codec;
use crate::log_store::LogStore;
use crate::machine::Machine;
use crate::network::Factory;
use crate::server::Server;
use crate::shared::Shared;
use crate::types::{Batch, Members, Types, ballot_of, slot_of};

/// The library has timers of its own; the loop only looks in from time to time.
const LOOK_IN_NS: u64 = 100_000_000;
/// The interval is also the time that the library gives a heartbeat to be answered.
const HEARTBEAT_MS: u64 = 100;

#[derive(Args, Clone)]
pub struct Flags {}

pub struct OpenRaft {
    id: u64,
    shared: Arc<Shared>,
    /// Filled by the task that starts the library.
    started: Arc<OnceLock<Raft<Types, Machine>>>,
    server: Option<Server>,
    proposals: mpsc::UnboundedSender<Value>,
    leadership: Leadership,
    leads: bool,
    cache_bytes_max: usize,
    deadline: Time,
    elections: u64,
}

impl OpenRaft {
    /// Looks at what the library says about itself.
    fn look(&mut self) {
        let Some(server) = &self.server else {
            return;
        };
        let metrics = server.raft().metrics();
        let metrics = metrics.borrow_watched();
        assert!(
            metrics.running_state.is_ok(),
            "openraft stopped: {:?}",
            metrics.running_state
        );
        let leads = metrics.state == ServerState::Leader;
        if leads && !self.leads {
            self.elections += 1;
        }
        self.leads = leads;
        self.leadership = Leadership {
            ballot: Ballot {
                round: metrics.current_term,
                replica: ReplicaId(metrics.current_leader.unwrap_or(0) as u8),
            },
            leader: metrics.current_leader.map(|leader| ReplicaId(leader as u8)),
        };
    }
}

impl Protocol for OpenRaft {
    const LIBRARY: &'static str = "openraft 0.10.0-alpha.37";
    const SETTINGS: &'static str = "pipelined stream_append (256 requests), one sync per batch, max_payload_entries 4096, no snapshots";
    type Flags = Flags;

    fn start(setting: Setting<Flags>) -> anyhow::Result<OpenRaft> {
        let Setting {
            config,
            recovered,
            flags: Flags {},
            now,
        } = setting;
        let id = u64::from(config.replica.0);
        let everybody: BTreeSet<u64> = (1..=u64::from(config.replicas)).collect();
        let members = Members::new_with_defaults(vec![everybody.clone()], []);
        let founds = recovered.log.last() == Slot::ZERO && id == 1;
        // A number of questions that no process asks between two of its records.
        let first_id = recovered.last.0 << 32;
        let shared = Shared::new(recovered, members, first_id);
        let library = library_config(&config.timers)
            .validate()
            .context("openraft refuses its settings")?;
        let started = Arc::new(OnceLock::new());
        let (proposals, to_propose) = mpsc::unbounded_channel();
        tokio::spawn(run(
            id,
            Arc::new(library),
            Arc::clone(&shared),
            Arc::clone(&started),
            founds.then_some(everybody),
            to_propose,
        ));
        Ok(OpenRaft {
            id,
            shared,
            started,
            server: None,
            proposals,
            leadership: Leadership::UNKNOWN,
            leads: false,
            cache_bytes_max: config.limits.cache_bytes_max,
            deadline: now,
            elections: 0,
        })
    }

    fn receive(&mut self, from: ReplicaId, frame: Bytes) -> Result<(), Malformed> {
        let rpc = codec::decode(frame)?;
        // Before the library has started, a lost message is what the peer gets.
        if let Some(server) = &mut self.server {
            server.take(from, rpc);
        }
        Ok(())
    }

    fn propose(&mut self, values: Vec<Value>) {
        for value in values {
            // It ends with the library, which the next turn reports.
            let _ = self.proposals.send(value);
        }
    }

    fn durable(&mut self, lsn: Lsn) {
        self.shared.lock().durable(lsn);
    }

    fn read_back(&mut self, read: WalRead) {
        let asker = self.shared.lock().reading.pop_front();
        if let Some(asker) = asker {
            // Whoever gave up waiting needs no answer.
            let _ = asker.send(read.values);
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output) {
        if self.server.is_none()
            && let Some(raft) = self.started.get()
        {
            self.server = Some(Server::new(Arc::clone(&self.shared), raft.clone()));
        }
        self.look();
        self.deadline = now.plus(LOOK_IN_NS);
        let mut state = self.shared.lock();
        for record in state.records.drain(..) {
            out.append(record);
        }
        for (to, lane, head, body) in state.frames.drain(..) {
            out.send(to, lane, head, body);
        }
        for value in state.chosen.drain(..) {
            out.choose(value);
        }
        for (from, through) in state.reads.drain(..) {
            out.read(from, through);
        }
        let applied = state.applied.map_or(Slot::ZERO, |id| slot_of(id.index));
        let durable = state.durable;
        state.log.evict(applied, durable, self.cache_bytes_max);
    }

    fn deadline(&self) -> Time {
        self.deadline
    }

    fn has_news(&self) -> bool {
        self.shared.lock().has_news()
    }

    fn woken(&self) -> impl Future<Output = ()> {
        self.shared.woken.notified()
    }

    fn take_refusal(&mut self) -> bool {
        self.shared.refused.swap(false, Ordering::Relaxed)
    }

    fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// Once an entry of its own term is applied, everything of former leaders is.
    fn serves(&self) -> bool {
        let applied = self.shared.lock().applied;
        let own = Ballot {
            round: self.leadership.ballot.round,
            replica: ReplicaId(self.id as u8),
        };
        self.leads && applied.is_some_and(|applied| ballot_of(&applied.leader_id) == own)
    }

    fn commit_index(&self) -> Slot {
        let applied = self.shared.lock().applied;
        applied.map_or(Slot::ZERO, |applied| slot_of(applied.index))
    }

    fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("elections", self.elections);
    }
}

/// Starts the library and feeds it proposals until one of the two ends.
async fn run(
    id: u64,
    config: Arc<Config>,
    shared: Arc<Shared>,
    started: Arc<OnceLock<Raft<Types, Machine>>>,
    founders: Option<BTreeSet<u64>>,
    mut to_propose: mpsc::UnboundedReceiver<Value>,
) {
    let (network, log) = (Factory(Arc::clone(&shared)), LogStore(Arc::clone(&shared)));
    let machine = Machine(Arc::clone(&shared));
    let raft = match Raft::new(id, config, network, log, machine).await {
        Ok(raft) => raft,
        Err(error) => return tracing::error!("openraft does not start: {error}"),
    };
    if started.set(raft.clone()).is_err() {
        unreachable!("it is started once");
    }
    shared.woken.notify_one();
    if let Some(founders) = founders
        && let Err(error) = raft.initialize(founders).await
    {
        tracing::warn!("the cluster is not founded: {error}");
    }
    // The fates of what was proposed, in order.
    let mut proposed = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            value = to_propose.recv() => {
                let Some(value) = value else { return };
                let (responder, fate) = ProgressResponder::complete_only();
                let written = raft.client_write_ff(Batch::new(value), Some(responder)).await;
                if written.is_err() {
                    return;
                }
                proposed.push_back(fate);
            }
            chosen = first_fate(&mut proposed) => {
                // What is chosen comes back by the state machine. A library that does not lead any more refuses
                // without a word elsewhere, and the clients' repeats have to be taken in again.
                if !chosen {
                    shared.refused.store(true, Ordering::Relaxed);
                    shared.woken.notify_one();
                }
            }
        }
    }
}

type Fate = OneshotReceiverOf<Types, ClientWriteResult<Types>>;

/// Whether the oldest proposal was chosen, once that is known; never, without one.
async fn first_fate(proposed: &mut VecDeque<Fate>) -> bool {
    let Some(oldest) = proposed.front_mut() else {
        return std::future::pending().await;
    };
    let fate = oldest.await;
    proposed.pop_front();
    matches!(fate, Ok(Ok(_)))
}

/// Each setting's reason is in README.md.
fn library_config(timers: &Timers) -> Config {
    const MS: u64 = 1_000_000;
    let election_timeout = timers.election_timeout_ns / MS;
    Config {
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: election_timeout,
        election_timeout_max: election_timeout + (timers.election_jitter_ns / MS).max(1),
        max_payload_entries: 4_096,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1_024,
        enable_pre_vote: Some(true),
        ..Config::default()
    }
}
