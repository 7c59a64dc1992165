//! The two ways to the peers; clients always come over QUIC.

use bytes::Bytes;
use synod_engine::ids::{ClientId, ReplicaId};
use synod_engine::seams::{Frame, Lane, Network};
use synod_harness::replica::Links;
use synod_transport::QuicNetwork;

use crate::tcp::TcpMesh;

pub enum PeerNetwork {
    /// Synod's own links: QUIC with mutual TLS, three lanes.
    Quic(QuicNetwork),
    /// Plaintext TCP between the peers.
    Tcp {
        clients: QuicNetwork,
        peers: TcpMesh,
    },
}

impl Links for PeerNetwork {
    async fn close(self) {
        match self {
            PeerNetwork::Quic(network) => network.close().await,
            PeerNetwork::Tcp { clients, peers } => {
                drop(peers);
                clients.close().await;
            }
        }
    }
}

impl PeerNetwork {
    fn quic(&mut self) -> &mut QuicNetwork {
        match self {
            PeerNetwork::Quic(network) => network,
            PeerNetwork::Tcp { clients, .. } => clients,
        }
    }
}

impl Network for PeerNetwork {
    fn send(&mut self, to: ReplicaId, lane: Lane, frame: Frame) {
        match self {
            PeerNetwork::Quic(network) => network.send(to, lane, frame),
            PeerNetwork::Tcp { peers, .. } => peers.send(to, frame),
        }
    }

    fn reply(&mut self, client: ClientId, frame: Bytes) {
        self.quic().reply(client, frame);
    }

    fn expel(&mut self, client: ClientId) {
        self.quic().expel(client);
    }

    fn announce(&mut self, frame: Bytes) {
        self.quic().announce(frame);
    }

    fn flush(&mut self) {
        if let PeerNetwork::Tcp { peers, .. } = self {
            peers.flush();
        }
        self.quic().flush();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        match self {
            PeerNetwork::Quic(network) => network.counters(report),
            PeerNetwork::Tcp { clients, peers } => {
                clients.counters(report);
                peers.counters(report);
            }
        }
    }
}
