//! `synod replica`: one replica in the foreground.
//!
//! One thread owns everything mutable: it takes what arrived, gives the driver a turn, and sleeps until something
//! arrives, the disk finishes something, or the driver's deadline comes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use synod_engine::driver::Driver;
use synod_engine::ids::{Ballot, Incarnation, Time};
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::recovery::{Hole, OnDisk, Recovery};
use synod_engine::seams::StateMachine;
use synod_engine::snapshot::NoSnapshots;
use synod_storage::{FileWal, Notes, OpenReport, Replayed};
use synod_transport::{Inbox, Limits, MTU_MAX_DEFAULT, QuicNetwork, TransportConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{DurabilityChoice, MachineChoice, ReplicaArguments};
use crate::counter_fd::CounterFd;
use crate::environment::Disk;
use crate::failure::{DiskFailed, usage};
use crate::idle_spin::IdleSpin;
use crate::output::say;
use crate::parent;
use crate::replica_file::ReplicaSettings;

pub fn run(arguments: &ReplicaArguments) -> anyhow::Result<()> {
    let settings = ReplicaSettings::read(&arguments.config)?;
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
    // Signals are caught before anything is open, so that an early SIGTERM is graceful as well.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A limit on file sizes is an error of the write that meets it, reported like a full disk; the signal would end
    // the process without a word.
    let _file_size_limit = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let exit_with_parent = arguments.exit_with_parent;
    let parent_gone = async move {
        match exit_with_parent {
            true => parent::gone().await,
            false => std::future::pending().await,
        }
    };
    let mut replica = Replica::<M>::open(settings)?;
    tokio::select! {
        result = replica.turns() => return result,
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = parent_gone => tracing::info!("the parent is gone: stopping"),
    }
    // Nothing is owed to the disk that anyone was told about. Peers and clients learn at once that we are gone.
    let (wal, network, _) = replica.driver.into_parts();
    network.close().await;
    drop(wal);
    Ok(())
}

struct Replica<M: StateMachine> {
    driver: Driver<FileWal, QuicNetwork, M>,
    inbox: Inbox,
    wal_event: CounterFd,
    wal_notes: Notes,
    idle_spin: IdleSpin,
    clock: Instant,
}

impl<M: StateMachine + Default> Replica<M> {
    fn open(settings: ReplicaSettings) -> anyhow::Result<Replica<M>> {
        let mut recovery = Recovery::new(settings.engine.clone(), M::default());
        let (wal, report) =
            synod_storage::open(settings.storage.clone(), &mut |replayed| match replayed {
                Replayed::Record(at, record) => recovery.visit(at.lsn, record),
                Replayed::Hole(hole) => recovery.hole(Hole {
                    next: hole.next,
                    promised: hole.carried.promised,
                    trim_floor: hole.carried.trim_floor,
                    slot_max: hole.carried.slot_max,
                }),
            })
            .map_err(usage)?;
        for note in &report.notes {
            tracing::warn!("{note}");
        }
        let (network, inbox) = listen(&settings)?;
        let wal_event = wal
            .event_fd()
            .try_clone_to_owned()
            .context("the event of the WAL cannot be shared")?;
        let wal_event =
            CounterFd::new(wal_event).context("the event of the WAL cannot be watched")?;
        let wal_notes = wal.notes();
        let clock = Instant::now();
        announce(&settings, &report)?;
        let on_disk = OnDisk {
            incarnation: report.incarnation,
            last: report.last_lsn,
            promised: report.promised,
            trim_floor: report.trim_floor,
        };
        let driver = recovery
            .start(now(clock), wal, network, NoSnapshots::default(), on_disk)
            .map_err(usage)?;
        warn_of_losses(driver.replica());
        Ok(Replica {
            driver,
            inbox,
            wal_event,
            wal_notes,
            idle_spin: IdleSpin::new(settings.idle_spin()),
            clock,
        })
    }

    /// Runs until the disk fails.
    async fn turns(&mut self) -> anyhow::Result<()> {
        let mut arrivals = Vec::new();
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        loop {
            self.inbox.drain(&mut arrivals);
            self.idle_spin.note(now(self.clock), &arrivals);
            self.driver
                .turn(now(self.clock), &mut arrivals)
                .map_err(|failed| DiskFailed(failed.to_string()))?;
            for note in self.wal_notes.take() {
                tracing::warn!("{note}");
            }
            self.check_membership()?;
            let deadline = self.clock + Duration::from_nanos(self.driver.deadline().0);
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
                result = self.wal_event.counted() => {
                    result.context("the event of the WAL is gone")?;
                }
                () = &mut sleep => {}
            }
        }
    }
}

impl<M: StateMachine> Replica<M> {
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
        Ok(())
    }

    /// Stays awake for a moment, until there is news or somebody else wants the core.
    async fn spin(&mut self) {
        let mut spinning = self.idle_spin.start();
        while self.inbox.is_empty() && !self.driver.has_durable_news() && spinning.goes_on() {
            tokio::task::yield_now().await;
        }
    }
}

/// `--init` and `--readmit`: a data directory is only ever made on demand.
fn make_directory(settings: &ReplicaSettings, arguments: &ReplicaArguments) -> anyhow::Result<()> {
    if arguments.init {
        synod_storage::init(&settings.storage).map_err(usage)?;
    }
    if arguments.readmit {
        if settings.engine.replicas == 1 {
            return Err(usage(
                "--readmit: a cluster of one replica has nobody who could readmit it; what it lost is lost",
            ));
        }
        // The clock orders the lives of this replica's disks: the cluster takes back none but a later one.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_epoch = since_epoch.context("the system clock stands before 1970")?;
        let incarnation = Incarnation(since_epoch.as_micros() as u64);
        synod_storage::readmit(&settings.storage, incarnation).map_err(usage)?;
    }
    Ok(())
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

fn now(clock: Instant) -> Time {
    Time(clock.elapsed().as_nanos() as u64)
}

fn listen(settings: &ReplicaSettings) -> anyhow::Result<(QuicNetwork, Inbox)> {
    let file = &settings.file;
    let mut limits = Limits::default();
    if let Some(clients_max) = file.limits.clients_max {
        limits.clients_max = clients_max;
    }
    let config = TransportConfig {
        cluster: settings.cluster,
        replica: settings.engine.replica,
        listen: file.listen,
        peers: settings.peers.clone(),
        identity: file.certificates.load()?,
        mtu_max: file.mtu_max.unwrap_or(MTU_MAX_DEFAULT),
        limits,
        seed: file.seed,
    };
    synod_transport::start(config).map_err(usage)
}

/// Says what a person has to know before relying on this replica, and tells a supervisor that it is ready.
fn announce(settings: &ReplicaSettings, report: &OpenReport) -> anyhow::Result<()> {
    let file = &settings.file;
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
    let transport = Limits::default().queued_bytes_max(settings.peers.len()) as u64;
    tracing::info!(
        "memory budget: engine {budget} + transport {transport} = {} bytes, the state machine not counted",
        budget + transport
    );
    say!(
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
    )
}
