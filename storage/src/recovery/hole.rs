//! What lies behind a place without a group: a group that is alive, or nothing (the rule: see the module above).

use synod_engine::ids::Lsn;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{GROUPS_AT, PAGE, SECTOR, SegmentIdentity, Sequence};
use crate::group::{self, Found, GroupHeader};

use super::glimpse::{Glimpse, SegmentFile};
use super::{At, CheckError, Gap, Hole, Recovered, Recovery, Replayed, checked_records};

pub(super) enum Behind {
    /// The next group that is alive, in the segment of this place in the list.
    Group {
        segment: usize,
        offset: u64,
        header: GroupHeader,
    },
    Nothing {
        /// The highest lsn that any header in this segment or a later one knew to be durable.
        durable: Lsn,
        /// Whether anything was written behind the place, in its segment.
        written: bool,
    },
}

/// One segment in which a group is looked for.
struct Search {
    sequence: Sequence,
    identity: SegmentIdentity,
    from: u64,
    /// Known if the next segment's first header says so; else the segment's size.
    end: u64,
    end_is_known: bool,
}

impl<D: Disk> Recovery<'_, D> {
    /// Looks for the next group that is alive behind `at`. Leaves the image of its segment loaded, sealed.
    pub(super) fn behind(&mut self, glimpses: &[Glimpse], at: At) -> Result<Behind, OpenError> {
        let mut durable = Lsn::ZERO;
        let mut written = false;
        for (segment, glimpse) in glimpses.iter().enumerate().skip(at.segment) {
            let SegmentFile::Readable { identity, .. } = glimpse.file else {
                continue;
            };
            let size = self.identity.segment_bytes;
            let next = glimpses.get(segment + 1).and_then(Glimpse::first_group);
            let here = segment == at.segment;
            let search = Search {
                sequence: glimpse.sequence,
                identity,
                from: if here { at.offset } else { GROUPS_AT },
                end: next.map_or(size, |next| next.preceding_end),
                end_is_known: next.is_some(),
            };
            // Not from memory: groups that were tried may be unsealed there.
            self.load(glimpse.sequence, size)?;
            let told = self.durable_in(&search);
            if let Some((offset, header)) = self.alive_in(&search, told)? {
                return Ok(Behind::Group {
                    segment,
                    offset,
                    header,
                });
            }
            durable = durable.max(told);
            if here {
                let rest = &self.image[at.offset as usize..];
                written = group::any_written(rest, identity, at.offset);
            }
        }
        Ok(Behind::Nothing { durable, written })
    }

    /// The highest lsn that a header of the loaded segment knew to be durable, dead groups included.
    fn durable_in(&self, search: &Search) -> Lsn {
        let headers = (GROUPS_AT..self.identity.segment_bytes)
            .step_by(PAGE)
            .filter_map(|offset| self.header_at(search.identity, offset));
        headers
            .map(|header| header.durable)
            .max()
            .unwrap_or(Lsn::ZERO)
    }

    fn header_at(&self, identity: SegmentIdentity, offset: u64) -> Option<GroupHeader> {
        let sector = &self.image[offset as usize..offset as usize + SECTOR];
        let rest = self.identity.segment_bytes - offset;
        group::read_header(sector, identity, offset, rest).ok()
    }

    /// The first group of the loaded segment that is alive and intact.
    fn alive_in(
        &self,
        search: &Search,
        durable: Lsn,
    ) -> Result<Option<(u64, GroupHeader)>, OpenError> {
        let expected = self.found.last.next();
        let image = &self.image[search.from.min(search.end) as usize..search.end as usize];
        let complete = group::written_bytes(image, search.identity, search.from);
        let mut offset = search.from;
        while offset < search.end {
            let Some(header) = self.header_at(search.identity, offset) else {
                offset += PAGE as u64;
                continue;
            };
            let alive = search.end_is_known
                || offset <= search.from + complete
                || durable.0 + 1 >= header.first.0;
            if !alive {
                // Nor is any group behind it: it has yet more before it.
                return Ok(None);
            }
            if header.first >= expected && self.is_intact(search, offset, &header)? {
                return Ok(Some((offset, header)));
            }
            offset += header.bytes as u64;
        }
        Ok(None)
    }

    /// Tries a group on a copy, so that the image stays sealed.
    fn is_intact(
        &self,
        search: &Search,
        offset: u64,
        header: &GroupHeader,
    ) -> Result<bool, OpenError> {
        let end = offset + header.bytes as u64;
        if end > search.end {
            return Ok(false);
        }
        let mut copy = self.image[offset as usize..end as usize].to_vec();
        if !matches!(
            group::unseal(&mut copy, search.identity, offset),
            Found::Group(_)
        ) {
            return Ok(false);
        }
        let path = self.disk.path(&search.sequence.segment_name());
        match checked_records(&copy, header, search.identity, &path, offset) {
            Ok(_) => Ok(true),
            Err(CheckError::Gap(_)) => Ok(false),
            Err(CheckError::Refused(error)) => Err(error),
        }
    }

    /// Goes on at the group of `header`; what lies before it is a hole.
    pub(super) fn skip(
        &mut self,
        glimpses: &[Glimpse],
        at: At,
        header: &GroupHeader,
        to: (usize, u64),
        gap: Gap,
    ) {
        let first = self.found.last.next();
        self.found.carried = self.found.carried.max(header.carried);
        self.found.last = Lsn(header.first.0 - 1);
        // Only now: what these segments hold is in the hole, and at most what the header carries.
        for (index, glimpse) in glimpses[at.segment..to.0].iter().enumerate() {
            let (end, groups) = match index {
                0 => (at.offset, at.groups),
                _ => (GROUPS_AT, 0),
            };
            self.leave(glimpse, end, groups);
        }
        let (glimpse, offset, why) = blame(glimpses, at, to.0, gap);
        self.hole(Hole {
            first,
            next: header.first,
            carried: header.carried,
            file: self.path_of(glimpse),
            offset,
            why,
        });
    }

    /// A segment that is gone may have held no record at all: a first group that was torn.
    fn hole(&mut self, hole: Hole) {
        if hole.first == hole.next {
            return;
        }
        self.found.holes.push(hole.clone());
        (self.visit)(Replayed::Hole(hole));
    }

    /// Segments below the first one present were dropped by a trim, all their slots below the floor; or they are lost,
    /// and the WAL starts with a hole. A segment that cannot be read says nothing: it is part of a hole anyway.
    pub(super) fn check_front(&mut self, glimpses: &[Glimpse]) -> Result<(), OpenError> {
        let front = &glimpses[0];
        let Some(header) = front.first_group() else {
            return Ok(());
        };
        if front.sequence == Sequence::FIRST {
            return Ok(());
        }
        let covered = header.carried.slot_max <= self.covers;
        if !covered && !self.was_trimmed(glimpses, header)? {
            let missing = Sequence(front.sequence.0 - 1).segment_name();
            self.hole(Hole {
                first: Lsn(1),
                next: header.first,
                carried: header.carried,
                file: self.disk.path(&missing),
                offset: 0,
                why: "the file is missing, and it holds slots that were never trimmed".to_string(),
            });
        }
        self.found.last = Lsn(header.first.0 - 1);
        self.found.carried = header.carried;
        Ok(())
    }

    /// A floor is durable before a trim drops anything; mostly a later segment's first header tells of it already.
    fn was_trimmed(&self, glimpses: &[Glimpse], front: &GroupHeader) -> Result<bool, OpenError> {
        let slot_max = front.carried.slot_max;
        let headers = glimpses.iter().filter_map(Glimpse::first_group);
        if headers
            .into_iter()
            .any(|header| slot_max < header.carried.trim_floor)
        {
            return Ok(true);
        }
        let found = self.look_ahead(glimpses, front)?;
        Ok(slot_max < found.carried.trim_floor)
    }

    /// Everything that is behind, read once more for the sake of its last trim floor.
    fn look_ahead(
        &self,
        glimpses: &[Glimpse],
        front: &GroupHeader,
    ) -> Result<Recovered, OpenError> {
        let mut ignored = |_: Replayed| {};
        let mut ahead = Recovery::new(self.disk, self.identity, self.covers, &mut ignored);
        ahead.found.last = Lsn(front.first.0 - 1);
        ahead.found.carried = front.carried;
        ahead.replay(glimpses, 0)?;
        Ok(ahead.found)
    }
}

/// Where the damage is: if nothing stands behind the last group, it is in the segment behind.
fn blame(glimpses: &[Glimpse], at: At, to: usize, gap: Gap) -> (&Glimpse, u64, String) {
    let here = &glimpses[at.segment];
    match gap {
        Gap::Damaged { offset, why } => (here, offset, why),
        Gap::Torn { offset } => (here, offset, "a sector of a group is lost".to_string()),
        Gap::Unwritten if at.segment < to && glimpses[at.segment + 1].first_group().is_none() => {
            let next = &glimpses[at.segment + 1];
            let (offset, why) = next.damage();
            (next, offset, why)
        }
        Gap::Unwritten => (here, at.offset, "a group is lost".to_string()),
    }
}
