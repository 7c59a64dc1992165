//! A group: what one write carries. It starts at a page boundary and fills whole pages.
//!
//! ```text
//!   0  stamp u64 (the kind that starts a group)
//!   8  "SGRP"                    12  crc32c u32, of bytes 16..112
//!  16  total bytes u32           20  record count u32
//!  24  first lsn u64             32  durable lsn u64, as known when the group was sealed
//!  40  segment identity u64      48  crc32c u32 of the sector table    52  bytes of records u32
//!  56  where the groups of the preceding segment end u64 (0: there is none)
//!  64  promised round u64        72  trim floor u64                    80  highest slot of the WAL u64
//!  88  promised replica u8, zero u8 × 23
//! 112  sector table: 8 bytes for each sector behind the table's own last one
//!      records, back to back, from where the table ends
//!      zeros up to the next page boundary
//! ```
//! The fields from 64 on are what held before this group's records (promise, floor, highest slot); those of a
//! segment's first group are what makes earlier segments dispensable.
//!
//! Each sector starts with a stamp of (segment identity, place in the file). The sectors of header and table leave
//! 8 bytes free for it (so a table sector holds 63 items, the header's 50); the others give their first 8 bytes to
//! the table while the group is sealed. So every sector tells by itself whether it was written in this life of the
//! file: a sector without stamp was never written, a stamped one with wrong content is damaged.

use synod_engine::ids::{Ballot, Lsn, ReplicaId, Slot};
use synod_engine::message::Record;

use crate::format::{PAGE, SECTOR, STAMP_DISTANCE_MAX, SegmentIdentity, u32_at, u64_at};
use crate::record::{self, RawRecord, RecordError};

const MAGIC: [u8; 4] = *b"SGRP";
const HEADER_BYTES: usize = 112;
const STAMP_BYTES: usize = 8;
/// Table items in the header's sector and in each further one.
const ITEMS_FIRST: usize = (SECTOR - HEADER_BYTES) / 8;
const ITEMS_NEXT: usize = (SECTOR - STAMP_BYTES) / 8;
const _: () = assert!(ITEMS_FIRST == 50 && ITEMS_NEXT == 63);

/// What earlier groups established, carried along so that no segment is needed for the sake of its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Carried {
    pub promised: Ballot,
    pub trim_floor: Slot,
    pub slot_max: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub bytes: usize,
    pub records: u32,
    pub records_bytes: usize,
    pub first: Lsn,
    pub durable: Lsn,
    pub preceding_end: u64,
    pub carried: Carried,
}

/// What stands where a group is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Everything but the records was checked, and the group is unsealed.
    Group(GroupHeader),
    /// The first sector was never written in this life of the file.
    Unwritten,
    /// The first sector was written, the one at this offset of the group never.
    Torn(usize),
    /// Written, and changed since, at this offset of the group.
    Damaged(usize, &'static str),
}

impl Carried {
    /// Takes in one more record.
    pub fn absorb(&mut self, record: &Record) {
        match record {
            Record::Promised { ballot } => self.promised = self.promised.max(*ballot),
            Record::Accepted(accept) => {
                // To accept at a ballot is to promise it, whether a Prepare of it ever came or not.
                self.promised = self.promised.max(accept.ballot);
                self.slot_max = self.slot_max.max(accept.slot);
            }
            Record::Chosen { slot, .. } => self.slot_max = self.slot_max.max(*slot),
            Record::Trimmed { floor } => self.trim_floor = self.trim_floor.max(*floor),
        }
    }

    pub fn max(self, other: Carried) -> Carried {
        Carried {
            promised: self.promised.max(other.promised),
            trim_floor: self.trim_floor.max(other.trim_floor),
            slot_max: self.slot_max.max(other.slot_max),
        }
    }
}

/// Bytes of records that a group of `bytes` (whole pages) can hold.
pub fn capacity(bytes: usize) -> usize {
    bytes - records_at(bytes / SECTOR)
}

/// The size in bytes of the smallest group that holds `records_bytes`.
pub fn bytes_for(records_bytes: usize) -> usize {
    let mut bytes = (records_bytes + HEADER_BYTES).next_multiple_of(PAGE);
    while capacity(bytes) < records_bytes {
        bytes += PAGE;
    }
    bytes
}

/// Sectors that header and table of a group of `sectors` take, the last one perhaps shared with records.
fn table_sectors(sectors: usize) -> usize {
    // The least k with ITEMS_FIRST + ITEMS_NEXT × (k − 1) ≥ sectors − k.
    (sectors + ITEMS_NEXT - ITEMS_FIRST)
        .div_ceil(ITEMS_NEXT + 1)
        .max(1)
}

/// Where the item of the `i`-th sector behind the table's own stands.
fn item_at(i: usize) -> usize {
    if i < ITEMS_FIRST {
        return HEADER_BYTES + 8 * i;
    }
    let i = i - ITEMS_FIRST;
    (1 + i / ITEMS_NEXT) * SECTOR + STAMP_BYTES + 8 * (i % ITEMS_NEXT)
}

