//! A client beside the load that asks for the status as fast as a replica takes the questions, of one replica after the
//! other, for as long as the load lasts. Nobody else may notice.

use std::time::Duration;

use synod_engine::client::ClientMessage;
use synod_engine::ids::ReplicaId;
use synod_transport::{ClientConfig, RawClient};

use super::shared::Shared;

/// Questions in one write, and the pause behind each: fifty thousand a second, each of which took a replica ten
/// microseconds when each was answered.
const QUESTIONS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(20);
/// One replica is asked for this many writes, and then the next one.
const WRITES: usize = 50;
/// A replica that is down, or whose stream stands still, is left alone for now.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns how many questions were sent.
pub async fn run(config: ClientConfig, shared: &Shared) -> u64 {
    let replicas: Vec<ReplicaId> = config.replicas.iter().map(|(id, _)| *id).collect();
    let mut sent = 0;
    for replica in replicas.iter().cycle() {
        if shared.over() {
            break;
        }
        let flood = flood(&config, *replica, shared);
        sent += flood.await;
        tokio::time::sleep(PAUSE).await;
    }
    sent
}

async fn flood(config: &ClientConfig, replica: ReplicaId, shared: &Shared) -> u64 {
    // A cluster of chaos is known by its sockets, not by names.
    let known = config.replicas.iter().find(|(id, _)| *id == replica);
    let Some(address) = known.and_then(|(_, address)| address.socket()) else {
        return 0;
    };
    let connecting = RawClient::connect(&config.identity, config.cluster, address, replica);
    let Ok(Ok(mut client)) = tokio::time::timeout(PATIENCE, connecting).await else {
        return 0;
    };
    let frame = ClientMessage::Status.encode();
    let questions = frame.repeat(QUESTIONS);
    for _ in 0..WRITES {
        if shared.over() || client.is_closed() {
            break;
        }
        client.write(&questions).await;
        tokio::time::sleep(PAUSE).await;
    }
    client.sent / frame.len() as u64
}
