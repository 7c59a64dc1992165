//! The sockets of a client: one for each address family in use, not one for each replica.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::Endpoint;

use super::ClientConfig;
use crate::TransportError;
use crate::endpoint;
use crate::lookup::Family;

#[derive(Clone)]
pub enum Endpoints {
    One(Endpoint, Family),
    Both { v4: Endpoint, v6: Endpoint },
}

impl Endpoints {
    pub fn bind(config: &ClientConfig) -> Result<Endpoints, TransportError> {
        let bind = |any| endpoint::bind(any, &config.identity, config.mtu_max, false);
        let v4 = || bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let v6 = || bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let sockets = config.replicas.iter().map(|(_, address)| address.socket());
        let (mut old, mut new, mut named) = (false, false, false);
        for socket in sockets {
            old |= socket.is_some_and(|socket| socket.is_ipv4());
            new |= socket.is_some_and(|socket| socket.is_ipv6());
            named |= socket.is_none();
        }
        Ok(match (old, new) {
            (true, true) => Endpoints::Both {
                v4: v4()?,
                v6: v6()?,
            },
            (true, false) if !named => Endpoints::One(v4()?, Family::V4),
            (false, true) if !named => Endpoints::One(v6()?, Family::V6),
            // Behind a name may be either; a machine without one of them is no reason to fail.
            _ => match (v4(), v6()) {
                (Ok(v4), Ok(v6)) => Endpoints::Both { v4, v6 },
                (Ok(v4), Err(_)) if !new => Endpoints::One(v4, Family::V4),
                (Err(_), Ok(v6)) if !old => Endpoints::One(v6, Family::V6),
                (Err(error), _) | (_, Err(error)) => return Err(error),
            },
        })
    }

    pub fn family(&self) -> Family {
        match self {
            Endpoints::One(_, family) => *family,
            Endpoints::Both { .. } => Family::Both,
        }
    }

    /// For an address of a family that is in use.
    pub fn of(&self, address: SocketAddr) -> &Endpoint {
        match self {
            Endpoints::One(endpoint, _) => endpoint,
            Endpoints::Both { v4, .. } if address.is_ipv4() => v4,
            Endpoints::Both { v6, .. } => v6,
        }
    }

    pub fn all(&self) -> Vec<Endpoint> {
        match self {
            Endpoints::One(endpoint, _) => vec![endpoint.clone()],
            Endpoints::Both { v4, v6 } => vec![v4.clone(), v6.clone()],
        }
    }
}
