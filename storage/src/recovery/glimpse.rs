//! Which segments there are, and what their first two pages say.

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{
    GROUPS_AT, HeaderError, PAGE, SECTOR, SegmentHeader, SegmentIdentity, Sequence,
};
use crate::group::{self, Found, GroupHeader};

use super::Recovery;

/// A segment, by its number. The numbers of a list of them have no gap: what has no file is there as missing.
pub(super) struct Glimpse {
    pub sequence: Sequence,
    pub file: SegmentFile,
}

pub(super) enum SegmentFile {
    Readable {
        identity: SegmentIdentity,
        first_group: Result<GroupHeader, Found>,
    },
    /// Of another size, or without an intact header: its identity, and so its groups, can't be told.
    Unreadable {
        offset: u64,
        why: String,
    },
    Missing,
}

impl Glimpse {
    /// The header of the first group, if that is intact. It says where the segment before ends.
    pub fn first_group(&self) -> Option<&GroupHeader> {
        match &self.file {
            SegmentFile::Readable { first_group, .. } => first_group.as_ref().ok(),
            SegmentFile::Unreadable { .. } | SegmentFile::Missing => None,
        }
    }

    /// What is wrong with a segment in which no group was found, and where.
    pub fn damage(&self) -> (u64, String) {
        match &self.file {
            SegmentFile::Readable { first_group, .. } => match first_group {
                Err(Found::Damaged(at, why)) => (GROUPS_AT + *at as u64, why.to_string()),
                Ok(_) | Err(_) => (GROUPS_AT, "its first group is missing".to_string()),
            },
            SegmentFile::Unreadable { offset, why } => (*offset, why.clone()),
            SegmentFile::Missing => (0, "the file is missing".to_string()),
        }
    }
}

impl<D: Disk> Recovery<'_, D> {
    /// Lists the segments and reads their headers.
    pub(super) fn glimpse_all(&mut self) -> Result<Vec<Glimpse>, OpenError> {
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
        let Some((mut expected, _)) = sequences.first().copied() else {
            return Err(self.missing(Sequence::FIRST, "no segment is left"));
        };
        let mut glimpses = Vec::new();
        for (sequence, bytes) in sequences {
            if sequence.0 - expected.0 > MISSING_MAX {
                return Err(self.missing(expected, "too many segments are missing"));
            }
            while expected < sequence {
                glimpses.push(Glimpse {
                    sequence: expected,
                    file: SegmentFile::Missing,
                });
                expected = expected.next();
            }
            let file = self.glimpse(sequence, bytes)?;
            glimpses.push(Glimpse { sequence, file });
            expected = expected.next();
        }
        Ok(glimpses)
    }

    fn glimpse(&mut self, sequence: Sequence, bytes: u64) -> Result<SegmentFile, OpenError> {
        let segment_bytes = self.identity.segment_bytes;
        if bytes != segment_bytes {
            return Ok(SegmentFile::Unreadable {
                offset: bytes.min(segment_bytes),
                why: format!("the file has {bytes} bytes, a segment has {segment_bytes}"),
            });
        }
        self.load(sequence, GROUPS_AT + PAGE as u64)?;
        self.loaded = None;
        let header = match self.check_header(sequence)? {
            Ok(header) => header,
            Err(why) => {
                return Ok(SegmentFile::Unreadable {
                    offset: 0,
                    why: format!("the segment header is damaged: {why}"),
                });
            }
        };
        let rest = segment_bytes - GROUPS_AT;
        let sector = &self.image[PAGE..PAGE + SECTOR];
        let first_group = group::read_header(sector, header.identity, GROUPS_AT, rest);
        if let Ok(group) = &first_group
            && (group.preceding_end > segment_bytes || group.first.0 == 0)
        {
            let why = "its first group tells of impossible places".to_string();
            return Ok(SegmentFile::Unreadable {
                offset: GROUPS_AT,
                why,
            });
        }
        Ok(SegmentFile::Readable {
            identity: header.identity,
            first_group,
        })
    }

    /// An intact header of another WAL is a mistake of whoever moved the file, and no damage.
    fn check_header(
        &self,
        sequence: Sequence,
    ) -> Result<Result<SegmentHeader, &'static str>, OpenError> {
        let path = self.disk.path(&sequence.segment_name());
        let header = match SegmentHeader::decode(&self.image[..PAGE]) {
            Ok(header) => header,
            // The directory's identity was read before, and all files of a directory are of its version.
            Err(HeaderError::Version(_)) => return Ok(Err("its version is wrong")),
            Err(HeaderError::Damaged(why)) => return Ok(Err(why)),
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
            return Ok(Err("it is another segment's"));
        }
        if header.segment_bytes != self.identity.segment_bytes {
            return Ok(Err("it tells of another size"));
        }
        Ok(Ok(header))
    }

    pub(super) fn missing(&self, sequence: Sequence, why: &str) -> OpenError {
        OpenError::SegmentMissing {
            path: self.disk.path(&sequence.segment_name()),
            why: why.to_string(),
            known: self.found.carried.slot_max,
        }
    }
}

/// Segments missing in a row beyond this are no accident of a file system but a file with a made-up number.
const MISSING_MAX: u64 = 1 << 16;
