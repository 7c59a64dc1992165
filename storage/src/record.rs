//! One record in a group.
//!
//! ```text
//!   0  body bytes u32
//!   4  crc32c u32, over the segment's identity, the body length and everything from the lsn on
//!   8  lsn u64
//!  16  kind u8, ballot's replica u8 (Promised, Accepted; else zero), zero u8 × 6
//!  24  body:  Promised (1)  round u64
//!             Accepted (2)  round u64, slot u64, commit index u64, value
//!             Chosen   (3)  slot u64, value
//!             Trimmed  (4)  floor u64
//! ```

use bytes::Bytes;
use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot};
use synod_engine::message::{Accept, Record};

use crate::format::{SegmentIdentity, u32_at, u64_at};

const HEAD_BYTES: usize = 24;
const PROMISED: u8 = 1;
const ACCEPTED: u8 = 2;
const CHOSEN: u8 = 3;
const TRIMMED: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    Damaged(&'static str),
    NewerKind(u8),
}

/// The bytes that `record` takes in a group.
pub fn encoded_bytes(record: &Record) -> usize {
    HEAD_BYTES
        + match record {
            Record::Promised { .. } | Record::Trimmed { .. } => 8,
            Record::Accepted(accept) => 24 + accept.value.len(),
            Record::Chosen { value, .. } => 8 + value.len(),
        }
}

/// The slot whose value a record carries, and the value's length.
pub fn slot_of(record: &Record) -> Option<(Slot, usize)> {
    match record {
        Record::Accepted(accept) => Some((accept.slot, accept.value.len())),
        Record::Chosen { slot, value } => Some((*slot, value.len())),
        Record::Promised { .. } | Record::Trimmed { .. } => None,
    }
}

/// Writes `record` at the front of `out` and returns its bytes. The only copy that a value takes on its way to disk.
pub fn put(out: &mut [u8], identity: SegmentIdentity, lsn: Lsn, record: &Record) -> usize {
    let total = encoded_bytes(record);
    let out = &mut out[..total];
    let (kind, replica) = match record {
        Record::Promised { ballot } => {
            out[24..32].copy_from_slice(&ballot.round.to_le_bytes());
            (PROMISED, ballot.replica.0)
        }
        Record::Accepted(accept) => {
            out[24..32].copy_from_slice(&accept.ballot.round.to_le_bytes());
            out[32..40].copy_from_slice(&accept.slot.0.to_le_bytes());
            out[40..48].copy_from_slice(&accept.commit_index.0.to_le_bytes());
            out[48..].copy_from_slice(&accept.value);
            (ACCEPTED, accept.ballot.replica.0)
        }
        Record::Chosen { slot, value } => {
            out[24..32].copy_from_slice(&slot.0.to_le_bytes());
            out[32..].copy_from_slice(value);
            (CHOSEN, 0)
        }
        Record::Trimmed { floor } => {
            out[24..32].copy_from_slice(&floor.0.to_le_bytes());
            (TRIMMED, 0)
        }
    };
    out[..4].copy_from_slice(&((total - HEAD_BYTES) as u32).to_le_bytes());
    out[8..16].copy_from_slice(&lsn.0.to_le_bytes());
    out[16..24].copy_from_slice(&[kind, replica, 0, 0, 0, 0, 0, 0]);
    let crc = checksum(out, identity);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    total
}

/// A record that was checked, its value still in place.
pub struct RawRecord<'a> {
    pub lsn: Lsn,
    /// Bytes taken, head included.
    pub bytes: usize,
    body: &'a [u8],
    kind: u8,
    replica: ReplicaId,
}

/// Checks the record at the front of `from`, which must have been unsealed.
pub fn take(from: &[u8], identity: SegmentIdentity) -> Result<RawRecord<'_>, RecordError> {
    if from.len() < HEAD_BYTES {
        return Err(RecordError::Damaged(
            "a record's head crosses the group's end",
        ));
    }
    let bytes = HEAD_BYTES + u32_at(from, 0) as usize;
    let Some(record) = from.get(..bytes) else {
        return Err(RecordError::Damaged("a record crosses the group's end"));
    };
    if checksum(record, identity) != u32_at(record, 4) {
        return Err(RecordError::Damaged("a record's checksum is wrong"));
    }
    let kind = record[16];
    let body = &record[HEAD_BYTES..];
    let enough = match kind {
        PROMISED | TRIMMED => body.len() == 8,
        ACCEPTED => body.len() >= 24,
        CHOSEN => body.len() >= 8,
        newer => return Err(RecordError::NewerKind(newer)),
    };
    if !enough || record[18..24].iter().any(|byte| *byte != 0) {
        return Err(RecordError::Damaged("a record's fields are wrong"));
    }
    Ok(RawRecord {
        lsn: Lsn(u64_at(record, 8)),
        bytes,
        body,
        kind,
        replica: ReplicaId(record[17]),
    })
}

