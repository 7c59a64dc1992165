//! The layout of groups (`group.rs`): where things stand, and what each wrong byte is taken for.

mod common;

use common::{accepted, ballot, promised, trimmed, value};
use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;
use synod_storage::format::{PAGE, SECTOR, STAMP_DISTANCE_MAX, SegmentIdentity};
use synod_storage::group::{
    Carried, Found, GroupHeader, Place, any_written, build, bytes_for, capacity, read_header,
    records, records_at, unseal, written_bytes,
};

const IDENTITY: SegmentIdentity = SegmentIdentity(0x5eed);
/// Where the groups stand in their segment.
const OFFSET: u64 = 3 * PAGE as u64;
const PAGES_MAX: usize = 512;
const HEADER_BYTES: usize = 112;
const ACCEPTED_BYTES: usize = 48;

fn header(pages: usize, records: &[Record]) -> GroupHeader {
    let bytes_of = |record: &Record| match record {
        Record::Accepted(accept) => ACCEPTED_BYTES + accept.value.len(),
        Record::Chosen { value, .. } => 32 + value.len(),
        Record::Promised { .. } | Record::Trimmed { .. } => 32,
    };
    GroupHeader {
        bytes: pages * PAGE,
        records: records.len() as u32,
        records_bytes: records.iter().map(bytes_of).sum(),
        first: Lsn(70),
        durable: Lsn(66),
        preceding_end: 5 * PAGE as u64,
        carried: Carried {
            promised: ballot(9),
            trim_floor: Slot(4),
            slot_max: Slot(8),
        },
    }
}

/// A sealed group and the places of its records.
fn sealed(pages: usize, records: &[Record]) -> (Vec<u8>, GroupHeader, Vec<Place>) {
    let header = header(pages, records);
    let mut group = vec![0xee; header.bytes];
    let mut places = Vec::new();
    let all = records.iter();
    build(&mut group, &header, IDENTITY, OFFSET, all, |_, place| {
        places.push(place)
    });
    (group, header, places)
}

/// The places of the table's items and the sectors that hold them, counted one by one: an item for each sector that
/// holds none.
fn table(sectors: usize) -> (usize, Vec<usize>) {
    let mut items = Vec::new();
    for own in 1..=sectors {
        let sector = own - 1;
        let start = sector * SECTOR + if own == 1 { HEADER_BYTES } else { 8 };
        items.extend((start..own * SECTOR).step_by(8));
        if own + items.len() >= sectors {
            items.truncate(sectors - own);
            return (own, items);
        }
    }
    unreachable!("a sector holds more than one item")
}

