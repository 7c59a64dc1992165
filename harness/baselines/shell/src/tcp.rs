//! Plaintext TCP between the peers: the best case for a baseline, without encryption.
//!
//! Each replica dials every other one and writes on the connection it dialled, reads on those it accepted. A frame is
//! `length u32 | content`, as over QUIC. Whoever can reach the port is believed: for comparisons on loopback only.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_engine::seams::{Frame, Lane};
use synod_transport::{InboxShared, Limits};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

const PREFIX_BYTES: usize = 4;
/// Cluster and replica: what a connection begins with.
const HELLO_BYTES: usize = 17;
/// Room for each read: a few turns' worth of a busy peer.
const READ_BYTES: usize = 256 << 10;
/// A read with less room than this would be cut short too often.
const READ_BYTES_MIN: usize = 16 << 10;
/// Parts that one system call writes at most; more than any turn produces.
const SLICES_MAX: usize = 64;
const REDIAL: Duration = Duration::from_millis(20);
/// Connections that were accepted and did not end yet.
const ACCEPTED_MAX: usize = 64;

/// The links to all peers. Dropping it ends them.
pub struct TcpMesh {
    /// Indexed by replica id.
    links: Vec<Option<Arc<Link>>>,
    dirty: Vec<Arc<Link>>,
    tasks: Vec<AbortHandle>,
    counters: Arc<Counters>,
}

pub struct TcpConfig {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    /// The same number as the UDP port of the clients.
    pub listen: SocketAddr,
    pub peers: Vec<(ReplicaId, SocketAddr)>,
    pub limits: Limits,
}

#[derive(Default)]
struct Counters {
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    dropped_frames: AtomicU64,
    connects: AtomicU64,
}

struct Link {
    queue: Mutex<Queue>,
    /// The socket is full, or broke: the link's task takes over.
    blocked: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    stream: Option<Arc<TcpStream>>,
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl TcpMesh {
    /// Binds the port and starts the links as tasks of the current runtime.
    pub fn start(config: TcpConfig, inbox: &Arc<InboxShared>) -> anyhow::Result<TcpMesh> {
        let listener = std::net::TcpListener::bind(config.listen)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            })
            .map_err(|error| anyhow::anyhow!("cannot listen on TCP {}: {error}", config.listen))?;
        let counters = Arc::new(Counters::default());
        let accepting = accept(
            listener,
            config.cluster,
            config.limits.clone(),
            Arc::clone(inbox),
        );
        let mut tasks = vec![tokio::spawn(accepting).abort_handle()];
        let mut links = Vec::new();
        links.resize_with(usize::from(synod_engine::ids::REPLICAS_MAX) + 1, || None);
        for (peer, address) in &config.peers {
            let link = Arc::new(Link {
                queue: Mutex::default(),
                blocked: Notify::new(),
                bytes_max: config.limits.data_queue_bytes_max,
            });
            links[usize::from(peer.0)] = Some(Arc::clone(&link));
            let hello = hello(config.cluster, config.replica);
            let dialling = keep_dialling(link, *address, hello, Arc::clone(&counters));
            tasks.push(tokio::spawn(dialling).abort_handle());
        }
        Ok(TcpMesh {
            links,
            dirty: Vec::new(),
            tasks,
            counters,
        })
    }

    /// Queues a frame, or drops and counts it.
    pub fn send(&mut self, to: ReplicaId, frame: Frame) {
        let link = self.links[usize::from(to.0)].as_ref();
        let link = link.expect("frames go to peers");
        let bytes = frame.len();
        let mut queue = link.lock();
        if queue.stream.is_none() || queue.bytes + bytes > link.bytes_max {
            add(&self.counters.dropped_frames, 1);
            return;
        }
        if queue.bytes == 0 {
            self.dirty.push(Arc::clone(link));
        }
        queue.bytes += bytes;
        queue.parts.push_back(frame.head);
        if !frame.body.is_empty() {
            queue.parts.push_back(frame.body);
        }
        add(&self.counters.sent_frames, 1);
        add(&self.counters.sent_bytes, bytes as u64);
    }

    /// Writes what was queued, right here as far as the sockets take it: no task has to wake up for it.
    pub fn flush(&mut self) {
        for link in self.dirty.drain(..) {
            let written = link.lock().write();
            if !matches!(written, Ok(true)) {
                link.blocked.notify_one();
            }
        }
    }

    pub fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counters = &self.counters;
        for (name, counter) in [
            ("tcp_sent_frames", &counters.sent_frames),
            ("tcp_sent_bytes", &counters.sent_bytes),
            ("tcp_dropped_frames", &counters.dropped_frames),
            ("tcp_connects", &counters.connects),
        ] {
            report(name, counter.load(Ordering::Relaxed));
        }
    }
}

