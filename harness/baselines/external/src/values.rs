//! What is written: every value carries a stamp, so that the check can tell it from every other.

use bytes::{BufMut, Bytes, BytesMut};
use synod_harness::load::workload::splitmix;

/// Tag and number.
pub const STAMP_BYTES: usize = 16;
/// The random bytes that all values are filled from, prepared once: no random number per write.
const FILLER_BYTES: usize = 4_096;
/// Values that share one allocation.
const CHUNK_VALUES: usize = 64;

/// Who wrote a value, and its how manieth it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub tag: u64,
    /// From 1, per client.
    pub number: u64,
}

impl Stamp {
    /// The stamp that `value` begins with.
    pub fn of(value: &[u8]) -> Option<Stamp> {
        let (tag, rest) = value.split_first_chunk::<8>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        Some(Stamp {
            tag: u64::from_le_bytes(*tag),
            number: u64::from_le_bytes(*number),
        })
    }
}

/// The values of one client.
pub struct Values {
    tag: u64,
    filler_bytes: usize,
    filler: Vec<u8>,
    buffer: BytesMut,
}

impl Values {
    pub fn new(tag: u64, payload_bytes: u32, seed: u64) -> Values {
        let filler_bytes = payload_bytes as usize - STAMP_BYTES;
        let mut random = seed ^ tag;
        Values {
            tag,
            filler_bytes,
            filler: (0..FILLER_BYTES + filler_bytes)
                .map(|_| splitmix(&mut random) as u8)
                .collect(),
            buffer: BytesMut::new(),
        }
    }

    pub fn value(&mut self, number: u64) -> Bytes {
        let bytes = STAMP_BYTES + self.filler_bytes;
        if self.buffer.capacity() < bytes {
            self.buffer.reserve(bytes * CHUNK_VALUES);
        }
        self.buffer.put_u64_le(self.tag);
        self.buffer.put_u64_le(number);
        // A different stretch for each, so that equal values don't hide a mix-up.
        let from = (number as usize * 64) % FILLER_BYTES;
        self.buffer
            .put_slice(&self.filler[from..from + self.filler_bytes]);
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_the_asked_size_and_its_stamp() {
        for payload in [16, 17, 128, 5_000] {
            let mut values = Values::new(7, payload, 1);
            for number in 1..200 {
                let value = values.value(number);
                assert_eq!(value.len(), payload as usize);
                assert_eq!(Stamp::of(&value), Some(Stamp { tag: 7, number }));
            }
        }
        assert_eq!(Stamp::of(&[0; 15]), None);
    }
}
