//! All connections of one replica: dials the peers above it, accepts the peers below it and the clients.
//!
//! One connection per pair of replicas, dialled by the lower id, carries both directions: acknowledgements travel
//! with data instead of in packets of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connecting, Connection, Endpoint, Incoming};
use synod_engine::ids::{REPLICAS_MAX, ReplicaId};
use tokio::task::JoinSet;

use crate::TransportConfig;
use crate::TransportError;
use crate::backoff::{self, Backoff};
use crate::certificate::Fingerprint;
use crate::close::CloseCode;
use crate::counters::Counters;
use crate::door::{Door, Knock, Place, Verdict};
use crate::endpoint::{self, Role};
use crate::gateway::Gateway;
use crate::handshake::{
    self, HandshakeFailed, Local, PeerConnection, accept_client, accept_peer, bounded, encrypted,
    greet_peer,
};
use crate::identity::Identity;
use crate::inbox::InboxShared;
use crate::limits::Limits;
use crate::link::Link;
use crate::lookup::Lookup;
use crate::notices::{self, Notices};
use crate::tls;

/// Answers to strangers between two turns of everybody else.
const REFUSALS_IN_A_ROW: u32 = 16;
/// How often the names of peers that dial this replica are looked up.
const EXPECT_AGAIN: Duration = Duration::from_secs(10);

pub struct Mesh {
    endpoint: Endpoint,
    credentials: Mutex<Credentials>,
    mtu_max: u16,
    local: Local,
    limits: Limits,
    seed: u64,
    /// Indexed by replica id.
    links: Vec<Option<Arc<Link>>>,
    /// The peers that dial this replica.
    diallers: Vec<ReplicaId>,
    door: Arc<Door>,
    pub gateway: Gateway,
    inbox: Arc<InboxShared>,
    counters: Arc<Counters>,
    /// Of callers from where peers are expected, and of all others, who must not hide what is said of those.
    notices: Notices,
    strangers: Notices,
}

/// What connections are made with. It may change while the process runs.
struct Credentials {
    identity: Identity,
    dialling: quinn::ClientConfig,
}

