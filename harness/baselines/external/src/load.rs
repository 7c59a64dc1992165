//! `external load`: the clients of a run. It prints what `synod load` prints; the result says what was read back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::stream::FuturesUnordered;
use synod_harness::failure::usage;
use synod_harness::load::event::{Event, ReadBack};
use synod_harness::load::schedule::Schedule;
use synod_harness::load::{Shared, conduct, tell};
use synod_harness::parent;

use crate::books::Books;
use crate::cli::LoadArguments;
use crate::client_loop::{ClientLoop, Offer, Tally};
use crate::keys::Keys;
use crate::system::System;
#[cfg(feature = "etcd")]
use crate::target::etcd::Etcd;
use crate::target::nats::Nats;
use crate::target::zookeeper::Zookeeper;
use crate::target::{Cluster, KeySpace, Target};
use crate::values::Values;

/// Writes in flight over all connections; an open loop that reaches it does not hold its rate.
pub const OUTSTANDING_MAX: u32 = 8_192;
/// For connecting and for the check: what takes longer hangs.
const STEP_MAX: Duration = Duration::from_secs(120);

pub async fn run(arguments: &LoadArguments) -> anyhow::Result<()> {
    let load = async {
        match arguments.cluster.system {
            #[cfg(feature = "etcd")]
            System::Etcd => load::<Etcd>(arguments).await,
            #[cfg(not(feature = "etcd"))]
            System::Etcd => Err(crate::target::without_etcd()),
            System::Zookeeper => load::<Zookeeper>(arguments).await,
            System::Nats | System::NatsDefault => load::<Nats>(arguments).await,
        }
    };
    tokio::select! {
        result = load => result,
        () = parent::gone() => anyhow::bail!("the run that started this load is gone"),
    }
}

async fn load<T: Target>(arguments: &LoadArguments) -> anyhow::Result<()> {
    if !arguments.out.is_dir() {
        return Err(usage(format!("{} is no folder", arguments.out.display())));
    }
    let cluster = Cluster {
        addresses: arguments.cluster.addresses.clone(),
        run: SystemTime::UNIX_EPOCH.elapsed()?.as_micros() as u64,
        clients: clients(arguments),
        payload_bytes: arguments.payload,
    };
    let mut loops = Vec::new();
    let mut books = Vec::new();
    for client in 0..cluster.clients {
        let connecting = client_loop::<T>(arguments, &cluster, client);
        let connected = tokio::time::timeout(STEP_MAX, connecting)
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")))
            .with_context(|| format!("client {} cannot connect", client + 1))?;
        books.push(Rc::clone(&connected.books));
        loops.push(connected);
    }
    tell(&Event::Connected)?;
    let shared = Rc::new(Shared::new(arguments.warmup, arguments.seconds)?);
    let loops = loops
        .into_iter()
        .map(|client| tokio::task::spawn_local(client.run(Rc::clone(&shared))))
        .collect();
    let mut load = conduct(&shared, loops, &arguments.out).await?;
    let read_back = tokio::time::timeout(STEP_MAX, check::<T>(&cluster, &books))
        .await
        .context("the check takes too long")??;
    load.read_back = Some(read_back);
    tell(&Event::Result(Box::new(load)))
}

/// No more connections than writes in flight.
fn clients(arguments: &LoadArguments) -> u32 {
    let wanted = arguments
        .clients
        .unwrap_or(arguments.cluster.system.clients_default());
    wanted.min(arguments.outstanding.unwrap_or(u32::MAX))
}

async fn client_loop<T: Target>(
    arguments: &LoadArguments,
    cluster: &Cluster,
    index: u32,
) -> anyhow::Result<ClientLoop<T>> {
    let clients = cluster.clients;
    let (keys, books) = match T::key_space(cluster) {
        KeySpace::Unique => (Keys::Unique, Books::unique()),
        KeySpace::Bounded(keys) => (Keys::bounded(keys), Books::latest(keys)),
    };
    let outstanding_max = (OUTSTANDING_MAX / clients) as usize;
    Ok(ClientLoop {
        target: Rc::new(T::connect(cluster, index).await?),
        tag: u64::from(index) + 1,
        values: Values::new(cluster.tag(index), cluster.payload_bytes, arguments.seed),
        outstanding_max: outstanding_max.min(keys.in_flight_max().unwrap_or(usize::MAX)),
        keys,
        books: Rc::new(RefCell::new(books)),
        offer: match (arguments.outstanding, arguments.rate) {
            (Some(outstanding), _) => Offer::Closed {
                // The first clients take the remainder.
                outstanding: outstanding / clients + u32::from(index < outstanding % clients),
            },
            (None, rate) => Offer::Open {
                schedule: Schedule::new(0, rate.context("no load")?, clients, index),
            },
        },
        deadline: Duration::from_millis(arguments.deadline_ms),
        tally: Tally::default(),
        in_flight: FuturesUnordered::new(),
    })
}

/// Reads everything back and compares it with what was acknowledged.
async fn check<T: Target>(
    cluster: &Cluster,
    books: &[Rc<RefCell<Books>>],
) -> anyhow::Result<ReadBack> {
    T::read_back(cluster, &mut |key, stamp| {
        if let Some(client) = cluster.client(stamp) {
            books[client as usize].borrow_mut().found(key, stamp.number);
        }
    })
    .await
    .context("what was written cannot be read back")?;
    let balances = books.iter().map(|books| books.borrow().balance());
    Ok(balances.fold(ReadBack::default(), |sum, balance| ReadBack {
        checked: sum.checked + balance.checked,
        lost: sum.lost + balance.lost,
        repeated: sum.repeated + balance.repeated,
    }))
}
