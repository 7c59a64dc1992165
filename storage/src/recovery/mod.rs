//! What the segments hold: everything durable, holes where some of it cannot be read any more, or a refusal.
//!
//! A crash may leave groups unwritten or torn that nobody was told about: they are cut. Everything else that is
//! missing was durable and is damage. After "Protocol-Aware Recovery for Consensus-Based Storage" (Alagappan et al.,
//! FAST'18), damage is not the end of a replica: what it lost, its peers know, as long as it does not vote as if it
//! had never known it. So damage with an intact group of this WAL behind it is a *hole*: recovery reports it and goes
//! on behind it. The header of that group carries the promise, the trim floor and the highest slot as they were
//! before its records: no lost record promised more or was of a higher slot. Damage with no intact group behind it
//! is refused: the lost records may have held a promise that nobody else can tell.
//!
//! What the writer guarantees (`wal.rs`, `segments.rs`):
//! 1. Groups of segment n + 1 are written only when all of segment n is durable. So the header of its first group
//!    says where the groups of segment n end, and everything before that place was durable.
//! 2. A header's `durable` was true when the group was sealed, and no recovery ever cuts below it.
//! 3. A segment is written in one life of the process; after a reopening comes a new segment. So a group that was
//!    cut is *dead*: it stays in its segment, and its lsns are given again in a later segment.
//!
//! Where a group is expected and none is, with `expected` the lsn it would start with, the next intact group G behind
//! is alive, and what lies before it is a hole, if one of these holds:
//! - The end of G's segment is known by (1) and G lies before it.
//! - A header in G's segment, intact, knew the lsn before G's first to be durable. It has to be the same segment:
//!   a later one may mean other groups with the lsns of dead ones (3).
//! - Every sector from the place, or from the start of G's segment, up to G was written in this life of the segment.
//!   So the groups before G were complete on disk, and no crash made a gap there; by (1) so were earlier segments.
//!
//! A candidate counts only if all of it verifies, records included. Bytes of a client can't make one: each sector
//! starts with a stamp of its own, derived from the segment's identity, and only a header's sector has the kind of
//! stamp that starts a group.
//!
//! If no group behind is alive, the WAL ends here:
//! - Some intact header says that `expected` was durable: damage, refused, even if not all that is missing was.
//! - A first sector with this life's stamp and a wrong header, or all stamps in place and a wrong checksum: damage,
//!   because a disk writes a sector whole or not at all. Refused.
//! - A segment behind is missing, or its header is damaged, so that nobody knows what it held: refused.
//! - Otherwise a sector without stamp was never written: the write was torn, or never begun. What follows overtook
//!   it and was never acknowledged. Cut.
//!
//! Recovery changes nothing on disk: damaged groups stay, and the next recovery finds the same holes.
//!
//! What cannot be known: if a disk lost the last acknowledged groups by whole sectors, and no header behind knew that
//! they were durable, they look never written. The same holds if the newest used segment and all prepared ones after
//! it are removed together.

mod glimpse;
mod hole;
mod start;
mod tail;

use std::path::{Path, PathBuf};

use synod_engine::ids::{Lsn, Slot};
use synod_engine::message::Record;

use crate::disk::{Disk, OpenMode};
use crate::error::OpenError;
use crate::format::{GROUPS_AT, Identity, SegmentIdentity, Sequence};
use crate::group::{self, Carried, Found, GroupHeader, Place};
use crate::index::{Index, Location, gather};
use crate::record::{RawRecord, RecordError};
use glimpse::{Glimpse, SegmentFile};
use hole::Behind;

/// A record and where it stands, for messages and tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordAt {
    pub lsn: Lsn,
    pub file: PathBuf,
    /// Of the record in the file, in bytes; sector heads inside it are sealed on disk.
    pub offset: u64,
}

/// What a replay meets, in the order of the lsns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    Record(RecordAt, Record),
    Hole(Hole),
}

/// A stretch of the WAL that was durable and cannot be read any more; an intact group follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The records `first..next` are lost. A hole at the front starts at 1: how much of it a trim had dropped before
    /// is not known.
    pub first: Lsn,
    pub next: Lsn,
    /// As the header of the group behind has it: no lost record promised more or was of a higher slot.
    pub carried: Carried,
    /// Where the damage begins.
    pub file: PathBuf,
    pub offset: u64,
    pub why: String,
}

/// One used segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub sequence: Sequence,
    /// Whether its header could be read. Nothing else is known of a segment whose header could not.
    pub readable: bool,
    /// Where its groups end.
    pub end: u64,
    /// The intact ones.
    pub groups: u64,
    pub last: Lsn,
    /// The highest slot in this segment or an earlier one, or above it where a hole hides the highest.
    pub slot_max: Slot,
}

/// Where the WAL was cut, if the last write did not reach the disk whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: PathBuf,
    pub offset: u64,
    pub why: String,
}

