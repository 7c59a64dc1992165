//! The replicas of a run, each a process of its own, and the client that asks them how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::{ReplicaId, Slot};
use synod_transport::Client;
use tokio::time::Instant;

use crate::client_file::client_config;
use crate::links::Emulator;
use crate::load::event::LoadResult;
use crate::run::counters::Status;
use crate::run::layout::{Layout, last_line};
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::process::Process;
use crate::run::progress::{Progress, thousands};
use crate::run::target::{Conclusion, LinkId, Target};
use crate::run::usage::Usage;
use crate::run::{self, evidence_of};
use crate::strangers::Strangers;
use crate::system::Transport;
use crate::verify::Evidence;

/// A replica that recovers a long WAL takes its time.
const READY_MAX: Duration = Duration::from_secs(60);
const LEADER_MAX: Duration = Duration::from_secs(15);
/// Replies may be this late while a machine is fully loaded.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// All replicas reach the same commit index within this time after a load.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What runs as a replica instead of `synod replica`, with the same flags and files.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    pub path: &'a Path,
    pub transport: Transport,
}

pub struct Cluster<'a> {
    pub layout: &'a Layout,
    program: Option<Program<'a>>,
    replicas: BTreeMap<ReplicaId, Process>,
    client: Client,
    /// What is between the replicas.
    emulator: Option<Emulator>,
    /// Who sends first packets, by the replica that gets them.
    strangers: BTreeMap<ReplicaId, Strangers>,
    /// How the WAL is written, as the replicas said when they were ready.
    pub backend: String,
}

impl<'a> Cluster<'a> {
    /// Starts every replica with a new data directory and waits until all are ready.
    pub async fn start(
        layout: &'a Layout,
        program: Option<Program<'a>>,
    ) -> anyhow::Result<Cluster<'a>> {
        let mut replicas = BTreeMap::new();
        for (id, _) in &layout.addresses {
            replicas.insert(*id, start_replica(layout, program, *id, &["--init"])?);
        }
        let mut backend = String::new();
        for process in replicas.values_mut() {
            backend = wait_ready(process).await?;
        }
        let mut config = client_config(
            layout.cluster,
            layout.addresses.clone(),
            layout.certificates("client").load()?,
        )?;
        config.deadline = STATUS_MAX;
        let client = Client::observe(config)?;
        Ok(Cluster {
            layout,
            program,
            replicas,
            client,
            emulator: None,
            strangers: BTreeMap::new(),
            backend,
        })
    }

    /// With the links that this emulator is; the replicas' files say so already.
    pub fn with_links(mut self, emulator: Option<Emulator>) -> Cluster<'a> {
        self.emulator = emulator;
        self
    }

    /// Starts one replica that is not running, with `flags` added.
    pub async fn start_with(&mut self, id: ReplicaId, flags: &[&str]) -> anyhow::Result<()> {
        *self.process(id)? = start_replica(self.layout, self.program, id, flags)?;
        wait_ready(self.process(id)?).await?;
        Ok(())
    }

    /// Starts one replica that is not running; its log goes into `log` instead of its file.
    pub async fn start_logging_to(&mut self, id: ReplicaId, log: OwnedFd) -> anyhow::Result<()> {
        let config = self.layout.replica_config(id);
        let arguments = ["replica", "--exit-with-parent", "--config"].map(OsStr::new);
        let arguments = arguments.into_iter().chain([config.as_os_str()]);
        let (name, file) = (format!("replica {}", id.0), self.layout.replica_log(id));
        *self.process(id)? = Process::start_logging_to(&name, arguments, &file, log)?;
        wait_ready(self.process(id)?).await?;
        Ok(())
    }

    /// Stops all replicas; returns those that did not end by themselves and cleanly.
    pub async fn stop(mut self) -> anyhow::Result<Vec<String>> {
        self.client.close().await;
        let mut complaints = Vec::new();
        for (id, process) in &mut self.replicas {
            if !process.terminate().await? {
                let why = last_line(&self.layout.replica_log(*id));
                complaints.push(format!("replica {} did not stop cleanly: {why}", id.0));
            }
        }
        Ok(complaints)
    }

    /// Waits for a replica that has just started again.
    pub async fn status(&self, id: ReplicaId) -> anyhow::Result<Status> {
        let status = self.client.status(id).await?;
        Ok(status.into_iter().collect())
    }

    pub fn process(&mut self, id: ReplicaId) -> anyhow::Result<&mut Process> {
        self.replicas
            .get_mut(&id)
            .with_context(|| format!("there is no replica {}", id.0))
    }
}

