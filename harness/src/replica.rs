//! `synod replica`: one replica in the foreground.
//!
//! One thread owns everything mutable: it takes what arrived, gives the driver a turn, and sleeps until something
//! arrives, the disk finishes something, or the driver's deadline comes.

use std::time::{Duration, Instant};

use anyhow::Context;
use synod_engine::driver::Driver;
use synod_engine::ids::Time;
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::recovery::Recovery;
use synod_engine::seams::StateMachine;
use synod_storage::{FileWal, OpenReport};
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
    if arguments.init {
        synod_storage::init(&settings.storage).map_err(usage)?;
    }
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
    let (wal, network) = replica.driver.into_parts();
    network.close().await;
    drop(wal);
    Ok(())
}

struct Replica<M: StateMachine> {
    driver: Driver<FileWal, QuicNetwork, M>,
    inbox: Inbox,
    wal_event: CounterFd,
    idle_spin: IdleSpin,
    clock: Instant,
}

impl<M: StateMachine + Default> Replica<M> {
    fn open(settings: ReplicaSettings) -> anyhow::Result<Replica<M>> {
        let mut recovery = Recovery::new(settings.engine.clone(), M::default());
        let (wal, report) = synod_storage::open(settings.storage.clone(), &mut |lsn, record| {
            recovery.visit(lsn, record);
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
        let clock = Instant::now();
        announce(&settings, &report)?;
        let driver = recovery
            .start(now(clock), wal, network, report.promised, report.trim_floor)
            .map_err(usage)?;
        Ok(Replica {
            driver,
            inbox,
            wal_event,
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
    /// Stays awake for a moment, until there is news or somebody else wants the core.
    async fn spin(&mut self) {
        let mut spinning = self.idle_spin.start();
        while self.inbox.is_empty() && !self.driver.has_durable_news() && spinning.goes_on() {
            tokio::task::yield_now().await;
        }
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