impl Recovered {
    /// The first segment behind the used ones.
    pub fn next_sequence(&self) -> Sequence {
        self.segments
            .last()
            .map_or(Sequence::FIRST, |last| last.sequence.next())
    }
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
    pub holes: Vec<Hole>,
    pub cut: Option<Cut>,
    pub index: Index,
    /// Used segments that were not replayed, because a snapshot covers them. Nothing in them is ever read: what a
    /// damaged group there hides, an older record of the same slot would pretend to be.
    pub segments_skipped: u64,
}

/// Where recovery is: in the segment of this place in the list, at this offset.
#[derive(Clone, Copy, PartialEq, Eq)]
struct At {
    segment: usize,
    offset: u64,
    /// Groups visited in this segment.
    groups: u64,
}

/// What stands where a group is expected and is none.
enum Gap {
    /// Written, and changed since, or gone with its file: never the work of a crash.
    Damaged {
        offset: u64,
        why: String,
    },
    /// A sector of the group, at this offset of the segment, was not written, or was lost.
    Torn {
        offset: u64,
    },
    Unwritten,
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    identity: &'a Identity,
    /// Every slot up to here is known from a snapshot; zero if there is none.
    covers: Slot,
    visit: &'a mut dyn FnMut(Replayed),
    found: Recovered,
    image: Vec<u8>,
    /// Whose bytes `image` holds; those of visited groups are unsealed.
    loaded: Option<Sequence>,
}

