//! etcd through `etcd-client`: a put of a new key per write.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use etcd_client::{Client, GetOptions, GetResponse, KvClient, StatusResponse};
use tokio::time::{sleep, timeout};

use super::{ANSWER_MAX, Cluster, KeySpace, NAME, Target, urls};
use crate::values::Stamp;

/// One answer of the check: below the 4 MiB that gRPC takes in one message, whatever the keys add.
const PAGE_BYTES: u32 = 2 * 1_024 * 1_024;
/// What a key, its revisions and its framing take in an answer, rounded up.
const KEY_BYTES_MAX: u32 = 128;
/// With the pause, longer than an election.
const PAGE_ATTEMPTS_MAX: u32 = 100;
const PAGE_PAUSE: Duration = Duration::from_millis(50);

pub struct Etcd {
    client: KvClient,
    prefix: String,
}

impl Target for Etcd {
    /// The library keeps a connection to each server and spreads the puts over them, as every user of its does.
    async fn connect(cluster: &Cluster, client: u32) -> anyhow::Result<Etcd> {
        let connected = Client::connect(cluster.urls("http"), None).await?;
        Ok(Etcd {
            client: connected.kv_client(),
            prefix: prefix(cluster, client),
        })
    }

    fn key_space(_: &Cluster) -> KeySpace {
        KeySpace::Unique
    }

    async fn write(&self, key: u64, value: Bytes) -> anyhow::Result<()> {
        let key = format!("{}{key:012x}", self.prefix);
        self.client.clone().put(key, value, None).await?;
        Ok(())
    }

    async fn read_back(
        cluster: &Cluster,
        found: &mut impl FnMut(u64, Stamp),
    ) -> anyhow::Result<()> {
        let mut kv = Client::connect(cluster.urls("http"), None)
            .await?
            .kv_client();
        let limit = i64::from(PAGE_BYTES / (cluster.payload_bytes + KEY_BYTES_MAX)).max(1);
        for client in 0..cluster.clients {
            let prefix = prefix(cluster, client);
            // The character after the separator ends the prefix.
            let end = format!("{}0", prefix.trim_end_matches('/'));
            let mut next = prefix.into_bytes();
            loop {
                let options = GetOptions::new().with_range(end.clone()).with_limit(limit);
                let page = page(&mut kv, next, options).await?;
                for pair in page.kvs() {
                    if let Some(stamp) = Stamp::of(pair.value()) {
                        found(stamp.number, stamp);
                    }
                }
                let Some(last) = page.kvs().last().filter(|_| page.more()) else {
                    break;
                };
                next = last.key().to_vec();
                next.push(0);
            }
        }
        Ok(())
    }
}

/// The library also asks servers that are dead, and only tells of it: a page is asked for until one answers.
async fn page(
    kv: &mut KvClient,
    from: Vec<u8>,
    options: GetOptions,
) -> anyhow::Result<GetResponse> {
    let mut attempts = 0;
    loop {
        match kv.get(from.clone(), Some(options.clone())).await {
            Ok(page) => return Ok(page),
            Err(error) if attempts >= PAGE_ATTEMPTS_MAX => return Err(error.into()),
            Err(_) => sleep(PAGE_PAUSE).await,
        }
        attempts += 1;
    }
}

fn prefix(cluster: &Cluster, client: u32) -> String {
    format!("{NAME}/{:x}/", cluster.tag(client))
}

pub async fn serve_one(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let mut leader = None;
    for address in addresses {
        let follows = status(address).await?.leader();
        anyhow::ensure!(follows != 0, "{address} has no leader yet");
        anyhow::ensure!(
            *leader.get_or_insert(follows) == follows,
            "the servers follow different leaders"
        );
    }
    let mut client = Client::connect(urls("http", addresses), None).await?;
    client.put(format!("{NAME}/ready"), "", None).await?;
    Ok(())
}

/// The position of the leader's address, from 1.
pub async fn leader(addresses: &[SocketAddr]) -> anyhow::Result<usize> {
    let mut why = None;
    for (address, position) in addresses.iter().zip(1..) {
        match status(address).await {
            Ok(status) => {
                let own = status.header().map_or(0, |header| header.member_id());
                if status.leader() == own {
                    return Ok(position);
                }
            }
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| anyhow::anyhow!("all servers follow")))
}

async fn status(address: &SocketAddr) -> anyhow::Result<StatusResponse> {
    let ask = async {
        let mut client = Client::connect(urls("http", &[*address]), None).await?;
        client.status().await
    };
    timeout(ANSWER_MAX, ask)
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| format!("{address} is not ready"))
}
