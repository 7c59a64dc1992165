//! `synod cluster down`: nothing of ours stays on any host, and nothing of anybody else's goes.

use std::sync::Arc;

use crate::cluster::fleet::{all_of, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::inventory::Inventory;
use crate::cluster::owner::{Found, whoami};
use crate::cluster::replicas::folder_name;
use crate::cluster::state::State;
use crate::cluster::{all_hosts, network, with_reached};
use crate::failure::usage;
use crate::log::note;
use crate::output::say;
use crate::run::hosts::filter;
use crate::run::progress::counted;

/// What goes from one host.
struct Going {
    folder: Folder,
    /// There is something under the cluster's name.
    found: Option<Found>,
    /// What commands from here left that were killed.
    left_over: Vec<Found>,
}

/// Works without a state as well, so that whatever was left by whatever accident goes.
pub async fn down(inventory: &Inventory, state: &State, force: bool) -> anyhow::Result<()> {
    let cluster = state.read()?.map(|started| started.cluster);
    with_reached(
        inventory,
        &all_hosts(inventory),
        async |fleet, mut errors| {
            let name = folder_name(inventory);
            let mut folders = Vec::new();
            for (_, host) in fleet.connected() {
                folders.push(Folder::of(&host, &name)?);
            }
            let who = whoami(inventory);
            let looked = each(folders, |folder| {
                let who = who.clone();
                async move { look(folder, &who).await }
            });
            let (mut going, mut strange) = (Vec::new(), Vec::new());
            for looked in looked.await {
                match looked {
                    Ok(one) => {
                        strange.extend(stranger(&one, &who, cluster.as_deref()));
                        going.push(one);
                    }
                    Err(error) => errors.push(error),
                }
            }
            if !strange.is_empty() && !force {
                let strange = strange.join("; ");
                return Err(usage(format!(
                    "not from here: {strange}; `down --force` ends its replicas and removes its data"
                )));
            }
            let executable = Arc::new(Executable::own()?);
            let removed = each(going, |going| {
                let executable = Arc::clone(&executable);
                let tables = (network::table(inventory), filter::table_prefix(inventory));
                async move { remove(&going, &executable, &tables).await }
            });
            errors.extend(removed.await.into_iter().filter_map(Result::err));
            if !errors.is_empty() {
                let remedy = "the rest is down; correct this and repeat `synod cluster down`";
                return Err(all_of(errors).context(remedy));
            }
            state.remove()?;
            say!(
                "nothing of cluster `{}` is left on {}",
                inventory.name,
                counted(inventory.hosts.len() as u64, "host")
            )
        },
    )
    .await
}

async fn look(folder: Folder, who: &str) -> anyhow::Result<Going> {
    let found = folder.find().await?;
    let mut left_over = folder.left_over().await?;
    left_over.retain(|left| match &left.owner {
        Some(owner) if owner.who == who && owner.is_at_work() => {
            let (host, path) = (folder.host.name(), &left.path);
            note!("host {host}: {path} is of a command that goes on, and stays");
            false
        }
        Some(owner) => owner.who == who,
        None => false,
    });
    Ok(Going {
        folder,
        found,
        left_over,
    })
}

/// What would go and was not made from here.
fn stranger(going: &Going, who: &str, cluster: Option<&str>) -> Option<String> {
    let found = going.found.as_ref()?;
    let host = going.folder.host.name();
    (!found.is_ours(who, cluster)).then(|| format!("host {host}: {}", found.describe()))
}

async fn remove(
    going: &Going,
    executable: &Executable,
    (table, runs): &(String, String),
) -> anyhow::Result<()> {
    let folder = &going.folder;
    let host = &folder.host;
    if going.found.is_some() {
        folder.remove(executable).await?;
    }
    for left in &going.left_over {
        let what = left
            .run()
            .map_or("a command".into(), |run| format!("run {run}"));
        folder.beside(&left.path).remove(executable).await?;
        note!(
            "host {}: removed {}, which {what} left when it was killed",
            host.name(),
            left.path
        );
    }
    let of_runs = folder.sibling("synod-run-");
    let looked = network::heal_host(host, table).await?
        && network::remove_stale_tables(host, runs, &of_runs).await?;
    if !looked {
        note!(
            "host {}: its packet filter can't be looked at by this user; if links were cut there by another one, they are",
            host.name()
        );
    }
    Ok(())
}
