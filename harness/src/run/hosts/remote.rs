//! Replicas on other machines as a [`Target`]: each is a process at the other end of an ssh connection, which ends
//! when the connection does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;

use crate::cluster::collect::unpack;
use crate::cluster::fleet::{all, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::replicas::Placed;
use crate::load::event::LoadResult;
use crate::probe::protocol::{Paused, Stopped};
use crate::run::cluster::{Settled, check_disks, leader_of, settle, wait_for_leader, wait_ready};
use crate::run::counters::Status;

use crate::run::hosts::filter::{Filter, Strike};
use crate::run::hosts::{ClientPlace, replica_name, several_loads};
use crate::run::layout::Layout;
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::process::Process;
use crate::run::progress::Progress;
use crate::run::target::{Conclusion, LinkId, Target};
use crate::system::{Family, Transport};

/// What runs on the hosts.
pub struct Programs {
    /// This one, which every host has.
    pub own: Executable,
    /// What runs as a replica instead, with the same files.
    replica: Option<(Executable, Transport)>,
    /// What sets up the servers of another project, and plays their clients.
    adapter: Option<Executable>,
}

impl Programs {
    /// Of Synod alone.
    pub fn own() -> anyhow::Result<Programs> {
        Ok(Programs {
            own: Executable::own()?,
            replica: None,
            adapter: None,
        })
    }

    pub fn find(plan: &Plan) -> anyhow::Result<Programs> {
        let subject = &plan.subject;
        let mut programs = Programs::own()?;
        match (subject.system.family(subject.transport), &subject.program) {
            (Family::Product, _) => {}
            (Family::Baseline, Some(path)) => {
                programs.replica = Some((Executable::of_replica(path)?, subject.transport));
            }
            (Family::External, Some(path)) => {
                programs.adapter = Some(Executable::of_adapter(path)?);
            }
            (Family::Baseline | Family::External, None) => {
                anyhow::bail!("{} has no program", subject.label())
            }
        }
        Ok(programs)
    }

    /// The adapter's place in a folder.
    pub fn adapter_in(&self, folder: &Folder) -> anyhow::Result<String> {
        let adapter = self.adapter.as_ref().context("there is no adapter")?;
        Ok(adapter.path_in(folder))
    }

    pub async fn install(&self, folder: &Folder) -> anyhow::Result<()> {
        folder.install(&self.own).await?;
        let replica = self.replica.as_ref().map(|(program, _)| program);
        for program in replica.into_iter().chain(&self.adapter) {
            folder.install(program).await?;
        }
        Ok(())
    }
}

pub struct RemoteCluster<'a> {
    layout: &'a Layout,
    programs: &'a Programs,
    replicas: BTreeMap<ReplicaId, Replica>,
    clients: Vec<ClientPlace>,
    cuts: Cuts,
    backend: String,
}

/// How links are cut in a run.
pub struct Cuts {
    pub filter: Filter,
    /// No cut lasts longer.
    pub max: Duration,
}

impl Cuts {
    pub fn none() -> Cuts {
        Cuts {
            filter: Filter::none(),
            max: Duration::ZERO,
        }
    }
}

struct Replica {
    placed: Placed,
    /// Our own executable on its host.
    executable: String,
    process: Process,
}

impl<'a> RemoteCluster<'a> {
    /// Starts every replica with a new data directory and waits until all are ready.
    pub async fn start(
        layout: &'a Layout,
        programs: &'a Programs,
        placed: Vec<Placed>,
        clients: Vec<ClientPlace>,
        cuts: Cuts,
    ) -> anyhow::Result<RemoteCluster<'a>> {
        anyhow::ensure!(
            placed.len() == layout.addresses.len(),
            "not every replica has a host"
        );
        let mut cluster = RemoteCluster {
            layout,
            programs,
            replicas: BTreeMap::new(),
            clients,
            cuts,
            backend: String::new(),
        };
        for placed in placed {
            let process = cluster.spawn(&placed, &["--init"])?;
            let executable = programs.own.path_in(&placed.folder);
            let replica = Replica {
                placed,
                executable,
                process,
            };
            cluster.replicas.insert(replica.placed.id, replica);
        }
        for replica in cluster.replicas.values_mut() {
            cluster.backend = wait_ready(&mut replica.process).await?;
        }
        Ok(cluster)
    }

    fn spawn(&self, placed: &Placed, flags: &[&str]) -> anyhow::Result<Process> {
        let (folder, pid) = (&placed.folder, placed.pid_file());
        let own = self.programs.own.path_in(folder);
        let config = folder.file(&format!("{}.toml", placed.name()));
        let cpus = placed.host().entry.cpus.as_ref().map(ToString::to_string);
        let mut words = vec![own.as_str(), "probe", "exec", "--pid-file", &pid];
        if let Some(cpus) = &cpus {
            words.extend(["--cpus", cpus]);
        }
        words.push("--");
        let program = self.programs.replica.as_ref();
        let program =
            program.map(|(program, transport)| (program.path_in(folder), transport.name()));
        match &program {
            Some((path, _)) => words.push(path),
            None => words.extend([own.as_str(), "replica"]),
        }
        words.extend(["--config", &config, "--exit-with-parent"]);
        words.extend(flags);
        if let Some((_, transport)) = &program {
            words.extend(["--transport", transport]);
        }
        let name = replica_name(placed.id, placed.host().name());
        let log = self.layout.replica_log(placed.id);
        Process::start_on(placed.host(), &words, &name, &log)
    }

    fn replica(&mut self, id: ReplicaId) -> anyhow::Result<&mut Replica> {
        let replica = self.replicas.get_mut(&id);
        replica.with_context(|| format!("there is no replica {}", id.0))
    }

    /// Stops all replicas; returns those that did not end by themselves and cleanly.
    pub async fn stop(&mut self) -> anyhow::Result<Vec<String>> {
        let mut complaints = Vec::new();
        for (id, replica) in &mut self.replicas {
            let stopped = replica.placed.end(&replica.executable, "term").await?;
            let status = replica.process.reap().await?;
            if stopped != Stopped::ByItself || !status.success() {
                let name = replica_name(*id, replica.placed.host().name());
                complaints.push(format!("{name} did not stop cleanly ({status})"));
            }
        }
        Ok(complaints)
    }

    /// The replicas stand still for so long. Says whether they were seen so.
    pub async fn pause_for(
        &mut self,
        victim: ReplicaId,
        lasts: Duration,
    ) -> anyhow::Result<Paused> {
        let replica = self.replica(victim)?;
        replica.placed.pause(&replica.executable, lasts).await
    }

    /// After something failed: ends what still runs, and brings what the disks have.
    pub async fn rescue(&self) -> anyhow::Result<()> {
        for replica in self.replicas.values() {
            replica.placed.end(&replica.executable, "kill").await?;
        }
        self.fetch().await
    }

    /// SIGKILL to all of them at once; says what became of each.
    pub async fn kill_all(&mut self, victims: &[ReplicaId]) -> anyhow::Result<Vec<Stopped>> {
        let mut orders = Vec::new();
        for id in victims {
            let replica = self.replica(*id)?;
            orders.push((replica.placed.clone(), replica.executable.clone()));
        }
        let ended = each(orders, |(placed, executable)| async move {
            placed.end(&executable, "kill").await
        });
        let ended = all(ended.await)?;
        for id in victims {
            self.replica(*id)?.process.reap().await?;
        }
        Ok(ended)
    }

    /// Brings the WALs here, where all of them are compared.
    pub async fn fetch(&self) -> anyhow::Result<()> {
        const SCRIPT: &str = "cd \"$0\" && tar -cSf - -- \"$1\"";
        let wals = self.replicas.values().map(|replica| replica.placed.clone());
        let data = self.layout.data.clone();
        let fetched = each(wals.collect(), |placed| {
            let data = data.clone();
            async move {
                let words = [placed.folder.path(), &placed.name()].map(str::to_owned);
                unpack(&placed.folder, SCRIPT, &[&words[0], &words[1]], &data).await
            }
        });
        all(fetched.await).map(|_| ())
    }
}

