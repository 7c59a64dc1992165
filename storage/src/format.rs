//! The files of a data directory, byte by byte. All integers are little-endian.
//!
//! ```text
//! identity                      one replica's directory, written once by init
//! lock                          held while a process uses the directory
//! wal-0000000000000001.seg      segments, numbered without a gap: the used ones, then prepared empty ones
//! ready-0000000000000001.seg    recycled files, not part of the WAL
//! snap-0000000000000001.snap    snapshots, by the slot that each covers: see `snapshot/format.rs`
//! *.tmp                         unfinished files, removed at the next open
//!
//! identity (64 bytes)
//!   0  "SYNODID\0"   8 version u32   12 crc32c u32 (of bytes 16..64)   16 cluster u128
//!  32  replica u8, zero u8 × 7       40 incarnation u64   48 segment bytes u64   56 zero
//!
//! segment
//!   0     header, one page; only its first sector is used, so that it is written whole or not at all
//!   4096  groups, each starting at a page boundary, with no page between them; then zeros or stale bytes
//!
//! segment header (80 bytes)
//!   0  "SYNODWAL"    8 version u32   12 crc32c u32 (of bytes 16..80)   16 cluster u128
//!  32  replica u8, zero u8 × 7       40 segment bytes u64   48 sequence u64   56 identity u64
//!  64  zero × 16
//! ```
//! A segment's identity is new at each use of the file and derived from the file's previous one, so the bytes of an
//! earlier life can never be taken for this one's. A file gets its `wal-` name only when it has its full size, its
//! header is durable and the directory is about to be synced; it loses the name, durably, before its header changes.
//!
//! A group is drawn in [`crate::group`], a record in `record.rs`.

use synod_engine::ids::{ClusterId, Incarnation, ReplicaId};

/// Since 4, the promise that headers carry counts the ballots of accepted values. 3 was left out: one flipped bit makes
/// it of 2.
pub const VERSION: u32 = 4;
pub const IDENTITY_FILE: &str = "identity";
pub const IDENTITY_TEMPORARY: &str = "identity.tmp";
pub const LOCK_FILE: &str = "lock";
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Groups start and end at multiples of this.
pub const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// Where the first group of a segment starts.
pub const GROUPS_AT: u64 = PAGE as u64;
/// Stamps this many flipped bits apart still count as the same stamp, damaged. Unrelated ones differ by 32 ± 4.
pub const STAMP_DISTANCE_MAX: u32 = 8;

const IDENTITY_BYTES: usize = 64;
const SEGMENT_HEADER_BYTES: usize = 80;
const IDENTITY_MAGIC: [u8; 8] = *b"SYNODID\0";
const SEGMENT_MAGIC: [u8; 8] = *b"SYNODWAL";
const _: () = assert!(SEGMENT_HEADER_BYTES <= SECTOR && PAGE.is_multiple_of(SECTOR));

/// The number of a segment, from 1, never reused for other records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// One life of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentIdentity(pub u64);

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    /// Tells an empty directory that was readmitted from the original.
    pub incarnation: Incarnation,
    pub segment_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub cluster: ClusterId,
    pub replica: ReplicaId,
    pub segment_bytes: u64,
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
}

/// Why a header is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    Version(u32),
    Damaged(&'static str),
}

impl Sequence {
    pub const FIRST: Sequence = Sequence(1);

    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }

    pub fn segment_name(self) -> String {
        format!("wal-{:016}.seg", self.0)
    }

    pub fn ready_name(self) -> String {
        format!("ready-{:016}.seg", self.0)
    }

    pub fn temporary_name(self) -> String {
        format!("wal-{:016}.tmp", self.0)
    }

    pub fn of_segment_name(name: &str) -> Option<Sequence> {
        let digits = name.strip_prefix("wal-")?.strip_suffix(".seg")?;
        digits.parse().ok().map(Sequence).filter(|s| s.0 > 0)
    }
}

impl SegmentIdentity {
    /// The stamp of a sector of this segment. The first sector of a group has a stamp of its own kind, so that no
    /// client's bytes in the middle of a group pass for the start of one.
    pub fn stamp(self, sector: u64, starts_group: bool) -> u64 {
        let place = (sector << 1) | u64::from(starts_group);
        mix(mix(self.0, 0x7379_6e6f_6473), place)
    }

    /// The identity of the next life of a file. A chain per file: no life of it can meet its own stale bytes.
    pub fn following(self, seed: u64, sequence: Sequence) -> SegmentIdentity {
        SegmentIdentity(mix(mix(seed, self.0), sequence.0))
    }
}

impl Identity {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; IDENTITY_BYTES];
        put_common(
            &mut bytes,
            IDENTITY_MAGIC,
            VERSION,
            self.cluster,
            self.replica,
        );
        bytes[40..48].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.segment_bytes.to_le_bytes());
        put_checksum(&mut bytes);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Identity, HeaderError> {
        if bytes.len() != IDENTITY_BYTES {
            return Err(HeaderError::Damaged("its size is wrong"));
        }
        check_common(bytes, IDENTITY_MAGIC, VERSION)?;
        Ok(Identity {
            cluster: cluster_at_16(bytes),
            replica: ReplicaId(bytes[32]),
            incarnation: Incarnation(u64_at(bytes, 40)),
            segment_bytes: u64_at(bytes, 48),
        })
    }
}

