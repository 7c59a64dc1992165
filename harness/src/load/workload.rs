//! The commands of one client: each carries a stamp, so that the check can tell it from every other.

use bytes::{BufMut, Bytes, BytesMut};
use synod_engine::client::LENGTH_BYTES;
use synod_engine::machine::kv::KvCommand;

use crate::cli::MachineChoice;
use crate::verify::STAMP_BYTES;

/// Keys of a kv load. Bounded, so that the store's memory is.
pub const KEYS_MAX: u64 = 100_000;
/// Bytes of a key: `k` and seven digits.
const KEY_BYTES: usize = 8;
/// The least bytes of a kv command: operation, lengths, key and stamp, and some value.
const KV_PAYLOAD_BYTES_MIN: u32 = 40;
/// The random bytes that all commands are filled from, prepared once: no random number per command.
const FILLER_BYTES: usize = 4_096;
/// Commands that go to the client library in one piece; well below what a replica takes in one request.
const RUN_BYTES_MAX: usize = 256 * 1_024;

pub struct Workload {
    tag: u64,
    /// The number of the next command, from 1.
    next: u64,
    payload_bytes: usize,
    /// What goes before the key of a put; a command of `log` has neither.
    put: Option<Bytes>,
    /// Filler after the stamp of each command.
    filler_bytes: usize,
    filler: Vec<u8>,
    buffer: BytesMut,
}

impl Workload {
    pub fn new(machine: MachineChoice, payload_bytes: u32, tag: u64, seed: u64) -> Workload {
        let payload_bytes = payload_bytes as usize;
        let put = match machine {
            MachineChoice::Log => None,
            MachineChoice::Kv => Some(put_prefix()),
        };
        let key_bytes = put.as_ref().map_or(0, |prefix| prefix.len() + KEY_BYTES);
        let filler_bytes = payload_bytes - key_bytes - STAMP_BYTES;
        let mut random = seed ^ tag;
        Workload {
            tag,
            next: 1,
            payload_bytes,
            put,
            filler_bytes,
            filler: (0..FILLER_BYTES + filler_bytes)
                .map(|_| splitmix(&mut random) as u8)
                .collect(),
            buffer: BytesMut::new(),
        }
    }

    /// The number of the next command.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// How many commands fit one run.
    pub fn run_commands_max(&self) -> u32 {
        (RUN_BYTES_MAX / (LENGTH_BYTES + self.payload_bytes)).max(1) as u32
    }

    /// The next `count` commands, encoded as a run.
    pub fn run(&mut self, count: u32) -> Bytes {
        let bytes = count as usize * (LENGTH_BYTES + self.payload_bytes);
        self.buffer.reserve(bytes);
        for _ in 0..count {
            self.command();
        }
        self.buffer.split().freeze()
    }

    fn command(&mut self) {
        let number = self.next;
        self.next += 1;
        // A different stretch for each command, so that equal commands don't hide a mix-up.
        let from = (number as usize * 64) % FILLER_BYTES;
        let filler = &self.filler[from..from + self.filler_bytes];
        let out = &mut self.buffer;
        out.put_u32_le(self.payload_bytes as u32);
        if let Some(prefix) = &self.put {
            out.put_slice(prefix);
            out.put_slice(&key(self.tag, number));
        }
        out.put_u64_le(self.tag);
        out.put_u64_le(number);
        out.put_slice(filler);
    }
}

/// The least payload that a stamped command of this machine needs.
pub fn payload_bytes_min(machine: MachineChoice) -> u32 {
    match machine {
        MachineChoice::Log => STAMP_BYTES as u32,
        MachineChoice::Kv => KV_PAYLOAD_BYTES_MIN,
    }
}

/// The bytes of every put before its key, which are the same for keys of one length.
fn put_prefix() -> Bytes {
    let key = [0; KEY_BYTES];
    let put = KvCommand::Put {
        key: &key,
        value: &[],
    };
    let mut encoded = put.encode().expect("the key is short");
    encoded.truncate(encoded.len() - KEY_BYTES);
    encoded
}

/// Clients share the keys, so that they write over each other's.
fn key(tag: u64, number: u64) -> [u8; KEY_BYTES] {
    let mut state = tag ^ number.rotate_left(32);
    let mut left = splitmix(&mut state) % KEYS_MAX;
    let mut key = *b"k0000000";
    for digit in key[1..].iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    key
}

/// A small generator that passes for random where nobody attacks.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::machine::{Machine, Stamp};
    use synod_engine::client::runs;

    #[test]
    fn every_command_has_the_asked_size_and_its_stamp() {
        for machine in [MachineChoice::Log, MachineChoice::Kv] {
            let oracle = Machine::new(machine);
            for payload in [payload_bytes_min(machine), 128, 5_000] {
                let mut workload = Workload::new(machine, payload, 3, 1);
                let first = workload.run(2);
                let second = workload.run(3);
                let commands: Vec<&[u8]> = runs(&first).chain(runs(&second)).collect();
                assert_eq!(commands.len(), 5);
                for (command, number) in commands.into_iter().zip(1u64..) {
                    assert_eq!(command.len(), payload as usize);
                    let stamp = [3u64.to_le_bytes(), number.to_le_bytes()].concat();
                    let stamp = stamp.first_chunk().expect("two numbers");
                    assert_eq!(oracle.stamp(command), Stamp::Of(stamp));
                }
            }
        }
    }
}
