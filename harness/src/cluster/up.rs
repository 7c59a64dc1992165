//! `synod cluster up`, `kill`, `restart` and `down`.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use synod_transport::AuthorityKey;

use crate::certs::draw_cluster;
use crate::client_file::{Certificates, ClientFile};
use crate::cluster::arguments::UpArguments;
use crate::cluster::fleet::{Fleet, all, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::inventory::{Inventory, LEADER};
use crate::cluster::owner::purpose_of_cluster;
use crate::cluster::replicas::{Placed, copy_certificates, folder_name, placed, wait_for_leader};
use crate::cluster::state::{Started, State, replica_table};
use crate::cluster::{not_up, replica_hosts, with};
use crate::failure::usage;
use crate::output::say;
use crate::probe::protocol::Stopped;
use crate::replica_file::{LimitsTable, ReplicaFile, StorageTable, TimersTable};

pub async fn up(
    inventory: &Inventory,
    state: &State,
    arguments: &UpArguments,
    json: bool,
) -> anyhow::Result<()> {
    if state.read()?.is_some() {
        let folder = state.folder().display();
        return Err(usage(format!(
            "cluster `{}` is up already ({folder}): see status, or take it down",
            inventory.name
        )));
    }
    let mut made = false;
    let leader = with(inventory, &replica_hosts(inventory), async |fleet| {
        let started = state.make(inventory, draw_cluster()?, authority_key(arguments))?;
        made = true;
        let leader = bring_up(fleet, inventory, state, &started, arguments).await?;
        state.write(&started)?;
        fleet.keep();
        Ok(leader)
    })
    .await;
    let leader = match leader {
        Ok(leader) => leader,
        Err(error) => {
            if made {
                state.remove()?;
            }
            return Err(error);
        }
    };
    let client = state.folder().join("client.toml");
    if json {
        return say!(
            "{}",
            json!({"name": inventory.name, "replicas": replica_table(inventory), "leader": leader.id.0, "client": client})
        );
    }
    say!(
        "{} replicas run; replica {} on host {} leads",
        inventory.replicas.len(),
        leader.id.0,
        leader.host().name()
    )?;
    say!("synod client --config {} …", client.display())
}

async fn bring_up(
    fleet: &Fleet,
    inventory: &Inventory,
    state: &State,
    started: &Started,
    arguments: &UpArguments,
) -> anyhow::Result<Placed> {
    let name = folder_name(inventory);
    let replicas = placed(fleet, inventory, &name)?;
    let executable = Arc::new(Executable::own()?);
    let mut installs = Vec::new();
    for (index, host) in fleet.connected() {
        let here: Vec<Placed> = replicas
            .iter()
            .filter(|replica| replica.host_index == index)
            .cloned()
            .collect();
        let folder = Folder::of(&host, &name)?;
        // Known before it is there, so that an interruption removes it.
        fleet.begin(&folder);
        installs.push((folder, here));
    }
    let made = each(installs, |(folder, here)| {
        let files = here
            .iter()
            .map(|replica| replica_file(replica, started, arguments))
            .collect();
        let host = Host {
            folder,
            here,
            files,
            executable: Arc::clone(&executable),
            certificates: state.certificates(),
            client: client_file(started),
            purpose: purpose_of_cluster(&started.cluster),
        };
        async move { host.make().await }
    });
    all(made.await)?;
    let starts = replicas
        .iter()
        .map(|replica| (replica.clone(), executable.path_in(&replica.folder)));
    let cluster = inventory.name.clone();
    let starts = each(starts.collect(), |(replica, path)| {
        let cluster = cluster.clone();
        async move { replica.start(&path, &cluster, &["--init"]).await }
    });
    all(starts.await)?;
    wait_for_leader(&replicas, &executable).await
}

/// What a host gets before its replicas start.
struct Host {
    folder: Folder,
    here: Vec<Placed>,
    files: Vec<ReplicaFile>,
    executable: Arc<Executable>,
    certificates: std::path::PathBuf,
    client: ClientFile,
    purpose: String,
}

impl Host {
    async fn make(self) -> anyhow::Result<()> {
        self.folder.make(&self.purpose).await?;
        self.folder.install(&self.executable).await?;
        let mut names: Vec<String> = self.here.iter().map(Placed::name).collect();
        names.push("client".into());
        copy_certificates(&self.folder, &self.certificates, &names).await?;
        for (replica, file) in self.here.iter().zip(&self.files) {
            let path = self.folder.file(&format!("{}.toml", replica.name()));
            self.folder
                .host
                .put_text(&toml::to_string(file)?, &path, "600")
                .await?;
        }
        let client = toml::to_string(&self.client)?;
        self.folder
            .host
            .put_text(&client, &self.folder.file("client.toml"), "600")
            .await
    }
}

/// Paths count from the folder of the file.
fn replica_file(replica: &Placed, started: &Started, arguments: &UpArguments) -> ReplicaFile {
    ReplicaFile {
        cluster: started.cluster.clone(),
        replica: replica.id.0,
        listen: replica.listen(),
        data: replica.name().into(),
        state_machine: arguments.state_machine,
        durability: arguments.durability,
        backend: arguments.backend,
        mtu_max: arguments.mtu,
        idle_spin_us: None,
        // Different for each replica, so that their back-offs are.
        seed: u64::from(replica.id.0),
        peers: started.replicas.clone(),
        certificates: certificates(&replica.name()),
        timers: TimersTable::default(),
        limits: LimitsTable::default(),
        storage: StorageTable::default(),
    }
}

fn authority_key(arguments: &UpArguments) -> AuthorityKey {
    match arguments.keep_ca_key {
        true => AuthorityKey::Kept,
        false => AuthorityKey::Discarded,
    }
}

fn client_file(started: &Started) -> ClientFile {
    ClientFile {
        cluster: started.cluster.clone(),
        deadline_ms: None,
        replicas: started.replicas.clone(),
        certificates: certificates("client"),
    }
}

fn certificates(name: &str) -> Certificates {
    Certificates {
        ca: "ca.pem".into(),
        cert: Path::new(name).with_extension("pem"),
        key: Path::new(name).with_extension("key"),
        revoked: None,
    }
}

pub async fn kill(inventory: &Inventory, state: &State, host: &str) -> anyhow::Result<()> {
    if state.read()?.is_none() {
        return Err(not_up(inventory));
    }
    let wanted = match host {
        LEADER => replica_hosts(inventory),
        name => vec![inventory.host(name)?],
    };
    with(inventory, &wanted, async |fleet| {
        let executable = Executable::own()?;
        let all_replicas = placed(fleet, inventory, &folder_name(inventory))?;
        let host_index = match host {
            LEADER => {
                wait_for_leader(&all_replicas, &executable)
                    .await?
                    .host_index
            }
            _ => wanted[0],
        };
        let mut killed = 0;
        for replica in all_replicas
            .iter()
            .filter(|replica| replica.host_index == host_index)
        {
            let path = replica.folder.install(&executable).await?;
            if replica.end(&path, "kill").await? == Stopped::Killed {
                say!(
                    "replica {} on host {} was killed",
                    replica.id.0,
                    replica.host().name()
                )?;
                killed += 1;
            }
        }
        anyhow::ensure!(
            killed > 0,
            "no replica runs on host {host}: nothing was killed"
        );
        Ok(())
    })
    .await
}

pub async fn restart(inventory: &Inventory, state: &State, host: &str) -> anyhow::Result<()> {
    if state.read()?.is_none() {
        return Err(not_up(inventory));
    }
    let wanted = vec![inventory.host(host)?];
    with(inventory, &wanted, async |fleet| {
        let executable = Executable::own()?;
        let here = placed(fleet, inventory, &folder_name(inventory))?;
        anyhow::ensure!(!here.is_empty(), "host {host} carries no replica");
        for replica in &here {
            let path = replica.folder.install(&executable).await?;
            replica.end(&path, "term").await?;
            replica.start(&path, &inventory.name, &[]).await?;
            say!("replica {} on host {host} runs", replica.id.0)?;
        }
        Ok(())
    })
    .await
}
