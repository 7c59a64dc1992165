//! What a run is going to do: the flags, checked and completed. Published as `config.toml`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;
use synod_engine::client::LENGTH_BYTES;
use synod_engine::config::{Limits, Timers};
use synod_engine::sessions::SESSION_OUTSTANDING_MAX;
use synod_transport::client::OUTSTANDING_BYTES_MAX;
use synod_transport::mtu_of_paths;

use crate::cli::{BackendChoice, DurabilityChoice, MachineChoice, RunArguments};
use crate::comparison::Equality;
use crate::environment::COMMIT;
use crate::failure::usage;
use crate::links::{Carrier, EmulatorFile, Links};
use crate::load::load_file::Load;
use crate::load::surge::Surge;
use crate::load::workload::payload_bytes_min;
use crate::replica_file::TimersTable;
use crate::run::external::Recipe;
use crate::run::fault::{self, Fault};
use crate::run::hosts::look::{Hosts, look};
use crate::run::layout::Place;
use crate::run::progress::Progress;
use crate::system::{Description, Family, Programs, System, Transport};
use crate::utc;

/// Of everything in the box.
const CLIENT_PATH: &str = "Synod's client library, QUIC with mTLS, exactly-once sessions";
/// How Synod is set up.
const SETTINGS: &str = "a batch per slot and turn, slots in flight follow the latency";
const OUTSTANDING_DEFAULT: u32 = 1_024;
/// A command without a reply for this long has failed: far beyond a change of leader or a restart of everything.
const DEADLINE_MS: u64 = 15_000;
/// What fits into a packet of 1,500 bytes, less some for tunnels.
const MTU_OF_LINKS: u16 = 1_452;

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub name: String,
    pub command_line: String,
    pub replicas: u8,
    pub payload_bytes: u32,
    pub state_machine: MachineChoice,
    pub seconds: u32,
    pub warmup_s: u32,
    pub durability: DurabilityChoice,
    pub backend: BackendChoice,
    /// Absent on an inventory: each process finds out what its own interfaces carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_max: Option<u16>,
    pub seed: u64,
    pub deadline_ms: u64,
    /// Of WAL, from snapshot to snapshot; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_distance_bytes: Option<u64>,
    pub out: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The machines to run on, if not this one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<PathBuf>,
    pub keep_data: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<Surge>,
    pub subject: Subject,
    pub load: Load,
    /// What is between the replicas, if not the loopback interface alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Links>,
    /// In the order given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// The system under test.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    pub system: System,
    pub transport: Transport,
    /// Version of the library or server; of Synod it is the commit.
    pub version: String,
    /// How it was set up, in one line.
    pub settings: String,
    /// How commands get there and replies come back.
    pub client_path: String,
    /// What is started instead of ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// What its adapter says about a system of somebody else.
    #[serde(skip)]
    pub recipe: Option<Recipe>,
}

impl Plan {
    /// Finds the programs of the system under test, or builds them.
    pub fn find(arguments: &RunArguments, progress: &Progress) -> anyhow::Result<Plan> {
        let programs = Programs::new(arguments.programs.as_deref())?;
        let transport = transport(arguments);
        let hosts = arguments.inventory.as_deref().map(|inventory| Hosts {
            inventory,
            replicas: arguments.replicas,
        });
        let subject = Subject::find(arguments.system, transport, &programs, hosts, progress)?;
        Plan::new(arguments, subject)
    }

    pub fn place(&self) -> Place<'_> {
        Place {
            out: &self.out,
            name: &self.name,
            data: self.data.as_deref(),
            replicas: self.replicas,
            keep_data: self.keep_data,
        }
    }

    pub fn new(arguments: &RunArguments, subject: Subject) -> anyhow::Result<Plan> {
        check_payload(arguments)?;
        let load = load(arguments);
        check_outstanding(&load, arguments.payload)?;
        let faults = faults(arguments, &subject)?;
        let links = links(arguments, &subject)?;
        check_surge(arguments)?;
        Ok(Plan {
            name: name("run", &arguments.out, arguments.name.as_deref())?,
            command_line: std::env::args().collect::<Vec<_>>().join(" "),
            replicas: arguments.replicas,
            payload_bytes: arguments.payload,
            state_machine: arguments.state_machine,
            seconds: arguments.seconds,
            warmup_s: arguments.warmup,
            durability: durability(arguments, &subject)?,
            backend: arguments.backend,
            mtu_max: mtu_max(arguments, links.is_some()),
            seed: arguments.seed,
            deadline_ms: DEADLINE_MS,
            snapshot_distance_bytes: arguments.snapshot_distance,
            out: arguments.out.clone(),
            data: arguments.data.clone(),
            inventory: arguments.inventory.clone(),
            keep_data: arguments.keep_data,
            surge: arguments.surge,
            subject,
            load,
            links,
            faults,
        })
    }
}