impl Drop for TcpMesh {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of a link panics")
    }

    /// Carries the link over one connection until that breaks.
    async fn run(&self, stream: TcpStream, hello: Bytes) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        {
            let mut queue = self.lock();
            queue.bytes = hello.len();
            queue.parts = VecDeque::from([hello]);
            queue.stream = Some(Arc::clone(&stream));
        }
        let ended = loop {
            let written = self.lock().write();
            match written {
                Ok(true) => {}
                Ok(false) => {
                    stream.writable().await?;
                    continue;
                }
                Err(error) => break Err(error),
            }
            tokio::select! {
                () = self.blocked.notified() => {}
                ended = until_closed(&stream) => break ended,
            }
        };
        *self.lock() = Queue::default();
        ended
    }
}

impl Queue {
    /// Returns whether everything is written; if not, the socket is full.
    fn write(&mut self) -> io::Result<bool> {
        while self.bytes > 0 {
            let Some(stream) = &self.stream else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.parts.len().min(SLICES_MAX);
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(part);
            }
            match stream.try_write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(part) = self.parts.front_mut() {
            if part.len() > written {
                part.advance(written);
                return;
            }
            written -= part.len();
            self.parts.pop_front();
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Peers never write on a connection that they accepted, so anything readable is its end.
async fn until_closed(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match stream.try_read(&mut [0; 1]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn hello(cluster: ClusterId, replica: ReplicaId) -> Bytes {
    let mut hello = BytesMut::with_capacity(HELLO_BYTES);
    hello.put_u128_le(cluster.0);
    hello.put_u8(replica.0);
    hello.freeze()
}

async fn keep_dialling(
    link: Arc<Link>,
    address: SocketAddr,
    hello: Bytes,
    counters: Arc<Counters>,
) {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            add(&counters.connects, 1);
            if let Err(error) = link.run(stream, hello.clone()).await {
                tracing::debug!("the link to {address} broke: {error}");
            }
            *link.lock() = Queue::default();
        }
        tokio::time::sleep(REDIAL).await;
    }
}

async fn accept(
    listener: TcpListener,
    cluster: ClusterId,
    limits: Limits,
    inbox: Arc<InboxShared>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            // Out of descriptors, for example: others end.
            tokio::time::sleep(REDIAL).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= ACCEPTED_MAX {
            continue;
        }
        let (inbox, frame_bytes_max) = (Arc::clone(&inbox), limits.frame_bytes_max);
        connections.spawn(async move {
            if let Err(error) = read(stream, cluster, frame_bytes_max, &inbox).await {
                tracing::debug!("the connection from {address} ended: {error}");
            }
        });
    }
}

async fn read(
    mut stream: TcpStream,
    cluster: ClusterId,
    frame_bytes_max: usize,
    inbox: &InboxShared,
) -> io::Result<()> {
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let mut hello = &hello[..];
    let (theirs, from) = (hello.get_u128_le(), ReplicaId(hello.get_u8()));
    if theirs != cluster.0 {
        return Err(io::Error::other("another cluster"));
    }
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    loop {
        // Not reading is what holds the peer back.
        inbox.room_for(Lane::Data).await;
        // What was cut off keeps its block alive: a new block for each small read would be mostly empty memory.
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = cut(&mut buffer, frame_bytes_max)? {
            frames.push(frame);
        }
        if !frames.is_empty() {
            inbox.push_peer(from, Lane::Data, &mut frames);
        }
    }
}

/// The next whole frame at the front of `buffer`, without its prefix.
fn cut(buffer: &mut BytesMut, frame_bytes_max: usize) -> io::Result<Option<Bytes>> {
    let Some((prefix, rest)) = buffer.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length == 0 || length > frame_bytes_max {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    if rest.len() < length {
        buffer.reserve(PREFIX_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_stream_was_split() {
        let mut stream = Vec::new();
        for length in [1usize, 5, 300, 2] {
            stream.extend((length as u32).to_le_bytes());
            stream.extend(vec![length as u8; length]);
        }
        for step in 1..40 {
            let (mut buffer, mut lengths) = (BytesMut::new(), Vec::new());
            for part in stream.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = cut(&mut buffer, 300).expect("within the limit") {
                    assert!(frame.iter().all(|byte| *byte == frame.len() as u8));
                    lengths.push(frame.len());
                }
            }
            assert_eq!(lengths, [1, 5, 300, 2], "in steps of {step}");
        }
        assert!(cut(&mut BytesMut::from(&stream[..]), 4).is_ok());
        assert!(cut(&mut BytesMut::from(&stream[5..]), 4).is_err());
    }
}
