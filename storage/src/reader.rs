//! Reads values back from the segments, beside the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use synod_engine::ids::Slot;
use synod_engine::seams::WalRead;

use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::Sequence;
use crate::group::{self, Found};
use crate::index::Location;
use crate::record;

pub struct ReadJob {
    pub from: Slot,
    pub slots: Vec<(Slot, Location)>,
}

/// The group read last and the file it came from: consecutive slots mostly share both.
pub struct Reader<D: Disk> {
    disk: D,
    /// Segments below this one are gone, or on their way: what is missing there was trimmed, not damaged.
    live_from: Arc<AtomicU64>,
    file: Option<(Location, D::File)>,
    group: Option<(Location, Bytes)>,
}

/// A read that ended. Damage found while running is no failure of the WAL: it ends the read early, and whoever asked
/// turns to another replica.
pub struct ReadDone {
    pub read: WalRead,
    /// What could not be read, and where.
    pub damage: Option<String>,
}

/// Why a value cannot be had.
enum Trouble {
    Trimmed,
    Damaged(String),
}

impl<D: Disk> Reader<D> {
    pub fn new(disk: D, live_from: Arc<AtomicU64>) -> Reader<D> {
        Reader {
            disk,
            live_from,
            file: None,
            group: None,
        }
    }

    pub fn run(&mut self, job: &ReadJob) -> ReadDone {
        let mut values = Vec::with_capacity(job.slots.len());
        let mut damage = None;
        for (slot, location) in &job.slots {
            match self.value(*slot, location) {
                Ok(value) => values.push(value),
                Err(Trouble::Trimmed) => break,
                Err(Trouble::Damaged(what)) => {
                    damage = Some(what);
                    break;
                }
            }
        }
        // A group is up to 2 MiB and a file a descriptor: neither is kept while nobody reads.
        self.group = None;
        self.file = None;
        let from = job.from;
        ReadDone {
            read: WalRead { from, values },
            damage,
        }
    }

    fn value(&mut self, slot: Slot, location: &Location) -> Result<Bytes, Trouble> {
        let group = self.group(location)?;
        let at = location.at as usize;
        let found = record::take(&group[at..], location.identity)
            .ok()
            .and_then(|raw| raw.slot())
            .filter(|(found, _)| *found == slot);
        match found {
            Some((_, value_at)) => {
                let from = at + value_at;
                Ok(group.slice(from..from + location.bytes as usize))
            }
            None => Err(self.trouble(location, "the record is damaged".to_string())),
        }
    }

    fn group(&mut self, location: &Location) -> Result<Bytes, Trouble> {
        let same =
            |kept: &Location| kept.sequence == location.sequence && kept.offset == location.offset;
        if let Some((kept, group)) = &self.group
            && same(kept)
        {
            return Ok(group.clone());
        }
        let mut buffer = AlignedBuffer::new(location.group_bytes as usize);
        self.fill(location, &mut buffer)
            .map_err(|error| self.trouble(location, error.to_string()))?;
        match group::unseal(buffer.as_mut_slice(), location.identity, location.offset) {
            Found::Group(_) => {}
            Found::Unwritten | Found::Torn(_) | Found::Damaged(..) => {
                return Err(self.trouble(location, "the group is damaged".to_string()));
            }
        }
        let group = Bytes::from_owner(buffer);
        self.group = Some((*location, group.clone()));
        Ok(group)
    }

    fn fill(&mut self, location: &Location, buffer: &mut AlignedBuffer) -> std::io::Result<()> {
        let file = match &self.file {
            Some((kept, file)) if kept.sequence == location.sequence => file.clone(),
            Some(_) | None => {
                let name = location.sequence.segment_name();
                let file = self.disk.open(&name, OpenMode::Read)?;
                self.file = Some((*location, file.clone()));
                file
            }
        };
        self.disk
            .read_at(&file, location.offset, buffer.as_mut_slice())
    }

    fn trouble(&self, location: &Location, what: String) -> Trouble {
        if location.sequence < Sequence(self.live_from.load(Ordering::Acquire)) {
            return Trouble::Trimmed;
        }
        let path = self.disk.path(&location.sequence.segment_name());
        Trouble::Damaged(format!(
            "reading {}, offset {}: {what}",
            path.display(),
            location.offset
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::format::SegmentIdentity;

    #[test]
    fn what_is_missing_below_the_oldest_live_segment_was_trimmed() {
        let live_from = Arc::new(AtomicU64::new(5));
        let mut reader = Reader::new(MemoryDisk::new(), live_from.clone());
        let mut damage_in = |sequence| {
            let location = Location {
                sequence: Sequence(sequence),
                identity: SegmentIdentity(1),
                offset: 4096,
                group_bytes: 4096,
                at: 200,
                bytes: 10,
            };
            let done = reader.run(&ReadJob {
                from: Slot(1),
                slots: vec![(Slot(1), location)],
            });
            assert!(done.read.values.is_empty() && done.read.from == Slot(1));
            done.damage.is_some()
        };
        assert_eq!([4, 5, 6].map(&mut damage_in), [false, true, true]);
        live_from.store(7, Ordering::Release);
        assert_eq!([5, 6, 7].map(damage_in), [false, false, true]);
    }
}
