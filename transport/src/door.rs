//! Who may begin a handshake: places of their own for peers and for strangers, so that neither first packets that never
//! go on, nor clients, however many, keep a peer out.
//!
//! Before TLS nothing is known of a caller but its address, and that may be forged. So a caller whose address is unproven
//! gets one of a few places; once they are taken, it is asked to prove its address (QUIC's Retry), which costs this side no
//! memory. Who proved it gets one of the remaining places, or no answer at all: it asks again by itself. A place is held
//! until the Hello is over, which ends within a bounded time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use synod_engine::ids::ReplicaId;

use crate::limits::Limits;

/// Peers that come from an address which nobody knew, and clients that are to hear why they are turned away, still get in
/// one after the other while the gateway is full.
const PLACES_WHILE_FULL: usize = 2;

pub struct Door {
    state: Mutex<State>,
    limits: Limits,
}

#[derive(Default)]
struct State {
    /// Where peers that dial this replica were seen last, or should be.
    peers: HashMap<ReplicaId, [Option<SocketAddr>; 2]>,
    known: Taken,
    strangers: Taken,
}

/// Places that half-done handshakes hold.
#[derive(Default)]
struct Taken {
    all: usize,
    /// By network: nobody can take more than half of the places, except where all peers are.
    of_network: HashMap<IpAddr, usize>,
}

/// The two kinds of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// It comes from where a peer is expected.
    Known,
    Stranger,
}

/// A caller before TLS.
#[derive(Clone, Copy, Debug)]
pub struct Knock {
    pub address: SocketAddr,
    /// It has shown that it receives what is sent to its address.
    pub proven: bool,
    /// The gateway has no place for another client.
    pub gateway_full: bool,
}

pub enum Verdict {
    Enter(Place),
    /// It has to prove its address first.
    Prove,
    /// It hears that there is no place.
    Refuse,
    /// It hears nothing.
    Ignore,
}

/// Of one half-done handshake; free again when it is dropped.
pub struct Place {
    door: Arc<Door>,
    caller: Caller,
    network: IpAddr,
}

impl Door {
    /// `peers` are those that dial this replica.
    pub fn new(
        limits: Limits,
        peers: impl Iterator<Item = (ReplicaId, Option<SocketAddr>)>,
    ) -> Door {
        let peers = peers.map(|(peer, address)| (peer, [address, None]));
        let state = State {
            peers: peers.collect(),
            ..State::default()
        };
        Door {
            state: Mutex::new(state),
            limits,
        }
    }

    pub fn knock(self: &Arc<Door>, knock: Knock) -> Verdict {
        let mut state = self.lock();
        let caller = state.caller(knock.address);
        let network = network(knock.address.ip());
        let taken = state.taken(caller);
        let places = match caller {
            Caller::Known => self.limits.peer_handshakes_max,
            Caller::Stranger if knock.gateway_full => {
                PLACES_WHILE_FULL.min(self.limits.stranger_handshakes_max)
            }
            Caller::Stranger => self.limits.stranger_handshakes_max,
        };
        if !knock.proven && taken.all >= places.div_ceil(4) {
            return match (caller, knock.gateway_full) {
                (Caller::Stranger, true) => Verdict::Refuse,
                _ => Verdict::Prove,
            };
        }
        let of_network = taken.of_network.get(&network).copied().unwrap_or(0);
        // Several peers may well be in one network.
        let crowded = caller == Caller::Stranger && of_network >= places.div_ceil(2);
        if taken.all >= places || crowded {
            return match caller {
                Caller::Stranger if knock.gateway_full => Verdict::Refuse,
                _ => Verdict::Ignore,
            };
        }
        taken.all += 1;
        *taken.of_network.entry(network).or_default() += 1;
        drop(state);
        Verdict::Enter(Place {
            door: Arc::clone(self),
            caller,
            network,
        })
    }

    /// Whether peers come from there.
    pub fn knows(&self, address: SocketAddr) -> bool {
        self.lock().caller(address) == Caller::Known
    }

    /// `peer` has shown by its certificate that it is the one who comes from `address`.
    pub fn met(&self, peer: ReplicaId, address: SocketAddr) {
        if let Some(known) = self.lock().peers.get_mut(&peer) {
            known[1] = Some(address);
        }
    }

