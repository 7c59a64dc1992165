//! The process itself: it forwards until its stdin closes, and obeys orders, a line of JSON each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use synod_engine::ids::ReplicaId;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, LocalSet};

use super::proxy::{Achieved, Proxy, Weather};
use super::tcp::Relay;
use super::{Carrier, EmulatorFile, Link};
use crate::chaos::random::Random;
use crate::cli::LinksArguments;
use crate::output::say;
use crate::{input, toml_file};

type Id = (ReplicaId, ReplicaId);

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// From now on exactly these are cut.
    Cut {
        links: Vec<(u8, u8)>,
    },
    Report,
}

/// What it says: the first when it starts, then one for each order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Where the first of each pair finds the second.
    Ready {
        addresses: Vec<(u8, u8, SocketAddr)>,
    },
    Done,
    Report {
        links: Vec<Passed>,
        cpu_us: u64,
    },
}

/// What passed a link, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    pub from: u8,
    pub to: u8,
    /// Datagrams, or trains of TCP segments, that were delayed.
    pub count: u64,
    /// What was asked for.
    pub delay_us: u64,
    pub mean_us: u64,
    pub least_us: u64,
    pub most_us: u64,
    /// Datagrams lost, or retransmissions of TCP waited for.
    pub lost: u64,
    /// Datagrams, or trains of TCP segments, that found the router's queue full.
    #[serde(default)]
    pub dropped: u64,
}

enum Carriers {
    Udp(Rc<Proxy>),
    Tcp(BTreeMap<Id, Rc<Relay>>),
}

/// `synod links`: runs until stdin closes.
pub fn run(arguments: &LinksArguments) -> anyhow::Result<()> {
    let file: EmulatorFile = toml_file::read(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    LocalSet::new().block_on(&runtime, serve(&file))
}

async fn serve(file: &EmulatorFile) -> anyhow::Result<()> {
    let (carriers, addresses) = Carriers::bind(file).await?;
    let mut tasks = JoinSet::new();
    carriers.start(&mut tasks);
    carriers.cut(file, &BTreeSet::new());
    tell(&Event::Ready { addresses })?;
    let mut lines = input::lines();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(ended) = tasks.join_next() => {
                ended.context("a link panicked")??;
                anyhow::bail!("a link ended");
            }
        };
        // The run is over, or gone.
        let Some(line) = line else { return Ok(()) };
        let order = serde_json::from_str(&line).with_context(|| format!("`{line}` is no order"))?;
        match order {
            Order::Cut { links } => {
                let cut = links
                    .iter()
                    .map(|(from, to)| (ReplicaId(*from), ReplicaId(*to)));
                carriers.cut(file, &cut.collect());
                tell(&Event::Done)?;
            }
            Order::Report => tell(&carriers.report(file)?)?,
        }
    }
}

fn tell(event: &Event) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(event)?)
}

impl Carriers {
    async fn bind(file: &EmulatorFile) -> anyhow::Result<(Carriers, Vec<(u8, u8, SocketAddr)>)> {
        let mut replicas = Vec::new();
        for (id, address) in &file.replicas {
            let id: u8 = id.parse().with_context(|| format!("replica `{id}`"))?;
            replicas.push((ReplicaId(id), *address));
        }
        let mut addresses = Vec::new();
        let pairs = || {
            let all = &replicas;
            let each = all
                .iter()
                .flat_map(move |from| all.iter().map(move |to| (from, to)));
            each.filter(|(from, to)| from.0 != to.0)
        };
        match file.carrier {
            Carrier::Udp => {
                let proxy = Proxy::bind(&replicas, file.seed)?;
                for (from, to) in pairs() {
                    addresses.push((from.0.0, to.0.0, proxy.address(from.0, to.0)));
                }
                Ok((Carriers::Udp(Rc::new(proxy)), addresses))
            }
            Carrier::Tcp => {
                let mut relays = BTreeMap::new();
                for (from, to) in pairs() {
                    let at = SocketAddr::from(([127, 1, from.0.0, to.0.0], 0));
                    let listener = TcpListener::bind(at).await;
                    let listener = listener.with_context(|| format!("no TCP socket at {at}"))?;
                    addresses.push((from.0.0, to.0.0, listener.local_addr()?));
                    let stream = u64::from(from.0.0) << 24 | u64::from(to.0.0) << 16;
                    let [forth, back] = [1, 2].map(|way| Random::new(file.seed, stream | way));
                    let relay = Relay::new(listener, to.1, forth, back);
                    relays.insert((from.0, to.0), Rc::new(relay));
                }
                Ok((Carriers::Tcp(relays), addresses))
            }
        }
    }

    fn start(&self, tasks: &mut JoinSet<anyhow::Result<()>>) {
        match self {
            Carriers::Udp(proxy) => {
                let proxy = Rc::clone(proxy);
                tasks.spawn_local(async move { proxy.run().await });
            }
            Carriers::Tcp(relays) => {
                for relay in relays.values() {
                    let relay = Rc::clone(relay);
                    tasks.spawn_local(async move { Ok(relay.run().await?) });
                }
            }
        }
    }

    /// Every link is as the file says, and cut where `cut` says so.
    fn cut(&self, file: &EmulatorFile, cut: &BTreeSet<Id>) {
        let weather = |id: Id| {
            let link = file.links.iter().find(|link| link.id() == id);
            Weather {
                cut: cut.contains(&id),
                ..link.map_or_else(Weather::default, |link| link.shape.weather())
            }
        };
        match self {
            Carriers::Udp(proxy) => {
                for id in proxy.achieved().into_keys() {
                    proxy.set(id.0, id.1, weather(id));
                }
            }
            Carriers::Tcp(relays) => {
                for ((from, to), relay) in relays {
                    relay.forth.set(weather((*from, *to)));
                    relay.back.set(weather((*to, *from)));
                }
            }
        }
    }

    fn report(&self, file: &EmulatorFile) -> anyhow::Result<Event> {
        let links = file.links.iter().map(|link| {
            let id = link.id();
            match self {
                Carriers::Udp(proxy) => {
                    let counts = proxy.counts_of(id);
                    let achieved = proxy.achieved()[&id];
                    Ok(passed(link, achieved, counts.lost, counts.dropped))
                }
                Carriers::Tcp(relays) => {
                    let relay = relays.get(&id).context("a link without a relay")?;
                    let forth = &relay.forth;
                    let (lost, dropped) = (forth.stalls(), forth.dropped());
                    Ok(passed(link, forth.achieved(), lost, dropped))
                }
            }
        });
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Event::Report {
            links: links.collect::<anyhow::Result<_>>()?,
            cpu_us: cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1_000,
        })
    }
}

fn passed(link: &Link, achieved: Achieved, lost: u64, dropped: u64) -> Passed {
    Passed {
        from: link.from,
        to: link.to,
        count: achieved.count,
        delay_us: link.shape.weather().delay.as_micros() as u64,
        mean_us: achieved.sum_us.checked_div(achieved.count).unwrap_or(0),
        least_us: achieved.least_us,
        most_us: achieved.most_us,
        lost,
        dropped,
    }
}
