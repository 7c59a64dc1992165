//! The end of the WAL: a cut of what was never acknowledged, or a refusal (the rule: see the module above).

use synod_engine::ids::Lsn;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{GROUPS_AT, Sequence};
use crate::group::Found;

use super::glimpse::{Glimpse, SegmentFile};
use super::{At, Cut, Gap, Recovery};

impl<D: Disk> Recovery<'_, D> {
    /// No group behind `at` is alive. `durable` is the highest lsn that a header from this segment on knew to be
    /// durable, `written` says whether anything stands behind the place in its segment.
    pub(super) fn end(
        &mut self,
        glimpses: &[Glimpse],
        at: At,
        gap: Gap,
        durable: Lsn,
        written: bool,
    ) -> Result<(), OpenError> {
        let glimpse = &glimpses[at.segment];
        if self.found.last == Lsn::ZERO && glimpses[0].sequence != Sequence::FIRST {
            let missing = Sequence(glimpses[0].sequence.0 - 1);
            return Err(self.missing(missing, "no intact group is left in the segments after it"));
        }
        let (offset, what) = match gap {
            Gap::Damaged { offset, why } => return Err(self.refused(glimpse, offset, why)),
            Gap::Torn { offset } => (offset, "a sector of a group was not written"),
            Gap::Unwritten => (at.offset, "a group was not written"),
        };
        if self.found.last < durable {
            let why = format!("{what}, but lsn {} was durable", durable.0);
            return Err(self.refused(glimpse, offset, why));
        }
        for later in &glimpses[at.segment + 1..] {
            self.check_unused(later)?;
        }
        // A first group without an intact header leaves its segment as it was prepared: it is used again.
        let used = at.groups > 0 || glimpse.first_group().is_some();
        if used {
            self.leave(glimpse, at.offset, at.groups);
        }
        if used && written {
            self.found.cut = Some(Cut {
                file: self.path_of(glimpse),
                offset: at.offset,
                why: format!("{what}; the WAL ends with lsn {}", self.found.last.0),
            });
        }
        let from = at.segment + usize::from(used);
        let unused = glimpses[from..].iter().map(|later| later.sequence);
        self.found.empty.extend(unused);
        Ok(())
    }

    /// A segment behind the end may hold what overtook a torn group, but nothing damaged, which may have been durable.
    fn check_unused(&self, glimpse: &Glimpse) -> Result<(), OpenError> {
        match &glimpse.file {
            SegmentFile::Readable { first_group, .. } => match first_group {
                Ok(_) | Err(Found::Unwritten) => Ok(()),
                Err(Found::Damaged(at, why)) => {
                    let offset = GROUPS_AT + *at as u64;
                    Err(self.refused(glimpse, offset, why.to_string()))
                }
                Err(Found::Torn(_) | Found::Group(_)) => {
                    unreachable!("a header alone is neither torn nor a group")
                }
            },
            SegmentFile::Unreadable { offset, why } => {
                Err(self.refused(glimpse, *offset, why.clone()))
            }
            SegmentFile::Missing => {
                Err(self.missing(glimpse.sequence, "segments after it are there"))
            }
        }
    }
}