/// Reads the WAL, in order, from the segment on that holds the first slot above `covers`. What is before lies within
/// a snapshot, but for promise and trim floor, which the header there carries. Zero reads everything. Changes nothing.
pub fn recover<D: Disk>(
    disk: &D,
    identity: &Identity,
    covers: Slot,
    visit: &mut dyn FnMut(Replayed),
) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery::new(disk, identity, covers, visit);
    let glimpses = recovery.glimpse_all()?;
    let start = recovery.start(&glimpses);
    if start == 0 {
        recovery.check_front(&glimpses)?;
    } else {
        recovery.pass_over(&glimpses[..=start]);
    }
    recovery.replay(&glimpses, start)?;
    Ok(recovery.found)
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn new(
        disk: &'a D,
        identity: &'a Identity,
        covers: Slot,
        visit: &'a mut dyn FnMut(Replayed),
    ) -> Self {
        Recovery {
            disk,
            identity,
            covers,
            visit,
            found: Recovered {
                segments: Vec::new(),
                empty: Vec::new(),
                ready_files: Vec::new(),
                last: Lsn::ZERO,
                carried: Carried::default(),
                records: 0,
                bytes: 0,
                holes: Vec::new(),
                cut: None,
                index: Index::default(),
                segments_skipped: 0,
            },
            image: vec![0; identity.segment_bytes as usize],
            loaded: None,
        }
    }

    /// From intact group to intact group, until nothing intact is left.
    fn replay(&mut self, glimpses: &[Glimpse], start: usize) -> Result<(), OpenError> {
        let mut at = At {
            segment: start,
            offset: GROUPS_AT,
            groups: 0,
        };
        loop {
            let gap = self.walk(glimpses, &mut at)?;
            match self.behind(glimpses, at)? {
                Behind::Group {
                    segment,
                    offset,
                    header,
                } => {
                    self.skip(glimpses, at, &header, (segment, offset), gap);
                    let groups = if segment == at.segment { at.groups } else { 0 };
                    at = At {
                        segment,
                        offset,
                        groups,
                    };
                }
                Behind::Nothing { durable, written } => {
                    return self.end(glimpses, at, gap, durable, written);
                }
            }
        }
    }

    /// Visits intact groups, through as many segments as follow each other, up to the first place without one.
    fn walk(&mut self, glimpses: &[Glimpse], at: &mut At) -> Result<Gap, OpenError> {
        loop {
            let glimpse = &glimpses[at.segment];
            let SegmentFile::Readable { identity, .. } = glimpse.file else {
                let (offset, why) = glimpse.damage();
                return Ok(Gap::Damaged { offset, why });
            };
            let next = glimpses.get(at.segment + 1).and_then(Glimpse::first_group);
            let end = next.map_or(self.identity.segment_bytes, |next| next.preceding_end);
            if self.loaded != Some(glimpse.sequence) {
                self.load(glimpse.sequence, end)?;
            }
            while at.offset < end {
                match self.replay_group(glimpse.sequence, identity, at.offset, end)? {
                    Ok(bytes) => {
                        at.offset += bytes;
                        at.groups += 1;
                    }
                    Err(gap) => return Ok(gap),
                }
            }
            let Some(next) = next else {
                return Ok(Gap::Unwritten);
            };
            if next.first != self.found.last.next() {
                return Ok(Gap::Damaged {
                    offset: at.offset,
                    why: "its last lsn is not the one before the next segment's first".to_string(),
                });
            }
            self.leave(glimpse, at.offset, at.groups);
            *at = At {
                segment: at.segment + 1,
                offset: GROUPS_AT,
                groups: 0,
            };
        }
    }

    /// Visits the records of the group at `offset` of the loaded image and returns its size; all of them or none.
    fn replay_group(
        &mut self,
        sequence: Sequence,
        identity: SegmentIdentity,
        offset: u64,
        end: u64,
    ) -> Result<Result<u64, Gap>, OpenError> {
        let path = self.disk.path(&sequence.segment_name());
        let rest = &mut self.image[offset as usize..end as usize];
        let header = match group::unseal(rest, identity, offset) {
            Found::Group(header) => header,
            other => return Ok(Err(Gap::new(other, offset))),
        };
        if header.first != self.found.last.next() {
            let why = "a group's first lsn does not follow the last one".to_string();
            return Ok(Err(Gap::Damaged { offset, why }));
        }
        let records = match checked_records(&rest[..header.bytes], &header, identity, &path, offset)
        {
            Ok(records) => records,
            Err(CheckError::Gap(gap)) => return Ok(Err(gap)),
            Err(CheckError::Refused(error)) => return Err(error),
        };
        let found = &mut self.found;
        let mut runs = Vec::new();
        found.carried = found.carried.max(header.carried);
        for (place, raw) in records {
            let record = raw.to_record();
            found.carried.absorb(&record);
            found.last = raw.lsn;
            found.records += 1;
            if let Some((slot, value_at)) = raw.slot() {
                let location = Location {
                    sequence,
                    identity,
                    offset,
                    group_bytes: header.bytes as u32,
                    at: place.at as u32,
                };
                gather(&mut runs, slot, location, place.bytes - value_at);
            }
            let at = RecordAt {
                lsn: raw.lsn,
                file: path.clone(),
                offset: offset + place.at as u64,
            };
            (self.visit)(Replayed::Record(at, record));
        }
        runs.into_iter().for_each(|run| found.index.insert(run));
        Ok(Ok(header.bytes as u64))
    }

    /// A segment is behind us: everything of it was visited, or lies in a hole.
    fn leave(&mut self, glimpse: &Glimpse, end: u64, groups: u64) {
        let readable = match glimpse.file {
            SegmentFile::Readable { .. } => true,
            SegmentFile::Unreadable { .. } => false,
            SegmentFile::Missing => return,
        };
        self.found.bytes += end;
        self.found.segments.push(Segment {
            sequence: glimpse.sequence,
            readable,
            end,
            groups,
            last: self.found.last,
            slot_max: self.found.carried.slot_max,
        });
    }

    fn load(&mut self, sequence: Sequence, end: u64) -> Result<(), OpenError> {
        let name = sequence.segment_name();
        let image = &mut self.image[..end as usize];
        self.loaded = Some(sequence);
        self.disk
            .open(&name, OpenMode::Read)
            .and_then(|file| self.disk.read_at(&file, 0, image))
            .map_err(OpenError::io("reading", self.disk.path(&name)))
    }

    fn path_of(&self, glimpse: &Glimpse) -> PathBuf {
        self.disk.path(&glimpse.sequence.segment_name())
    }

    /// A refusal: what is lost may have held what nothing else tells.
    fn refused(&self, glimpse: &Glimpse, offset: u64, why: String) -> OpenError {
        OpenError::Damaged {
            path: self.path_of(glimpse),
            offset,
            why,
            known: self.found.carried.slot_max,
        }
    }
}

impl Gap {
    fn new(found: Found, offset: u64) -> Gap {
        match found {
            Found::Unwritten => Gap::Unwritten,
            Found::Torn(at) => Gap::Torn {
                offset: offset + at as u64,
            },
            Found::Damaged(at, why) => Gap::Damaged {
                offset: offset + at as u64,
                why: why.to_string(),
            },
            Found::Group(_) => unreachable!("an intact group is no gap"),
        }
    }
}

enum CheckError {
    Gap(Gap),
    /// Intact, and not for this build to read: no peer's help is called for.
    Refused(OpenError),
}

/// Checks every record of an unsealed group before one of them is believed.
fn checked_records<'g>(
    group: &'g [u8],
    header: &GroupHeader,
    identity: SegmentIdentity,
    path: &Path,
    offset: u64,
) -> Result<Vec<(Place, RawRecord<'g>)>, CheckError> {
    group::records(group, header, identity).map_err(|(at, error)| {
        let offset = offset + at as u64;
        match error {
            RecordError::Damaged(why) => CheckError::Gap(Gap::Damaged {
                offset,
                why: why.to_string(),
            }),
            RecordError::NewerKind(kind) => CheckError::Refused(OpenError::NewerFormat {
                path: path.to_path_buf(),
                offset,
                kind,
            }),
        }
    })
}
