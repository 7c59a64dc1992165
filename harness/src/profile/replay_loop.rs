//! The deterministic loop that instructions are counted on: three production drivers, each with the production WAL on a
//! memory disk, and a network that is a queue. No clock, no thread, no system call on the way of a command.

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use synod_engine::client::{ClientMessage, LENGTH_BYTES, Request, ServerMessage};
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{ClientId, ClusterId, CommandNumber, ReplicaId, SessionId, Time};
use synod_engine::machine::LogMachine;
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::seams::{Arrival, Frame, Lane, Network};
use synod_engine::snapshot::NoSnapshots;
use synod_storage::backend::{MemoryBackend, MemoryDisk};
use synod_storage::config::Options;
use synod_storage::{WalCore, initialise};

use crate::output::say;
use crate::profile::arguments::ReplayLoopArguments;

const REPLICAS: u8 = 3;
const CLIENT: ClientId = ClientId(1);
const COMMAND_BYTES: usize = 128;
/// About what a turn takes in at 1024 commands outstanding.
const COMMANDS_PER_REQUEST: u64 = 64;
/// Simulated time of one round of turns, in nanoseconds.
const ROUND_NS: u64 = 50_000;
/// An election takes a few thousand rounds, a command less than ten.
const ROUNDS_MAX: u64 = 1_000_000;
/// All commands of a measurement fit into one segment, so that the disk's own work stays out of it.
const SEGMENT_BYTES: u64 = 32 << 20;

pub fn run(arguments: &ReplayLoopArguments) -> anyhow::Result<()> {
    let mut cluster = Cluster::new()?;
    let leader = cluster.elect()?;
    let session = cluster.open(leader)?;
    let mut first = 1;
    while first <= arguments.commands {
        let count = COMMANDS_PER_REQUEST.min(arguments.commands + 1 - first);
        let request = request(session, first, count as u32);
        cluster.send(leader, &ClientMessage::Request(request));
        cluster.await_reply(leader)?;
        first += count;
    }
    let hash = cluster.settle()?;
    say!("{} commands, state {hash:016x}", arguments.commands)
}

/// What a driver sent and was not delivered yet.
#[derive(Default)]
struct Queues {
    peers: Vec<(ReplicaId, Frame)>,
    replies: Vec<Bytes>,
}

impl Network for Queues {
    fn send(&mut self, to: ReplicaId, _lane: Lane, frame: Frame) {
        self.peers.push((to, frame));
    }

    fn reply(&mut self, _client: ClientId, frame: Bytes) {
        self.replies.push(frame);
    }

    fn expel(&mut self, _client: ClientId) {}

    fn announce(&mut self, _frame: Bytes) {}

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

type Replica = Driver<WalCore<MemoryBackend>, Queues, LogMachine>;

struct Cluster {
    replicas: Vec<Replica>,
    inboxes: Vec<Vec<Arrival>>,
    now: u64,
}

impl Cluster {
    fn new() -> anyhow::Result<Cluster> {
        let replicas = (1..=REPLICAS).map(|id| start(ReplicaId(id)));
        Ok(Cluster {
            replicas: replicas.collect::<anyhow::Result<_>>()?,
            inboxes: (0..REPLICAS).map(|_| Vec::new()).collect(),
            now: 0,
        })
    }

    /// One turn of each replica; what it sends arrives before the receiver's next turn.
    fn round(&mut self) -> anyhow::Result<()> {
        self.now += ROUND_NS;
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            replica.turn(Time(self.now), &mut self.inboxes[index])?;
            let from = ReplicaId(index as u8 + 1);
            for (to, frame) in replica.network_mut().peers.drain(..) {
                let frame = whole(&frame);
                self.inboxes[usize::from(to.0) - 1].push(Arrival::Peer { from, frame });
            }
        }
        Ok(())
    }

    fn elect(&mut self) -> anyhow::Result<usize> {
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            let leader = self
                .replicas
                .iter()
                .position(|replica| replica.replica().serves());
            if let Some(leader) = leader {
                return Ok(leader);
            }
        }
        anyhow::bail!("no replica leads after {ROUNDS_MAX} rounds")
    }

    fn open(&mut self, leader: usize) -> anyhow::Result<SessionId> {
        self.send(leader, &ClientMessage::Open { token: 5 });
        for frame in self.await_reply(leader)? {
            let message = ServerMessage::decode(frame.slice(LENGTH_BYTES..));
            if let Ok(ServerMessage::Opened { session, .. }) = message {
                return Ok(session);
            }
        }
        anyhow::bail!("the leader of the loop did not open a session")
    }

    fn send(&mut self, leader: usize, message: &ClientMessage) {
        let frame = message.encode().slice(LENGTH_BYTES..);
        self.inboxes[leader].push(Arrival::Client {
            client: CLIENT,
            frame,
        });
    }

    fn await_reply(&mut self, leader: usize) -> anyhow::Result<Vec<Bytes>> {
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            let replies = std::mem::take(&mut self.replicas[leader].network_mut().replies);
            if !replies.is_empty() {
                return Ok(replies);
            }
        }
        anyhow::bail!("no reply after {ROUNDS_MAX} rounds")
    }

    /// Until all have applied the same; returns the hash of their state.
    fn settle(&mut self) -> anyhow::Result<u64> {
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            let mut states = self.replicas.iter().map(|replica| {
                let state = replica.state();
                (
                    state.applied(),
                    synod_engine::seams::StateMachine::hash(&state.machine),
                )
            });
            let first = states.next().context("the loop has replicas")?;
            if states.all(|state| state == first) {
                return Ok(first.1);
            }
        }
        anyhow::bail!("the replicas differ after {ROUNDS_MAX} rounds")
    }
}

fn start(id: ReplicaId) -> anyhow::Result<Replica> {
    let disk = MemoryDisk::new();
    let options = Options {
        cluster: ClusterId(1),
        replica: id,
        segment_bytes: SEGMENT_BYTES,
        segments_ready: 1,
        segments_recycled_max: 0,
        writes_in_flight_max: 4,
        pending_bytes_max: synod_storage::config::PENDING_BYTES_MAX_DEFAULT,
        seed: u64::from(id.0),
    };
    initialise(&disk, &options)?;
    let recovery = Recovery::new(
        Config::new(id, REPLICAS, u64::from(id.0)),
        LogMachine::default(),
    );
    // The disk is empty: there is nothing to visit.
    let (wal, opened) = MemoryBackend::open(&disk, options, &mut |_| {})?;
    let on_disk = OnDisk {
        incarnation: opened.incarnation,
        last: opened.last,
        promised: opened.carried.promised,
        trim_floor: opened.carried.trim_floor,
    };
    Ok(recovery.start(
        Time(0),
        wal,
        Queues::default(),
        NoSnapshots::default(),
        on_disk,
    )?)
}

fn request(session: SessionId, first: u64, count: u32) -> Request {
    let mut commands = BytesMut::with_capacity(count as usize * (COMMAND_BYTES + LENGTH_BYTES));
    for _ in 0..count {
        commands.put_u32_le(COMMAND_BYTES as u32);
        commands.put_bytes(b'c', COMMAND_BYTES);
    }
    Request {
        session,
        first: CommandNumber(first),
        acknowledged: CommandNumber(first),
        count,
        commands: commands.freeze(),
    }
}

/// A frame as it arrives: in one piece and without its length.
fn whole(frame: &Frame) -> Bytes {
    let mut bytes = BytesMut::with_capacity(frame.len());
    bytes.put_slice(&frame.head);
    bytes.put_slice(&frame.body);
    bytes.freeze().slice(LENGTH_BYTES..)
}
