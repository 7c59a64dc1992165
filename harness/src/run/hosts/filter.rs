//! Faults of the links between replicas on hosts: each host drops what comes in over them, by nftables.
//!
//! A link is told by both ends' addresses and ports, since a replica has one socket for dialling and accepting; so
//! clients and ssh are never cut off. What a fault changes are elements of sets with a timeout: the kernel takes them
//! away by itself, whatever becomes of us.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use synod_engine::ids::ReplicaId;

use crate::cluster::fleet::{Fleet, all, each};
use crate::cluster::inventory::Inventory;
use crate::cluster::network::{Table, apply};
use crate::cluster::replicas::Placed;

/// Of a lossy link, in millionths.
pub const LOSS_PPM: u32 = 100_000;
/// Counts what is dropped.
const COUNTER: &str = "dropped";

/// What becomes of the packets of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    Cut,
    Loss,
}

pub struct Filter {
    /// One for each host.
    tables: Vec<Table>,
    /// Where each replica listens, and which table is that of its host.
    replicas: BTreeMap<ReplicaId, (SocketAddr, usize)>,
}

impl Filter {
    /// Of a run without faults of links, which needs no privilege.
    pub fn none() -> Filter {
        Filter {
            tables: Vec::new(),
            replicas: BTreeMap::new(),
        }
    }

    /// Makes a table on every host that goes with the fleet.
    pub async fn make(
        fleet: &Fleet,
        inventory: &Inventory,
        placed: &[Placed],
        run: &str,
    ) -> anyhow::Result<Filter> {
        let mut filter = Filter::none();
        let mut index_of = BTreeMap::new();
        for (host_index, host) in fleet.connected() {
            let table = Table {
                host,
                name: format!("{}{run}", table_prefix(inventory)),
            };
            fleet.begin_table(&table);
            index_of.insert(host_index, filter.tables.len());
            filter.tables.push(table);
        }
        for replica in placed {
            let index = index_of.get(&replica.host_index);
            let index = *index.context("a replica's host is connected")?;
            filter.replicas.insert(replica.id, (replica.address, index));
        }
        let made = each(filter.tables.clone(), |table| async move {
            table.make(whole(&table.name)).await
        });
        all(made.await)?;
        Ok(filter)
    }

    /// Packets, on all hosts, since the start.
    pub async fn dropped(&self) -> anyhow::Result<u64> {
        let counts = each(self.tables.clone(), |table| async move {
            table.packets(COUNTER).await
        });
        Ok(all(counts.await)?.into_iter().sum())
    }

    /// From now on all packets of exactly these links are dropped, or the share that [`LOSS_PPM`] says. The kernels
    /// undo that after `max`.
    pub async fn strike(
        &self,
        links: &[(ReplicaId, ReplicaId)],
        strike: Strike,
        max: Duration,
    ) -> anyhow::Result<()> {
        let set = match strike {
            Strike::Cut => "cut",
            Strike::Loss => "lossy",
        };
        let mut orders: BTreeMap<usize, String> = (0..self.tables.len())
            .map(|index| (index, flush(&self.tables[index].name)))
            .collect();
        for (index, order) in self.orders(links, set, max)? {
            orders.entry(index).or_default().push_str(&order);
        }
        let orders = orders.into_iter();
        let orders = orders.map(|(index, order)| (self.tables[index].clone(), order));
        let done = each(orders.collect(), |(table, order)| async move {
            apply(&table.host, &order).await
        });
        all(done.await).map(|_| ())
    }

    /// Every link is as good as new.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.strike(&[], Strike::Cut, Duration::ZERO).await
    }

    /// What each host is told, by the index of its table.
    fn orders(
        &self,
        links: &[(ReplicaId, ReplicaId)],
        set: &str,
        max: Duration,
    ) -> anyhow::Result<BTreeMap<usize, String>> {
        let mut orders = BTreeMap::new();
        for (from, to) in links {
            let of = |id: &ReplicaId| {
                let found = self.replicas.get(id).copied();
                found.with_context(|| format!("there is no replica {}", id.0))
            };
            let ((from, _), (to, index)) = (of(from)?, of(to)?);
            let table = &self.tables[index].name;
            let order: &mut String = orders.entry(index).or_default();
            writeln!(order, "{}", element(table, set, from, to, max)?)?;
        }
        Ok(orders)
    }
}

/// Of the tables of all runs on an inventory; each has one of its own, so that two at once don't heal each other.
pub fn table_prefix(inventory: &Inventory) -> String {
    format!("synod_run_{}_", inventory.name)
}

const SETS: [&str; 4] = ["cut4", "cut6", "lossy4", "lossy6"];

/// A table that drops nothing yet; one that a killed run of this name left is replaced.
fn whole(table: &str) -> String {
    let mut rules = format!(
        "add table inet {table}\ndelete table inet {table}\nadd table inet {table}\n\
         add counter inet {table} {COUNTER}\n\
         add chain inet {table} input {{ type filter hook input priority -10; policy accept; }}\n"
    );
    for set in SETS {
        let (address, header) = match set.ends_with('4') {
            true => ("ipv4_addr", "ip"),
            false => ("ipv6_addr", "ip6"),
        };
        let chance = match set.starts_with("lossy") {
            true => format!("numgen random mod 1000000 < {LOSS_PPM} "),
            false => String::new(),
        };
        rules += &format!(
            "add set inet {table} {set} {{ type {address} . inet_service . {address} . inet_service; flags timeout; }}\n\
             add rule inet {table} input {header} saddr . udp sport . {header} daddr . udp dport @{set} \
             {chance}counter name \"{COUNTER}\" drop\n"
        );
    }
    rules
}

fn element(
    table: &str,
    set: &str,
    from: SocketAddr,
    to: SocketAddr,
    max: Duration,
) -> anyhow::Result<String> {
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => 4,
        (IpAddr::V6(_), IpAddr::V6(_)) => 6,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            anyhow::bail!("{from} and {to} are of two families")
        }
    };
    Ok(format!(
        "add element inet {table} {set}{family} {{ {} . {} . {} . {} timeout {}ms }}",
        from.ip(),
        from.port(),
        to.ip(),
        to.port(),
        max.as_millis()
    ))
}

fn flush(table: &str) -> String {
    let each = SETS.iter();
    each.map(|set| format!("flush set inet {table} {set}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_both_ends_with_a_timeout() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, six) = (
            at("10.0.0.1:7400"),
            at("10.0.0.2:7401"),
            at("[fd00::1]:7400"),
        );
        let max = Duration::from_millis(4_500);
        assert_eq!(
            element("t", "cut", a, b, max).unwrap(),
            "add element inet t cut4 { 10.0.0.1 . 7400 . 10.0.0.2 . 7401 timeout 4500ms }"
        );
        assert_eq!(
            element("t", "lossy", six, six, max).unwrap(),
            "add element inet t lossy6 { fd00::1 . 7400 . fd00::1 . 7400 timeout 4500ms }"
        );
        assert!(element("t", "cut", a, six, max).is_err());
    }

    #[test]
    fn only_the_links_of_replicas_are_ever_dropped() {
        let rules = whole("t");
        let dropping: Vec<&str> = rules
            .lines()
            .filter(|line| line.contains("drop\n") || line.ends_with("drop"))
            .collect();
        assert_eq!(dropping.len(), SETS.len());
        for (line, set) in dropping.iter().zip(SETS) {
            assert!(line.contains(&format!("udp dport @{set} ")), "{line}");
            assert_eq!(
                line.contains("numgen random mod 1000000 < 100000"),
                set.starts_with("lossy"),
                "{line}"
            );
        }
    }
}