/// Where the records of a group of `sectors` start: right behind the last item.
pub fn records_at(sectors: usize) -> usize {
    match (sectors - table_sectors(sectors)).checked_sub(1) {
        Some(last) => item_at(last) + 8,
        None => HEADER_BYTES,
    }
}

/// The parts of the group that hold table items.
fn table_checksum(group: &[u8]) -> u32 {
    let sectors = group.len() / SECTOR;
    let end = records_at(sectors);
    let mut crc = 0;
    for sector in 0..table_sectors(sectors) {
        let from = sector * SECTOR
            + if sector == 0 {
                HEADER_BYTES
            } else {
                STAMP_BYTES
            };
        let through = end.min((sector + 1) * SECTOR);
        crc = crc32c::crc32c_append(crc, &group[from..through]);
    }
    crc
}

/// Completes a group whose records stand at their place already: zeros behind them, table, stamps, header.
/// `offset` is where the group will stand in its segment.
pub fn seal(group: &mut [u8], header: &GroupHeader, identity: SegmentIdentity, offset: u64) {
    let sectors = group.len() / SECTOR;
    let at = records_at(sectors);
    assert!(
        group.len() == header.bytes && group.len().is_multiple_of(PAGE),
        "a group is not whole pages"
    );
    assert!(
        header.records > 0 && header.records_bytes <= capacity(header.bytes),
        "a group holds nothing, or too much"
    );
    group[at + header.records_bytes..].fill(0);
    let first_sector = offset / SECTOR as u64;
    let own = table_sectors(sectors);
    for sector in 1..sectors {
        let stamp = identity.stamp(first_sector + sector as u64, false);
        let start = sector * SECTOR;
        if sector >= own {
            group.copy_within(start..start + STAMP_BYTES, item_at(sector - own));
        }
        group[start..start + STAMP_BYTES].copy_from_slice(&stamp.to_le_bytes());
    }
    let stamp = identity.stamp(first_sector, true);
    group[..8].copy_from_slice(&stamp.to_le_bytes());
    put_header(group, header, identity);
}

