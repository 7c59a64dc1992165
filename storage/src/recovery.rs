//! What the segments hold: everything durable, or a refusal that names the place.
//!
//! The rule at a place where a group is expected, with `expected` the lsn it would start with and `watermark` the
//! highest durable lsn that any group tells of:
//! - Groups of segment n + 1 are written only when all of segment n is durable. So a segment whose successor holds
//!   the header of a first group is complete, and that header says where it ends: anything invalid before is damage.
//! - In the last segment, `expected ≤ watermark` means that durable data is gone: damage.
//! - A first sector with this life's stamp and a wrong header, or all stamps in place and a wrong checksum: damage,
//!   because a disk writes a sector whole or not at all.
//! - A sector of the group without stamp: the write was torn, nothing from here on was acknowledged. Cut.
//! - A first sector without stamp: never written. Later groups overtook it and were never acknowledged. Cut.
//!
//! What cannot be known: if the last groups' sectors were acknowledged by a disk that lost them whole, and no later
//! group carries a watermark above them, they look never written. The same holds if the newest used segment and all
//! prepared ones after it are removed together.

use std::path::PathBuf;

use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;

use crate::disk::{Disk, OpenMode};
use crate::error::OpenError;
use crate::format::{
    GROUPS_AT, HeaderError, Identity, PAGE, SECTOR, SegmentHeader, SegmentIdentity, Sequence,
};
use crate::group::{self, Carried, Found, GroupHeader, Place};
use crate::index::{Index, Location};
use crate::record::{RawRecord, RecordError};

/// A record and where it stands, for messages and tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordAt {
    pub lsn: Lsn,
    pub file: PathBuf,
    /// Of the record in the file, in bytes; sector heads inside it are sealed on disk.
    pub offset: u64,
}

/// One used segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub sequence: Sequence,
    pub identity: SegmentIdentity,
    /// Where its groups end.
    pub end: u64,
    pub groups: u64,
    pub last: Lsn,
    /// The highest slot in this segment or an earlier one.
    pub slot_max: Slot,
}

/// Where the WAL was cut, if the last write did not reach the disk whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: PathBuf,
    pub offset: u64,
    pub why: String,
}

pub struct Recovered {
    pub segments: Vec<Segment>,
    /// Prepared segments that hold nothing.
    pub empty: Vec<Sequence>,
    pub ready_files: Vec<String>,
    pub last: Lsn,
    pub carried: Carried,
    pub records: u64,
    pub bytes: u64,
    pub cut: Option<Cut>,
    pub index: Index,
}

/// A segment file as its first two pages show it.
struct Glimpse {
    sequence: Sequence,
    identity: SegmentIdentity,
    first_group: Option<GroupHeader>,
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    identity: &'a Identity,
    visit: &'a mut dyn FnMut(RecordAt, Record),
    found: Recovered,
    image: Vec<u8>,
}

/// Reads the whole WAL, in order. Changes nothing.
pub fn recover<D: Disk>(
    disk: &D,
    identity: &Identity,
    visit: &mut dyn FnMut(RecordAt, Record),
) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery {
        disk,
        identity,
        visit,
        found: Recovered {
            segments: Vec::new(),
            empty: Vec::new(),
            ready_files: Vec::new(),
            last: Lsn::ZERO,
            carried: Carried::default(),
            records: 0,
            bytes: 0,
            cut: None,
            index: Index::default(),
        },
        image: vec![0; identity.segment_bytes as usize],
    };
    let glimpses = recovery.glimpse_all()?;
    recovery.replay(&glimpses)?;
    Ok(recovery.found)
}

