//! `synod cluster partition` and `heal`: packets between two hosts are dropped by nftables on both.
//!
//! ssh passes, so that what is cut can be healed. A partition with a time is an element with a timeout: the kernel
//! takes it away by itself, whatever becomes of us.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::cluster::fleet::{Fleet, all, each};
use crate::cluster::host::Host;
use crate::cluster::inventory::Inventory;
use crate::cluster::state::State;
use crate::cluster::{all_hosts, not_up, with, with_reached};
use crate::failure::usage;
use crate::output::say;

/// `nft` is often not in a plain user's search path.
const FIND_NFT: &str = "PATH=$PATH:/usr/sbin:/sbin; ";
/// Leaves the command to use in `$nft`.
const NEED_NFT: &str = "\
    if ! command -v nft > /dev/null; then echo 'nftables is not installed there: install the package nftables' >&2; exit 1; fi; \
    if [ \"$(id -u)\" = 0 ]; then nft=nft; elif sudo -n nft --version > /dev/null 2>&1; then nft='sudo -n nft'; \
    else echo 'cutting packets needs root there: let the ssh user be root, or run nft by sudo without a password' >&2; exit 1; fi; ";

/// Passes in any case.
const SSH_PORT: u16 = 22;

/// The table that all rules of a cluster are in, and nothing else.
pub fn table(inventory: &Inventory) -> String {
    format!("synod_{}", inventory.name)
}

pub async fn partition(
    inventory: &Inventory,
    state: &State,
    first: &str,
    second: &str,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    if state.read()?.is_none() {
        return Err(not_up(inventory));
    }
    let pair = [inventory.host(first)?, inventory.host(second)?];
    let [a, b] = pair.map(|index| inventory.hosts[index].address);
    if a == b {
        return Err(usage(format!(
            "{first} and {second} are one machine: only links between machines can be cut"
        )));
    }
    with(inventory, &pair, async |fleet| {
        let ports = ssh_ports(fleet).await?;
        let mut cuts = Vec::new();
        for (index, other) in pair.into_iter().zip([b, a]) {
            cuts.push((
                Arc::clone(fleet.host(index)?),
                rules(inventory, &ports, other, duration),
            ));
        }
        let cut = each(
            cuts,
            |(host, rules)| async move { apply(&host, &rules).await },
        );
        let done = all(cut.await);
        if done.is_err() {
            // Half a partition is not what was asked for.
            undo(inventory, fleet).await?;
        }
        done?;
        match duration {
            Some(duration) => say!(
                "{first} and {second} are cut for {} ms",
                duration.as_millis()
            ),
            None => say!("{first} and {second} are cut until `synod cluster heal`"),
        }
    })
    .await
}

/// Has nftables do what `rules` say, all of it or nothing.
pub async fn apply(host: &Host, rules: &str) -> anyhow::Result<()> {
    let script = format!("{FIND_NFT}{NEED_NFT}printf '%s' \"$0\" | $nft -f -");
    host.script(&script, &[rules]).await.map(|_| ())
}

/// A table of our own on a host.
#[derive(Clone)]
pub struct Table {
    pub host: Arc<Host>,
    pub name: String,
}

impl Table {
    /// Makes it by `rules`. Goes on if it is dropped in the middle, and [`Table::remove`] waits for it: a table that
    /// is made after its removal would stay.
    pub async fn make(&self, rules: String) -> anyhow::Result<()> {
        let turn = Arc::clone(&self.host.making).lock_owned().await;
        let host = Arc::clone(&self.host);
        let made = tokio::spawn(async move {
            let made = apply(&host, &rules).await;
            drop(turn);
            made
        });
        made.await.context("making a table does not panic")?
    }

    /// What a counter of it counted.
    pub async fn packets(&self, counter: &str) -> anyhow::Result<u64> {
        let script = format!("{FIND_NFT}{NEED_NFT}$nft list counter inet \"$0\" \"$1\"");
        let said = self.host.script(&script, &[&self.name, counter]).await?;
        let mut words = said
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        let count = words.nth(1).and_then(|count| count.parse().ok());
        count.with_context(|| format!("host {}: nft tells no count", self.host.name()))
    }

    pub async fn remove(&self) -> anyhow::Result<()> {
        let _turn = self.host.making.lock().await;
        let looked = heal_host(&self.host, &self.name).await?;
        let (host, name) = (self.host.name(), &self.name);
        anyhow::ensure!(looked, "host {host}: table {name} can't be looked for");
        Ok(())
    }
}

/// Where the sshds of the connected hosts listen: what comes to them passes.
async fn ssh_ports(fleet: &Fleet) -> anyhow::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::from([SSH_PORT]);
    for (_, host) in fleet.connected() {
        ports.extend(host.ssh_port().await?);
    }
    Ok(ports)
}

