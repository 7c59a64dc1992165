//! What a stranger sends: first packets of QUIC connections that never go on. For tests and for `synod chaos`, which
//! show that nobody is locked out by them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Suite, Version};

use crate::tls;

/// QUIC demands as much of a first packet, so that an answer is not longer than the question.
const PACKET_BYTES: usize = 1_200;
/// Of the packet number, which the header names as its length less one.
const NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
const SAMPLE_BYTES: usize = 16;
const ID_BYTES: usize = 8;
/// The transport parameter that repeats the source connection id; a server insists on it.
const INITIAL_SOURCE_CONNECTION_ID: u8 = 0x0f;
const FRAME_CRYPTO: u8 = 0x06;

/// Writes first packets that a server has to take seriously: each is of a connection of its own, and holds the same
/// well-formed ClientHello.
pub struct FirstPackets {
    suite: Suite,
    hello: Vec<u8>,
    written: u64,
    salt: u32,
}

impl FirstPackets {
    /// Those of different salts are of different connections.
    ///
    /// # Panics
    /// If the TLS library no longer has what every QUIC client needs.
    pub fn new(salt: u32) -> FirstPackets {
        let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![tls::ALPN_CLIENT.to_vec()];
        let name = ServerName::try_from("stranger.invalid").expect("a name");
        let mut parameters = vec![INITIAL_SOURCE_CONNECTION_ID, ID_BYTES as u8];
        parameters.extend([0; ID_BYTES]);
        let mut client =
            ClientConnection::new(Arc::new(config), Version::V1, name, parameters).expect("TLS");
        let mut hello = Vec::new();
        client.write_hs(&mut hello);
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("of TLS 1.3");
        FirstPackets {
            suite: suite.quic_suite().expect("QUIC's own suite"),
            hello,
            written: 0,
            salt,
        }
    }

    /// The next one.
    ///
    /// ```text
    /// 0xc3 | version u32 | 8 | destination id | 8 | source id | 0 (no token) | length u16 | number u32 | payload | tag
    /// ```
    pub fn write(&mut self) -> Vec<u8> {
        self.written += 1;
        let id = (u64::from(self.salt) << 32 | self.written & 0xffff_ffff).to_be_bytes();
        let mut packet = vec![0xc0 | (NUMBER_BYTES as u8 - 1), 0, 0, 0, 1, ID_BYTES as u8];
        packet.extend(id);
        packet.push(ID_BYTES as u8);
        packet.extend([0; ID_BYTES]);
        packet.push(0);
        let rest = PACKET_BYTES - packet.len() - 2;
        packet.extend((0x4000 | rest as u16).to_be_bytes());
        let number_at = packet.len();
        packet.extend([0; NUMBER_BYTES]);
        let header = packet.clone();

        packet.extend([FRAME_CRYPTO, 0]);
        packet.extend((0x4000 | self.hello.len() as u16).to_be_bytes());
        packet.extend(&self.hello);
        assert!(
            packet.len() + TAG_BYTES <= PACKET_BYTES,
            "the ClientHello does not fit one packet"
        );
        // Zeros are padding.
        packet.resize(PACKET_BYTES - TAG_BYTES, 0);

        let keys = self.suite.keys(&id, Side::Client, Version::V1);
        let payload = &mut packet[header.len()..];
        let sealed = keys.local.packet.encrypt_in_place(0, &header, payload);
        packet.extend(sealed.expect("a short packet can be sealed").as_ref());

        let (head, sample) = packet.split_at_mut(number_at + NUMBER_BYTES);
        let (first, number) = head.split_at_mut(number_at);
        keys.local
            .header
            .encrypt_in_place(&sample[..SAMPLE_BYTES], &mut first[0], number)
            .expect("the sample has its length");
        packet
    }
}

/// Sends first packets from many ports at a steady rate. Answers are counted, never followed.
pub struct Flood {
    packets: FirstPackets,
    sockets: Vec<UdpSocket>,
    to: SocketAddr,
    pub sent: u64,
    /// Datagrams that came back.
    pub answered: u64,
}

impl Flood {
    /// Binds `ports` sockets of the same address family as `to`.
    pub fn new(to: SocketAddr, ports: usize, salt: u32) -> std::io::Result<Flood> {
        let any = match to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let sockets = (0..ports).map(|_| {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Ok(Flood {
            packets: FirstPackets::new(salt),
            sockets: sockets.collect::<std::io::Result<_>>()?,
            to,
            sent: 0,
            answered: 0,
        })
    }

    /// One packet, from the next port. What the kernel does not take is lost, as on any network.
    pub fn send(&mut self) {
        let socket = &self.sockets[self.sent as usize % self.sockets.len()];
        while socket.recv(&mut [0; 64]).is_ok() {
            self.answered += 1;
        }
        let _ = socket.send_to(&self.packets.write(), self.to);
        self.sent += 1;
    }

    /// Sends `per_s` packets a second for as long as `going` says so. What it could not send in time, because the machine
    /// was busy, it leaves out instead of sending it in one burst.
    pub fn run(&mut self, per_s: u32, mut going: impl FnMut() -> bool) {
        const STEP: Duration = Duration::from_millis(2);
        let mut owed = 0.0;
        let mut last = Instant::now();
        while going() {
            std::thread::sleep(STEP);
            let elapsed = last.elapsed();
            last += elapsed;
            owed += elapsed.min(5 * STEP).as_secs_f64() * f64::from(per_s);
            while owed >= 1.0 {
                self.send();
                owed -= 1.0;
            }
        }
    }
}
