//! A snapshot file, byte by byte. All integers are little-endian.
//!
//! ```text
//! snap-0000000000000001.snap, by the slot that it covers
//!   0     header, one page
//!   4096  chunks of 256 KiB; the last one shorter, up to the page boundary behind its end
//!   end   footer, the last page
//!
//! header (72 bytes, then zeros)
//!   0  "SYNODSNP"    8 version u32   12 crc32c u32 (of bytes 16..72)   16 cluster u128
//!  32  replica u8, zero u8 × 7       40 slot u64     48 nonce u64      56 zero × 16
//!
//! chunk
//!   0  body bytes in it u32   4 crc32c u32, of the nonce, the chunk's number, the bytes 0..4 and the body
//!   8  body, then zeros up to the page boundary
//!
//! footer (72 bytes, then zeros)
//!   0  "SYNODSNE"    8 version u32   12 crc32c u32 (of bytes 16..72)   16 cluster u128
//!  32  replica u8, zero u8 × 7       40 body bytes u64                 48 nonce u64
//!  56  checksum of the body u64, as the engine computed it             64 seal u32: crc32c of all chunks' checksums
//!  68  origin u32: 0 if the WAL held everything that it covers when it was finished, 1 if it was ahead of the WAL
//! ```
//! The nonce differs from file to file, so no bytes of another snapshot pass for this one's. A file gets its name only
//! when all of it is durable: what is not complete has no name, and what has the name and is not intact is damaged.

use synod_engine::ids::{ClusterId, ReplicaId, Slot};
use synod_engine::seams::{Origin, SnapshotInfo};

use crate::format::{
    HeaderError, PAGE, check_common, cluster_at_16, put_checksum, put_common, u32_at, u64_at,
};

pub const VERSION: u32 = 2;
pub const PREFIX: &str = "snap-";
/// In the file, head included.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Of the body in a full chunk.
pub const CHUNK_BODY: usize = CHUNK_BYTES - CHUNK_HEAD;
pub const CHUNK_HEAD: usize = 8;
pub const CHUNKS_AT: u64 = PAGE as u64;

const HEADER_BYTES: usize = 72;
const HEADER_MAGIC: [u8; 8] = *b"SYNODSNP";
const FOOTER_MAGIC: [u8; 8] = *b"SYNODSNE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    /// Who wrote the file; what is in it is the same everywhere.
    pub replica: ReplicaId,
    pub slot: Slot,
    pub nonce: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub bytes: u64,
    pub checksum: u64,
    pub seal: u32,
    pub origin: Origin,
}

pub fn name(slot: Slot) -> String {
    format!("{PREFIX}{:016}.snap", slot.0)
}

pub fn slot_of_name(name: &str) -> Option<Slot> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(".snap")?;
    digits.parse().ok().map(Slot)
}

/// How many chunks a body of so many bytes takes.
pub fn chunks(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BODY as u64)
}

/// How many bytes of the body the chunk of this number has.
pub fn body_in_chunk(bytes: u64, number: u64) -> usize {
    let before = number * CHUNK_BODY as u64;
    bytes.saturating_sub(before).min(CHUNK_BODY as u64) as usize
}

/// What a chunk with so much of the body takes in the file: whole pages.
pub fn chunk_bytes(body: usize) -> usize {
    (CHUNK_HEAD + body).next_multiple_of(PAGE)
}

pub fn chunk_at(number: u64) -> u64 {
    CHUNKS_AT + number * CHUNK_BYTES as u64
}

/// Where the footer of a file with a body of so many bytes stands, right behind the last chunk.
pub fn footer_at(bytes: u64) -> u64 {
    match chunks(bytes).checked_sub(1) {
        Some(last) => chunk_at(last) + chunk_bytes(body_in_chunk(bytes, last)) as u64,
        None => CHUNKS_AT,
    }
}

impl Header {
    pub fn encode(&self, page: &mut [u8]) {
        page.fill(0);
        let bytes = &mut page[..HEADER_BYTES];
        put_common(bytes, HEADER_MAGIC, VERSION, self.cluster, self.replica);
        bytes[40..48].copy_from_slice(&self.slot.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.nonce.to_le_bytes());
        put_checksum(bytes);
    }

    pub fn decode(page: &[u8]) -> Result<Header, HeaderError> {
        let bytes = checked(page, HEADER_MAGIC)?;
        Ok(Header {
            cluster: cluster_at_16(bytes),
            replica: ReplicaId(bytes[32]),
            slot: Slot(u64_at(bytes, 40)),
            nonce: u64_at(bytes, 48),
        })
    }
}