    /// `peer` should come from `address`: that is what its name says now.
    pub fn expect(&self, peer: ReplicaId, address: SocketAddr) {
        if let Some(known) = self.lock().peers.get_mut(&peer) {
            known[0] = Some(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the door panics")
    }
}

impl State {
    fn caller(&self, address: SocketAddr) -> Caller {
        let mut known = self.peers.values().flatten().flatten();
        match known.any(|known| same(*known, address)) {
            true => Caller::Known,
            false => Caller::Stranger,
        }
    }

    fn taken(&mut self, caller: Caller) -> &mut Taken {
        match caller {
            Caller::Known => &mut self.known,
            Caller::Stranger => &mut self.strangers,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        let taken = state.taken(self.caller);
        taken.all -= 1;
        let of_network = taken.of_network.get_mut(&self.network);
        let of_network = of_network.expect("it was counted when it was taken");
        *of_network -= 1;
        if *of_network == 0 {
            taken.of_network.remove(&self.network);
        }
    }
}

/// A socket of both families shows IPv4 addresses as mapped ones.
fn same(one: SocketAddr, two: SocketAddr) -> bool {
    one.port() == two.port() && one.ip().to_canonical() == two.ip().to_canonical()
}

/// What one party may hold as much of as it likes: an address of IPv4, a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1:7001";

    fn door() -> Arc<Door> {
        let limits = Limits {
            peer_handshakes_max: 8,
            stranger_handshakes_max: 16,
            ..Limits::default()
        };
        let peer = (ReplicaId(1), Some(PEER.parse().expect("an address")));
        Arc::new(Door::new(limits, [peer].into_iter()))
    }

    fn knock(address: &str, proven: bool, gateway_full: bool) -> Knock {
        Knock {
            address: address.parse().expect("an address"),
            proven,
            gateway_full,
        }
    }

    fn enter(door: &Arc<Door>, knock: Knock) -> Option<Place> {
        match door.knock(knock) {
            Verdict::Enter(place) => Some(place),
            Verdict::Prove | Verdict::Refuse | Verdict::Ignore => None,
        }
    }

    #[test]
    fn the_unproven_get_a_quarter_and_then_have_to_prove_their_address() {
        let door = door();
        let from = |n: usize| knock(&format!("192.0.2.{n}:9"), false, false);
        let mut places: Vec<_> = (0..4)
            .map(|n| enter(&door, from(n)).expect("free"))
            .collect();
        assert!(matches!(door.knock(from(5)), Verdict::Prove));
        // Who proved it finds the rest free.
        for n in 4..16 {
            let proven = knock(&format!("192.0.2.{n}:9"), true, false);
            places.push(enter(&door, proven).expect("free"));
        }
        let late = knock("192.0.2.99:9", true, false);
        assert!(matches!(door.knock(late), Verdict::Ignore));
        places.pop();
        assert!(enter(&door, late).is_some(), "a place that became free");
    }

    #[test]
    fn a_peer_finds_its_place_however_many_strangers_and_forgers_there_are() {
        let door = door();
        let strangers: Vec<_> = (0..64)
            .filter_map(|n| enter(&door, knock(&format!("192.0.2.{n}:9"), true, false)))
            .collect();
        assert_eq!(strangers.len(), 16);
        // Packets that carry the peer's address and that nobody answers for.
        let forged: Vec<_> = (0..64)
            .filter_map(|_| enter(&door, knock(PEER, false, true)))
            .collect();
        assert_eq!(forged.len(), 2);
        assert!(matches!(
            door.knock(knock(PEER, false, true)),
            Verdict::Prove
        ));
        assert!(enter(&door, knock(PEER, true, true)).is_some());
    }

    #[test]
    fn one_network_holds_half_of_the_places() {
        let door = door();
        let held: Vec<_> = (0..64)
            .filter_map(|n| enter(&door, knock(&format!("[2001:db8::{n:x}]:9"), true, false)))
            .collect();
        assert_eq!(held.len(), 8);
        assert!(enter(&door, knock("[2001:db8:1::1]:9", true, false)).is_some());
    }

    #[test]
    fn while_the_gateway_is_full_strangers_hear_so_and_a_moved_peer_gets_in() {
        let door = door();
        let full = |n: usize| knock(&format!("192.0.2.{n}:9"), true, true);
        let first = enter(&door, full(1)).expect("one after the other");
        assert!(matches!(door.knock(full(1)), Verdict::Refuse));
        let _second = enter(&door, full(2)).expect("of another network");
        assert!(matches!(door.knock(full(3)), Verdict::Refuse));
        drop(first);
        assert!(enter(&door, full(3)).is_some());
        // Whom a certificate made known is no stranger any more.
        let moved = knock("192.0.2.7:9", true, true);
        let _third = enter(&door, full(4)).expect("free");
        assert!(matches!(door.knock(moved), Verdict::Refuse));
        door.met(ReplicaId(1), moved.address);
        assert!(enter(&door, moved).is_some());
    }
}
