//! NATS through `async-nats`: a JetStream publish with its acknowledgement per write.

use std::net::{SocketAddr, TcpStream};

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{ANSWER_MAX, Cluster, KeySpace, NAME, Target, urls};
use crate::load::OUTSTANDING_MAX;
use crate::recipe::SERVER_NAME;
use crate::values::Stamp;

/// Messages that the check asks for at once.
const PAGE_MESSAGES: usize = 10_000;

pub struct Nats {
    context: Context,
    subject: String,
}

impl Target for Nats {
    async fn connect(cluster: &Cluster, client: u32) -> anyhow::Result<Nats> {
        let connected = async_nats::connect(cluster.urls("nats")).await?;
        // Publishes that wait for their acknowledgement; ours are limited elsewhere.
        let context = ContextBuilder::new()
            .max_ack_inflight(OUTSTANDING_MAX as usize)
            .build(connected);
        Ok(Nats {
            context,
            subject: format!("{NAME}.{}.{client}", cluster.run),
        })
    }

    fn key_space(_: &Cluster) -> KeySpace {
        KeySpace::Unique
    }

    async fn write(&self, _: u64, value: Bytes) -> anyhow::Result<()> {
        self.context
            .publish(self.subject.clone(), value)
            .await?
            .await?;
        Ok(())
    }

    async fn read_back(
        cluster: &Cluster,
        found: &mut impl FnMut(u64, Stamp),
    ) -> anyhow::Result<()> {
        let connected = async_nats::connect(cluster.urls("nats")).await?;
        let stream = jetstream::new(connected).get_stream(NAME).await?;
        let mut consumer = stream
            .create_consumer(pull::Config {
                filter_subject: format!("{NAME}.{}.*", cluster.run),
                ack_policy: AckPolicy::None,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await?;
        let mut left = consumer.info().await?.num_pending;
        while left > 0 {
            let mut page = consumer
                .fetch()
                .max_messages(PAGE_MESSAGES)
                .messages()
                .await?;
            let before = left;
            while let Some(message) = page.next().await {
                let message = message.map_err(|error| anyhow::anyhow!(error))?;
                left = left.saturating_sub(1);
                if let Some(stamp) = Stamp::of(&message.payload) {
                    found(stamp.number, stamp);
                }
            }
            anyhow::ensure!(left < before, "{left} messages are never delivered");
        }
        Ok(())
    }
}

pub async fn serve_one(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    for address in addresses {
        TcpStream::connect(address).with_context(|| format!("{address} is not ready"))?;
    }
    let connected = async_nats::connect(urls("nats", addresses)).await?;
    let context = jetstream::new(connected);
    let config = Config {
        name: NAME.to_owned(),
        subjects: vec![format!("{NAME}.>")],
        num_replicas: addresses.len(),
        storage: StorageType::File,
        ..Config::default()
    };
    let stream: Stream = context.get_or_create_stream(config).await?;
    let info = stream.get_info().await?;
    if let Some(cluster) = info.cluster {
        anyhow::ensure!(cluster.leader.is_some(), "the stream has no leader yet");
        let current = cluster.replicas.iter().filter(|peer| peer.current).count();
        anyhow::ensure!(
            current + 1 == addresses.len(),
            "{current} followers of the stream are current"
        );
    }
    context
        .publish(format!("{NAME}.ready"), Bytes::new())
        .await?
        .await?;
    Ok(())
}

/// The position of the address of the stream's leader, from 1.
pub async fn leader(addresses: &[SocketAddr]) -> anyhow::Result<usize> {
    let ask = async {
        let connected = async_nats::connect(urls("nats", addresses)).await?;
        let stream = jetstream::new(connected).get_stream(NAME).await?;
        anyhow::Ok(stream.get_info().await?.cluster)
    };
    let cluster = timeout(ANSWER_MAX, ask)
        .await
        .context("the servers do not answer")??;
    match cluster {
        // One server alone has no cluster to tell of.
        None => Ok(1),
        Some(cluster) => {
            let name = cluster.leader.context("the stream has none now")?;
            name.strip_prefix(SERVER_NAME)
                .and_then(|id| id.parse().ok())
                .filter(|position| (1..=addresses.len()).contains(position))
                .with_context(|| format!("server {name} is none of these"))
        }
    }
}
