//! A client that does as it is told, for tests: the handshake, the Hello and frames, with whatever identity and manners.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint};
use synod_engine::ids::{ClusterId, ReplicaId};

use crate::endpoint::{self, MTU_MIN, Role};
use crate::handshake::{self, ClientConnection, HANDSHAKE_MS, HandshakeFailed, Local, bounded};
use crate::identity::Identity;

/// How long a write waits for room.
const ROOM_WAIT: Duration = Duration::from_millis(1);
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Speaks the protocol of clients up to the Hello, and after it whatever it is given.
pub struct RawClient {
    client: ClientConnection,
    pending: Vec<u8>,
    /// Bytes given to write so far.
    pub sent: u64,
    _endpoint: Endpoint,
}

impl RawClient {
    /// Fails as a client that dials would, with the reason of the other side.
    pub async fn connect(
        identity: &Identity,
        cluster: ClusterId,
        address: SocketAddr,
        replica: ReplicaId,
    ) -> Result<RawClient, String> {
        let (endpoint, connection) = dial(identity, cluster, address, replica, Role::Client)
            .await
            .map_err(|error| error.to_string())?;
        let local = local(cluster);
        let greeting = handshake::greet_gateway(connection.clone(), local, replica);
        let client = bounded(&connection, local.timeout, greeting).await;
        Ok(RawClient {
            client: client.map_err(|error| error.to_string())?,
            pending: Vec::new(),
            sent: 0,
            _endpoint: endpoint,
        })
    }

    /// Sends as much as finds room, and keeps what does not for the next time, unless that is a lot already.
    pub async fn write(&mut self, bytes: &[u8]) {
        if self.pending.len() < FRAME_BYTES_MAX {
            self.pending.extend_from_slice(bytes);
            self.sent += bytes.len() as u64;
        }
        while !self.pending.is_empty() {
            let writing = self.client.send.write(&self.pending);
            match tokio::time::timeout(ROOM_WAIT, writing).await {
                Ok(Ok(written)) => drop(self.pending.drain(..written)),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// The next frame; `None` if the connection is gone.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.client.receive.one().await.ok()
    }

    pub fn is_closed(&self) -> bool {
        self.client.connection.close_reason().is_some()
    }
}

fn local(cluster: ClusterId) -> Local {
    Local {
        cluster,
        replica: None,
        frame_bytes_max: FRAME_BYTES_MAX,
        timeout: Duration::from_millis(HANDSHAKE_MS),
    }
}

async fn dial(
    identity: &Identity,
    cluster: ClusterId,
    address: SocketAddr,
    replica: ReplicaId,
    role: Role,
) -> Result<(Endpoint, Connection), HandshakeFailed> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let refused = |_| HandshakeFailed::Connection(ConnectionError::LocallyClosed);
    let endpoint = endpoint::bind(any, identity, MTU_MIN, false).map_err(refused)?;
    let config = endpoint::client_config(identity, role, MTU_MIN).map_err(refused)?;
    let connection = handshake::dial(&endpoint, &config, address, local(cluster), replica).await?;
    Ok((endpoint, connection))
}