impl Target for Cluster<'_> {
    fn backend(&self) -> String {
        self.backend.clone()
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.replicas.keys().copied().collect()
    }

    async fn wait_for_leader(&mut self) -> anyhow::Result<ReplicaId> {
        let layout = self.layout;
        wait_for_leader(self, layout).await
    }

    async fn leader(&self, up: &[ReplicaId]) -> Option<ReplicaId> {
        leader_of(&self.statuses(up).await.ok()?)
    }

    async fn statuses(&self, up: &[ReplicaId]) -> anyhow::Result<BTreeMap<ReplicaId, Status>> {
        let mut statuses = BTreeMap::new();
        for id in up {
            let mut status = self.status(*id).await?;
            let usage = Usage::of(self.replicas[id].id()?)?;
            status.insert("disk_bytes_written".into(), usage.disk_bytes_written);
            statuses.insert(*id, status);
        }
        Ok(statuses)
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        for process in self.replicas.values_mut() {
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
            *self.process(*id)? = start_replica(self.layout, self.program, *id, &[])?;
        }
        for id in victims {
            wait_ready(self.process(*id)?).await?;
        }
        Ok(())
    }

    async fn pause(&mut self, victims: &[ReplicaId], paused: bool) -> anyhow::Result<()> {
        for id in victims {
            self.process(*id)?.pause(paused)?;
        }
        Ok(())
    }

    async fn cut(&mut self, links: &BTreeSet<LinkId>) -> anyhow::Result<()> {
        let emulator = self.emulator.as_mut();
        emulator
            .context("the links of this run pass no emulator")?
            .cut(links)
            .await
    }

    async fn crowd(&mut self, doors: &BTreeSet<ReplicaId>) -> anyhow::Result<()> {
        self.strangers.retain(|id, _| doors.contains(id));
        for (id, address) in &self.layout.addresses {
            if doors.contains(id) && !self.strangers.contains_key(id) {
                let strangers = Strangers::crowd(*address, u32::from(id.0))?;
                self.strangers.insert(*id, strangers);
            }
        }
        Ok(())
    }

    fn start_load(&self, progress: &Arc<Progress>) -> anyhow::Result<LoadProcess> {
        let config = self.layout.load_config();
        let config = config.to_str().context("--out is not valid UTF-8")?;
        let arguments = ["load", "--config", config];
        let process = Process::start("the load", &arguments, &self.layout.load_log())?;
        Ok(LoadProcess::follow(process, Arc::clone(progress)))
    }

    async fn conclude(
        mut self,
        plan: &Plan,
        load: &LoadResult,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Conclusion> {
        progress.step("load done; waiting until all replicas have applied the same slots");
        let (commit_index, hashes) = settle(&mut self).await?;
        let links = match &mut self.emulator {
            Some(emulator) => Some(emulator.report().await?),
            None => None,
        };
        let layout = self.layout;
        let complaints = self.stop().await?;
        let settled = Settled {
            commit_index,
            hashes,
            complaints,
        };
        let conclusion = check_disks(plan, layout, settled, load, progress).await?;
        Ok(Conclusion {
            links,
            ..conclusion
        })
    }
}

