//! Which servers of another project are installed on the machines of an inventory, before anything else is done there.

use std::path::Path;

use anyhow::Context;

use crate::cluster::fleet::{all, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::inventory::{Inventory, Role};
use crate::cluster::with;
use crate::run::external::Recipe;
use crate::run::hosts::{servers, stopped};
use crate::system::{NotInstalled, System};

/// Machines that replicas are to run on.
#[derive(Clone, Copy)]
pub struct Hosts<'a> {
    pub inventory: &'a Path,
    /// The first ones carry these many.
    pub replicas: u8,
}

/// What the adapter says on every host that is to carry a server: all must say the same. Nothing stays there.
pub fn look(hosts: Hosts<'_>, adapter: &Path, system: System) -> anyhow::Result<Recipe> {
    let mut inventory = Inventory::read(hosts.inventory)?;
    inventory.take_replicas(hosts.replicas)?;
    let wanted: Vec<usize> = inventory
        .with_role(Role::Replica)
        .into_iter()
        .filter(|index| inventory.replicas.iter().any(|place| place.host == *index))
        .collect();
    let programs = std::sync::Arc::new([Executable::own()?, Executable::of_adapter(adapter)?]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let name = format!("synod-look-{}-{}", system.name(), std::process::id());
    let recipes = runtime.block_on(with(&inventory, &wanted, async |fleet| {
        let mut folders = Vec::new();
        for (_, host) in fleet.connected() {
            let folder = Folder::of(&host, &name)?;
            fleet.begin(&folder);
            folders.push(folder);
        }
        let looked = each(folders, |folder| {
            let programs = std::sync::Arc::clone(&programs);
            async move {
                folder.make("look").await?;
                let [own, adapter] = &*programs;
                folder.install(own).await?;
                let adapter = folder.install(adapter).await?;
                let directory = folder.file("look");
                let more = ["--replicas", "1", "--directory", &directory];
                let recipe = servers::recipe(&folder, &adapter, system, &more).await;
                recipe.map(|recipe| (folder.host.name().to_owned(), recipe))
            }
        });
        Ok(looked.await)
    }));
    agreed(system, recipes.map_err(stopped)?)
}

/// The recipe, if every host has one of the same version.
fn agreed(system: System, looked: Vec<anyhow::Result<(String, Recipe)>>) -> anyhow::Result<Recipe> {
    let (mut missing, mut rest) = (Vec::new(), Vec::new());
    for result in looked {
        match result.map_err(anyhow::Error::downcast::<NotInstalled>) {
            Ok(found) => rest.push(Ok(found)),
            Err(Ok(NotInstalled(why))) => missing.push(why),
            Err(Err(error)) => rest.push(Err(error)),
        }
    }
    let found = all(rest)?;
    if !missing.is_empty() {
        return Err(NotInstalled(missing.join("; ")).into());
    }
    let mut each = found.into_iter();
    let (first, recipe) = each.next().context("there is a host")?;
    for (other, its) in each {
        if its.version != recipe.version {
            let why = format!(
                "host {first} has {0} {1} and host {other} has {0} {2}: install the same version on all",
                system.name(),
                recipe.version,
                its.version
            );
            return Err(NotInstalled(why).into());
        }
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, version: &str) -> anyhow::Result<(String, Recipe)> {
        let json = format!(
            r#"{{"schema_version": 1, "version": "{version}", "client": "c", "durable": true, "state_machine": "m",
            "settings": "s", "equality": [], "addresses": "", "servers": []}}"#
        );
        let recipe = Recipe::parse(Path::new("adapter"), json.as_bytes()).unwrap();
        Ok((host.to_owned(), recipe))
    }

    fn missing(host: &str) -> anyhow::Result<(String, Recipe)> {
        Err(NotInstalled(format!("host {host}: etcd is not installed")).into())
    }

    #[test]
    fn every_host_must_have_the_same() {
        let agree = |looked| agreed(System::Etcd, looked);
        let recipe = agree(vec![found("a", "3.4.23"), found("b", "3.4.23")]).unwrap();
        assert_eq!(recipe.version, "3.4.23");
        for (looked, expected) in [
            (
                vec![found("a", "3.4.23"), found("b", "3.5.1")],
                "host a has etcd 3.4.23 and host b has etcd 3.5.1: install the same version on all",
            ),
            (
                vec![missing("a"), found("b", "3.4.23"), missing("c")],
                "host a: etcd is not installed; host c: etcd is not installed",
            ),
        ] {
            let error = agree(looked).unwrap_err();
            let NotInstalled(why) = error.downcast().expect("it can be skipped");
            assert_eq!(why, expected);
        }
        let broken = agree(vec![missing("a"), Err(anyhow::anyhow!("host b: gone"))]);
        assert!(!broken.unwrap_err().is::<NotInstalled>());
    }
}