fn put_header(group: &mut [u8], header: &GroupHeader, identity: SegmentIdentity) {
    let table = table_checksum(group);
    group[8..12].copy_from_slice(&MAGIC);
    group[16..20].copy_from_slice(&(header.bytes as u32).to_le_bytes());
    group[20..24].copy_from_slice(&header.records.to_le_bytes());
    group[24..32].copy_from_slice(&header.first.0.to_le_bytes());
    group[32..40].copy_from_slice(&header.durable.0.to_le_bytes());
    group[40..48].copy_from_slice(&identity.0.to_le_bytes());
    group[48..52].copy_from_slice(&table.to_le_bytes());
    group[52..56].copy_from_slice(&(header.records_bytes as u32).to_le_bytes());
    group[56..64].copy_from_slice(&header.preceding_end.to_le_bytes());
    group[64..72].copy_from_slice(&header.carried.promised.round.to_le_bytes());
    group[72..80].copy_from_slice(&header.carried.trim_floor.0.to_le_bytes());
    group[80..88].copy_from_slice(&header.carried.slot_max.0.to_le_bytes());
    group[88..HEADER_BYTES].fill(0);
    group[88] = header.carried.promised.replica.0;
    let crc = crc32c::crc32c(&group[16..HEADER_BYTES]);
    group[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// How many bits the stamp of a sector differs from what it should be.
fn distance(sector: &[u8], stamp: u64) -> u32 {
    (u64_at(sector, 0) ^ stamp).count_ones()
}

/// Whether any sector of `rest`, which starts at `offset` of its segment, was written in this life of the file.
pub fn any_written(rest: &[u8], identity: SegmentIdentity, offset: u64) -> bool {
    let first = offset / SECTOR as u64;
    rest.chunks_exact(SECTOR)
        .zip(first..)
        .any(|(sector, number)| is_written(sector, identity, number))
}

/// How many bytes at the front of `rest`, which starts at `offset` of its segment, were written in this life of the
/// file without a sector left out.
pub fn written_bytes(rest: &[u8], identity: SegmentIdentity, offset: u64) -> u64 {
    let first = offset / SECTOR as u64;
    let written = rest
        .chunks_exact(SECTOR)
        .zip(first..)
        .take_while(|(sector, number)| is_written(sector, identity, *number))
        .count();
    (written * SECTOR) as u64
}

/// Whether a sector bears this life's stamp of its place, a few flipped bits allowed.
fn is_written(sector: &[u8], identity: SegmentIdentity, number: u64) -> bool {
    [false, true]
        .into_iter()
        .any(|starts| distance(sector, identity.stamp(number, starts)) <= STAMP_DISTANCE_MAX)
}

/// Reads the header alone from the first sector of a group. `rest` is the room from here to the segment's end.
pub fn read_header(
    sector: &[u8],
    identity: SegmentIdentity,
    offset: u64,
    rest: u64,
) -> Result<GroupHeader, Found> {
    let off = distance(sector, identity.stamp(offset / SECTOR as u64, true));
    if off > STAMP_DISTANCE_MAX {
        return Err(Found::Unwritten);
    }
    let bytes = u32_at(sector, 16) as usize;
    let records_bytes = u32_at(sector, 52) as usize;
    let intact = sector[8..12] == MAGIC
        && crc32c::crc32c(&sector[16..HEADER_BYTES]) == u32_at(sector, 12)
        && u64_at(sector, 40) == identity.0;
    if !intact {
        return Err(Found::Damaged(0, "the group's header is wrong"));
    }
    if off > 0 {
        return Err(Found::Damaged(
            0,
            "the stamp of the group's header is wrong",
        ));
    }
    let sound = bytes >= PAGE
        && bytes.is_multiple_of(PAGE)
        && bytes as u64 <= rest
        && records_bytes <= capacity(bytes)
        && u32_at(sector, 20) > 0;
    if !sound {
        return Err(Found::Damaged(0, "the group's sizes are wrong"));
    }
    Ok(GroupHeader {
        bytes,
        records: u32_at(sector, 20),
        records_bytes,
        first: Lsn(u64_at(sector, 24)),
        durable: Lsn(u64_at(sector, 32)),
        preceding_end: u64_at(sector, 56),
        carried: Carried {
            promised: Ballot {
                round: u64_at(sector, 64),
                replica: ReplicaId(sector[88]),
            },
            trim_floor: Slot(u64_at(sector, 72)),
            slot_max: Slot(u64_at(sector, 80)),
        },
    })
}

/// Looks for a group at the front of `rest` (the segment from `offset` to its end) and unseals it in place.
pub fn unseal(rest: &mut [u8], identity: SegmentIdentity, offset: u64) -> Found {
    let header = match read_header(&rest[..SECTOR], identity, offset, rest.len() as u64) {
        Ok(header) => header,
        Err(found) => return found,
    };
    let group = &mut rest[..header.bytes];
    let first_sector = offset / SECTOR as u64;
    let mut flipped = None;
    for (i, sector) in group.chunks_exact(SECTOR).enumerate().skip(1) {
        match distance(sector, identity.stamp(first_sector + i as u64, false)) {
            0 => {}
            1..=STAMP_DISTANCE_MAX => flipped = Some(i * SECTOR),
            _ => return Found::Torn(i * SECTOR),
        }
    }
    if let Some(at) = flipped {
        return Found::Damaged(at, "a sector's stamp is wrong");
    }
    if table_checksum(group) != u32_at(group, 48) {
        return Found::Damaged(HEADER_BYTES, "the sector table is wrong");
    }
    let sectors = group.len() / SECTOR;
    let own = table_sectors(sectors);
    for sector in own..sectors {
        let item = item_at(sector - own);
        group.copy_within(item..item + STAMP_BYTES, sector * SECTOR);
    }
    let end = records_at(sectors) + header.records_bytes;
    if let Some(at) = group[end..].iter().position(|byte| *byte != 0) {
        return Found::Damaged(end + at, "padding is not zero");
    }
    Found::Group(header)
}

/// A record's place in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: usize,
    pub bytes: usize,
}

/// Writes records from `records` into `group` and seals it.
pub fn build<'a>(
    group: &mut [u8],
    header: &GroupHeader,
    identity: SegmentIdentity,
    offset: u64,
    records: impl Iterator<Item = &'a Record>,
    mut placed: impl FnMut(&Record, Place),
) {
    let mut at = records_at(group.len() / SECTOR);
    let end = at + header.records_bytes;
    let mut lsn = header.first;
    for item in records {
        let bytes = record::put(&mut group[at..], identity, lsn, item);
        placed(item, Place { at, bytes });
        at += bytes;
        lsn = lsn.next();
    }
    assert!(
        at == end && lsn.0 == header.first.0 + u64::from(header.records),
        "a group's records do not fill it as computed"
    );
    seal(group, header, identity, offset);
}

/// Checks and returns the records of an unsealed group, or the first bad one's offset in the group.
pub fn records<'g>(
    group: &'g [u8],
    header: &GroupHeader,
    identity: SegmentIdentity,
) -> Result<Vec<(Place, RawRecord<'g>)>, (usize, RecordError)> {
    let mut records = Vec::new();
    let mut at = records_at(group.len() / SECTOR);
    let end = at + header.records_bytes;
    let mut lsn = header.first;
    for _ in 0..header.records {
        let raw = record::take(&group[at..end], identity).map_err(|error| (at, error))?;
        if raw.lsn != lsn {
            return Err((at, RecordError::Damaged("a record's lsn is out of order")));
        }
        let bytes = raw.bytes;
        records.push((Place { at, bytes }, raw));
        at += bytes;
        lsn = lsn.next();
    }
    if at != end {
        return Err((
            at,
            RecordError::Damaged("bytes are left behind the records"),
        ));
    }
    Ok(records)
}
