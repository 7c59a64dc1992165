//! ZooKeeper through `zookeeper-client`: a setData per write, on a bounded set of nodes.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

use super::{ANSWER_MAX, Cluster, KeySpace, NAME, Target};
use crate::values::Stamp;

/// Nodes of all clients together: the tree is in memory, and written out whole every 100,000 writes.
pub const NODES: u64 = 16_384;
/// Requests in flight while nodes are made and read back.
const PIPELINE: usize = 512;
/// What `srvr` prints is shorter.
const STATUS_BYTES_MAX: u64 = 16 * 1_024;

pub struct Zookeeper {
    addresses: String,
    index: u32,
    client: RefCell<Client>,
    connecting: Cell<bool>,
}

impl Target for Zookeeper {
    async fn connect(cluster: &Cluster, client: u32) -> anyhow::Result<Zookeeper> {
        let addresses = join(&cluster.addresses);
        let connected = Client::connect(&addresses).await?;
        make(&connected, &format!("/{NAME}")).await?;
        stream::iter(0..nodes(cluster))
            .map(|key| {
                let (connected, path) = (&connected, path(client, key));
                async move { make(connected, &path).await }
            })
            .buffer_unordered(PIPELINE)
            .try_collect::<()>()
            .await
            .context("the nodes cannot be made")?;
        Ok(Zookeeper {
            addresses,
            index: client,
            client: RefCell::new(connected),
            connecting: Cell::new(false),
        })
    }

    fn key_space(cluster: &Cluster) -> KeySpace {
        KeySpace::Bounded(nodes(cluster))
    }

    async fn write(&self, key: u64, value: Bytes) -> anyhow::Result<()> {
        let path = path(self.index, key);
        let writing = self.client.borrow().set_data(&path, &value, None);
        match writing.await {
            Ok(_) => Ok(()),
            Err(error @ (Error::SessionExpired | Error::ClientClosed)) => {
                self.replace().await;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read_back(
        cluster: &Cluster,
        found: &mut impl FnMut(u64, Stamp),
    ) -> anyhow::Result<()> {
        let connected = Client::connect(&join(&cluster.addresses)).await?;
        // The server may follow, and must have seen what others acknowledged.
        connected.sync("/").await?;
        for client in 0..cluster.clients {
            let mut values = stream::iter(0..nodes(cluster))
                .map(|key| {
                    let reading = connected.get_data(&path(client, key));
                    async move { reading.await.map(|(value, _)| (key, value)) }
                })
                .buffer_unordered(PIPELINE);
            while let Some((key, value)) = values.try_next().await? {
                if let Some(stamp) = Stamp::of(&value) {
                    found(key, stamp);
                }
            }
        }
        Ok(())
    }
}

impl Zookeeper {
    /// A new session instead of an expired one, which the library does not make by itself.
    async fn replace(&self) {
        if self.connecting.replace(true) {
            return;
        }
        if let Ok(client) = Client::connect(&self.addresses).await {
            self.client.replace(client);
        }
        self.connecting.set(false);
    }
}

fn nodes(cluster: &Cluster) -> u64 {
    NODES / u64::from(cluster.clients)
}

fn path(client: u32, key: u64) -> String {
    format!("/{NAME}/{client:02}-{key:05}")
}

async fn make(client: &Client, path: &str) -> anyhow::Result<()> {
    let options: CreateOptions<'_> = CreateMode::Persistent.with_acls(Acls::anyone_all());
    match client.create(path, b"", &options).await {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Leads,
    Follows,
}

pub async fn serve_one(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let mut leaders = 0;
    for address in addresses {
        leaders += u32::from(mode(address).await? == Mode::Leads);
    }
    anyhow::ensure!(leaders == 1, "{leaders} servers lead");
    let client = Client::connect(&join(addresses)).await?;
    make(&client, &format!("/{NAME}")).await
}

/// The position of the leader's address, from 1.
pub async fn leader(addresses: &[SocketAddr]) -> anyhow::Result<usize> {
    let mut why = None;
    for (address, position) in addresses.iter().zip(1..) {
        match mode(address).await {
            Ok(Mode::Leads) => return Ok(position),
            Ok(Mode::Follows) => {}
            Err(error) => why = Some(error),
        }
    }
    Err(why.unwrap_or_else(|| anyhow::anyhow!("all servers follow")))
}

/// Asks by the four-letter word `srvr`.
async fn mode(address: &SocketAddr) -> anyhow::Result<Mode> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"srvr").await?;
        let mut text = String::new();
        stream
            .take(STATUS_BYTES_MAX)
            .read_to_string(&mut text)
            .await?;
        std::io::Result::Ok(text)
    };
    let text = timeout(ANSWER_MAX, ask)
        .await
        .with_context(|| format!("{address} does not answer"))?
        .with_context(|| format!("{address} is not ready"))?;
    parse_mode(&text).with_context(|| format!("{address} has no mode yet"))
}

fn parse_mode(text: &str) -> Option<Mode> {
    match text.lines().find_map(|line| line.strip_prefix("Mode: "))? {
        "leader" | "standalone" => Some(Mode::Leads),
        "follower" => Some(Mode::Follows),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_found_in_what_srvr_prints() {
        let text = |mode| {
            format!(
                "Zookeeper version: 3.8.0, built on 2024-02-12\nLatency min/avg/max: 0/0.0/0\n\
                 Zxid: 0x100000000\nMode: {mode}\nNode count: 5\n"
            )
        };
        for (mode, expected) in [
            ("leader", Some(Mode::Leads)),
            ("standalone", Some(Mode::Leads)),
            ("follower", Some(Mode::Follows)),
            ("observer", None),
        ] {
            assert_eq!(parse_mode(&text(mode)), expected);
        }
        let not_yet = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(parse_mode(not_yet), None);
    }
}
