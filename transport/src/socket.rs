//! The UDP socket under QUIC: large kernel buffers, and segment trains that the kernel accepts.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::trains::{TRAIN_BYTES_MAX, Trains, packets_of};

/// What the kernel may hold in each direction. The default of 208 KiB drops packets at full rate.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Caps how many packets quinn joins into one train. Quinn builds trains of 10 whatever their size; beyond
/// 65,507 bytes the kernel answers EMSGSIZE, which quinn-udp swallows as if the packets were lost: above an MTU of
/// 6,550 throughput collapses.
#[derive(Debug)]
pub struct TrainSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    mtu_max: usize,
    trains: Trains,
}

impl TrainSocket {
    pub fn bind(listen: SocketAddr, mtu_max: u16) -> io::Result<TrainSocket> {
        let socket = open(listen)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        // Beyond the limits of the system, where this process may (CAP_NET_ADMIN); elsewhere they stay.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER_BYTES);
        note_small_buffers(&socket)?;
        socket.bind(&SockAddr::from(listen))?;
        Ok(TrainSocket {
            inner: TokioRuntime.wrap_udp_socket(socket.into())?,
            mtu_max: usize::from(mtu_max),
            trains: Trains::default(),
        })
    }
}

/// Whatever net.ipv6.bindv6only says: `[::]` is for both families.
fn open(listen: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(listen);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(!listen.ip().is_unspecified())?;
    }
    Ok(socket)
}

/// Linux reports twice what it grants for payload, and caps silently at `net.core.rmem_max` and `wmem_max`.
fn note_small_buffers(socket: &Socket) -> io::Result<()> {
    let received = socket.recv_buffer_size()? / 2;
    let sent = socket.send_buffer_size()? / 2;
    if received.min(sent) < SOCKET_BUFFER_BYTES {
        tracing::info!(
            "the kernel grants UDP buffers of {received} bytes in and {sent} bytes out instead of \
             {SOCKET_BUFFER_BYTES}: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(())
}

impl AsyncUdpSocket for TrainSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let Some(size) = transmit.segment_size else {
            self.trains.note(transmit.contents.len());
            return self.inner.try_send(transmit);
        };
        self.trains.note(size);
        if transmit.contents.len() <= TRAIN_BYTES_MAX {
            return self.inner.try_send(transmit);
        }
        self.trains.was_too_long(size);
        // If the socket has no room in the middle, quinn sends all of it again; QUIC takes no packet twice.
        for contents in transmit.contents.chunks(packets_of(size) * size) {
            self.inner.try_send(&Transmit {
                contents,
                segment_size: (contents.len() > size).then_some(size),
                ..*transmit
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let train = self.trains.packets_max();
        self.inner.max_transmit_segments().min(train)
    }

    /// A received train is at most 64 KiB long in all. Quinn provides this times the longest packet for each of
    /// 32 receive slots, which without the cap would be 64 × the longest packet.
    fn max_receive_segments(&self) -> usize {
        let train = (usize::from(u16::MAX) + 1).div_ceil(self.mtu_max);
        self.inner.max_receive_segments().min(train)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_on_all_addresses_of_ipv6_is_for_both_families() {
        let only_v6 = |listen: &str| {
            let listen = listen.parse().expect("an address");
            open(listen).and_then(|socket| socket.only_v6())
        };
        match only_v6("[::]:0") {
            Ok(only) => assert!(!only),
            Err(error) => return eprintln!("skipped, there is no IPv6 here: {error}"),
        }
        assert!(only_v6("[::1]:0").expect("there is IPv6"));
    }

    const SEGMENT: usize = 8_952;

    fn train<'a>(to: SocketAddr, contents: &'a [u8], segment: usize) -> Transmit<'a> {
        Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: Some(segment),
            src_ip: None,
        }
    }

    /// As quinn does: once the runtime knows that the socket has room.
    async fn send(socket: &Arc<TrainSocket>, transmit: &Transmit<'_>) {
        loop {
            let mut poller = Arc::clone(socket).create_io_poller();
            std::future::poll_fn(|context| poller.as_mut().poll_writable(context))
                .await
                .expect("a socket");
            match socket.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent.expect("it is sent"),
            }
        }
    }

    #[tokio::test]
    async fn trains_of_small_packets_are_long_whatever_discovery_may_reach() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let to = receiver.local_addr().expect("bound");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        for mtu_max in [1_452, 8_952, 65_000] {
            let socket = Arc::new(TrainSocket::bind(listen, mtu_max).expect("a free port"));
            let contents = [0; 2 * 1_452];
            for _ in 0..1_024 {
                send(&socket, &train(to, &contents, 1_452)).await;
            }
            let segments = socket.max_transmit_segments();
            assert!((44..=45).contains(&segments), "{segments} at {mtu_max}");
            // What the kernel may hand over at once fits the buffer that quinn provides for it.
            let buffer = socket.max_receive_segments() * usize::from(mtu_max);
            assert!(socket.max_receive_segments() == 1 || buffer >= TRAIN_BYTES_MAX);
        }
    }

    #[tokio::test]
    async fn a_train_that_the_kernel_would_refuse_arrives_in_parts() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let wait = Some(Duration::from_secs(10));
        receiver.set_read_timeout(wait).expect("a timeout");
        let to = receiver.local_addr().expect("bound");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = Arc::new(TrainSocket::bind(listen, 65_000).expect("a free port"));
        // As long as quinn makes them; the last packet is a shorter one.
        let contents: Vec<u8> = (0..9 * SEGMENT + 100).map(|at| at as u8).collect();
        send(&socket, &train(to, &contents, SEGMENT)).await;
        let mut arrived = Vec::new();
        let mut packet = vec![0; 65_536];
        while arrived.len() < contents.len() {
            let length = receiver.recv(&mut packet).expect("every packet arrives");
            arrived.extend_from_slice(&packet[..length]);
        }
        assert_eq!(arrived, contents);
        assert_eq!(socket.max_transmit_segments(), 7, "no more such trains");
    }
}
