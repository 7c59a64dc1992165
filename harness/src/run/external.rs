//! Servers of other projects: started, measured, killed and stopped by us, spoken to by the adapter
//! `harness/baselines/external` through each one's own client library.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde::Deserialize;
use synod_engine::ids::ReplicaId;
use tokio::process::Command;

use crate::comparison::Equality;
use crate::failure::usage;
use crate::load::event::LoadResult;
use crate::load::load_file::Load;
use crate::run::counters::Status;
use crate::run::layout::Layout;
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::process::{Launch, Process};
use crate::run::progress::{Progress, thousands};
use crate::run::target::{Conclusion, LinkId, Target};
use crate::run::usage::Usage;
use crate::system::{NotInstalled, System};
use crate::verify::Verdict;

/// Of the recipes that this program understands.
const SCHEMA_VERSION: u32 = 1;
/// The adapter's exit code for a system that is not on its machine.
pub const EXIT_MISSING: i32 = 3;
/// A cluster that has just started, or lost its leader, serves within this time.
pub const READY_S: &str = "60";

/// What the adapter says about a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Recipe {
    schema_version: u32,
    pub version: String,
    pub client: String,
    pub durable: bool,
    pub state_machine: String,
    pub settings: String,
    pub equality: Vec<Equality>,
    /// Where clients reach each server, in their order.
    pub addresses: String,
    pub servers: Vec<Server>,
}

/// A process to start.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub id: u8,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// On top of what its starter has.
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
    client_address: SocketAddr,
}

/// A cluster of three processes or so.
pub struct External<'a> {
    layout: &'a Layout,
    plan: &'a Plan,
    adapter: &'a Path,
    recipe: Recipe,
    servers: BTreeMap<ReplicaId, Process>,
}

impl Recipe {
    /// Writes the files of a fresh cluster in `directory`, which must not exist, and says how to start it.
    pub fn prepare(
        adapter: &Path,
        system: System,
        directory: &Path,
        replicas: u8,
    ) -> anyhow::Result<Recipe> {
        let output = std::process::Command::new(adapter)
            .args(["servers", "--system", &system.name(), "--replicas"])
            .arg(replicas.to_string())
            .arg("--directory")
            .arg(directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| usage(format!("{}: {error}", adapter.display())))?;
        let said = said(&output.stderr);
        if output.status.code() == Some(EXIT_MISSING) {
            return Err(NotInstalled(said).into());
        }
        anyhow::ensure!(output.status.success(), "{}: {said}", adapter.display());
        Recipe::parse(adapter, &output.stdout)
    }

    /// What `adapter` printed.
    pub fn parse(adapter: &Path, output: &[u8]) -> anyhow::Result<Recipe> {
        let recipe: Recipe = serde_json::from_slice(output)
            .with_context(|| format!("{}: gave no recipe", adapter.display()))?;
        if recipe.schema_version != SCHEMA_VERSION {
            return Err(usage(format!(
                "{}: a recipe of version {}, where {SCHEMA_VERSION} is understood: build it again",
                adapter.display(),
                recipe.schema_version
            )));
        }
        Ok(recipe)
    }

    /// Only to know what is installed: nothing stays.
    pub fn look(adapter: &Path, system: System) -> anyhow::Result<Recipe> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        Recipe::prepare(adapter, system, &folder.path().join("look"), 1)
    }
}