impl Plan {
    /// Replicas that are far from each other have to wait longer before they give each other up; every system gets the
    /// same times, which grow with the longest round trip.
    pub fn timers(&self) -> TimersTable {
        let Some(links) = &self.links else {
            return TimersTable::default();
        };
        let millis = |ns: u64| ns / 1_000_000;
        let (usual, trip_ms) = (Timers::default(), links.round_trip_ms_max());
        TimersTable {
            heartbeat_ms: Some(millis(usual.heartbeat_ns) + trip_ms),
            election_timeout_ms: Some(millis(usual.election_timeout_ns) + 5 * trip_ms),
            election_jitter_ms: Some(millis(usual.election_jitter_ns) + trip_ms),
            retransmit_ms: Some(millis(usual.retransmit_ns) + 4 * trip_ms),
            ..TimersTable::default()
        }
    }

    /// What the emulator is told, if the run needs it.
    pub fn emulator_file(&self, replicas: BTreeMap<String, SocketAddr>) -> Option<EmulatorFile> {
        let faulty = self.faults.iter().any(Fault::is_of_links);
        if self.links.is_none() && !faulty {
            return None;
        }
        Some(EmulatorFile {
            carrier: match self.subject.transport {
                Transport::Quic => Carrier::Udp,
                Transport::Tcp | Transport::Own => Carrier::Tcp,
            },
            seed: self.seed,
            replicas,
            links: self
                .links
                .as_ref()
                .map_or_else(Vec::new, |links| links.links.clone()),
        })
    }

    /// What the commands are applied to.
    pub fn machine_name(&self) -> String {
        match (&self.subject.recipe, self.state_machine) {
            (Some(recipe), _) => recipe.state_machine.clone(),
            (None, MachineChoice::Kv) => "kv".into(),
            (None, MachineChoice::Log) => "log".into(),
        }
    }
}

/// What an acknowledgement means: of other systems, what their adapter says.
fn durability(arguments: &RunArguments, subject: &Subject) -> anyhow::Result<DurabilityChoice> {
    let Some(recipe) = &subject.recipe else {
        return Ok(arguments.durability);
    };
    if arguments.durability == DurabilityChoice::None {
        return Err(usage(format!(
            "--durability none: {} runs as its adapter sets it up",
            subject.system.name()
        )));
    }
    match recipe.durable {
        true => Ok(DurabilityChoice::Sync),
        false => Ok(DurabilityChoice::None),
    }
}

/// The given transport, or the one that is natural for the system.
fn transport(arguments: &RunArguments) -> Transport {
    let natural = match arguments.system.is_external() {
        true => Transport::Own,
        false => Transport::Quic,
    };
    arguments.transport.unwrap_or(natural)
}

impl Subject {
    /// Finds the programs of the system, or builds them. Servers of others are looked for on `hosts`, or here.
    pub fn find(
        system: System,
        transport: Transport,
        programs: &Programs,
        hosts: Option<Hosts<'_>>,
        progress: &Progress,
    ) -> anyhow::Result<Subject> {
        system.check(transport)?;
        let mut subject = Subject {
            system,
            transport,
            version: COMMIT.to_owned(),
            settings: SETTINGS.to_owned(),
            client_path: CLIENT_PATH.to_owned(),
            program: None,
            recipe: None,
        };
        match system.family(transport) {
            Family::Product => {}
            Family::Baseline => {
                let program = programs.find(system, progress)?;
                let Description { library, settings } = Description::ask(&program)?;
                (subject.version, subject.settings) = (library, settings);
                subject.program = Some(program);
            }
            Family::External => {
                let program = programs.find(system, progress)?;
                let recipe = match hosts {
                    None => Recipe::look(&program, system)?,
                    Some(hosts) => {
                        progress.step(&format!("looking for {} on the hosts", system.name()));
                        look(hosts, &program, system)?
                    }
                };
                subject.version.clone_from(&recipe.version);
                subject.settings.clone_from(&recipe.settings);
                subject.client_path.clone_from(&recipe.client);
                subject.program = Some(program);
                subject.recipe = Some(recipe);
            }
        }
        Ok(subject)
    }

    /// What is the same as for Synod, where the system says it itself.
    pub fn equality(&self) -> Vec<Equality> {
        let recipe = self.recipe.as_ref();
        recipe.map_or_else(Vec::new, |recipe| recipe.equality.clone())
    }

    /// As progress and reports name it.
    pub fn label(&self) -> String {
        format!("{} ({})", self.system.name(), self.transport.name())
    }
}

fn load(arguments: &RunArguments) -> Load {
    match arguments.rate {
        Some(rate) => Load::Open {
            rate,
            clients: arguments.clients,
        },
        None => {
            let outstanding = arguments.outstanding.unwrap_or(OUTSTANDING_DEFAULT);
            Load::Closed {
                outstanding,
                // A client without a command would only be in the way.
                clients: arguments.clients.min(outstanding),
            }
        }
    }
}