impl Target for RemoteCluster<'_> {
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

    /// Each host asks its own replicas, so that the hosts need not be reached by anything but ssh from here.
    async fn statuses(&self, up: &[ReplicaId]) -> anyhow::Result<BTreeMap<ReplicaId, Status>> {
        let asked = self
            .replicas
            .iter()
            .filter(|(id, _)| up.contains(id))
            .map(|(_, replica)| (replica.placed.clone(), replica.executable.clone()));
        let states = each(asked.collect(), |(placed, executable)| async move {
            let state = placed.state(&executable).await?;
            let name = replica_name(placed.id, placed.host().name());
            anyhow::ensure!(state.pid.is_some(), "{name} does not run");
            if let Some(problem) = state.problem {
                anyhow::bail!("{name} does not answer: {problem}");
            }
            Ok((placed.id, state.counters))
        });
        Ok(all(states.await)?.into_iter().collect())
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        for replica in self.replicas.values_mut() {
            replica.process.check().await?;
        }
        Ok(())
    }

    async fn kill(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        self.kill_all(victims).await.map(|_| ())
    }

    async fn restart(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        for id in victims {
            let placed = self.replica(*id)?.placed.clone();
            let process = self.spawn(&placed, &[])?;
            self.replica(*id)?.process = process;
        }
        for id in victims {
            wait_ready(&mut self.replica(*id)?.process).await?;
        }
        Ok(())
    }

    async fn pause(&mut self, victims: &[ReplicaId], paused: bool) -> anyhow::Result<()> {
        for id in victims {
            let replica = self.replica(*id)?;
            replica.placed.halt(&replica.executable, paused).await?;
        }
        Ok(())
    }

    async fn cut(&mut self, links: &BTreeSet<LinkId>) -> anyhow::Result<()> {
        let links: Vec<LinkId> = links.iter().copied().collect();
        let Cuts { filter, max } = &self.cuts;
        filter.strike(&links, Strike::Cut, *max).await
    }

    fn start_load(&self, progress: &Arc<Progress>) -> anyhow::Result<LoadProcess> {
        let mut parts = Vec::new();
        for place in &self.clients {
            let (folder, host) = (&place.folder, place.folder.host.name());
            let own = self.programs.own.path_in(folder);
            let (config, pid) = (folder.file("load.toml"), folder.file("load.pid"));
            let words = [
                &own,
                "probe",
                "exec",
                "--pid-file",
                &pid,
                "--",
                &own,
                "load",
                "--config",
                &config,
            ];
            let log = self.layout.results.join(format!("load-{host}.log"));
            let name = format!("the load on host {host}");
            let process = Process::start_on(&folder.host, &words, &name, &log)?;
            parts.push(several_loads::Part {
                process,
                folder: folder.clone(),
            });
        }
        Ok(several_loads::follow(
            parts,
            self.layout.results.clone(),
            Arc::clone(progress),
        ))
    }

    async fn conclude(
        mut self,
        plan: &Plan,
        load: &LoadResult,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Conclusion> {
        progress.step("load done; waiting until all replicas have applied the same slots");
        let (commit_index, hashes) = settle(&mut self).await?;
        let complaints = self.stop().await?;
        progress.step("fetching the WALs of all hosts");
        self.fetch().await?;
        let settled = Settled {
            commit_index,
            hashes,
            complaints,
        };
        check_disks(plan, self.layout, settled, load, progress).await
    }
}
