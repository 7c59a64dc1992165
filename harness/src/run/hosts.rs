//! `synod run --inventory`: the same experiment with replicas and clients on the machines of an inventory.

pub mod filter;
pub mod look;
mod merge;
mod parcels;
pub mod remote;
mod servers;
mod several_loads;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use synod_engine::ids::ReplicaId;

use crate::certs::random_u64;
use crate::client_file::{Certificates, ClientFile, addressed};
use crate::cluster::findings::Findings;
use crate::cluster::fleet::{Fleet, all, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::inventory::{Inventory, Role};
use crate::cluster::replicas::{Placed, placed};
use crate::cluster::server::{ClockOffset, Server};
use crate::cluster::with;
use crate::failure::{describe, usage};
use crate::interrupt;
use crate::load::load_file::{Load, LoadPart};
use crate::probe::facts::Facts;
use crate::replica_file::ReplicaFile;
use crate::run::fault::Fault;
use crate::run::layout::Layout;
use crate::run::outcome::{Measured, Outcome};
use crate::run::plan::Plan;
use crate::run::progress::{Progress, counted};
use crate::run::{experiment, stopped, write_json};
use crate::toml_file;
use filter::Filter;
use parcels::Parcels;
use remote::{Cuts, Programs, RemoteCluster};
use servers::RemoteServers;

/// A machine of the run, as it was when the run began.
#[derive(Clone, Debug, Serialize)]
pub struct HostRecord {
    pub name: String,
    pub replicas: Vec<u8>,
    pub clients: u32,
    pub clock: ClockOffset,
    pub facts: Facts,
}

/// What is known of a run before anything is on the hosts.
struct Setup<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    inventory: &'a Inventory,
    progress: &'a Arc<Progress>,
}

/// Where a client process runs, and which clients it plays.
#[derive(Clone)]
pub struct ClientPlace {
    pub folder: Folder,
    pub part: LoadPart,
}