fn check_payload(arguments: &RunArguments) -> anyhow::Result<()> {
    let least = payload_bytes_min(arguments.state_machine);
    let most = Limits::default().command_bytes_max as u32;
    if arguments.payload < least {
        return Err(usage(format!(
            "--payload {}: a command of this load needs at least {least} bytes, because it carries a stamp",
            arguments.payload
        )));
    }
    if arguments.payload > most {
        return Err(usage(format!(
            "--payload {}: the limit is {most} bytes (command_bytes_max)",
            arguments.payload
        )));
    }
    Ok(())
}

/// What one session may have in flight bounds what a client can be asked for.
fn check_outstanding(load: &Load, payload_bytes: u32) -> anyhow::Result<()> {
    let Load::Closed {
        outstanding,
        clients,
    } = load
    else {
        return Ok(());
    };
    let each = u64::from(outstanding.div_ceil(*clients));
    let bytes = (u64::from(payload_bytes) + LENGTH_BYTES as u64) * each;
    if each > SESSION_OUTSTANDING_MAX || bytes > OUTSTANDING_BYTES_MAX as u64 {
        return Err(usage(format!(
            "--outstanding {outstanding} of {payload_bytes} bytes are too many for {clients} clients: \
             each may have {SESSION_OUTSTANDING_MAX} commands and {OUTSTANDING_BYTES_MAX} bytes in flight"
        )));
    }
    Ok(())
}

fn check_surge(arguments: &RunArguments) -> anyhow::Result<()> {
    let Some(surge) = &arguments.surge else {
        return Ok(());
    };
    if surge.end_ms() >= u64::from(arguments.seconds) * 1_000 {
        return Err(usage(format!(
            "--surge {surge}: it ends with the measured window of {} seconds or later (--seconds), so nobody would see \
             how soon all is normal again",
            arguments.seconds
        )));
    }
    if arguments.inventory.is_some() {
        return Err(usage(
            "--surge: what it does is seen by one client machine; leave out --inventory",
        ));
    }
    if arguments.system.is_external() {
        return Err(usage(format!(
            "--surge: the clients of {} offer one rate",
            arguments.system.name()
        )));
    }
    Ok(())
}

fn links(arguments: &RunArguments, subject: &Subject) -> anyhow::Result<Option<Links>> {
    let name = arguments.links.as_deref();
    let links = Links::find(name, arguments.loss, arguments.replicas)?;
    if links.is_some() && subject.system.is_external() {
        return Err(usage(format!(
            "--links, --loss: the replicas of {} find each other without us, so their links do not pass the emulator",
            subject.system.name()
        )));
    }
    Ok(links)
}

/// What was asked for, or what the loopback interface carries.
fn mtu_max(arguments: &RunArguments, emulated: bool) -> Option<u16> {
    if arguments.mtu.is_none() && arguments.inventory.is_some() {
        return None;
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mtu = arguments.mtu.unwrap_or_else(|| mtu_of_paths([loopback]));
    Some(match emulated {
        true => mtu.min(MTU_OF_LINKS),
        false => mtu,
    })
}

/// The faults asked for, in words or by the older flags.
fn faults(arguments: &RunArguments, subject: &Subject) -> anyhow::Result<Vec<Fault>> {
    let mut faults = arguments.fault.clone();
    faults.extend(arguments.kill_leader_after.map(Fault::kill_leader));
    faults.extend(arguments.crash_all_after.map(Fault::crash_all));
    fault::check_all(&faults, arguments.replicas, arguments.seconds)?;
    for fault in &faults {
        let links = fault.is_of_links();
        if arguments.inventory.is_some() && links && subject.transport != Transport::Quic {
            return Err(usage(format!(
                "--fault '{fault}': on an inventory only links over QUIC are cut; kill and stop work"
            )));
        }
        let ours = !subject.system.is_external() && subject.transport == Transport::Quic;
        if fault.is_of_doors() && (arguments.inventory.is_some() || !ours) {
            return Err(usage(format!(
                "--fault '{fault}': strangers come only to QUIC ports of this machine"
            )));
        }
        if links && subject.system.is_external() {
            return Err(usage(format!(
                "--fault '{fault}': the links of {} do not pass the emulator; kill and stop work",
                subject.system.name()
            )));
        }
    }
    Ok(faults)
}

/// A name that is free in `--out`: the given one, or one made from the time.
pub fn name(kind: &str, out: &Path, given: Option<&str>) -> anyhow::Result<String> {
    let Some(name) = given else {
        let base = format!("{kind}-{}", utc::compact_now());
        let names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        let free = names.into_iter().find(|name| !out.join(name).exists());
        return Ok(free.unwrap_or(base));
    };
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !plain {
        return Err(usage(format!(
            "--name {name}: letters, digits, `-`, `_` and `.` only"
        )));
    }
    let path = out.join(name);
    if path.exists() {
        return Err(usage(format!(
            "--name {name}: {} exists already; results are never overwritten",
            path.display()
        )));
    }
    Ok(name.to_owned())
}