impl<'a> External<'a> {
    pub async fn start(
        layout: &'a Layout,
        plan: &'a Plan,
        adapter: &'a Path,
    ) -> anyhow::Result<External<'a>> {
        let directory = layout.data.join("servers");
        let system = plan.subject.system;
        let recipe = Recipe::prepare(adapter, system, &directory, plan.replicas)?;
        let mut servers = BTreeMap::new();
        for server in &recipe.servers {
            servers.insert(ReplicaId(server.id), launch(layout, server)?);
        }
        Ok(External {
            layout,
            plan,
            adapter,
            recipe,
            servers,
        })
    }

    /// Until the cluster serves a write.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let waited = self.ask("wait", &["--seconds", READY_S]).await;
        // A server that ended says more than the client that misses it.
        self.check().await?;
        waited.map(|_| ())
    }

    /// What the adapter answers about the running cluster.
    async fn ask(&self, command: &str, more: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(self.adapter)
            .arg(command)
            .args(self.cluster())
            .args(more)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("{} cannot be started", self.adapter.display()))?;
        anyhow::ensure!(output.status.success(), "{}", said(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn cluster(&self) -> Vec<String> {
        vec![
            "--system".into(),
            self.plan.subject.system.name(),
            "--addresses".into(),
            self.recipe.addresses.clone(),
        ]
    }

    fn process(&mut self, id: ReplicaId) -> anyhow::Result<&mut Process> {
        self.servers
            .get_mut(&id)
            .with_context(|| format!("there is no server {}", id.0))
    }
}

impl Target for External<'_> {
    fn backend(&self) -> String {
        "its own".into()
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.servers.keys().copied().collect()
    }

    async fn wait_for_leader(&mut self) -> anyhow::Result<ReplicaId> {
        self.wait().await?;
        self.leader(&self.replicas())
            .await
            .context("the cluster serves, but names no leader")
    }

    async fn leader(&self, _up: &[ReplicaId]) -> Option<ReplicaId> {
        let answer = self.ask("leader", &[]).await.ok()?;
        let position: usize = answer.parse().ok()?;
        let addresses: Vec<&str> = self.recipe.addresses.split(',').collect();
        let address: SocketAddr = addresses.get(position.checked_sub(1)?)?.parse().ok()?;
        let mut servers = self.recipe.servers.iter();
        let server = servers.find(|server| server.client_address == address)?;
        Some(ReplicaId(server.id))
    }

    async fn statuses(&self, up: &[ReplicaId]) -> anyhow::Result<BTreeMap<ReplicaId, Status>> {
        let status = |process: &Process| {
            let usage = Usage::of(process.id()?)?;
            anyhow::Ok(Status::from([
                ("process_cpu_us".to_owned(), usage.cpu_us),
                ("disk_bytes_written".to_owned(), usage.disk_bytes_written),
            ]))
        };
        let each = self.servers.iter().filter(|(id, _)| up.contains(id));
        each.map(|(id, process)| Ok((*id, status(process)?)))
            .collect()
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        for process in self.servers.values_mut() {
            process.check().await?;
        }
        Ok(())
    }

    async fn kill(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        for id in victims {
            self.process(*id)?.kill()?;
        }
        for id in victims {
            self.process(*id)?.reap().await?;
        }
        Ok(())
    }

    async fn restart(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        for id in victims {
            let server = self.recipe.servers.iter().find(|server| server.id == id.0);
            let process = launch(self.layout, server.context("no such server")?)?;
            *self.process(*id)? = process;
        }
        self.wait().await
    }

    async fn pause(&mut self, victims: &[ReplicaId], paused: bool) -> anyhow::Result<()> {
        for id in victims {
            self.process(*id)?.pause(paused)?;
        }
        Ok(())
    }

    async fn cut(&mut self, _links: &BTreeSet<LinkId>) -> anyhow::Result<()> {
        anyhow::bail!(
            "the links of {} pass no emulator",
            self.plan.subject.label()
        )
    }

    fn start_load(&self, progress: &Arc<Progress>) -> anyhow::Result<LoadProcess> {
        let plan = self.plan;
        let mut arguments = vec!["load".to_owned()];
        arguments.extend(self.cluster());
        arguments.extend(load_flags(plan));
        let out = self.layout.results.to_str();
        arguments.extend([
            "--out".into(),
            out.context("--out is not valid UTF-8")?.into(),
        ]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = self.layout.load_log();
        let process = Process::start_program(self.adapter, "the load", &arguments, &log)?;
        Ok(LoadProcess::follow(process, Arc::clone(progress)))
    }

    /// The load itself has read back what was acknowledged, while the cluster was there.
    async fn conclude(
        mut self,
        _plan: &Plan,
        load: &LoadResult,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Conclusion> {
        let started = Instant::now();
        for process in self.servers.values_mut() {
            // How it takes SIGTERM is its own affair.
            process.terminate().await?;
        }
        Ok(Conclusion {
            verdict: verdict(load, progress)?,
            verify_seconds: started.elapsed().as_secs_f64(),
            complaints: Vec::new(),
            links: None,
        })
    }
}

/// What a load is told, wherever it runs.
pub fn load_flags(plan: &Plan) -> Vec<String> {
    let mut flags = match plan.load {
        Load::Closed { outstanding, .. } => vec!["--outstanding".into(), outstanding.to_string()],
        Load::Open { rate, .. } => vec!["--rate".into(), rate.to_string()],
    };
    for (flag, value) in [
        ("--seconds", u64::from(plan.seconds)),
        ("--warmup", u64::from(plan.warmup_s)),
        ("--payload", u64::from(plan.payload_bytes)),
        ("--deadline-ms", plan.deadline_ms),
        ("--seed", plan.seed),
    ] {
        flags.extend([flag.to_owned(), value.to_string()]);
    }
    flags
}

/// The load itself has read back what was acknowledged.
pub fn verdict(load: &LoadResult, progress: &Progress) -> anyhow::Result<Verdict> {
    let read_back = load
        .read_back
        .context("the load did not read its writes back")?;
    progress.step(&format!(
        "{} acknowledged writes were read back",
        thousands(read_back.checked)
    ));
    let mut verdict = Verdict {
        lost: read_back.lost,
        executed: read_back.checked,
        ..Verdict::default()
    };
    if read_back.repeated > 0 {
        verdict.finding(|| {
            format!(
                "{} writes were executed again when their client tried again, which this system allows",
                read_back.repeated
            )
        });
    }
    Ok(verdict)
}

fn launch(layout: &Layout, server: &Server) -> anyhow::Result<Process> {
    let arguments: Vec<&str> = server.arguments.iter().map(String::as_str).collect();
    Process::launch(Launch {
        program: &server.program,
        name: &format!("server {}", server.id),
        arguments: &arguments,
        environment: &server.environment,
        directory: Some(&server.directory),
        log: &layout.replica_log(ReplicaId(server.id)),
        logs_stdout: true,
    })
}

/// The last line that the adapter printed before it failed.
pub fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it said nothing");
    line.trim_start_matches("external: ").to_owned()
}
