//! The connection of a client to one replica, made again whenever it breaks.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::ConnectionError;
use synod_engine::client::ServerMessage;
use synod_engine::ids::ReplicaId;

use super::core::{QUEUE_BYTES_LIMIT, Shared, has_room};
use super::endpoints::Endpoints;
use crate::backoff::{self, Backoff};
use crate::close::{self, CloseCode};
use crate::handshake::{self, ClientConnection, HandshakeFailed, Local, bounded, greet_gateway};
use crate::lookup::Lookup;
use crate::notices;
use crate::outqueue::OutQueue;
use crate::reader::{FrameReader, ReadFailed};

/// Where one replica is, and how to introduce oneself.
pub struct Dialler {
    pub endpoints: Endpoints,
    pub config: quinn::ClientConfig,
    pub lookup: Lookup,
    pub replica: ReplicaId,
    pub local: Local,
    pub seed: u64,
}

/// Whether the replica does not want this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    No,
    /// It has no place at the moment.
    Crowded,
    /// Until somebody changes a configuration.
    Lasting,
}

impl Refused {
    fn by(error: &ConnectionError) -> Refused {
        match error {
            error if close::is_crowded(error) => Refused::Crowded,
            error if close::is_lasting(error) => Refused::Lasting,
            _ => Refused::No,
        }
    }
}

impl Dialler {
    pub async fn keep_connected(mut self, shared: Arc<Shared>) {
        let mut backoff = Backoff::new(self.seed);
        loop {
            let (reason, refused) = match self.dial().await {
                Ok(connection) => {
                    let (reason, refused) = self.run(&shared, connection).await;
                    // A replica that has no place says so after the Hello.
                    if refused == Refused::No {
                        backoff.reset();
                    }
                    (reason, refused)
                }
                Err(error) => {
                    if matches!(error, HandshakeFailed::TimedOut(_)) {
                        backoff.reset();
                    }
                    let refused = match &error {
                        HandshakeFailed::Connection(error) => Refused::by(error),
                        error if error.is_lasting() => Refused::Lasting,
                        _ => Refused::No,
                    };
                    (notices::words(&error), refused)
                }
            };
            // Before a handshake a replica can't say more than that it refuses.
            let reason = match refused {
                Refused::Crowded if !reason.contains("clients_max") => {
                    format!("{reason}: it serves as many clients as it may (clients_max)")
                }
                _ => reason,
            };
            shared.disconnected(self.replica, reason, refused);
            let delay_max = match refused {
                Refused::No => backoff::DELAY_MAX,
                Refused::Crowded | Refused::Lasting => backoff::CLIENT_REFUSED_DELAY_MAX,
            };
            tokio::time::sleep(backoff.next(delay_max)).await;
        }
    }

    /// Tries every address of the replica.
    async fn dial(&mut self) -> Result<ClientConnection, HandshakeFailed> {
        let mut failed = None;
        for address in self.lookup.addresses().await? {
            match self.dial_at(address).await {
                Ok(connection) => {
                    self.lookup.reached(address);
                    return Ok(connection);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a lookup finds at least one address"))
    }

    async fn dial_at(&self, address: SocketAddr) -> Result<ClientConnection, HandshakeFailed> {
        let endpoint = self.endpoints.of(address);
        let connection =
            handshake::dial(endpoint, &self.config, address, self.local, self.replica).await?;
        let greeting = greet_gateway(connection.clone(), self.local, self.replica);
        bounded(&connection, self.local.timeout, greeting).await
    }

    /// Carries frames until the connection breaks; says why it did.
    async fn run(&self, shared: &Arc<Shared>, client: ClientConnection) -> (String, Refused) {
        let connection = client.connection;
        let queue = Arc::new(OutQueue::new(QUEUE_BYTES_LIMIT));
        shared.connected(self.replica, Arc::clone(&queue));
        let mut send = client.send;
        let written = |bytes_left| {
            if has_room(bytes_left) {
                shared.work.notify_one();
            }
        };
        let ours = tokio::select! {
            error = queue.write_to(&mut send, written) => error.to_string(),
            error = self.read(shared, client.receive) => error,
            error = connection.closed() => error.to_string(),
        };
        queue.close();
        if let Some(error) = connection.close_reason() {
            return (notices::words(&error), Refused::by(&error));
        }
        CloseCode::Violation.close(&connection, &ours);
        (ours, Refused::No)
    }

    async fn read(&self, shared: &Arc<Shared>, mut reader: FrameReader) -> String {
        let mut frames = Vec::new();
        let mut messages = Vec::new();
        loop {
            match reader.many(&mut frames).await {
                Ok(()) => {}
                Err(
                    error @ (ReadFailed::Frame(_) | ReadFailed::Stream(_) | ReadFailed::Finished),
                ) => {
                    return error.to_string();
                }
            }
            for frame in frames.drain(..) {
                match ServerMessage::decode(frame) {
                    Ok(message) => messages.push(message),
                    Err(error) => return format!("a frame of replica {}: {error}", self.replica.0),
                }
            }
            shared.received(self.replica, &mut messages);
        }
    }
}