/// Gives the header's fields a checksum that is right again.
fn refresh(sector: &mut [u8]) {
    let crc = crc32c::crc32c(&sector[16..HEADER_BYTES]);
    sector[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn records_start_behind_the_last_item_of_the_table() {
    assert_eq!(records_at(1), HEADER_BYTES);
    for pages in 1..=PAGES_MAX {
        let (_, items) = table(8 * pages);
        assert_eq!(records_at(8 * pages), items[items.len() - 1] + 8);
        assert_eq!(capacity(pages * PAGE), pages * PAGE - records_at(8 * pages));
    }
}

#[test]
fn a_group_is_the_smallest_that_holds_its_records() {
    let mut pages = 1;
    for bytes in 1..=capacity(20 * PAGE) {
        if capacity(pages * PAGE) < bytes {
            pages += 1;
        }
        assert_eq!(bytes_for(bytes), pages * PAGE, "{bytes} bytes of records");
    }
}

#[test]
fn a_group_of_any_size_gives_back_what_fills_it() {
    for pages in (1..=26).chain([63, 64, 65, PAGES_MAX]) {
        let room = capacity(pages * PAGE);
        for bytes in [room - ACCEPTED_BYTES, room - ACCEPTED_BYTES - 1] {
            let record = accepted(70, bytes);
            let (mut group, header, places) = sealed(pages, std::slice::from_ref(&record));
            let at = records_at(8 * pages);
            let bytes = ACCEPTED_BYTES + bytes;
            assert_eq!(places, [Place { at, bytes }]);
            assert_eq!(
                unseal(&mut group, IDENTITY, OFFSET),
                Found::Group(header),
                "{pages}"
            );
            let found = records(&group, &header, IDENTITY).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!((found.len(), found[0].0), (1, places[0]));
            assert_eq!(found[0].1.to_record(), record);
        }
    }
}

#[test]
fn each_kind_of_record_comes_back_at_its_place() {
    let chosen = Record::Chosen {
        slot: Slot(11),
        value: value(11, 21),
    };
    let all = [accepted(10, 5), promised(9), chosen, trimmed(3)];
    let (mut group, header, places) = sealed(1, &all);
    assert!(matches!(
        unseal(&mut group, IDENTITY, OFFSET),
        Found::Group(_)
    ));
    let found = records(&group, &header, IDENTITY).unwrap_or_else(|e| panic!("{e:?}"));
    let again: Vec<_> = found.iter().map(|(_, raw)| raw.to_record()).collect();
    assert_eq!(again, all);
    let lsns: Vec<_> = found.iter().map(|(_, raw)| raw.lsn.0).collect();
    assert_eq!(lsns, [70, 71, 72, 73]);
    let at: Vec<_> = found.iter().map(|(place, _)| place.at).collect();
    assert_eq!(at, places.iter().map(|place| place.at).collect::<Vec<_>>());
    let slots: Vec<_> = found.iter().map(|(_, raw)| raw.slot()).collect();
    assert_eq!(
        slots,
        [Some((Slot(10), 48)), None, Some((Slot(11), 32)), None]
    );
}

#[test]
fn every_part_of_the_table_is_checked() {
    for pages in [1, 8, 16, 24] {
        let (group, ..) = sealed(pages, &[accepted(70, capacity(pages * PAGE) - 48)]);
        let (_, items) = table(8 * pages);
        for at in items.iter().flat_map(|item| [*item, *item + 7]) {
            let mut group = group.clone();
            group[at] ^= 0x10;
            let wrong = Found::Damaged(HEADER_BYTES, "the sector table is wrong");
            assert_eq!(unseal(&mut group, IDENTITY, OFFSET), wrong, "byte {at}");
        }
    }
}

#[test]
fn a_sector_without_its_stamp_is_torn_and_with_a_flawed_one_damaged() {
    let (group, header, _) = sealed(2, &[accepted(70, 7000)]);
    let flip = |sector: usize, bits: u32| {
        let mut group = group.clone();
        group[sector * SECTOR..][..8]
            .iter_mut()
            .zip([((1u64 << bits) - 1)].iter().flat_map(|m| m.to_le_bytes()))
            .for_each(|(byte, mask)| *byte ^= mask);
        unseal(&mut group, IDENTITY, OFFSET)
    };
    let near = STAMP_DISTANCE_MAX;
    for sector in 1..16 {
        assert_eq!(flip(sector, 0), Found::Group(header));
        let flawed = Found::Damaged(sector * SECTOR, "a sector's stamp is wrong");
        assert_eq!(flip(sector, 1), flawed);
        assert_eq!(flip(sector, near), flawed);
        assert_eq!(flip(sector, near + 1), Found::Torn(sector * SECTOR));
    }
    let flawed = Found::Damaged(0, "the stamp of the group's header is wrong");
    assert_eq!(flip(0, 1), flawed);
    assert_eq!(flip(0, near), flawed);
    assert_eq!(flip(0, near + 1), Found::Unwritten);
}

#[test]
fn padding_must_be_zero() {
    let (group, header, _) = sealed(1, &[promised(9)]);
    let end = records_at(8) + header.records_bytes;
    for at in [end, end + 1, PAGE - 1] {
        let mut group = group.clone();
        group[at] = 1;
        let wrong = Found::Damaged(at, "padding is not zero");
        assert_eq!(unseal(&mut group, IDENTITY, OFFSET), wrong);
    }
}

#[test]
fn a_header_with_one_wrong_field_is_damaged() {
    let (group, header, _) = sealed(2, &[accepted(70, capacity(2 * PAGE) - 48)]);
    let rest = 2 * PAGE as u64;
    let read = |change: &dyn Fn(&mut [u8]), rest| {
        let mut sector = group[..SECTOR].to_vec();
        change(&mut sector);
        read_header(&sector, IDENTITY, OFFSET, rest)
    };
    let put32 = |at: usize, value: u32| {
        move |sector: &mut [u8]| {
            sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
            refresh(sector);
        }
    };
    assert_eq!(read(&|_| {}, rest), Ok(header), "the room is just enough");
    assert_eq!(read(&|_| {}, rest + 512), Ok(header));
    let wrong = Err(Found::Damaged(0, "the group's header is wrong"));
    assert_eq!(read(&|sector| sector[8] ^= 1, rest), wrong, "magic");
    assert_eq!(read(&|sector| sector[12] ^= 1, rest), wrong, "checksum");
    assert_eq!(read(&|sector| sector[100] ^= 1, rest), wrong, "contents");
    let other_life = |sector: &mut [u8]| {
        sector[40] ^= 1;
        refresh(sector);
    };
    assert_eq!(read(&other_life, rest), wrong, "identity");
    let sizes = Err(Found::Damaged(0, "the group's sizes are wrong"));
    assert_eq!(read(&|_| {}, rest - 1), sizes, "crosses the segment's end");
    for bytes in [0, 512, PAGE as u32 + 512, 2 * PAGE as u32 - 1] {
        assert_eq!(read(&put32(16, bytes), rest), sizes, "{bytes} bytes");
    }
    assert_eq!(read(&put32(20, 0), rest), sizes, "no record");
    let room = capacity(2 * PAGE) as u32;
    assert_eq!(read(&put32(52, room), rest), Ok(header));
    assert_eq!(read(&put32(52, room + 1), rest), sizes, "too many bytes");
}

#[test]
fn records_must_follow_each_other_and_fill_their_bytes() {
    let (mut group, header, places) = sealed(1, &[promised(1), promised(2), promised(3)]);
    unseal(&mut group, IDENTITY, OFFSET);
    let wrong_at = |header: GroupHeader| records(&group, &header, IDENTITY).err().map(|e| e.0);
    assert_eq!(wrong_at(header), None);
    let first = Lsn(71);
    let later = GroupHeader { first, ..header };
    assert_eq!(wrong_at(later), Some(places[0].at));
    let fewer = GroupHeader {
        records: 2,
        ..header
    };
    assert_eq!(wrong_at(fewer), Some(places[2].at));
    for missing in 1..=32 {
        let shorter = GroupHeader {
            records_bytes: header.records_bytes - missing,
            ..header
        };
        assert_eq!(wrong_at(shorter), Some(places[2].at), "{missing} bytes");
    }
    let other = records(&group, &header, SegmentIdentity(1)).err();
    assert_eq!(other.map(|error| error.0), Some(places[0].at));
}

#[test]
fn what_was_written_is_told_by_its_stamps() {
    let (group, ..) = sealed(1, &[promised(1)]);
    let mut rest = group.clone();
    rest.extend(vec![0; PAGE]);
    assert!(any_written(&rest, IDENTITY, OFFSET));
    assert_eq!(written_bytes(&rest, IDENTITY, OFFSET), PAGE as u64);
    // Neither of another place nor of another life.
    for (identity, offset) in [(IDENTITY, 0), (SegmentIdentity(1), OFFSET)] {
        assert!(!any_written(&rest, identity, offset));
        assert_eq!(written_bytes(&rest, identity, offset), 0);
    }
    assert!(!any_written(&rest[PAGE..], IDENTITY, OFFSET + PAGE as u64));
    rest[5 * SECTOR..][..8].fill(0);
    assert_eq!(written_bytes(&rest, IDENTITY, OFFSET), 5 * SECTOR as u64);
    rest[..5 * SECTOR].fill(0);
    assert!(any_written(&rest, IDENTITY, OFFSET));
    assert_eq!(written_bytes(&rest, IDENTITY, OFFSET), 0);
    // A stamp with a few flipped bits was written all the same.
    let near = (1u64 << STAMP_DISTANCE_MAX) - 1;
    for (mask, written) in [(near, true), (near << 1 | 1, false)] {
        let mut sector = group[SECTOR..2 * SECTOR].to_vec();
        let stamp = u64::from_le_bytes(sector[..8].try_into().unwrap()) ^ mask;
        sector[..8].copy_from_slice(&stamp.to_le_bytes());
        let found = any_written(&sector, IDENTITY, OFFSET + SECTOR as u64);
        assert_eq!(found, written, "{mask:#x}");
    }
}

#[test]
fn each_record_moves_its_own_mark() {
    let mut carried = Carried::default();
    let chosen = |slot| Record::Chosen {
        slot: Slot(slot),
        value: value(slot, 1),
    };
    for (record, marks) in [
        // To accept at ballot 3 is to promise it.
        (accepted(5, 1), (3, 0, 5)),
        (chosen(7), (3, 0, 7)),
        (promised(4), (4, 0, 7)),
        (trimmed(4), (4, 4, 7)),
        (chosen(6), (4, 4, 7)),
        (accepted(6, 1), (4, 4, 7)),
        (promised(2), (4, 4, 7)),
        (trimmed(2), (4, 4, 7)),
    ] {
        carried.absorb(&record);
        let now = (
            carried.promised.round,
            carried.trim_floor.0,
            carried.slot_max.0,
        );
        assert_eq!(now, marks, "{record:?}");
    }
    assert_eq!(carried.promised, ballot(4));
    let other = Carried {
        promised: ballot(1),
        trim_floor: Slot(9),
        slot_max: Slot(1),
    };
    let highest = Carried {
        trim_floor: Slot(9),
        ..carried
    };
    assert_eq!((carried.max(other), other.max(carried)), (highest, highest));
}
