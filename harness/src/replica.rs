//! `synod replica`: one replica in the foreground.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use synod_engine::config::{BATCH_BYTES_CEILING, Config};
use synod_engine::driver::Driver;
use synod_engine::ids::{Ballot, Incarnation, Time};
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::recovery::{Hole, OnDisk, Recovery};
use synod_engine::seams::{Arrival, Network, SnapshotInfo, StateMachine};
use synod_engine::snapshot::{Restored, Restoring};
use synod_storage::{DataDirectory, FileSnapshots, FileWal, Notes, OpenReport, Replayed};
use synod_transport::{
    Inbox, Limits, QuicNetwork, Resolver, TransportConfig, memory_budget, mtu_of_paths,
};

use crate::certificate_watch;
use crate::cli::{DurabilityChoice, MachineChoice, ReplicaArguments};
use crate::environment::Disk;
use crate::failure::usage;
use crate::log;
use crate::node::{self, Node, Opened};
use crate::open_files;
use crate::replica_file::ReplicaSettings;
use crate::turn_watch::TurnWatch;

/// More than any message has besides what its limit counts.
const FRAME_HEAD_BYTES: usize = 1_024;

pub fn run(arguments: &ReplicaArguments) -> anyhow::Result<()> {
    let settings = ReplicaSettings::read(&arguments.config)?;
    // The active segment, those before it with writes under way, and those that are ready; one socket for everybody.
    open_files::check(
        1 + settings.storage.writes_in_flight_max + settings.storage.segments_ready,
        1,
    )?;
    make_directory(&settings, arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        match settings.file.state_machine {
            MachineChoice::Kv => serve::<KvMachine>(settings, arguments).await,
            MachineChoice::Log => serve::<LogMachine>(settings, arguments).await,
        }
    })
}

async fn serve<M: StateMachine + Default>(
    settings: ReplicaSettings,
    arguments: &ReplicaArguments,
) -> anyhow::Result<()> {
    node::run(arguments.exit_with_parent, |clock| {
        let links = |settings: &mut _| listen(settings, Limits::default());
        open::<QuicNetwork, M>(clock, settings, links)
    })
    .await
}

/// Links that can be given back in an orderly way.
pub trait Links: Network {
    /// Tells peers and clients that this replica goes.
    fn close(self) -> impl Future<Output = ()>;
}

impl Links for QuicNetwork {
    fn close(self) -> impl Future<Output = ()> {
        QuicNetwork::close(self)
    }
}

/// This engine as the node of an event loop.
pub struct Replica<N: Network, M: StateMachine> {
    driver: Driver<FileWal, N, M, FileSnapshots>,
    /// Of the WAL and of the snapshots: lines for the operator.
    notes: [Notes; 2],
    watch: TurnWatch,
}

/// What a data directory holds, read and ready for more.
struct Opening<M> {
    recovery: Recovery<M>,
    snapshots: FileSnapshots,
    wal: FileWal,
    report: OpenReport,
}

/// Reads the disk, binds the port by `links`, and says that the replica is ready.
pub fn open<N: Links, M: StateMachine + Default>(
    clock: Instant,
    mut settings: ReplicaSettings,
    links: impl FnOnce(&mut ReplicaSettings) -> anyhow::Result<(N, Inbox)>,
) -> anyhow::Result<Opened<Replica<N, M>>> {
    let Opening {
        recovery,
        snapshots,
        wal,
        report,
    } = read_disk::<M>(&settings)?;
    let (network, inbox) = links(&mut settings)?;
    let wal_event = wal
        .event_fd()
        .try_clone_to_owned()
        .context("the event of the WAL cannot be shared")?;
    let notes = [wal.notes(), snapshots.notes()];
    let on_disk = OnDisk {
        incarnation: report.incarnation,
        last: report.last_lsn,
        promised: report.promised,
        trim_floor: report.trim_floor,
    };
    let driver = recovery
        .start(node::now(clock), wal, network, snapshots, on_disk)
        .map_err(usage)?;
    warn_of_losses(driver.replica());
    announce(&settings, &report);
    Ok(Opened {
        node: Replica {
            driver,
            notes,
            watch: TurnWatch::new(),
        },
        inbox,
        wal_event,
        idle_spin: settings.idle_spin(),
    })
}

