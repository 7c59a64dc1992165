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
use crate::drops::Drops;
use crate::inbox::Inbox;
use crate::lookup::{Family, Lookup};
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
    drops: Drops,
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
        let family = Family::of_listener(local_addr.ip());
        let lookup = Lookup::new(address.clone(), family, config.resolver.clone());
        if *peer > config.replica {
            let dialling = Arc::clone(&mesh).keep_dialling(*peer, lookup);
            tasks.push(tokio::spawn(dialling).abort_handle());
        } else if address.socket().is_none() {
            let expecting = Arc::clone(&mesh).keep_expecting(*peer, lookup);
            tasks.push(tokio::spawn(expecting).abort_handle());
        }
    }
    let network = QuicNetwork {
        mesh,
        counters,
        local_addr,
        drops: Drops::of(local_addr),
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
        report("udp_receive_dropped", self.drops.count());
        report("gateway_clients", self.mesh.gateway.clients() as u64);
    }
}

#[cfg(test)]
mod tests {
    use synod_engine::ids::ClusterId;

    use super::*;
    use crate::{AuthorityKey, Identity, Limits, MTU_MAX_DEFAULT, make_certificates};

    #[tokio::test]
    async fn a_socket_that_is_gone_is_an_error_and_no_silence() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (cluster, replica) = (ClusterId(7), ReplicaId(1));
        make_certificates(directory.path(), cluster, &[replica], AuthorityKey::Kept)
            .expect("certificates");
        let file = |name: &str| directory.path().join(name);
        let identity = Identity::load(
            &file("ca.pem"),
            &file("replica-1.pem"),
            &file("replica-1.key"),
        );
        let (network, inbox) = start(TransportConfig {
            cluster,
            replica,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Vec::new(),
            resolver: crate::Resolver::default(),
            identity: identity.expect("an identity"),
            mtu_max: MTU_MAX_DEFAULT,
            limits: Limits::default(),
            seed: 1,
        })
        .expect("it starts");
        assert_eq!(inbox.failure(), None);
        // As good as a failed socket: nobody is accepted any more.
        network.mesh.endpoint().close(VarInt::from_u32(0), b"");
        let failed = tokio::time::timeout(Duration::from_secs(30), inbox.notified()).await;
        failed.expect("the failure wakes the loop");
        let why = inbox.failure().expect("a reason");
        assert!(why.contains("UDP socket"), "{why}");
    }
}
