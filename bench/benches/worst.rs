//! The worst that one command can cost, which is what the others wait for: while a map grows to millions of keys, and of
//! a request of reads of the longest value. Measured once, for a mean would hide it.
//!
//! `cargo bench -p synod-bench --bench worst`; `KEYS` in the environment sets the number of keys.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use synod_engine::client::Request;
use synod_engine::ids::{CommandNumber, SessionId, Slot};
use synod_engine::machine::KvMachine;
use synod_engine::machine::kv::KvCommand;
use synod_engine::state::State;

/// Commands of one slot while the map grows.
const RUN: u64 = 1_000;

struct Client {
    state: State<KvMachine>,
    slot: Slot,
    session: SessionId,
    next: u64,
}

impl Client {
    fn new() -> Client {
        let mut client = Client {
            state: State::new(KvMachine::default()),
            slot: Slot::ZERO,
            session: SessionId(1 << 16),
            next: 1,
        };
        client.send(SessionId::NONE, &[]);
        client.next = 1;
        client
    }

    /// Applies one slot with these commands and says how long that took.
    fn send(&mut self, session: SessionId, commands: &[Bytes]) -> Duration {
        let mut run = BytesMut::new();
        for command in commands {
            run.put_u32_le(command.len() as u32);
            run.put_slice(command);
        }
        let mut value = BytesMut::new();
        Request {
            session,
            first: CommandNumber(self.next),
            acknowledged: CommandNumber(self.next),
            count: commands.len() as u32,
            commands: run.freeze(),
        }
        .put(&mut value);
        self.next += commands.len() as u64;
        self.slot = self.slot.next();
        let started = Instant::now();
        self.state.apply(self.slot, value.freeze(), |_, _| {});
        started.elapsed()
    }

    fn run(&mut self, commands: &[Bytes]) -> Duration {
        self.send(self.session, commands)
    }
}

fn put(key: &[u8], value: &[u8]) -> Bytes {
    KvCommand::Put { key, value }.encode().expect("a short key")
}

fn growth(keys: u64) {
    let mut client = Client::new();
    let (mut total, mut worst) = (Duration::ZERO, (Duration::ZERO, 0));
    for first in (0..keys).step_by(RUN as usize) {
        let commands: Vec<Bytes> = (first..first + RUN)
            .map(|key| put(&key.to_le_bytes(), b"12345678"))
            .collect();
        let took = client.run(&commands);
        total += took;
        worst = worst.max((took, first));
    }
    println!(
        "{keys} new keys, {RUN} at a time: {} ns each, the slowest {RUN} took {:.2} ms, at {} keys",
        (total / keys as u32).as_nanos(),
        worst.0.as_secs_f64() * 1e3,
        worst.1
    );
}

fn reads() {
    let mut client = Client::new();
    client.run(&[put(b"k", &vec![7; 256 << 10])]);
    let get = KvCommand::Get { key: b"k" }.encode().expect("a short key");
    let gets = vec![get; 65_000];
    let took = client.run(&gets);
    println!(
        "one request of {} reads of a value of 256 KiB: {:.1} ms",
        gets.len(),
        took.as_secs_f64() * 1e3
    );
}

fn main() {
    // The test runner only wants to know that it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let keys = std::env::var("KEYS")
        .ok()
        .and_then(|keys| keys.parse().ok());
    growth(keys.unwrap_or(if quick { 10_000 } else { 8_000_000 }));
    if !quick {
        reads();
    }
}
