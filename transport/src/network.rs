//! The engine's end of the transport.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Frame, Lane, Network};
use tokio::task::AbortHandle;

use crate::close::CloseCode;
use crate::counters::Counters;
use crate::inbox::Inbox;
use crate::mesh::Mesh;
use crate::outqueue::OutQueue;
use crate::renewal::Renewal;
use crate::{TransportConfig, TransportError};

/// How long [`QuicNetwork::close`] waits for the other sides to hear of it.
const CLOSE_WAIT: Duration = Duration::from_millis(300);

/// Sends frames to peers and clients over QUIC. Dropping it closes every connection.
pub struct QuicNetwork {
    mesh: Arc<Mesh>,
    counters: Arc<Counters>,
    local_addr: SocketAddr,
    /// Queues whose writers have to be told at the next flush.
    dirty: Vec<Arc<OutQueue>>,
    tasks: Vec<AbortHandle>,
    replica: ReplicaId,
}

/// Binds the port and starts links and gateway as tasks of the current tokio runtime.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(config: TransportConfig) -> Result<(QuicNetwork, Inbox), TransportError> {
    let counters = Arc::new(Counters::default());
    let inbox = Inbox::new(config.limits.clone(), Arc::clone(&counters));
    let mesh = Arc::new(Mesh::new(&config, &inbox.shared(), &counters)?);
    let listen = config.listen;
    let bound = mesh.endpoint().local_addr();
    let local_addr = bound.map_err(|source| TransportError::Bind {
        address: listen,
        source,
    })?;
    let mut tasks = vec![tokio::spawn(Arc::clone(&mesh).accept()).abort_handle()];
    for (peer, address) in &config.peers {
        if *peer > config.replica {
            let dialling = Arc::clone(&mesh).keep_dialling(*peer, *address);
            tasks.push(tokio::spawn(dialling).abort_handle());
        }
    }
    let network = QuicNetwork {
        mesh,
        counters,
        local_addr,
        dirty: Vec::new(),
        tasks,
        replica: config.replica,
    };
    Ok((network, inbox))
}

impl QuicNetwork {
    /// Where it listens; the port that was chosen if the configuration said 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Peers that frames currently reach.
    pub fn links_up(&self) -> usize {
        self.mesh.links_up()
    }

    /// The way to other certificates while it runs.
    pub fn renewal(&self) -> Renewal {
        Renewal::new(&self.mesh)
    }

    /// Tells peers and clients why, and waits a moment for them to hear it.
    pub async fn close(self) {
        let mesh = Arc::clone(&self.mesh);
        drop(self);
        // Whoever does not answer in time finds out by a timeout.
        let _ = tokio::time::timeout(CLOSE_WAIT, mesh.endpoint().wait_idle()).await;
    }
}

impl Drop for QuicNetwork {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let reason = format!("replica {} shuts down", self.replica.0);
        let code = VarInt::from_u32(CloseCode::Shutdown as u32);
        self.mesh.endpoint().close(code, reason.as_bytes());
    }
}

impl Network for QuicNetwork {
    fn send(&mut self, to: ReplicaId, lane: Lane, frame: Frame) {
        assert_ne!(
            to, self.replica,
            "a message to the own replica reached the network"
        );
        match self.mesh.link(to) {
            Some(link) => self.dirty.extend(link.send(lane, &frame)),
            None => self.counters.link_dropped_frames.add(1),
        }
    }

    fn reply(&mut self, client: ClientId, frame: Bytes) {
        self.dirty.extend(self.mesh.gateway.reply(client, &frame));
    }

    fn expel(&mut self, client: ClientId) {
        self.mesh.gateway.expel(client);
    }

    fn announce(&mut self, frame: Bytes) {
        self.dirty.extend(self.mesh.gateway.announce(frame));
    }

    fn flush(&mut self) {
        for queue in self.dirty.drain(..) {
            queue.flush();
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        self.counters.report(report);
        self.mesh.report(report);
        report("gateway_clients", self.mesh.gateway.clients() as u64);
    }
}
