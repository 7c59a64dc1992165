//! No single flipped bit of a WAL goes unseen: what production reads a group with must call each of them damage,
//! never a record, never a torn write.
//!
//! A share runs with the other tests. All of them:
//! `cargo test --release -p synod-storage --test bit_flips -- --ignored --nocapture`

mod common;

use common::{History, accepted, disk, open, options, promised, settle, trimmed};
use synod_engine::seams::Wal;
use synod_storage::format::{GROUPS_AT, HeaderError, PAGE, SECTOR, SegmentHeader, SegmentIdentity};
use synod_storage::group::{self, Found, GroupHeader, capacity};

const BYTES: u64 = 1 << 20;

struct Group {
    header: GroupHeader,
    offset: u64,
    sealed: Vec<u8>,
}

/// A full segment of 1 MiB: groups of one page and of many, their records of all kinds.
fn filled() -> (Vec<u8>, SegmentIdentity, Vec<Group>) {
    let options = options(BYTES);
    let disk = disk(&options);
    let (mut wal, _, _) = open(&disk, options).unwrap();
    let mut history = History::default();
    let mut room = (BYTES - GROUPS_AT) as usize / PAGE;
    let sizes = [1, 2, 1, 3, 1, 5, 8, 1, 2, 4, 1, 1, 2].into_iter().cycle();
    for (slot, pages) in (1..).zip(sizes) {
        let pages = usize::min(pages, room);
        let (head, small) = (48, 32 + 32 + 48 + 9);
        history.append(&mut wal, promised(slot));
        history.append(&mut wal, accepted(slot, 9));
        history.append(&mut wal, trimmed(slot / 2));
        let rest = capacity(pages * PAGE) - small - head;
        // Some groups are full to the last byte, the others padded.
        history.append(&mut wal, accepted(slot + 1, rest - slot as usize % 3 * 40));
        wal.submit();
        settle(&mut wal, history.last());
        room -= pages;
        if room == 0 {
            break;
        }
    }
    let image = disk.contents("wal-0000000000000001.seg");
    let identity = SegmentHeader::decode(&image[..PAGE]).unwrap().identity;
    let mut groups = Vec::new();
    let mut offset = GROUPS_AT;
    while offset < BYTES {
        let sector = &image[offset as usize..][..SECTOR];
        let header = group::read_header(sector, identity, offset, BYTES - offset).unwrap();
        let sealed = image[offset as usize..][..header.bytes].to_vec();
        groups.push(Group {
            header,
            offset,
            sealed,
        });
        offset += header.bytes as u64;
    }
    assert!(groups.len() > 90, "{} groups", groups.len());
    (image, identity, groups)
}

/// Whether production takes the bytes for a group with sound records. Anything but damage is a miss.
fn is_accepted(bytes: &mut [u8], identity: SegmentIdentity, offset: u64) -> bool {
    match group::unseal(bytes, identity, offset) {
        Found::Damaged(..) => false,
        Found::Group(header) => group::records(&bytes[..header.bytes], &header, identity).is_ok(),
        other @ (Found::Unwritten | Found::Torn(_)) => panic!("a flipped bit looks {other:?}"),
    }
}

/// Flips each bit of the chosen sectors of the groups; returns how many.
fn flip(mut chosen: impl FnMut(usize) -> bool) -> u64 {
    let (_, identity, groups) = filled();
    let mut flipped = 0;
    for group in &groups {
        let mut bytes = group.sealed.clone();
        assert!(
            is_accepted(&mut bytes, identity, group.offset),
            "an intact group"
        );
        for sector in (0..group.header.bytes / SECTOR).filter(|sector| chosen(*sector)) {
            for bit in sector * SECTOR * 8..(sector + 1) * SECTOR * 8 {
                bytes.copy_from_slice(&group.sealed);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let accepted = is_accepted(&mut bytes, identity, group.offset);
                assert!(
                    !accepted,
                    "bit {bit} of the group at offset {} is unseen",
                    group.offset
                );
                flipped += 1;
            }
        }
    }
    flipped
}

#[test]
fn flipped_bits_of_headers_and_of_one_in_64_sectors_are_damage() {
    let mut sectors = 0;
    let flipped = flip(|sector| {
        sectors += 1;
        sector == 0 || sectors % 64 == 17
    });
    assert!(flipped > 400_000, "{flipped}");
}

#[test]
#[ignore = "eight million flips; see the command above"]
fn every_flipped_bit_of_a_mebibyte_is_damage() {
    let started = std::time::Instant::now();
    let flipped = flip(|_| true);
    println!("{flipped} bits flipped in {:?}", started.elapsed());
    assert_eq!(flipped, (BYTES - GROUPS_AT) * 8);
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_damage() {
    let (image, _, _) = filled();
    for bit in 0..PAGE * 8 {
        let mut page = image[..PAGE].to_vec();
        page[bit / 8] ^= 1 << (bit % 8);
        let damaged = matches!(SegmentHeader::decode(&page), Err(HeaderError::Damaged(_)));
        assert!(damaged, "bit {bit} of the segment header is unseen");
    }
}
