//! `synod replica`: one replica in the foreground.

use std::time::Instant;

use anyhow::Context;
use synod_engine::driver::Driver;
use synod_engine::ids::{Incarnation, Time};
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::seams::{Arrival, StateMachine, WalFailed};
use synod_storage::{FileWal, OpenReport};
use synod_transport::{Inbox, Limits, MTU_MAX_DEFAULT, QuicNetwork, TransportConfig};

use crate::cli::{DurabilityChoice, MachineChoice, ReplicaArguments};
use crate::environment::Disk;
use crate::failure::usage;
use crate::node::{self, Node, Opened};
use crate::output::say;
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
    node::run(arguments.exit_with_parent, |clock| {
        open::<M>(clock, settings)
    })
    .await
}

fn open<M: StateMachine + Default>(
    clock: Instant,
    settings: ReplicaSettings,
) -> anyhow::Result<Opened<Driver<FileWal, QuicNetwork, M>>> {
    let mut recovery = Recovery::new(settings.engine.clone(), M::default());
    let (wal, report) = synod_storage::open(settings.storage.clone(), &mut |lsn, record| {
        recovery.visit(lsn, record);
    })
    .map_err(usage)?;
    let (network, inbox) = listen(&settings, Limits::default())?;
    let wal_event = wal
        .event_fd()
        .try_clone_to_owned()
        .context("the event of the WAL cannot be shared")?;
    announce(&settings, &report)?;
    let on_disk = OnDisk {
        incarnation: Incarnation::FOUNDING,
        promised: report.promised,
        trim_floor: report.trim_floor,
    };
    let node = recovery
        .start(node::now(clock), wal, network, on_disk)
        .map_err(usage)?;
    Ok(Opened {
        node,
        inbox,
        wal_event,
        idle_spin: settings.idle_spin(),
    })
}

impl<M: StateMachine> Node for Driver<FileWal, QuicNetwork, M> {
    fn turn(&mut self, now: Time, arrivals: &mut Vec<Arrival>) -> Result<(), WalFailed> {
        Driver::turn(self, now, arrivals)
    }

    fn deadline(&self) -> Time {
        Driver::deadline(self)
    }

    fn has_news(&mut self) -> bool {
        self.has_durable_news()
    }

    async fn close(self) {
        let (wal, network) = self.into_parts();
        network.close().await;
        drop(wal);
    }
}

/// Binds the port of a replica and starts its links and the gateway to its clients.
pub fn listen(
    settings: &ReplicaSettings,
    mut limits: Limits,
) -> anyhow::Result<(QuicNetwork, Inbox)> {
    let file = &settings.file;
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
pub fn announce(settings: &ReplicaSettings, report: &OpenReport) -> anyhow::Result<()> {
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
