//! The UDP socket under QUIC: large kernel buffers, and segment trains that the kernel accepts.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// What the kernel may hold in each direction. The default of 208 KiB drops packets at full rate.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The longest UDP payload over IPv4, and so the longest train that one `sendmsg` takes.
const UDP_PAYLOAD_BYTES_MAX: usize = 65_507;

/// Caps how many packets quinn joins into one train. Quinn builds trains of 10 whatever their size; beyond
/// 65,507 bytes the kernel answers EMSGSIZE, which quinn-udp swallows as if the packets were lost: above an MTU of
/// 6,550 throughput collapses.
#[derive(Debug)]
pub struct TrainSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    mtu_max: usize,
}

impl TrainSocket {
    pub fn bind(listen: SocketAddr, mtu_max: u16) -> io::Result<TrainSocket> {
        let socket = Socket::new(
            Domain::for_address(listen),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        note_small_buffers(&socket)?;
        socket.bind(&SockAddr::from(listen))?;
        Ok(TrainSocket {
            inner: TokioRuntime.wrap_udp_socket(socket.into())?,
            mtu_max: usize::from(mtu_max),
        })
    }
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
        self.inner.try_send(transmit)
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
        let train = (UDP_PAYLOAD_BYTES_MAX / self.mtu_max).max(1);
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
    use super::*;

    #[tokio::test]
    async fn trains_fit_one_datagram_of_the_kernel_at_every_mtu() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        for mtu_max in [1_200, 1_452, 6_551, 8_952, 16_000, 65_000] {
            let socket = TrainSocket::bind(listen, mtu_max).expect("a free port");
            let segments = socket.max_transmit_segments();
            assert!(segments >= 1);
            assert!(segments == 1 || segments * usize::from(mtu_max) <= UDP_PAYLOAD_BYTES_MAX);
            // What the kernel may hand over at once fits the buffer that quinn provides for it.
            let buffer = socket.max_receive_segments() * usize::from(mtu_max);
            assert!(socket.max_receive_segments() == 1 || buffer >= UDP_PAYLOAD_BYTES_MAX);
        }
    }
}