impl Mesh {
    pub fn new(
        config: &TransportConfig,
        inbox: &Arc<InboxShared>,
        counters: &Arc<Counters>,
    ) -> Result<Mesh, TransportError> {
        let own_name = crate::identity::replica_name(config.cluster, config.replica);
        config.identity.expect_name(&own_name)?;
        let links = links(config, inbox, counters)?;
        let endpoint = endpoint::bind(config.listen, &config.identity, config.mtu_max, true)?;
        let dialling = endpoint::client_config(&config.identity, Role::Peer, config.mtu_max)?;
        let mut diallers = config.peers.clone();
        diallers.retain(|(peer, _)| *peer < config.replica);
        Ok(Mesh {
            endpoint,
            credentials: Mutex::new(Credentials {
                identity: config.identity.clone(),
                dialling,
            }),
            mtu_max: config.mtu_max,
            local: Local {
                cluster: config.cluster,
                replica: Some(config.replica),
                frame_bytes_max: config.limits.frame_bytes_max,
                timeout: Duration::from_millis(config.limits.handshake_ms_max),
            },
            limits: config.limits.clone(),
            seed: config.seed,
            links,
            diallers: diallers.iter().map(|(peer, _)| *peer).collect(),
            door: Arc::new(Door::new(
                config.limits.clone(),
                diallers.iter().map(|(peer, at)| (*peer, at.socket())),
            )),
            gateway: Gateway::new(
                Arc::clone(inbox),
                Arc::clone(counters),
                config.limits.clone(),
            ),
            inbox: Arc::clone(inbox),
            counters: Arc::clone(counters),
            notices: Notices::default(),
            strangers: Notices::rare(),
        })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub fn link(&self, peer: ReplicaId) -> Option<&Arc<Link>> {
        self.links.get(usize::from(peer.0))?.as_ref()
    }

    pub fn links_up(&self) -> usize {
        self.links
            .iter()
            .flatten()
            .filter(|link| link.is_up())
            .count()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn identity(&self) -> Identity {
        let credentials = self.credentials.lock();
        credentials
            .expect("no holder of credentials panics")
            .identity
            .clone()
    }

    /// Connections that come from now on are made with `identity`; on an error with what there was.
    pub fn renew(&self, identity: Identity) -> Result<(), TransportError> {
        let replica = self.local.replica.expect("a mesh is a replica's");
        identity.expect_name(&crate::identity::replica_name(self.local.cluster, replica))?;
        identity.expect_alive()?;
        let server = endpoint::server_config(&identity, self.mtu_max)?;
        let dialling = endpoint::client_config(&identity, Role::Peer, self.mtu_max)?;
        self.endpoint.set_server_config(Some(server));
        *self
            .credentials
            .lock()
            .expect("no holder of credentials panics") = Credentials { identity, dialling };
        self.close_revoked();
        Ok(())
    }

    /// Ends every connection whose other side is not trusted any more.
    pub fn close_revoked(&self) {
        let revoked = self.identity().revoked();
        if revoked.is_empty() {
            return;
        }
        let links = self.links.iter().flatten();
        let connections = links.filter_map(|link| link.connection());
        for connection in connections.chain(self.gateway.connections()) {
            let Some(leaf) = handshake::peer_certificate(&connection) else {
                continue;
            };
            if connection.close_reason().is_none() && revoked.contains(&leaf) {
                self.counters.revoked_connections.add(1);
                let reason = format!("the certificate {} is revoked", Fingerprint::of(&leaf));
                let address = connection.remote_address();
                tracing::warn!("the connection to {address} is closed: {reason}");
                CloseCode::Revoked.close(&connection, &reason);
            }
        }
    }

    /// Reports what QUIC counts for the links that are up, so that a collapsed MTU or lost packets can be seen.
    pub fn report(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let mut sums = [0; 5];
        let (mut mtu_min, mut window_min, mut round_trip_us_max) = (0, 0, 0);
        let stats: Vec<_> = self
            .links
            .iter()
            .flatten()
            .filter_map(|link| link.stats())
            .collect();
        for stats in &stats {
            let path = &stats.path;
            let mtu = u64::from(path.current_mtu);
            mtu_min = if mtu_min == 0 { mtu } else { mtu.min(mtu_min) };
            window_min = match window_min {
                0 => path.cwnd,
                least => path.cwnd.min(least),
            };
            round_trip_us_max = round_trip_us_max.max(path.rtt.as_micros() as u64);
            sums[0] += stats.udp_tx.datagrams;
            sums[1] += stats.udp_tx.ios;
            sums[2] += stats.udp_rx.datagrams;
            sums[3] += path.lost_packets;
            sums[4] += path.congestion_events;
        }
        report("certificate_expires_s", self.identity().expires_in());
        report("links_up", stats.len() as u64);
        report("link_mtu_min", mtu_min);
        report("link_window_bytes_min", window_min);
        report("link_round_trip_us_max", round_trip_us_max);
        report("link_sent_packets", sums[0]);
        report("link_sent_trains", sums[1]);
        report("link_received_packets", sums[2]);
        report("link_lost_packets", sums[3]);
        report("link_congestion_events", sums[4]);
    }

    /// Keeps the link to a peer that this replica dials.
    pub async fn keep_dialling(self: Arc<Mesh>, peer: ReplicaId, mut lookup: Lookup) {
        let link = Arc::clone(self.link(peer).expect("every peer has a link"));
        let mut backoff = Backoff::new(self.seed ^ (u64::from(peer.0) << 32));
        loop {
            let delay_max = match self.dial(peer, &mut lookup).await {
                Ok(connection) => {
                    backoff.reset();
                    link.run(connection).await;
                    backoff::DELAY_MAX
                }
                Err(error) => {
                    self.counters.handshake_failures.add(1);
                    let why = notices::words(&error);
                    link.notices().warn(format!(
                        "cannot reach replica {} at {}: {why}",
                        peer.0,
                        lookup.address()
                    ));
                    // An attempt that timed out has waited enough: the next first packet goes out soon, so that
                    // a peer that comes back is reached soon.
                    if matches!(error, HandshakeFailed::TimedOut(_)) {
                        backoff.reset();
                    }
                    match error.is_lasting() {
                        true => backoff::PEER_REFUSED_DELAY_MAX,
                        false => backoff::DELAY_MAX,
                    }
                }
            };
            tokio::time::sleep(backoff.next(delay_max)).await;
        }
    }

    /// The door knows where a peer that dials this replica comes from, also if it has a name and moves.
    pub async fn keep_expecting(self: Arc<Mesh>, peer: ReplicaId, mut lookup: Lookup) {
        loop {
            if let Ok(addresses) = lookup.addresses().await {
                self.door.expect(peer, addresses[0]);
            }
            tokio::time::sleep(EXPECT_AGAIN).await;
        }
    }

    /// Tries every address of the peer.
    async fn dial(
        &self,
        peer: ReplicaId,
        lookup: &mut Lookup,
    ) -> Result<PeerConnection, HandshakeFailed> {
        let mut failed = None;
        for address in lookup.addresses().await? {
            match self.dial_at(peer, address).await {
                Ok(connection) => {
                    lookup.reached(address);
                    return Ok(connection);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a lookup finds at least one address"))
    }

    async fn dial_at(
        &self,
        peer: ReplicaId,
        address: SocketAddr,
    ) -> Result<PeerConnection, HandshakeFailed> {
        let dialling = {
            let credentials = self.credentials.lock();
            credentials
                .expect("no holder of credentials panics")
                .dialling
                .clone()
        };
        let connection =
            handshake::dial(&self.endpoint, &dialling, address, self.local, peer).await?;
        bounded(
            &connection,
            self.local.timeout,
            greet_peer(connection.clone(), self.local, peer),
        )
        .await
    }

    /// Lets in whom the door lets in, each in a task of its own. Returns if the socket is gone.
    pub async fn accept(self: Arc<Mesh>) {
        let mut connections = JoinSet::new();
        let mut in_a_row = 0;
        while let Some(incoming) = self.endpoint.accept().await {
            while connections.try_join_next().is_some() {}
            let begun = self.answer(incoming);
            in_a_row += 1;
            // A handshake is a millisecond's work of the thread that the engine runs on too, a refusal some hundredth of it:
            // between two of them, or between some refusals, everybody else has a turn.
            if begun.is_some() || in_a_row >= REFUSALS_IN_A_ROW {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
            if let Some((connecting, address, place)) = begun {
                connections.spawn(Arc::clone(&self).serve(connecting, address, place));
            }
        }
        // Whoever closes the endpoint ends this task first, so the socket failed: nobody is reached any more, and whoever
        // watches this process has to hear of it.
        self.inbox
            .fail("the UDP socket failed: no peer and no client can be reached any more");
    }

    /// Begins a handshake, or does not.
    fn answer(&self, incoming: Incoming) -> Option<(Connecting, SocketAddr, Place)> {
        let address = incoming.remote_address();
        let verdict = self.door.knock(Knock {
            address,
            proven: incoming.remote_address_validated(),
            gateway_full: self.gateway.is_full(),
        });
        match verdict {
            Verdict::Enter(place) => match incoming.accept() {
                Ok(connecting) => return Some((connecting, address, place)),
                Err(error) => self.failed(address, &error.into()),
            },
            Verdict::Prove => {
                self.counters.door_asked_for_proof.add(1);
                let asked = incoming.retry();
                assert!(asked.is_ok(), "who has not proved its address may be asked");
            }
            Verdict::Refuse => {
                self.counters.door_refused.add(1);
                self.counters.gateway_over_limit_clients.add(1);
                incoming.refuse();
            }
            Verdict::Ignore => {
                self.counters.door_ignored.add(1);
                incoming.ignore();
            }
        }
        None
    }

    async fn serve(self: Arc<Mesh>, connecting: Connecting, address: SocketAddr, place: Place) {
        let result = match encrypted(connecting, self.local.timeout).await {
            Ok(connection) => self.serve_connection(connection, place).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.failed(address, &error);
        }
    }

    fn failed(&self, address: SocketAddr, error: &HandshakeFailed) {
        self.counters.handshake_failures.add(1);
        let notices = match self.door.knows(address) {
            true => &self.notices,
            false => &self.strangers,
        };
        let why = notices::words(error);
        notices.warn(format!("the connection from {address} was refused: {why}"));
    }

    async fn serve_connection(
        &self,
        connection: Connection,
        place: Place,
    ) -> Result<(), HandshakeFailed> {
        let timeout = self.local.timeout;
        match handshake::alpn(&connection).as_slice() {
            tls::ALPN_REPLICA => {
                let greeting = async {
                    // No stream and no more than a Hello is taken from whom no certificate names.
                    handshake::expect_one_of(&connection, self.local.cluster, &self.diallers)?;
                    endpoint::open_to_peer(&connection);
                    accept_peer(connection.clone(), self.local, &self.diallers).await
                };
                let peer = bounded(&connection, timeout, greeting).await?;
                drop(place);
                self.door.met(peer.peer, connection.remote_address());
                let link = self.link(peer.peer).expect("diallers are peers");
                link.run(peer).await;
            }
            tls::ALPN_CLIENT => {
                let local = Local {
                    frame_bytes_max: self.limits.request_bytes_max,
                    ..self.local
                };
                let greeting = accept_client(connection.clone(), local);
                let (client, identity) = bounded(&connection, timeout, greeting).await?;
                drop(place);
                self.gateway.serve(client, identity).await;
            }
            // TLS agrees on nothing else.
            _ => CloseCode::Violation.close(&connection, "unknown application protocol"),
        }
        Ok(())
    }
}

fn links(
    config: &TransportConfig,
    inbox: &Arc<InboxShared>,
    counters: &Arc<Counters>,
) -> Result<Vec<Option<Arc<Link>>>, TransportError> {
    let mut links: Vec<Option<Arc<Link>>> = vec![None; usize::from(REPLICAS_MAX) + 1];
    let in_range = |replica: ReplicaId| (1..=REPLICAS_MAX).contains(&replica.0);
    if !in_range(config.replica) {
        return Err(TransportError::ReplicaIds(config.replica));
    }
    for (peer, _) in &config.peers {
        let at = usize::from(peer.0);
        if !in_range(*peer) || *peer == config.replica || links[at].is_some() {
            return Err(TransportError::ReplicaIds(*peer));
        }
        let link = Link::new(
            *peer,
            Arc::clone(inbox),
            Arc::clone(counters),
            config.limits.clone(),
        );
        links[at] = Some(Arc::new(link));
    }
    Ok(links)
}