impl<D: Disk> Recovery<'_, D> {
    fn replay(&mut self, glimpses: &[Glimpse]) -> Result<(), OpenError> {
        let used = glimpses
            .iter()
            .rposition(|glimpse| glimpse.first_group.is_some())
            .map_or(0, |last| last + 1);
        let watermark = self.watermark(&glimpses[used.saturating_sub(1)..])?;
        if let Some(first) = glimpses[..used].first().and_then(|g| g.first_group) {
            self.found.last = Lsn(first.first.0 - 1);
        }
        for i in 0..used {
            let next = glimpses.get(i + 1).and_then(|next| next.first_group);
            self.replay_segment(&glimpses[i], next.as_ref(), watermark)?;
        }
        self.check_beginning(&glimpses[0])?;
        for glimpse in &glimpses[used..] {
            self.check_empty(glimpse, watermark)?;
            self.found.empty.push(glimpse.sequence);
        }
        Ok(())
    }

    /// Segments below the first one present must have been dropped on purpose: all their slots below the floor.
    fn check_beginning(&self, first: &Glimpse) -> Result<(), OpenError> {
        if first.sequence == Sequence::FIRST {
            return Ok(());
        }
        let missing = Sequence(first.sequence.0 - 1).segment_name();
        let why = match &first.first_group {
            None => "the first segment present is an unused one",
            Some(group) if group.carried.slot_max >= self.found.carried.trim_floor => {
                "it holds slots that were never trimmed"
            }
            Some(_) => return Ok(()),
        };
        Err(OpenError::SegmentMissing {
            path: self.disk.path(&missing),
            why: why.to_string(),
        })
    }

    /// `next` is the header of the first group of the segment behind, if that has one: then this one is complete.
    fn replay_segment(
        &mut self,
        glimpse: &Glimpse,
        next: Option<&GroupHeader>,
        watermark: Lsn,
    ) -> Result<(), OpenError> {
        let size = self.identity.segment_bytes;
        let path = self.disk.path(&glimpse.sequence.segment_name());
        let Some(first) = &glimpse.first_group else {
            return Err(damaged(path, GROUPS_AT, "its first group is missing"));
        };
        self.found.carried = self.found.carried.max(first.carried);
        let end = match next {
            Some(next) if next.preceding_end <= size => next.preceding_end,
            Some(_) => return Err(damaged(path, size, "its end is said to be beyond its size")),
            None => size,
        };
        self.load(glimpse.sequence, end)?;
        let mut offset = GROUPS_AT;
        let mut groups = 0;
        while offset < end {
            match self.replay_group(glimpse, &path, offset, end)? {
                Found::Group(header) => {
                    offset += header.bytes as u64;
                    groups += 1;
                }
                other => {
                    let complete = next.is_some();
                    self.cut_or_refuse(other, glimpse, offset, complete, watermark)?;
                    break;
                }
            }
        }
        if next.is_some_and(|next| next.first != self.found.last.next()) {
            return Err(damaged(
                path,
                offset,
                "its last lsn is not the one before the next segment's first",
            ));
        }
        self.found.bytes += offset;
        self.found.segments.push(Segment {
            sequence: glimpse.sequence,
            identity: glimpse.identity,
            end: offset,
            groups,
            last: self.found.last,
            slot_max: self.found.carried.slot_max,
        });
        Ok(())
    }

    /// Visits the records of the group at `offset` of the loaded image.
    fn replay_group(
        &mut self,
        glimpse: &Glimpse,
        path: &std::path::Path,
        offset: u64,
        end: u64,
    ) -> Result<Found, OpenError> {
        let rest = &mut self.image[offset as usize..end as usize];
        let found = group::unseal(rest, glimpse.identity, offset);
        let Found::Group(header) = found else {
            return Ok(found);
        };
        let path = path.to_path_buf();
        if header.first != self.found.last.next() {
            return Err(damaged(
                path,
                offset,
                "a group's first lsn does not follow the last one",
            ));
        }
        let (recovered, visit) = (&mut self.found, &mut *self.visit);
        let mut each = |place: Place, raw: &RawRecord<'_>| {
            let record = raw.to_record();
            recovered.carried.absorb(&record);
            recovered.last = raw.lsn;
            recovered.records += 1;
            if let Some((slot, value_at)) = raw.slot() {
                let location = Location {
                    sequence: glimpse.sequence,
                    identity: glimpse.identity,
                    offset,
                    group_bytes: header.bytes as u32,
                    at: place.at as u32,
                    bytes: (place.bytes - value_at) as u32,
                };
                recovered.index.insert(slot, location);
            }
            let at = RecordAt {
                lsn: raw.lsn,
                file: path.clone(),
                offset: offset + place.at as u64,
            };
            visit(at, record);
        };
        let group = &rest[..header.bytes];
        match group::records(group, &header, glimpse.identity, &mut each) {
            Ok(()) => Ok(Found::Group(header)),
            Err((at, RecordError::Damaged(why))) => Err(damaged(path, offset + at as u64, why)),
            Err((at, RecordError::NewerKind(kind))) => Err(OpenError::NewerFormat {
                path,
                offset: offset + at as u64,
                kind,
            }),
        }
    }

    fn cut_or_refuse(
        &mut self,
        found: Found,
        glimpse: &Glimpse,
        offset: u64,
        complete: bool,
        watermark: Lsn,
    ) -> Result<(), OpenError> {
        let path = self.disk.path(&glimpse.sequence.segment_name());
        let identity = glimpse.identity;
        let expected = self.found.last.next();
        let (at, what) = match found {
            Found::Damaged(at, why) => return Err(damaged(path, offset + at as u64, why)),
            Found::Torn(at) => (offset + at as u64, "a sector of a group was not written"),
            Found::Unwritten => (offset, "a group was not written"),
            Found::Group(_) => unreachable!("a valid group is no end"),
        };
        if complete {
            return Err(damaged(path, at, what));
        }
        if expected <= watermark {
            let why = format!("{what}, but lsn {} was durable", watermark.0);
            return Err(damaged(path, at, &why));
        }
        if group::any_written(&self.image[offset as usize..], identity, offset) {
            self.found.cut = Some(Cut {
                file: path,
                offset,
                why: format!("{what}; the WAL ends with lsn {}", self.found.last.0),
            });
        }
        Ok(())
    }

    /// A segment behind the last used one: its first group may be torn, but not damaged, and not durable.
    fn check_empty(&mut self, glimpse: &Glimpse, watermark: Lsn) -> Result<(), OpenError> {
        let path = self.disk.path(&glimpse.sequence.segment_name());
        self.load(glimpse.sequence, GROUPS_AT + PAGE as u64)?;
        let sector = &self.image[PAGE..PAGE + SECTOR];
        let rest = self.identity.segment_bytes - GROUPS_AT;
        match group::read_header(sector, glimpse.identity, GROUPS_AT, rest) {
            Err(Found::Unwritten) if self.found.last.next() <= watermark => {
                let why = format!(
                    "its first group is missing, but lsn {} was durable",
                    watermark.0
                );
                Err(damaged(path, GROUPS_AT, &why))
            }
            Err(Found::Unwritten) => Ok(()),
            Err(Found::Damaged(at, why)) => Err(damaged(path, GROUPS_AT + at as u64, why)),
            Ok(_) | Err(_) => unreachable!("an unused segment starts with a group"),
        }
    }

    /// The highest lsn that any group in the last used segment, or behind, knew to be durable. Looks behind holes
    /// too: a group there may tell that what is missing was durable.
    fn watermark(&mut self, glimpses: &[Glimpse]) -> Result<Lsn, OpenError> {
        let mut watermark = Lsn::ZERO;
        let size = self.identity.segment_bytes;
        for glimpse in glimpses {
            self.load(glimpse.sequence, size)?;
            for offset in (GROUPS_AT..size).step_by(PAGE) {
                let sector = &self.image[offset as usize..offset as usize + SECTOR];
                let header = group::read_header(sector, glimpse.identity, offset, size - offset);
                if let Ok(header) = header {
                    watermark = watermark.max(header.durable);
                }
            }
        }
        Ok(watermark)
    }

    fn load(&mut self, sequence: Sequence, end: u64) -> Result<(), OpenError> {
        let name = sequence.segment_name();
        let image = &mut self.image[..end as usize];
        self.disk
            .open(&name, OpenMode::Read)
            .and_then(|file| self.disk.read_at(&file, 0, image))
            .map_err(OpenError::io("reading", self.disk.path(&name)))
    }

    /// Lists the segments, checks that none is missing, and reads their headers.
    fn glimpse_all(&mut self) -> Result<Vec<Glimpse>, OpenError> {
        let files = self
            .disk
            .list()
            .map_err(OpenError::io("listing", self.disk.path("")))?;
        let mut sequences = Vec::new();
        for (name, bytes) in files {
            if let Some(sequence) = Sequence::of_segment_name(&name) {
                sequences.push((sequence, bytes));
            } else if name.starts_with("ready-") && !name.ends_with(".tmp") {
                self.found.ready_files.push(name);
            }
        }
        sequences.sort();
        if sequences.is_empty() {
            return Err(self.missing(Sequence::FIRST, "no segment is left"));
        }
        let mut expected = sequences[0].0;
        for (sequence, bytes) in &sequences {
            if *sequence != expected {
                return Err(self.missing(expected, "segments after it are there"));
            }
            expected = expected.next();
            if *bytes != self.identity.segment_bytes {
                return Err(OpenError::SegmentSize {
                    path: self.disk.path(&sequence.segment_name()),
                    bytes: *bytes,
                    expected: self.identity.segment_bytes,
                });
            }
        }
        sequences
            .iter()
            .map(|(sequence, _)| self.glimpse(*sequence))
            .collect()
    }

    fn glimpse(&mut self, sequence: Sequence) -> Result<Glimpse, OpenError> {
        self.load(sequence, GROUPS_AT + PAGE as u64)?;
        let path = self.disk.path(&sequence.segment_name());
        let header = self.check_header(sequence, path)?;
        let rest = self.identity.segment_bytes - GROUPS_AT;
        let sector = &self.image[PAGE..PAGE + SECTOR];
        Ok(Glimpse {
            sequence,
            identity: header.identity,
            first_group: group::read_header(sector, header.identity, GROUPS_AT, rest).ok(),
        })
    }

    fn check_header(&self, sequence: Sequence, path: PathBuf) -> Result<SegmentHeader, OpenError> {
        let header = match SegmentHeader::decode(&self.image[..PAGE]) {
            Ok(header) => header,
            Err(HeaderError::Version(found)) => {
                return Err(OpenError::Version {
                    path,
                    found,
                    expected: crate::format::VERSION,
                });
            }
            Err(HeaderError::Damaged(why)) => return Err(header_damaged(path, why)),
        };
        if header.cluster != self.identity.cluster {
            return Err(OpenError::WrongCluster {
                path,
                found: header.cluster,
                expected: self.identity.cluster,
            });
        }
        if header.replica != self.identity.replica {
            return Err(OpenError::WrongReplica {
                path,
                found: header.replica,
                expected: self.identity.replica,
            });
        }
        if header.sequence != sequence {
            return Err(header_damaged(path, "it is another segment's"));
        }
        if header.segment_bytes != self.identity.segment_bytes {
            return Err(header_damaged(path, "it tells of another size"));
        }
        Ok(header)
    }

    fn missing(&self, sequence: Sequence, why: &str) -> OpenError {
        OpenError::SegmentMissing {
            path: self.disk.path(&sequence.segment_name()),
            why: why.to_string(),
        }
    }
}

fn damaged(path: PathBuf, offset: u64, why: &str) -> OpenError {
    OpenError::Damaged {
        path,
        offset,
        why: why.to_string(),
    }
}

fn header_damaged(path: PathBuf, why: &str) -> OpenError {
    OpenError::SegmentHeader {
        path,
        offset: 0,
        why: why.to_string(),
    }
}
