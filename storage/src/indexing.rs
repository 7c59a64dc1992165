//! Which slots stand in segments that a start passed over. Peers that lag a little may still ask for them, so they are
//! indexed beside the loop, after the start.

use std::io;

use crate::buffer::{AlignedBuffer, PAGE_BYTES};
use crate::disk::{Disk, OpenMode};
use crate::format::{GROUPS_AT, SECTOR};
use crate::group::{self, Found};
use crate::index::{Index, Location, Run, gather};
use crate::recovery::Skipped;

/// The runs of one segment, the newest of each slot, up to the first damage. `rest` is called after each group.
pub fn index_segment<D: Disk>(disk: &D, segment: &Skipped, rest: &mut dyn FnMut()) -> Vec<Run> {
    let mut index = Index::default();
    let name = segment.sequence.segment_name();
    let Ok(file) = disk.open(&name, OpenMode::Read) else {
        // Dropped meanwhile, or damaged: either way nobody can read from it.
        return Vec::new();
    };
    let mut offset = GROUPS_AT;
    while offset < segment.end {
        match index_group(disk, &file, segment, offset, &mut index) {
            Ok(Some(bytes)) => offset += bytes as u64,
            Ok(None) | Err(_) => break,
        }
        rest();
    }
    index.into_runs()
}

/// The size of the group at `offset`, if there is an intact one.
fn index_group<D: Disk>(
    disk: &D,
    file: &D::File,
    segment: &Skipped,
    offset: u64,
    index: &mut Index,
) -> io::Result<Option<usize>> {
    let room = segment.end - offset;
    let mut page = AlignedBuffer::new(PAGE_BYTES);
    disk.read_at(file, offset, page.as_mut_slice())?;
    let sector = &page.as_ref()[..SECTOR];
    let Ok(header) = group::read_header(sector, segment.identity, offset, room) else {
        return Ok(None);
    };
    let mut buffer = AlignedBuffer::new(header.bytes);
    disk.read_at(file, offset, buffer.as_mut_slice())?;
    let memory = buffer.as_mut_slice();
    if !matches!(
        group::unseal(memory, segment.identity, offset),
        Found::Group(_)
    ) {
        return Ok(None);
    }
    let Ok(records) = group::records(memory, &header, segment.identity) else {
        return Ok(None);
    };
    let mut runs = Vec::new();
    for (place, raw) in records {
        if let Some((slot, value_at)) = raw.slot() {
            let location = Location {
                sequence: segment.sequence,
                identity: segment.identity,
                offset,
                group_bytes: header.bytes as u32,
                at: place.at as u32,
            };
            gather(&mut runs, slot, location, place.bytes - value_at);
        }
    }
    runs.into_iter().for_each(|run| index.insert(run));
    Ok(Some(header.bytes))
}
