//! What lies between the replicas, as the faults of the network see it.

use std::cell::Cell;
use std::time::Duration;

use synod_engine::ids::ReplicaId;

use super::fault::Fault;
use crate::links::proxy::{Counts, Proxy, Weather};

pub trait Wire {
    /// From now on these links, each from the first to the second, have this weather. It is undone by
    /// [`Wire::heal`], and after `max` in any case, where somebody else has to do it.
    async fn set(
        &self,
        links: &[(ReplicaId, ReplicaId)],
        weather: Weather,
        max: Duration,
    ) -> anyhow::Result<()>;

    /// Every link is as good as new.
    async fn heal(&self) -> anyhow::Result<()>;

    /// How many packets the fault met since it was set, and that in words.
    async fn evidence(&self, fault: Fault) -> anyhow::Result<(u64, String)>;
}

/// The proxy in this process.
pub struct ProxyWire<'a> {
    proxy: &'a Proxy,
    /// When the fault began.
    before: Cell<Counts>,
}

impl ProxyWire<'_> {
    pub fn new(proxy: &Proxy) -> ProxyWire<'_> {
        ProxyWire {
            proxy,
            before: Cell::default(),
        }
    }
}

impl Wire for ProxyWire<'_> {
    async fn set(
        &self,
        links: &[(ReplicaId, ReplicaId)],
        weather: Weather,
        _max: Duration,
    ) -> anyhow::Result<()> {
        self.before.set(self.proxy.counts());
        for (from, to) in links {
            self.proxy.set(*from, *to, weather);
        }
        Ok(())
    }

    async fn heal(&self) -> anyhow::Result<()> {
        self.proxy.heal();
        Ok(())
    }

    async fn evidence(&self, fault: Fault) -> anyhow::Result<(u64, String)> {
        let counts = self.proxy.counts().since(self.before.get());
        let (count, did) = match fault {
            Fault::Loss => (counts.lost, "lost"),
            Fault::Duplicate => (counts.duplicated, "sent twice"),
            Fault::Delay => (counts.delayed, "delayed"),
            Fault::Clog => (counts.held, "held back"),
            _ => (counts.cut, "cut off"),
        };
        let words = format!("{count} of {} datagrams {did}", counts.arrived);
        Ok((count, words))
    }
}