/// Restores the newest snapshot that is intact, and replays what the WAL holds above it.
fn read_disk<M: StateMachine + Default>(settings: &ReplicaSettings) -> anyhow::Result<Opening<M>> {
    let started = Instant::now();
    let mut storage = settings.storage.clone();
    storage.pending_bytes_max = settings.engine.wal_pending_bytes_max();
    let data = DataDirectory::open(storage).map_err(usage)?;
    let value_bytes_max = check_values(settings, data.segment_bytes())?;
    let mut snapshots = data.open_snapshots().map_err(usage)?;
    let restored = snapshots.restore(|info, parts| restore::<M>(info, parts));
    for note in snapshots.notes().take() {
        tracing::warn!("{note}");
    }
    let config = Config {
        value_bytes_max,
        ..settings.engine.clone()
    };
    let mut recovery = match restored {
        Some((info, restored)) => {
            tracing::info!(
                "restored the snapshot of slot {}, {} bytes, in {:.2} s",
                info.slot,
                info.bytes,
                started.elapsed().as_secs_f64()
            );
            Recovery::from_snapshot(config, restored)
        }
        None => Recovery::new(config, M::default()),
    };
    let (wal, report) = data
        .open_wal(recovery.covers(), &mut |replayed| match replayed {
            Replayed::Record(at, record) => recovery.visit(at.lsn, record),
            Replayed::Hole(hole) => recovery.hole(Hole {
                next: hole.next,
                promised: hole.carried.promised,
                trim_floor: hole.carried.trim_floor,
                slot_max: hole.carried.slot_max,
            }),
        })
        .map_err(usage)?;
    tracing::info!(
        "replayed {} records, {} bytes of WAL, {} segments passed over; the disk was read within {:.2} s",
        report.records,
        report.bytes,
        report.segments_skipped,
        started.elapsed().as_secs_f64()
    );
    Ok(Opening {
        recovery,
        snapshots,
        wal,
        report,
    })
}

/// Takes a snapshot as its parts come. The file's name and the content must tell the same slot.
fn restore<M: StateMachine + Default>(
    info: &SnapshotInfo,
    parts: &mut impl Iterator<Item = Bytes>,
) -> Result<Restored<M>, String> {
    let mut restoring = Restoring::new(M::default());
    for part in parts {
        restoring.take(&part).map_err(|error| error.to_string())?;
    }
    let restored = restoring.finish().map_err(|error| error.to_string())?;
    let slot = restored.state.applied();
    if (slot, restored.checksum) == (info.slot, info.checksum) {
        Ok(restored)
    } else {
        Err(format!("its content is that of slot {slot}"))
    }
}

impl<N: Links, M: StateMachine> Node for Replica<N, M> {
    fn turn(&mut self, now: Time, arrivals: &mut Vec<Arrival>) -> anyhow::Result<()> {
        self.driver.note_counter("log_lines_lost", log::lost());
        self.watch.begin();
        let watch = &mut self.watch;
        self.driver
            .watched_turn(now, arrivals, |stage| watch.ended(stage))?;
        let driver = &mut self.driver;
        self.watch
            .end(|name, micros| driver.note_counter(name, micros));
        if let Some(divergence) = self.driver.take_divergence() {
            tracing::error!("{divergence}");
        }
        for note in self.notes.iter().flat_map(Notes::take) {
            tracing::warn!("{note}");
        }
        self.check_membership()
    }

    fn deadline(&self) -> Time {
        self.driver.deadline()
    }

    fn has_news(&mut self) -> bool {
        self.driver.has_durable_news()
    }

    async fn close(self) {
        let (wal, network, snapshots) = self.driver.into_parts();
        network.close().await;
        drop((wal, snapshots));
    }
}

impl<N: Network, M: StateMachine> Replica<N, M> {
    /// A disk whose place another one has taken must not serve again: its promises are of a life that is over.
    fn check_membership(&self) -> anyhow::Result<()> {
        let replica = self.driver.replica();
        if replica.superseded() {
            return Err(usage(format!(
                "the cluster readmitted replica {} with another disk since this one was in use; remove this data \
                 directory and start the replica with --readmit",
                replica.config().replica
            )));
        }
        if let Some(witness) = replica.disowned_by() {
            return Err(usage(format!(
                "replica {} starts with an empty disk, but replica {} knows that it took part before: what it promised \
                 is forgotten, and its vote could lose what was chosen; remove this data directory and start the \
                 replica with --readmit",
                replica.config().replica.0,
                witness.0
            )));
        }
        Ok(())
    }
}

/// The longest value that the segments of the data directory take, which must be a whole batch: they keep the size
/// that they were made with, whatever the configuration says since.
fn check_values(settings: &ReplicaSettings, segment_bytes: u64) -> anyhow::Result<usize> {
    let longest = synod_storage::value_bytes_max(segment_bytes).min(BATCH_BYTES_CEILING);
    let batch = settings.engine.limits.batch_bytes_max;
    let directory = settings.storage.directory.display();
    if batch > longest {
        return Err(usage(format!(
            "{directory}: segments of {segment_bytes} bytes take values of up to {longest} bytes, but batch_bytes_max \
             is {batch}; lower batch_bytes_max, request_bytes_max and command_bytes_max on every replica, or make the \
             data directory anew with a larger segment_bytes",
        )));
    }
    if longest < BATCH_BYTES_CEILING {
        tracing::warn!(
            "{directory}: its segments take values of up to {longest} bytes, longer ones of a leader with another \
             batch_bytes_max are refused: give every replica the same",
        );
    }
    Ok(longest)
}

/// `--init` and `--readmit`: a data directory is only ever made on demand.
fn make_directory(settings: &ReplicaSettings, arguments: &ReplicaArguments) -> anyhow::Result<()> {
    if arguments.init || arguments.readmit {
        check_values(settings, settings.storage.segment_bytes)?;
    }
    if arguments.init {
        synod_storage::init(&settings.storage).map_err(usage)?;
    }
    if arguments.readmit {
        if settings.engine.replicas == 1 {
            return Err(usage(
                "--readmit: a cluster of one replica has nobody who could readmit it; what it lost is lost",
            ));
        }
        synod_storage::readmit(&settings.storage, new_incarnation()?).map_err(usage)?;
    }
    Ok(())
}

