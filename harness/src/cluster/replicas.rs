//! The replicas on their hosts: installed, started, asked, ended.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;
use tokio::time::Instant;

use crate::cluster::fleet::{Fleet, all, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::host::{Host, complaint};
use crate::cluster::inventory::Inventory;
use crate::probe::protocol::{Paused, ReplicaState, Stopped};
use crate::run::usage::Usage;

const LEADER_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A replica and where it runs.
#[derive(Clone)]
pub struct Placed {
    pub id: ReplicaId,
    pub address: SocketAddr,
    pub host_index: usize,
    pub folder: Folder,
}

/// The folder of a cluster that `up` started.
pub fn folder_name(inventory: &Inventory) -> String {
    format!("synod-{}", inventory.name)
}

/// The replicas of the connected hosts.
pub fn placed(fleet: &Fleet, inventory: &Inventory, folder: &str) -> anyhow::Result<Vec<Placed>> {
    let mut placed = Vec::new();
    for (host_index, host) in fleet.connected() {
        for place in inventory
            .replicas
            .iter()
            .filter(|place| place.host == host_index)
        {
            placed.push(Placed {
                id: place.id,
                address: place.address,
                host_index,
                folder: Folder::of(&host, folder)?,
            });
        }
    }
    Ok(placed)
}

/// Copies PEM files to a host's folder: the authority's, and those of `names`.
pub async fn copy_certificates(
    folder: &Folder,
    from: &Path,
    names: &[String],
) -> anyhow::Result<()> {
    let mut files = vec!["ca.pem".to_owned()];
    for name in names {
        files.extend([format!("{name}.pem"), format!("{name}.key")]);
    }
    for file in files {
        folder
            .host
            .put(&from.join(&file), &folder.file(&file), "600")
            .await?;
    }
    Ok(())
}

impl Placed {
    pub fn name(&self) -> String {
        format!("replica-{}", self.id.0)
    }

    /// What it binds on its host.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.host().entry.listen, self.address.port())
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.folder.host
    }

    pub fn pid_file(&self) -> String {
        self.folder.file(&format!("{}.pid", self.name()))
    }

    /// Starts it and waits until it is ready.
    pub async fn start(
        &self,
        executable: &str,
        cluster: &str,
        flags: &[&str],
    ) -> anyhow::Result<()> {
        let name = self.name();
        let file = |suffix: &str| self.folder.file(&format!("{name}.{suffix}"));
        let (pid, out, log, config) = (self.pid_file(), file("out"), file("log"), file("toml"));
        let unit = format!("synod-{cluster}-{name}");
        let mut words = vec![
            executable,
            "probe",
            "start",
            "--unit",
            &unit,
            "--pid-file",
            &pid,
        ];
        words.extend(["--out", &out, "--log", &log]);
        let cpus = self.host().entry.cpus.as_ref().map(ToString::to_string);
        if let Some(cpus) = &cpus {
            words.extend(["--cpus", cpus]);
        }
        words.extend(["--", executable, "replica", "--config", &config]);
        words.extend(flags);
        let started = self.host().run(&words).await;
        started
            .map(|_| ())
            .with_context(|| format!("replica {} does not start", self.id.0))
    }

    pub async fn state(&self, executable: &str) -> anyhow::Result<ReplicaState> {
        let (config, pid, id) = (
            self.folder.file("client.toml"),
            self.pid_file(),
            self.id.0.to_string(),
        );
        let words = [
            executable,
            "probe",
            "status",
            "--config",
            &config,
            "--replica",
            &id,
            "--pid-file",
            &pid,
        ];
        self.ask(&words).await
    }

    /// `signal` as `synod probe signal` names it.
    pub async fn end(&self, executable: &str, signal: &str) -> anyhow::Result<Stopped> {
        let pid = self.pid_file();
        self.ask(&[
            executable,
            "probe",
            "signal",
            "--pid-file",
            &pid,
            "--signal",
            signal,
        ])
        .await
    }

    /// It stands still, or goes on; fails unless it runs.
    pub async fn halt(&self, executable: &str, halt: bool) -> anyhow::Result<()> {
        let signal = match halt {
            true => "stop",
            false => "cont",
        };
        let done = self.end(executable, signal).await?;
        anyhow::ensure!(
            done == Stopped::GoesOn,
            "{} on host {} does not run",
            self.name(),
            self.host().name()
        );
        Ok(())
    }

    /// It stands still for so long.
    pub async fn pause(&self, executable: &str, lasts: Duration) -> anyhow::Result<Paused> {
        let (pid, milliseconds) = (self.pid_file(), lasts.as_millis().to_string());
        let words = [executable, "probe", "pause", "--pid-file", &pid];
        self.ask(&[&words[..], &["--milliseconds", &milliseconds]].concat())
            .await
    }

    /// What the kernel counts for it.
    pub async fn usage(&self, executable: &str) -> anyhow::Result<Usage> {
        let pid = self.pid_file();
        self.ask(&[executable, "probe", "usage", "--pid-file", &pid])
            .await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> anyhow::Result<T> {
        let answer = self.host().run(words).await?;
        serde_json::from_str(&answer).with_context(|| {
            format!(
                "host {}: `{}` is no answer",
                self.host().name(),
                complaint(answer.as_bytes())
            )
        })
    }
}

/// How each replica is; an error is one of the way to it.
pub async fn states(
    placed: &[Placed],
    executable: &Executable,
) -> Vec<(Placed, anyhow::Result<ReplicaState>)> {
    let paths = placed
        .iter()
        .map(|replica| (replica.clone(), executable.path_in(&replica.folder)));
    each(paths.collect(), |(replica, executable)| async move {
        let state = replica.state(&executable).await;
        (replica, state)
    })
    .await
}

/// The leader of the highest ballot, if a replica says that it leads.
pub fn leader(states: &[(Placed, anyhow::Result<ReplicaState>)]) -> Option<&Placed> {
    let leading = states.iter().filter_map(|(replica, state)| {
        let counters = &state.as_ref().ok()?.counters;
        (counters.get("leading") == Some(&1))
            .then(|| (replica, counters.get("ballot_round").copied()))
    });
    leading
        .max_by_key(|(_, round)| *round)
        .map(|(replica, _)| replica)
}

pub async fn wait_for_leader(placed: &[Placed], executable: &Executable) -> anyhow::Result<Placed> {
    let deadline = Instant::now() + LEADER_MAX;
    loop {
        let states = states(placed, executable).await;
        if let Some(leader) = leader(&states) {
            return Ok(leader.clone());
        }
        let late = Instant::now() >= deadline;
        let each: Vec<_> = states.into_iter().map(|(_, state)| state).collect();
        let each = all(each)?;
        let waited = LEADER_MAX.as_secs();
        let remedy = "can the hosts reach each other? `synod cluster check` measures it";
        anyhow::ensure!(
            !late,
            "no leader within {waited} s ({} replicas run); {remedy}",
            each.len()
        );
        tokio::time::sleep(POLL).await;
    }
}