impl RawRecord<'_> {
    /// The slot and where in the record its value starts.
    pub fn slot(&self) -> Option<(Slot, usize)> {
        match self.kind {
            ACCEPTED => Some((Slot(u64_at(self.body, 8)), HEAD_BYTES + 24)),
            CHOSEN => Some((Slot(u64_at(self.body, 0)), HEAD_BYTES + 8)),
            _ => None,
        }
    }

    /// The record with a copy of its value.
    pub fn to_record(&self) -> Record {
        let first = u64_at(self.body, 0);
        let ballot = Ballot {
            round: first,
            replica: self.replica,
        };
        match self.kind {
            PROMISED => Record::Promised { ballot },
            ACCEPTED => Record::Accepted(Accept {
                ballot,
                slot: Slot(u64_at(self.body, 8)),
                commit_index: Slot(u64_at(self.body, 16)),
                value: Bytes::copy_from_slice(&self.body[24..]),
            }),
            CHOSEN => Record::Chosen {
                slot: Slot(first),
                value: Bytes::copy_from_slice(&self.body[8..]),
            },
            TRIMMED => Record::Trimmed { floor: Slot(first) },
            kind => unreachable!("record kind {kind} passed the check"),
        }
    }
}

fn checksum(record: &[u8], identity: SegmentIdentity) -> u32 {
    let mut context = [0; 12];
    context[..8].copy_from_slice(&identity.0.to_le_bytes());
    context[8..].copy_from_slice(&record[..4]);
    crc32c::crc32c_append(crc32c::crc32c(&context), &record[8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: SegmentIdentity = SegmentIdentity(3);

    /// A record of any kind and body, with a checksum that is right.
    fn sealed(kind: u8, body: usize, reserved: Option<usize>) -> Vec<u8> {
        let mut record = vec![0; HEAD_BYTES + body];
        record[..4].copy_from_slice(&(body as u32).to_le_bytes());
        record[16] = kind;
        if let Some(at) = reserved {
            record[at] = 1;
        }
        let crc = checksum(&record, IDENTITY);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        record
    }

    #[test]
    fn a_body_must_be_long_enough_for_its_kind() {
        for (kind, lengths) in [
            (PROMISED, 8..=8),
            (ACCEPTED, 24..=100),
            (CHOSEN, 8..=100),
            (TRIMMED, 8..=8),
        ] {
            for body in 0..=100 {
                let record = sealed(kind, body, None);
                let taken = take(&record, IDENTITY).map(|raw| raw.bytes);
                let expected = match lengths.contains(&body) {
                    true => Ok(HEAD_BYTES + body),
                    false => Err(RecordError::Damaged("a record's fields are wrong")),
                };
                assert_eq!(taken, expected, "kind {kind} with {body} bytes");
            }
        }
    }

    #[test]
    fn reserved_bytes_are_zero_and_other_kinds_are_newer() {
        for at in 18..24 {
            let record = sealed(ACCEPTED, 30, Some(at));
            let error = take(&record, IDENTITY).err();
            let wrong = RecordError::Damaged("a record's fields are wrong");
            assert_eq!(error, Some(wrong), "byte {at}");
        }
        for kind in [0, 5, 255] {
            let error = take(&sealed(kind, 8, None), IDENTITY).err();
            assert_eq!(error, Some(RecordError::NewerKind(kind)));
        }
    }

    #[test]
    fn a_record_ends_where_its_group_does() {
        let record = sealed(CHOSEN, 20, None);
        assert!(take(&record, IDENTITY).is_ok());
        for bytes in 0..record.len() {
            let error = take(&record[..bytes], IDENTITY).err();
            assert!(matches!(error, Some(RecordError::Damaged(_))), "{bytes}");
        }
    }
}
