//! The command line of a baseline: the flags of `synod replica`, and a few of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::seams::StateMachine;
use synod_harness::cli::MachineChoice;
use synod_harness::failure::{self, usage};
use synod_harness::node::{self, Opened};
use synod_harness::replica;
use synod_harness::replica_file::ReplicaSettings;
use synod_storage::Replayed;
use synod_transport::{Inbox, Limits};

use crate::network::PeerNetwork;
use crate::protocol::{Protocol, Setting};
use crate::recovery::Recovery;
use crate::replica::Replica;
use crate::tcp::{TcpConfig, TcpMesh};

#[derive(Parser)]
#[command(
    about = "One replica of a baseline: the files, flags and promises of `synod replica`, another protocol"
)]
struct Cli<F: clap::Args> {
    /// The replica's configuration, as `synod replica` takes it
    #[arg(long, value_name = "FILE", required_unless_present = "describe")]
    config: Option<PathBuf>,
    /// Make an empty data directory first
    #[arg(long)]
    init: bool,
    /// End when stdin closes, so that no replica outlives the run that started it
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    /// How the replicas talk to each other; clients always use QUIC
    #[arg(long, value_enum, default_value = "quic")]
    transport: TransportChoice,
    /// Print which library this is and how it is set up, as JSON, and do nothing else
    #[arg(long)]
    describe: bool,
    #[command(flatten)]
    flags: F,
}

#[derive(Clone, Copy, ValueEnum)]
enum TransportChoice {
    /// Synod's links: mutual TLS, three lanes
    Quic,
    /// Plaintext, TCP_NODELAY, length-delimited
    Tcp,
}

/// Runs a whole baseline; `main` of its program.
pub fn main<P: Protocol>() -> ExitCode {
    run_program::<P::Flags>(
        P::LIBRARY,
        P::SETTINGS,
        async |settings, cli| match settings.file.state_machine {
            MachineChoice::Kv => {
                let open = |clock| open::<P, KvMachine>(clock, settings, &cli);
                node::run(cli.exit_with_parent, open).await
            }
            MachineChoice::Log => {
                let open = |clock| open::<P, LogMachine>(clock, settings, &cli);
                node::run(cli.exit_with_parent, open).await
            }
        },
    )
}

/// Synod's own engine over the same links: what its protocol does without encryption.
pub fn main_of_synod() -> ExitCode {
    const LIBRARY: &str = concat!("synod ", env!("CARGO_PKG_VERSION"));
    run_program::<NoFlags>(
        LIBRARY,
        "a batch per slot and turn, slots in flight follow the latency",
        async |settings, cli| {
            let links = |settings: &mut _| listen(settings, cli.transport, Limits::default());
            match settings.file.state_machine {
                MachineChoice::Kv => {
                    let open = |clock| replica::open::<_, KvMachine>(clock, settings, links);
                    node::run(cli.exit_with_parent, open).await
                }
                MachineChoice::Log => {
                    let open = |clock| replica::open::<_, LogMachine>(clock, settings, links);
                    node::run(cli.exit_with_parent, open).await
                }
            }
        },
    )
}

#[derive(clap::Args)]
struct NoFlags {}

fn run_program<F: clap::Args>(
    library: &str,
    how: &str,
    serve: impl AsyncFnOnce(ReplicaSettings, Cli<F>) -> anyhow::Result<()>,
) -> ExitCode {
    let cli = match Cli::<F>::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_parse(&error),
    };
    if cli.describe {
        // Neither text holds anything that JSON would have to escape.
        println!("{{\"library\": \"{library}\", \"settings\": \"{how}\"}}");
        return ExitCode::SUCCESS;
    }
    synod_harness::log::start();
    synod_harness::open_files::raise();
    tracing::info!("{library}: {how}");
    match run(cli, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run<F: clap::Args>(
    cli: Cli<F>,
    serve: impl AsyncFnOnce(ReplicaSettings, Cli<F>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let config = cli.config.as_deref().context("no --config")?;
    let settings = ReplicaSettings::read(config)?;
    if cli.init {
        synod_storage::init(&settings.storage).map_err(usage)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(serve(settings, cli))
}

fn open<P: Protocol, M: StateMachine + Default>(
    clock: Instant,
    mut settings: ReplicaSettings,
    cli: &Cli<P::Flags>,
) -> anyhow::Result<Opened<Replica<P, M>>> {
    let limits = settings.engine.limits;
    let mut recovery = Recovery::new(M::default(), limits.cache_bytes_max);
    let mut damaged = None;
    let (wal, report) =
        synod_storage::open(settings.storage.clone(), &mut |replayed| match replayed {
            Replayed::Record(at, record) if damaged.is_none() => recovery.visit(at.lsn, record),
            Replayed::Record(..) => {}
            Replayed::Hole(hole) => damaged = Some(hole.next),
        })
        .map_err(usage)?;
    if let Some(next) = damaged {
        return Err(usage(format!(
            "{}: records before {next:?} are damaged, and the libraries can't mend a log: remove the directory",
            settings.storage.directory.display()
        )));
    }
    let (network, inbox) = listen(&mut settings, cli.transport, P::transport_limits())?;
    let wal_event = wal
        .event_fd()
        .try_clone_to_owned()
        .context("the event of the WAL cannot be shared")?;
    let (recovered, state) = recovery.finish();
    let last = recovered.last;
    let id = settings.engine.replica;
    let protocol = P::start(Setting {
        config: settings.engine.clone(),
        recovered,
        flags: cli.flags.clone(),
        now: node::now(clock),
    })?;
    replica::announce(&settings, &report);
    Ok(Opened {
        node: Replica::new(id, limits, protocol, state, wal, last, network),
        inbox,
        wal_event,
        idle_spin: settings.idle_spin(),
    })
}

fn listen(
    settings: &mut ReplicaSettings,
    transport: TransportChoice,
    limits: Limits,
) -> anyhow::Result<(PeerNetwork, Inbox)> {
    let peers = match transport {
        TransportChoice::Quic => {
            let (network, inbox) = replica::listen(settings, limits)?;
            return Ok((PeerNetwork::Quic(network), inbox));
        }
        // What is left for QUIC are the clients.
        TransportChoice::Tcp => std::mem::take(&mut settings.peers),
    };
    let mut addresses = Vec::new();
    for (peer, address) in peers {
        let named = || {
            usage(format!(
                "peer {} at {address}: over TCP it needs an IP address",
                peer.0
            ))
        };
        addresses.push((peer, address.socket().ok_or_else(named)?));
    }
    let peers = addresses;
    let (clients, inbox) = replica::listen(settings, limits.clone())?;
    let config = TcpConfig {
        cluster: settings.cluster,
        replica: settings.engine.replica,
        listen: settings.file.listen,
        peers,
        limits,
    };
    let peers = TcpMesh::start(config, &inbox.shared())?;
    Ok((PeerNetwork::Tcp { clients, peers }, inbox))
}