impl Footer {
    pub fn encode(&self, header: &Header, page: &mut [u8]) {
        page.fill(0);
        let bytes = &mut page[..HEADER_BYTES];
        put_common(bytes, FOOTER_MAGIC, VERSION, header.cluster, header.replica);
        bytes[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&header.nonce.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.seal.to_le_bytes());
        let origin = match self.origin {
            Origin::Replayable => 0u32,
            Origin::Ahead => 1,
        };
        bytes[68..72].copy_from_slice(&origin.to_le_bytes());
        put_checksum(bytes);
    }

    /// Of the file with this header.
    pub fn decode(page: &[u8], header: &Header) -> Result<Footer, HeaderError> {
        let bytes = checked(page, FOOTER_MAGIC)?;
        if u64_at(bytes, 48) != header.nonce {
            return Err(HeaderError::Damaged("it is another file's"));
        }
        Ok(Footer {
            bytes: u64_at(bytes, 40),
            checksum: u64_at(bytes, 56),
            seal: u32_at(bytes, 64),
            origin: match u32_at(bytes, 68) {
                0 => Origin::Replayable,
                1 => Origin::Ahead,
                _ => return Err(HeaderError::Damaged("its origin is none")),
            },
        })
    }

    pub fn info(&self, slot: Slot) -> SnapshotInfo {
        SnapshotInfo {
            slot,
            bytes: self.bytes,
            checksum: self.checksum,
        }
    }
}

fn checked(page: &[u8], magic: [u8; 8]) -> Result<&[u8], HeaderError> {
    let (bytes, rest) = page.split_at(HEADER_BYTES);
    check_common(bytes, magic, VERSION)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(HeaderError::Damaged("bytes behind it are not zero"));
    }
    Ok(bytes)
}

/// Completes a chunk whose body stands at its place already, and returns what it takes in the file and its checksum.
pub fn seal_chunk(chunk: &mut [u8], nonce: u64, number: u64, body: usize) -> (usize, u32) {
    let total = chunk_bytes(body);
    chunk[CHUNK_HEAD + body..total].fill(0);
    chunk[..4].copy_from_slice(&(body as u32).to_le_bytes());
    let crc = chunk_checksum(&chunk[..CHUNK_HEAD + body], nonce, number);
    chunk[4..8].copy_from_slice(&crc.to_le_bytes());
    (total, crc)
}

/// The checksum of an intact chunk that has so much of the body.
pub fn check_chunk(
    chunk: &[u8],
    nonce: u64,
    number: u64,
    body: usize,
) -> Result<u32, &'static str> {
    let (used, padding) = chunk.split_at(CHUNK_HEAD + body);
    let crc = u32_at(used, 4);
    if u32_at(used, 0) as usize != body || chunk_checksum(used, nonce, number) != crc {
        return Err("a chunk's checksum is wrong");
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err("padding is not zero");
    }
    Ok(crc)
}

/// Adds a chunk's checksum to the seal of the file.
pub fn add_to_seal(seal: u32, crc: u32) -> u32 {
    crc32c::crc32c_append(seal, &crc.to_le_bytes())
}

fn chunk_checksum(used: &[u8], nonce: u64, number: u64) -> u32 {
    let mut context = [0; 20];
    context[..8].copy_from_slice(&nonce.to_le_bytes());
    context[8..16].copy_from_slice(&number.to_le_bytes());
    context[16..].copy_from_slice(&used[..4]);
    crc32c::crc32c_append(crc32c::crc32c(&context), &used[CHUNK_HEAD..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_body_and_the_footer_follows() {
        let full = CHUNK_BODY as u64;
        for bytes in [
            0,
            1,
            4088,
            4089,
            full - 1,
            full,
            full + 1,
            3 * full,
            3 * full + 5000,
        ] {
            let bodies = (0..chunks(bytes)).map(|number| body_in_chunk(bytes, number) as u64);
            assert_eq!(bodies.sum::<u64>(), bytes);
            assert_eq!(body_in_chunk(bytes, chunks(bytes)), 0);
            let ends = |number| chunk_at(number) + chunk_bytes(body_in_chunk(bytes, number)) as u64;
            let end = chunks(bytes).checked_sub(1).map_or(CHUNKS_AT, ends);
            assert_eq!(end, footer_at(bytes));
        }
        assert_eq!(footer_at(4088), 8192);
        assert_eq!(footer_at(4089), 12288);
    }

    #[test]
    fn names_tell_the_slot() {
        assert_eq!(slot_of_name(&name(Slot(77))), Some(Slot(77)));
        for other in [
            "snap-0000000000000001.tmp",
            "snap-x.snap",
            "wal-0000000000000001.seg",
        ] {
            assert_eq!(slot_of_name(other), None, "{other}");
        }
    }
}
