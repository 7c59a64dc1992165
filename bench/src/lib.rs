//! What the benchmarks share: requests as clients send them, and seams that cost nothing.

use bytes::{BufMut, Bytes, BytesMut};

use synod_engine::client::Request;
use synod_engine::ids::{ClientId, CommandNumber, Lsn, ReplicaId, SessionId, Slot};
use synod_engine::message::Record;
use synod_engine::seams::{Frame, Lane, Network, Wal, WalFailed, WalRead};

/// A request of `count` commands of `bytes` bytes each, numbered from `first` on.
pub fn request(session: SessionId, first: u64, count: u32, bytes: usize) -> Request {
    let mut commands = BytesMut::with_capacity(count as usize * (bytes + 4));
    for _ in 0..count {
        commands.put_u32_le(bytes as u32);
        commands.put_bytes(b'c', bytes);
    }
    Request {
        session,
        first: CommandNumber(first),
        acknowledged: CommandNumber(first),
        count,
        commands: commands.freeze(),
    }
}

/// The value of a slot: `requests` requests of `count` commands of `bytes` bytes.
pub fn value(requests: u32, count: u32, bytes: usize) -> Bytes {
    let mut out = BytesMut::new();
    for session in 1..=requests {
        request(SessionId(u64::from(session)), 1, count, bytes).put(&mut out);
    }
    out.freeze()
}

/// A WAL on which everything is durable at once: what remains is the engine's own cost.
#[derive(Debug, Default)]
pub struct FreeWal {
    appended: Lsn,
}

impl Wal for FreeWal {
    fn append(&mut self, lsn: Lsn, _record: &Record) {
        self.appended = lsn;
    }

    fn submit(&mut self) {}

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        Ok(self.appended)
    }

    fn read(&mut self, _from: Slot, _through: Slot, _bytes_max: usize) -> bool {
        false
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        Ok(None)
    }

    fn trim(&mut self, _floor: Slot) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}

/// A network that remembers what went to each peer and what was replied.
#[derive(Debug, Default)]
pub struct FreeNetwork {
    pub frames: Vec<(ReplicaId, Frame)>,
    pub replies: Vec<(ClientId, Bytes)>,
}

impl Network for FreeNetwork {
    fn send(&mut self, to: ReplicaId, _lane: Lane, frame: Frame) {
        self.frames.push((to, frame));
    }

    fn reply(&mut self, client: ClientId, frame: Bytes) {
        self.replies.push((client, frame));
    }

    fn expel(&mut self, _client: ClientId) {}

    fn announce(&mut self, _frame: Bytes) {}

    fn flush(&mut self) {}

    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