/// Does a whole run on the machines of an inventory, and writes its results here.
pub fn perform(plan: &Plan, inventory: &Path, progress: &Arc<Progress>) -> anyhow::Result<Outcome> {
    let mut inventory = Inventory::read(inventory)?;
    inventory.take_replicas(plan.replicas)?;
    if inventory.with_role(Role::Client).is_empty() {
        let path = inventory.path.display();
        return Err(usage(format!(
            "{path}: no host has the role \"client\": the load has nowhere to run"
        )));
    }
    let addresses = inventory
        .replicas
        .iter()
        .map(|place| (place.id, place.address))
        .collect();
    interrupt::listen()?;
    let layout = Layout::prepare_at(&plan.place(), addresses)?;
    toml_file::write(&layout.results.join("config.toml"), plan)?;
    let setup = Setup {
        plan,
        layout: &layout,
        inventory: &inventory,
        progress,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let wanted = inventory.used_hosts();
    let mut done = None;
    let finished = runtime.block_on(with(&inventory, &wanted, async |fleet| {
        done = Some(run(&setup, fleet).await?);
        Ok(())
    }));
    // A check that still reads gigabytes must not hold up an interrupted run.
    runtime.shutdown_background();
    progress.clear();
    match done {
        Some((measured, hosts)) => publish(&setup, measured, hosts, finished.err()),
        None => match finished.map_err(stopped) {
            Err(error) => Err(error),
            Ok(()) => anyhow::bail!("the run ended without a result"),
        },
    }
}

/// Whatever could not be cleaned up afterwards, what was measured is kept.
fn publish(
    setup: &Setup<'_>,
    measured: Measured,
    hosts: Vec<HostRecord>,
    uncleaned: Option<anyhow::Error>,
) -> anyhow::Result<Outcome> {
    let first = hosts.first().context("there is a host")?;
    let machine = first.facts.environment.clone();
    let mut outcome = Outcome::new(setup.plan, machine, measured);
    outcome.hosts = hosts;
    if let Some(error) = uncleaned {
        outcome.problems.push(describe(&error));
        outcome.ok = false;
    }
    write_json(setup.layout, "result.json", &outcome)?;
    Ok(outcome)
}

async fn run(setup: &Setup<'_>, fleet: &Fleet) -> anyhow::Result<(Measured, Vec<HostRecord>)> {
    let Setup {
        plan,
        layout,
        progress,
        ..
    } = setup;
    let name = format!("synod-run-{}", plan.name);
    let replicas = placed(fleet, setup.inventory, &name)?;
    let clients = client_places(setup, fleet, &name)?;
    let count = fleet.connected().len() as u64;
    progress.step(&format!("preparing {}", counted(count, "host")));
    let programs = Arc::new(Programs::find(plan)?);
    let looked = prepare(fleet, &name, &programs).await?;
    let hosts = records(progress, fleet, looked, &replicas, &clients)?;
    write_json(layout, "environment.json", &hosts)?;
    let starting = counted(u64::from(plan.replicas), "replica");
    let starting = format!("starting {starting} of {}", plan.subject.label());
    if plan.subject.system.is_external() {
        progress.step(&starting);
        let places = &setup.inventory.replicas;
        let servers =
            RemoteServers::start(plan, layout, &programs, places, replicas, clients).await?;
        return Ok((experiment(plan, layout, servers, progress).await?, hosts));
    }
    distribute(setup, &replicas, &clients).await?;
    let cuts = match plan.faults.iter().any(Fault::is_of_links) {
        true => Cuts {
            filter: Filter::make(fleet, setup.inventory, &replicas, &plan.name).await?,
            max: Duration::from_secs(plan.seconds.into()),
        },
        false => Cuts::none(),
    };
    progress.step(&starting);
    let cluster = RemoteCluster::start(layout, &programs, replicas, clients, cuts).await?;
    Ok((experiment(plan, layout, cluster, progress).await?, hosts))
}

/// Makes a folder with the programs on every connected host, and looks at the hosts.
pub async fn prepare(
    fleet: &Fleet,
    name: &str,
    programs: &Arc<Programs>,
) -> anyhow::Result<Vec<Looked>> {
    let mut folders = Vec::new();
    for (_, host) in fleet.connected() {
        let folder = Folder::of(&host, name)?;
        fleet.begin(&folder);
        folders.push(folder);
    }
    let purpose = name.trim_start_matches("synod-").replacen('-', " ", 1);
    let looked = each(folders, |folder| {
        let (programs, purpose) = (Arc::clone(programs), purpose.clone());
        async move {
            folder.make(&purpose).await?;
            programs.install(&folder).await?;
            look(&folder, &programs.own).await
        }
    });
    all(looked.await)
}

/// Clients are shared out evenly; the first hosts take the remainder.
fn client_places(setup: &Setup<'_>, fleet: &Fleet, name: &str) -> anyhow::Result<Vec<ClientPlace>> {
    let (Load::Closed { clients, .. } | Load::Open { clients, .. }) = setup.plan.load;
    let hosts = setup.inventory.with_role(Role::Client);
    let (count, mut first_client) = (hosts.len() as u32, 0);
    let mut places = Vec::new();
    for (nth, index) in (0..).zip(hosts) {
        let here = clients / count + u32::from(nth < clients % count);
        if here == 0 {
            continue;
        }
        places.push(ClientPlace {
            folder: Folder::of(fleet.host(index)?, name)?,
            part: LoadPart {
                first_client,
                clients: here,
            },
        });
        first_client += here;
    }
    Ok(places)
}

/// What a host is, how its clock goes, and which of its ports somebody else has.
type Looked = (Facts, ClockOffset, Vec<u16>);

async fn look(folder: &Folder, executable: &Executable) -> anyhow::Result<Looked> {
    let mut server = Server::start(folder, &executable.path_in(folder), random_u64()?).await?;
    let (facts, clock) = (server.facts().await?, server.clock().await?);
    let taken = std::mem::take(&mut server.taken);
    server.end().await?;
    Ok((facts, clock, taken))
}

/// Warns of what may mislead, and refuses what cannot work.
pub fn records(
    progress: &Progress,
    fleet: &Fleet,
    looked: Vec<Looked>,
    replicas: &[Placed],
    clients: &[ClientPlace],
) -> anyhow::Result<Vec<HostRecord>> {
    let (mut records, mut unfit) = (Vec::new(), Vec::new());
    for ((index, host), (facts, clock, taken)) in fleet.connected().into_iter().zip(looked) {
        let here = replicas
            .iter()
            .filter(|replica| replica.host_index == index);
        let here: Vec<u8> = here.map(|replica| replica.id.0).collect();
        let mut findings = Findings::of(&host.entry);
        findings.facts(&facts);
        findings.clock(&clock);
        if !here.is_empty() {
            findings.ports(&taken);
        }
        for finding in findings.into_list() {
            let line = format!(
                "host {}: {}; {}",
                finding.host, finding.what, finding.remedy
            );
            match finding.unfit {
                true => unfit.push(line),
                false => progress.step(&format!("warning: {line}")),
            }
        }
        let of_host = clients
            .iter()
            .filter(|place| place.folder.host.name() == host.name());
        records.push(HostRecord {
            name: host.name().to_owned(),
            replicas: here,
            clients: of_host.map(|place| place.part.clients).sum(),
            clock,
            facts,
        });
    }
    anyhow::ensure!(unfit.is_empty(), "{}", unfit.join("; "));
    // A replica's machine is the one that the figures are of.
    records.sort_by_key(|record| record.replicas.is_empty());
    Ok(records)
}

/// Certificates and configuration; copies of the latter are part of the result.
async fn distribute(
    setup: &Setup<'_>,
    replicas: &[Placed],
    clients: &[ClientPlace],
) -> anyhow::Result<()> {
    let layout = setup.layout;
    let file_of = |id| layout.replica_file(setup.plan, id);
    let mut parcels = replica_parcels(layout, replicas, file_of)?;
    for place in clients {
        let mut file = layout.load_file(setup.plan);
        file.out = place.folder.path().into();
        file.certificates = relative("client");
        file.part = Some(place.part);
        let name = format!("load-{}.toml", place.folder.host.name());
        toml_file::write(&layout.results.join(name), &file)?;
        parcels
            .to(&place.folder)
            .add("load.toml", toml::to_string(&file)?);
    }
    parcels.deliver(layout).await
}

/// What the hosts of replicas get. Each replica has the file that `file_of` says, but for the paths in it.
pub fn replica_parcels(
    layout: &Layout,
    replicas: &[Placed],
    file_of: impl Fn(ReplicaId) -> ReplicaFile,
) -> anyhow::Result<Parcels> {
    let client = toml::to_string(&ClientFile {
        cluster: layout.cluster.to_string(),
        deadline_ms: None,
        replicas: addressed(&layout.table()),
        certificates: relative("client"),
    })?;
    let mut parcels = Parcels::default();
    for replica in replicas {
        let mut file = file_of(replica.id);
        file.listen = replica.listen();
        file.data = replica.name().into();
        file.certificates = relative(&replica.name());
        toml_file::write(&layout.replica_config(replica.id), &file)?;
        let parcel = parcels.to(&replica.folder);
        parcel.add("client.toml", client.clone());
        parcel.add(&format!("{}.toml", replica.name()), toml::to_string(&file)?);
        parcel.certify(replica.name());
    }
    Ok(parcels)
}

/// Files of a host lie side by side.
fn relative(name: &str) -> Certificates {
    Certificates {
        ca: "ca.pem".into(),
        cert: format!("{name}.pem").into(),
        key: format!("{name}.key").into(),
        revoked: None,
    }
}

/// As a failure of it is named.
fn replica_name(id: ReplicaId, host: &str) -> String {
    format!("replica {} on host {host}", id.0)
}
