//! Reads values back from the segments, beside the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use synod_engine::ids::Slot;
use synod_engine::message::Value;
use synod_engine::seams::WalRead;

use crate::buffer::AlignedBuffer;
use crate::disk::{Disk, OpenMode};
use crate::format::Sequence;
use crate::group::{self, Found};
use crate::index::{Location, Run};
use crate::record;

pub struct ReadJob {
    pub from: Slot,
    /// Of consecutive slots.
    pub runs: Vec<Run>,
    pub slots_max: usize,
    /// Values together take no more, unless the first one does.
    pub bytes_max: usize,
}

/// Keeps the file and the group it reads from: what comes next in a read mostly shares them.
pub struct Reader<D: Disk> {
    disk: D,
    /// Segments below this one are gone, or on their way: what is missing there was trimmed, not damaged.
    live_from: Arc<AtomicU64>,
    file: Option<(Sequence, D::File)>,
    group: Option<(Sequence, u64, Bytes)>,
}

/// A read that ended. Damage found while running is no failure of the WAL: it ends the read early, and whoever asked
/// turns to another replica.
pub struct ReadDone {
    pub read: WalRead,
    /// What could not be read, and where.
    pub damage: Option<String>,
}

/// Why a read ends before its last slot.
enum End {
    Enough,
    Trimmed,
    Damaged(String),
}

/// The values of one job so far.
struct Gathered {
    values: Vec<Value>,
    bytes: usize,
    slots_max: usize,
    bytes_max: usize,
}

impl Gathered {
    fn push(&mut self, value: Bytes) -> Result<(), End> {
        let none = self.values.is_empty();
        if !none
            && (self.bytes + value.len() > self.bytes_max || self.values.len() >= self.slots_max)
        {
            return Err(End::Enough);
        }
        self.bytes += value.len();
        self.values.push(value);
        Ok(())
    }
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

    pub fn read(&mut self, job: &ReadJob) -> ReadDone {
        let mut gathered = Gathered {
            values: Vec::new(),
            bytes: 0,
            slots_max: job.slots_max,
            bytes_max: job.bytes_max,
        };
        let end = job
            .runs
            .iter()
            .try_for_each(|run| self.gather(run, &mut gathered));
        // A group is up to 2 MiB and a file a descriptor: neither is kept while nobody reads.
        self.group = None;
        self.file = None;
        let damage = match end {
            Ok(()) | Err(End::Enough | End::Trimmed) => None,
            Err(End::Damaged(what)) => Some(what),
        };
        ReadDone {
            read: WalRead {
                from: job.from,
                values: gathered.values,
            },
            damage,
        }
    }

    /// Reads the values of one run: its records follow each other in their group.
    fn gather(&mut self, run: &Run, gathered: &mut Gathered) -> Result<(), End> {
        let location = &run.location;
        let group = self.group(location)?;
        let mut at = location.at as usize;
        let mut expected = None;
        while expected.is_none_or(|slot| slot <= run.last) {
            let raw = record::take(group.get(at..).unwrap_or_default(), location.identity)
                .map_err(|_| self.trouble(location, "the record is damaged".to_string()))?;
            if let Some((slot, value_at)) = raw.slot() {
                let follows = expected.map_or(slot <= run.first, |expected| slot == expected);
                if !follows {
                    return Err(
                        self.trouble(location, "the records are of other slots".to_string())
                    );
                }
                if slot >= run.first {
                    gathered.push(group.slice(at + value_at..at + raw.bytes))?;
                }
                expected = Some(slot.next());
            }
            at += raw.bytes;
        }
        Ok(())
    }

    fn group(&mut self, location: &Location) -> Result<Bytes, End> {
        if let Some((sequence, offset, group)) = &self.group
            && (*sequence, *offset) == (location.sequence, location.offset)
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
        self.group = Some((location.sequence, location.offset, group.clone()));
        Ok(group)
    }

    fn fill(&mut self, location: &Location, buffer: &mut AlignedBuffer) -> std::io::Result<()> {
        let file = match &self.file {
            Some((kept, file)) if *kept == location.sequence => file.clone(),
            Some(_) | None => {
                let name = location.sequence.segment_name();
                let file = self.disk.open(&name, OpenMode::Read)?;
                self.file = Some((location.sequence, file.clone()));
                file
            }
        };
        self.disk
            .read_at(&file, location.offset, buffer.as_mut_slice())
    }

    fn trouble(&self, location: &Location, what: String) -> End {
        if location.sequence < Sequence(self.live_from.load(Ordering::Acquire)) {
            return End::Trimmed;
        }
        let path = self.disk.path(&location.sequence.segment_name());
        End::Damaged(format!(
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
            };
            let done = reader.read(&ReadJob {
                from: Slot(1),
                runs: vec![Run::one(Slot(1), location, 10)],
                slots_max: 1,
                bytes_max: 1,
            });
            assert!(done.read.values.is_empty() && done.read.from == Slot(1));
            done.damage.is_some()
        };
        assert_eq!([4, 5, 6].map(&mut damage_in), [false, true, true]);
        live_from.store(7, Ordering::Release);
        assert_eq!([5, 6, 7].map(damage_in), [false, false, true]);
    }
}