/// Waits until a replica says that it leads.
pub async fn wait_for_leader(
    target: &mut impl Target,
    layout: &Layout,
) -> anyhow::Result<ReplicaId> {
    let deadline = Instant::now() + LEADER_MAX;
    loop {
        target.check().await?;
        if let Some(leader) = target.leader(&target.replicas()).await {
            return Ok(leader);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "no leader within {} s; the replicas' logs are in {}",
            LEADER_MAX.as_secs(),
            layout.results.display()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until all replicas have applied the same slots. Returns the last one, and each one's state hash.
pub async fn settle(target: &mut impl Target) -> anyhow::Result<(Slot, BTreeMap<ReplicaId, u64>)> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        target.check().await?;
        let statuses = target.statuses(&target.replicas()).await?;
        let watermark = |status: &Status, name: &str| status.get(name).copied().unwrap_or(0);
        let mut slots = statuses.values().flat_map(|status| {
            [
                watermark(status, "commit_index"),
                watermark(status, "applied"),
            ]
        });
        let first = slots.next().unwrap_or(0);
        if first > 0 && slots.all(|slot| slot == first) {
            let hashes = statuses
                .iter()
                .map(|(id, status)| (*id, watermark(status, "state_hash")))
                .collect();
            return Ok((Slot(first), hashes));
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the replicas did not reach the same slot within {} s of the load's end: {}",
            SETTLE_MAX.as_secs(),
            describe(&statuses)
        );
        tokio::time::sleep(POLL).await;
    }
}

/// What the replicas were when they stopped.
pub struct Settled {
    pub commit_index: Slot,
    /// Each replica's hash of its state at the commit index.
    pub hashes: BTreeMap<ReplicaId, u64>,
    /// Replicas that did not stop cleanly.
    pub complaints: Vec<String>,
}

/// Checks what the stopped replicas left on this machine's disk.
pub async fn check_disks(
    plan: &Plan,
    layout: &Layout,
    settled: Settled,
    load: &LoadResult,
    progress: &Arc<Progress>,
) -> anyhow::Result<Conclusion> {
    let evidence = Evidence {
        machine: plan.state_machine,
        commit_index: settled.commit_index,
        replicas: evidence_of(layout, settled.hashes),
        holes: false,
        clients: load.accounts.clone(),
    };
    let started = Instant::now();
    let verdict = run::check(evidence, progress).await?;
    let verify_seconds = started.elapsed().as_secs_f64();
    progress.step(&format!(
        "checked {} commands from slot {} on in {verify_seconds:.1} s",
        thousands(verdict.executed),
        thousands(verdict.from_slot)
    ));
    Ok(Conclusion {
        verdict,
        verify_seconds,
        complaints: settled.complaints,
        links: None,
    })
}

/// The leader of the highest ballot, if a replica says that it leads.
pub fn leader_of(statuses: &BTreeMap<ReplicaId, Status>) -> Option<ReplicaId> {
    statuses
        .iter()
        .filter(|(_, status)| status.get("leading") == Some(&1))
        .max_by_key(|(_, status)| status.get("ballot_round").copied())
        .map(|(id, _)| *id)
}

fn start_replica(
    layout: &Layout,
    program: Option<Program<'_>>,
    id: ReplicaId,
    flags: &[&str],
) -> anyhow::Result<Process> {
    let config = layout.replica_config(id);
    let config = config.to_str().context("--out is not valid UTF-8")?;
    let mut arguments = vec!["--config", config, "--exit-with-parent"];
    arguments.extend_from_slice(flags);
    let (name, log) = (format!("replica {}", id.0), layout.replica_log(id));
    match program {
        Some(program) => {
            arguments.extend(["--transport", program.transport.name()]);
            Process::start_program(program.path, &name, &arguments, &log)
        }
        None => {
            arguments.insert(0, "replica");
            Process::start(&name, &arguments, &log)
        }
    }
}

/// Returns the backend that the ready line names.
pub async fn wait_ready(process: &mut Process) -> anyhow::Result<String> {
    let line = match tokio::time::timeout(READY_MAX, process.line()).await {
        Ok(line) => line?,
        Err(_) => anyhow::bail!("a replica is not ready after {} s", READY_MAX.as_secs()),
    };
    let Some(line) = line else {
        return Err(process.end().await);
    };
    anyhow::ensure!(
        line.starts_with("ready "),
        "a replica said `{line}` instead of being ready"
    );
    let backend = line.split_once(" backend=").map(|(_, backend)| backend);
    Ok(backend.unwrap_or("unknown").to_owned())
}

fn describe(statuses: &BTreeMap<ReplicaId, Status>) -> String {
    let each = statuses.iter().map(|(id, status)| {
        let value = |name: &str| status.get(name).copied().unwrap_or(0);
        format!(
            "replica {}: commit_index {}, applied {}, leader {}",
            id.0,
            value("commit_index"),
            value("applied"),
            value("leader")
        )
    });
    each.collect::<Vec<_>>().join("; ")
}
