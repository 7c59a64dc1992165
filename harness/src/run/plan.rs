//! What a run is going to do: the flags, checked and completed. Published as `config.toml`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use synod_engine::client::LENGTH_BYTES;
use synod_engine::config::Limits;
use synod_engine::sessions::SESSION_OUTSTANDING_MAX;
use synod_transport::client::OUTSTANDING_BYTES_MAX;

use crate::cli::{BackendChoice, DurabilityChoice, MachineChoice, RunArguments};
use crate::environment::COMMIT;
use crate::failure::usage;
use crate::load::load_file::Load;
use crate::load::surge::Surge;
use crate::load::workload::payload_bytes_min;
use crate::run::external::Recipe;
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
    pub mtu_max: u16,
    pub seed: u64,
    pub deadline_ms: u64,
    /// Of WAL, from snapshot to snapshot; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_distance_bytes: Option<u64>,
    pub out: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    pub keep_data: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<Surge>,
    pub subject: Subject,
    pub load: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
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

/// What is done to the cluster, in seconds from the start of the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    KillLeader { after_s: u32 },
    CrashAll { after_s: u32 },
}

impl Fault {
    pub fn after_s(&self) -> u32 {
        match self {
            Fault::KillLeader { after_s } | Fault::CrashAll { after_s } => *after_s,
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Fault::KillLeader { .. } => "kill-leader",
            Fault::CrashAll { .. } => "crash-all",
        }
    }
}

impl Plan {
    /// Finds the programs of the system under test, or builds them.
    pub fn find(arguments: &RunArguments, progress: &Progress) -> anyhow::Result<Plan> {
        let programs = Programs::new(arguments.programs.as_deref())?;
        let transport = transport(arguments);
        let subject = Subject::find(arguments.system, transport, &programs, progress)?;
        Plan::new(arguments, subject)
    }

    pub fn new(arguments: &RunArguments, subject: Subject) -> anyhow::Result<Plan> {
        check_payload(arguments)?;
        let load = load(arguments);
        check_outstanding(&load, arguments.payload)?;
        let fault = fault(arguments)?;
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
            mtu_max: arguments.mtu,
            seed: arguments.seed,
            deadline_ms: DEADLINE_MS,
            snapshot_distance_bytes: arguments.snapshot_distance,
            out: arguments.out.clone(),
            data: arguments.data.clone(),
            keep_data: arguments.keep_data,
            surge: arguments.surge,
            subject,
            load,
            fault,
        })
    }
}

impl Plan {
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
    /// Finds the programs of the system, or builds them.
    pub fn find(
        system: System,
        transport: Transport,
        programs: &Programs,
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
                let recipe = Recipe::look(&program, system)?;
                subject.version.clone_from(&recipe.version);
                subject.settings.clone_from(&recipe.settings);
                subject.client_path.clone_from(&recipe.client);
                subject.program = Some(program);
                subject.recipe = Some(recipe);
            }
        }
        Ok(subject)
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
    if arguments.system.is_external() {
        return Err(usage(format!(
            "--surge: the clients of {} offer one rate",
            arguments.system.name()
        )));
    }
    Ok(())
}

fn fault(arguments: &RunArguments) -> anyhow::Result<Option<Fault>> {
    let fault = match (arguments.kill_leader_after, arguments.crash_all_after) {
        (Some(after_s), _) => Fault::KillLeader { after_s },
        (None, Some(after_s)) => Fault::CrashAll { after_s },
        (None, None) => return Ok(None),
    };
    if fault.after_s() >= arguments.seconds {
        return Err(usage(format!(
            "--{}-after {}: the measured window is over after {} seconds (--seconds)",
            fault.label(),
            fault.after_s(),
            arguments.seconds
        )));
    }
    Ok(Some(fault))
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
