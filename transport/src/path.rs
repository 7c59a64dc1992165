//! What the route to an address carries in one packet, as the kernel knows it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::{MTU_MAX_DEFAULT, MTU_MIN};

/// Header bytes of IP without options, and of UDP.
const HEADER_BYTES_V4: u32 = 20 + 8;
const HEADER_BYTES_V6: u32 = 40 + 8;
/// The loopback interface has an MTU of 65,536: with headers, that is more than IP can name.
const MTU_MAX: u32 = 65_000;

/// The largest UDP payload that the widest of the routes to `addresses` carries, or the default where there is no route
/// at the moment. It is an upper end for discovery: what lies behind the first hop is found out by that.
pub fn mtu_of_paths(addresses: impl IntoIterator<Item = SocketAddr>) -> u16 {
    let each = addresses.into_iter().filter_map(|to| mtu_of_path(to).ok());
    each.max().unwrap_or(MTU_MAX_DEFAULT)
}

fn mtu_of_path(to: SocketAddr) -> io::Result<u16> {
    let unspecified = io::Error::from(io::ErrorKind::AddrNotAvailable);
    if to.ip().is_unspecified() {
        return Err(unspecified);
    }
    // Connecting a UDP socket sends nothing; it looks the route up.
    let (mtu, headers) = match to {
        SocketAddr::V4(_) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(to)?;
            (rustix::net::sockopt::ip_mtu(&socket)?, HEADER_BYTES_V4)
        }
        SocketAddr::V6(_) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.connect(to)?;
            (rustix::net::sockopt::ipv6_mtu(&socket)?, HEADER_BYTES_V6)
        }
    };
    let payload = mtu.saturating_sub(headers).min(MTU_MAX);
    Ok((payload as u16).max(MTU_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_says_what_it_carries() {
        let said = std::fs::read_to_string("/sys/class/net/lo/mtu").expect("Linux says so");
        let mtu: u32 = said.trim().parse().expect("a number");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 9));
        let expected = (mtu - HEADER_BYTES_V4).min(MTU_MAX) as u16;
        assert_eq!(mtu_of_paths([loopback]), expected);
        // Where there is no route, nothing is known, and that is no error.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 9));
        assert_eq!(mtu_of_paths([nowhere]), MTU_MAX_DEFAULT);
        assert_eq!(mtu_of_paths([nowhere, loopback]), expected);
    }
}
