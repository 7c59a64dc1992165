//! Packets that the kernel dropped because a socket's buffer was full, as `/proc/net/udp` counts them.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Reading the table costs more the more sockets the machine has.
const LOOK_AFTER: Duration = Duration::from_secs(1);

pub struct Drops {
    port: u16,
    table: &'static str,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Drops {
    pub fn of(socket: SocketAddr) -> Drops {
        Drops {
            port: socket.port(),
            table: match socket {
                SocketAddr::V4(_) => "/proc/net/udp",
                SocketAddr::V6(_) => "/proc/net/udp6",
            },
            last: Mutex::default(),
        }
    }

    /// As many as there were a second ago or later; 0 where the kernel does not say.
    pub fn count(&self) -> u64 {
        let mut last = self.last.lock().expect("no holder of the count panics");
        match *last {
            Some((at, count)) if at.elapsed() < LOOK_AFTER => count,
            Some(_) | None => {
                let table = std::fs::read_to_string(self.table).unwrap_or_default();
                let count = dropped(&table, self.port);
                *last = Some((Instant::now(), count));
                count
            }
        }
    }
}

/// ```text
///   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
///  512: 0100007F:1B59 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
/// ```
fn dropped(table: &str, port: u16) -> u64 {
    let local = format!(":{port:04X}");
    let lines = table.lines().filter(|line| {
        let address = line.split_whitespace().nth(1);
        address.is_some_and(|address| address.ends_with(&local))
    });
    let each = lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    each.sum()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_a_full_socket_drops_is_counted() {
        let full = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = full.local_addr().expect("bound");
        let drops = Drops::of(to);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for _ in 0..20_000 {
            sender.send_to(&[0; 1_000], to).expect("sent");
        }
        assert!(drops.count() > 0, "nobody reads this socket");
    }

    #[test]
    fn the_line_of_the_port_is_read_and_no_other() {
        let table = "  sl  local_address rem_address   st\n \
            512: 0100007F:1B59 00000000:0000 07 0:0 00:0 0 0 0 4711 2 0 17\n \
            513: 0100007F:1B5A 00000000:1B59 07 0:0 00:0 0 0 0 4712 2 0 5\n";
        assert_eq!(dropped(table, 0x1b59), 17);
        assert_eq!(dropped(table, 0x1b5b), 0);
        assert_eq!(dropped("", 1), 0);
    }
}