impl SegmentHeader {
    /// Writes the header into a zeroed page.
    pub fn encode(&self, page: &mut [u8]) {
        page.fill(0);
        let bytes = &mut page[..SEGMENT_HEADER_BYTES];
        put_common(bytes, SEGMENT_MAGIC, VERSION, self.cluster, self.replica);
        bytes[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.identity.0.to_le_bytes());
        put_checksum(bytes);
    }

    /// Reads the header from the first page of a file.
    pub fn decode(page: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let (bytes, rest) = page.split_at(SEGMENT_HEADER_BYTES);
        check_common(bytes, SEGMENT_MAGIC, VERSION)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(HeaderError::Damaged("bytes behind it are not zero"));
        }
        Ok(SegmentHeader {
            cluster: cluster_at_16(bytes),
            replica: ReplicaId(bytes[32]),
            segment_bytes: u64_at(bytes, 40),
            sequence: Sequence(u64_at(bytes, 48)),
            identity: SegmentIdentity(u64_at(bytes, 56)),
        })
    }
}

/// What the headers of all kinds of files have in common.
pub fn put_common(
    bytes: &mut [u8],
    magic: [u8; 8],
    version: u32,
    cluster: ClusterId,
    replica: ReplicaId,
) {
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[16..32].copy_from_slice(&cluster.0.to_le_bytes());
    bytes[32] = replica.0;
}

pub fn put_checksum(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// The version is outside the checksum, because a later format may place the checksum elsewhere. A flipped bit in
/// it is told from another version by the checksum, which holds for this version's layout.
pub fn check_common(bytes: &[u8], magic: [u8; 8], expected: u32) -> Result<(), HeaderError> {
    let intact = crc32c::crc32c(&bytes[16..]) == u32_at(bytes, 12);
    let version = u32_at(bytes, 8);
    if bytes[..8] != magic {
        return Err(HeaderError::Damaged("its magic is wrong"));
    }
    if version == 0 || version != expected && intact && (version ^ expected).count_ones() == 1 {
        return Err(HeaderError::Damaged("its version is wrong"));
    }
    if version != expected {
        return Err(HeaderError::Version(version));
    }
    if !intact {
        return Err(HeaderError::Damaged("its checksum is wrong"));
    }
    Ok(())
}

pub fn cluster_at_16(bytes: &[u8]) -> ClusterId {
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&bytes[16..32]);
    ClusterId(u128::from_le_bytes(cluster))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Mixes two numbers so that each bit of both moves about half the bits of the result (the finaliser of
/// splitmix64, twice).
pub fn mix(a: u64, b: u64) -> u64 {
    finalise(finalise(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b)
}

fn finalise(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_neighbours_and_lives_are_far_apart() {
        let life = SegmentIdentity(7);
        let next = life.following(1, Sequence(1));
        for sector in 0..20_000 {
            let stamp = life.stamp(sector, false);
            let others = [
                0,
                life.stamp(sector + 1, false),
                life.stamp(sector, true),
                next.stamp(sector, false),
            ];
            for other in others {
                assert!((stamp ^ other).count_ones() > STAMP_DISTANCE_MAX);
            }
        }
    }

    #[test]
    fn a_version_of_the_future_is_no_damage_but_a_flipped_bit_is() {
        let identity = Identity {
            cluster: ClusterId(5),
            replica: ReplicaId(2),
            incarnation: Incarnation(9),
            segment_bytes: 1 << 20,
        };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes), Ok(identity));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(
                Identity::decode(&flipped),
                Err(HeaderError::Damaged(_))
            ));
        }
        // A bit or two from this version, laid out otherwise or alike.
        for (version, contents) in [(5, 0xff), (3, 0xff), (6, 0xff), (7, 0), (2, 0)] {
            let mut later = bytes.clone();
            later[8] = version;
            later[40] ^= contents;
            let expected = Err(HeaderError::Version(u32::from(version)));
            assert_eq!(Identity::decode(&later), expected);
        }
        let mut none = bytes.clone();
        none[8] = 0;
        none[40] ^= 0xff;
        assert!(matches!(
            Identity::decode(&none),
            Err(HeaderError::Damaged(_))
        ));
    }

    #[test]
    fn a_name_tells_a_segment_and_nothing_else_does() {
        let number = Sequence(17);
        assert_eq!(number.segment_name(), "wal-0000000000000017.seg");
        assert_eq!(number.ready_name(), "ready-0000000000000017.seg");
        assert_eq!(number.temporary_name(), "wal-0000000000000017.tmp");
        assert!(number.temporary_name().ends_with(TEMPORARY_SUFFIX));
        let of = Sequence::of_segment_name;
        assert_eq!(of(&number.segment_name()), Some(number));
        assert_eq!(of(&Sequence::FIRST.segment_name()), Some(Sequence::FIRST));
        assert_eq!(of(&Sequence(0).segment_name()), None);
        assert_eq!(of(&number.ready_name()), None);
        assert_eq!(of(&number.temporary_name()), None);
        assert_eq!(of("wal-x.seg"), None);
    }

    /// The first two numbers of splitmix64 from the seed 0, as published with it: the files of one build are read by
    /// the next.
    #[test]
    fn numbers_are_mixed_as_splitmix64_does() {
        let (first, second) = (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(finalise(0), first);
        assert_eq!(mix(0, second), first);
    }
}