/// A number for a new disk, unlike that of any other: what is later than what is for the log to say, not for a clock.
fn new_incarnation() -> anyhow::Result<Incarnation> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("the system has no randomness")?;
    anyhow::ensure!(filled == bytes.len(), "the system's randomness came short");
    // Zero is a founding member.
    Ok(Incarnation(u64::from_le_bytes(bytes).max(1)))
}

/// Says what this replica lost, and what that means until it is repaired.
fn warn_of_losses(replica: &synod_engine::replica::Replica) {
    if replica.slots_missing() > 0 {
        tracing::warn!(
            "records of up to {} slots after slot {} are lost: they are fetched from the peers, and this replica \
             promises nothing to a new leader until they are here",
            replica.slots_missing(),
            replica.commit_index()
        );
    }
    if replica.incarnation() != Incarnation::FOUNDING && replica.promised() == Ballot::ZERO {
        tracing::warn!(
            "the disk of this replica is new: it has no vote until the leader and a quorum of the others have \
             readmitted it"
        );
    }
}

/// Binds the port of a replica and starts its links and the gateway to its clients.
pub fn listen(settings: &ReplicaSettings, limits: Limits) -> anyhow::Result<(QuicNetwork, Inbox)> {
    let file = &settings.file;
    let limits = fitted(limits, settings);
    let config = TransportConfig {
        cluster: settings.cluster,
        replica: settings.engine.replica,
        listen: file.listen,
        peers: settings.peers.clone(),
        resolver: Resolver::default(),
        identity: file.certificates.load()?,
        mtu_max: file
            .mtu_max
            .unwrap_or_else(|| mtu_of_paths(peers_or_self(settings))),
        limits,
        seed: file.seed,
    };
    let (network, inbox) = synod_transport::start(config).map_err(usage)?;
    certificate_watch::start(file.certificates.clone(), network.renewal())?;
    Ok((network, inbox))
}

/// What of the configuration the transport has to know as well.
fn fitted(mut limits: Limits, settings: &ReplicaSettings) -> Limits {
    if let Some(clients_max) = settings.file.limits.clients_max {
        limits.clients_max = clients_max;
    }
    // The timers of the engine were chosen for the path: TLS and the Hello take four round trips of it.
    let engine = &settings.engine;
    let election_ms = engine.timers.election_timeout_ns / 1_000_000;
    limits.handshake_ms_max = limits.handshake_ms_max.max(3 * election_ms);
    // What the engine takes must not be too long for a frame, headers included.
    let framed = |bytes: usize| bytes + FRAME_HEAD_BYTES;
    let of_peers = engine
        .limits
        .batch_bytes_max
        .max(engine.limits.fetch_bytes_max);
    limits.request_bytes_max = framed(engine.limits.request_bytes_max);
    limits.frame_bytes_max = limits.frame_bytes_max.max(framed(of_peers));
    limits
}

/// Who is reached by this replica's interfaces: its peers, or else those who come to where it listens.
fn peers_or_self(settings: &ReplicaSettings) -> Vec<SocketAddr> {
    let peers = settings.peers.iter();
    let peers: Vec<_> = peers.filter_map(|(_, peer)| peer.socket()).collect();
    match peers.is_empty() {
        true => vec![settings.file.listen],
        false => peers,
    }
}

/// Says what a person has to know before relying on this replica, and tells a supervisor that it is ready.
pub fn announce(settings: &ReplicaSettings, report: &OpenReport) {
    let file = &settings.file;
    for note in &report.notes {
        tracing::warn!("{note}");
    }
    if file.durability == DurabilityChoice::None {
        tracing::warn!("durability = none: a power cut loses acknowledged commands");
    }
    if Disk::of(&file.data).is_memory() {
        tracing::warn!(
            "{} is in memory (tmpfs): a power cut loses everything",
            file.data.display()
        );
    }
    let budget: u64 = settings
        .engine
        .memory_budget()
        .iter()
        .map(|(name, bytes)| {
            tracing::info!("memory budget: {name} = {bytes}");
            bytes
        })
        .sum();
    let transport: u64 = memory_budget(&fitted(Limits::default(), settings), settings.peers.len())
        .iter()
        .map(|(name, bytes)| {
            tracing::info!("memory budget: {name} = {bytes}");
            bytes
        })
        .sum();
    tracing::info!(
        "memory budget: engine {budget} + transport {transport} = {} bytes, the state machine not counted",
        budget + transport
    );
    log::announce(&format!(
        "ready replica={} listen={} cluster={} durability={} records={} budget_bytes={} backend={}",
        file.replica,
        file.listen,
        settings.cluster,
        match file.durability {
            DurabilityChoice::Sync => "sync",
            DurabilityChoice::None => "none",
        },
        report.records,
        budget + transport,
        // Last, because it has words of its own.
        report.backend,
    ));
}