/// The whole table, with one more address that nothing is taken from or sent to.
fn rules(
    inventory: &Inventory,
    ssh_ports: &BTreeSet<u16>,
    other: IpAddr,
    duration: Option<Duration>,
) -> String {
    let table = format!("inet {}", table(inventory));
    let ssh: Vec<String> = ssh_ports.iter().map(u16::to_string).collect();
    let ssh = ssh.join(", ");
    let set = match other {
        IpAddr::V4(_) => "cut4",
        IpAddr::V6(_) => "cut6",
    };
    let timeout = duration.map_or(String::new(), |duration| {
        format!(" timeout {}ms", duration.as_millis())
    });
    let mut rules = format!(
        "add table {table}\n\
         add set {table} cut4 {{ type ipv4_addr; flags timeout; }}\n\
         add set {table} cut6 {{ type ipv6_addr; flags timeout; }}\n"
    );
    for (chain, end) in [("input", "saddr"), ("output", "daddr")] {
        rules += &format!(
            "add chain {table} {chain} {{ type filter hook {chain} priority -10; policy accept; }}\n\
             flush chain {table} {chain}\n\
             add rule {table} {chain} tcp dport {{ {ssh} }} accept\n\
             add rule {table} {chain} tcp sport {{ {ssh} }} accept\n\
             add rule {table} {chain} ip {end} @cut4 drop\n\
             add rule {table} {chain} ip6 {end} @cut6 drop\n"
        );
    }
    // An element that is there keeps its old timeout, so it is taken away first; only one that is there can be.
    rules
        + &format!(
            "add element {table} {set} {{ {other} }}\n\
         delete element {table} {set} {{ {other} }}\n\
         add element {table} {set} {{ {other}{timeout} }}\n"
        )
}

pub async fn heal(inventory: &Inventory) -> anyhow::Result<()> {
    with_reached(inventory, &all_hosts(inventory), async |fleet, errors| {
        let table = table(inventory);
        let healed = each(fleet.connected(), |(_, host)| {
            let table = table.clone();
            async move {
                let looked = heal_host(&host, &table).await?;
                // It said that it does; and what is cut there is cut on.
                anyhow::ensure!(
                    looked,
                    "host {}: its packet filter can't be looked at: let the ssh user be root, or run nft by sudo without \
                     a password",
                    host.name()
                );
                Ok(())
            }
        });
        all(healed.await)?;
        if !errors.is_empty() {
            return Err(crate::cluster::fleet::all_of(errors));
        }
        say!("every link of cluster `{}` is whole", inventory.name)
    })
    .await
}

async fn undo(inventory: &Inventory, fleet: &Fleet) -> anyhow::Result<()> {
    let table = table(inventory);
    let healed = each(fleet.connected(), |(_, host)| {
        let table = table.clone();
        async move { heal_host(&host, &table).await }
    });
    all(healed.await).map(|_| ())
}

/// Leaves the command to use in `$nft`, or ends the script. A host without nftables has no table; one where we may not use it is not looked at.
const TRY_NFT: &str = "\
    command -v nft > /dev/null || { echo looked; exit 0; }; \
    if [ \"$(id -u)\" = 0 ]; then nft=nft; else nft='sudo -n nft'; fi; \
    $nft list tables inet > /dev/null 2>&1 || { echo refused; exit 0; }; ";

/// Removes the table. `false`: we may not look whether it is there.
pub async fn heal_host(host: &Host, table: &str) -> anyhow::Result<bool> {
    let script = format!(
        "{FIND_NFT}{TRY_NFT}\
         if $nft list table inet \"$0\" > /dev/null 2>&1; then $nft delete table inet \"$0\" || exit 1; fi; echo looked"
    );
    let said = host
        .script(&script, &[table])
        .await
        .context("a partition is not healed")?;
    Ok(said.trim() == "looked")
}

/// The tables of runs that were killed: those whose names begin with `prefix` and whose folder `FOLDERS` and the rest of
/// the name is not there. `false` as of [`heal_host`].
pub async fn remove_stale_tables(host: &Host, prefix: &str, folders: &str) -> anyhow::Result<bool> {
    let script = format!(
        "{FIND_NFT}{TRY_NFT}\
         $nft list tables inet | while read -r table family name; do \
           case \"$name\" in \"$0\"*) ;; *) continue;; esac; \
           if [ ! -e \"$1${{name#\"$0\"}}\" ]; then $nft delete table inet \"$name\" || exit 1; fi; \
         done || exit 1; echo looked"
    );
    let said = host
        .script(&script, &[prefix, folders])
        .await
        .context("a table of a killed run is not removed")?;
    Ok(said.trim() == "looked")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// What the script says where this is `nft`, and nothing else.
    fn said(nft: Option<&str>) -> String {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, script: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        if let Some(script) = nft {
            write("nft", script);
        }
        write("id", "echo 1000");
        write("sudo", "shift; exec \"$@\"");
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("{TRY_NFT}echo looked")])
            .env("PATH", directory.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn who_may_not_look_says_so_and_who_has_no_filter_has_no_table() {
        assert_eq!(said(None), "looked");
        assert_eq!(said(Some("exit 0")), "looked");
        assert_eq!(
            said(Some("echo 'Operation not permitted' >&2; exit 1")),
            "refused"
        );
    }
}
