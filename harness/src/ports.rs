//! Ports for the processes of a run.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::certs::random_u64;

/// Below the ports that Linux gives to outgoing connections: a process that dials must not take another's port before
/// that one is there.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
const TRIES_MAX: usize = 10_000;

/// Ports on 127.0.0.1 that are free for UDP and for TCP. All are held at once, so that none is given twice.
pub fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..TRIES_MAX {
        if held.len() == count {
            break;
        }
        let port = PORTS.start + (random_u64()? % PORTS.len() as u64) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if let (Ok(udp), Ok(tcp)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            held.push((port, udp, tcp));
        }
    }
    anyhow::ensure!(
        held.len() == count,
        "no {count} free ports on 127.0.0.1 from {} to {}",
        PORTS.start,
        PORTS.end
    );
    Ok(held.iter().map(|(port, _, _)| *port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_can_be_bound() {
        let ports = free(12).expect("there are thousands");
        let mut different = ports.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 12);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
