//! The session table in a snapshot: written in steps while commands go on, and taken back.
//!
//! Whatever changes a session that the walk has not reached saves it first, as it was.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{CommandNumber, Owner, SessionId, Slot};

use super::{Cached, SESSION_REPLY_BYTES_MAX, SESSIONS_MAX, Session, Sessions};

#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Sessions to come by, the next one last.
    ids: Vec<SessionId>,
    saved: VecDeque<BytesMut>,
    saved_bytes: usize,
}

impl Walk {
    /// Writes down a session as it is before it changes, if the walk has yet to come by.
    pub(super) fn save(&mut self, walks: u64, id: SessionId, session: &mut Session) {
        if session.walk == walks {
            return;
        }
        session.walk = walks;
        let mut saved = BytesMut::with_capacity(session.encoded_bytes());
        session.put(id, &mut saved);
        self.saved_bytes += saved.len();
        self.saved.push_back(saved);
    }
}

impl Sessions {
    /// Fixes the present table for a snapshot. Costs one pass over the ids: there are at most [`SESSIONS_MAX`].
    pub fn begin_snapshot(&mut self) {
        self.walks += 1;
        self.walk = Some(Walk {
            // In an order that is the same everywhere: the bytes must not depend on a hash map's.
            ids: self.ranks.iter().map(|rank| rank.session).collect(),
            saved: VecDeque::new(),
            saved_bytes: 0,
        });
    }

    pub fn end_snapshot(&mut self) {
        self.walk = None;
    }

    /// Bytes of saved sessions that were not written yet.
    pub fn snapshot_bytes(&self) -> usize {
        self.walk.as_ref().map_or(0, |walk| walk.saved_bytes)
    }

    /// Appends the next sessions, about `bytes_max` bytes of them but whole ones. Returns whether more are to come.
    pub fn write_snapshot(&mut self, bytes_max: usize, out: &mut BytesMut) -> bool {
        let Some(walk) = &mut self.walk else {
            return false;
        };
        let start = out.len();
        while out.len() - start < bytes_max {
            if let Some(saved) = walk.saved.pop_front() {
                walk.saved_bytes -= saved.len();
                out.put_slice(&saved);
                continue;
            }
            let Some(id) = walk.ids.pop() else {
                self.walk = None;
                return false;
            };
            if let Some(session) = self.table.get_mut(&id)
                && session.walk != self.walks
            {
                session.walk = self.walks;
                session.put(id, out);
            }
        }
        true
    }

    /// Takes sessions back, as [`Sessions::write_snapshot`] wrote them. Returns false if they can't be.
    pub fn restore(&mut self, mut sessions: Bytes) -> bool {
        while !sessions.is_empty() {
            let Some((id, session)) = Session::take(&mut sessions) else {
                return false;
            };
            self.ranks.insert(session.rank(id));
            self.reply_bytes += session.reply_bytes;
            let known = self.table.insert(id, session);
            if known.is_some() || self.table.len() > SESSIONS_MAX {
                return false;
            }
        }
        true
    }
}

impl Session {
    const HEADER_BYTES: usize = 6 * 8 + 4;
    const CACHED_HEADER_BYTES: usize = 8 + 4;

    fn encoded_bytes(&self) -> usize {
        Self::HEADER_BYTES + self.replies.len() * Self::CACHED_HEADER_BYTES + self.reply_bytes
    }

    fn put(&self, id: SessionId, out: &mut BytesMut) {
        out.put_u64_le(id.0);
        out.put_u64_le(self.token);
        out.put_u64_le(self.owner.0);
        out.put_u64_le(self.last.0);
        out.put_u64_le(self.acknowledged.0);
        out.put_u64_le(self.active.0);
        out.put_u32_le(self.replies.len() as u32);
        for cached in &self.replies {
            out.put_u64_le(cached.end.0);
            out.put_u32_le(cached.frame.len() as u32);
            out.put_slice(&cached.frame);
        }
    }

    fn take(from: &mut Bytes) -> Option<(SessionId, Session)> {
        if from.len() < Self::HEADER_BYTES {
            return None;
        }
        let id = SessionId(from.get_u64_le());
        let mut session = Session {
            token: from.get_u64_le(),
            owner: Owner(from.get_u64_le()),
            last: CommandNumber(from.get_u64_le()),
            acknowledged: CommandNumber(from.get_u64_le()),
            active: Slot(from.get_u64_le()),
            replies: VecDeque::new(),
            reply_bytes: 0,
            walk: 0,
        };
        for _ in 0..from.get_u32_le() {
            let cached = Cached::take(from)?;
            session.reply_bytes += cached.frame.len();
            session.replies.push_back(cached);
        }
        let several = session.replies.len() > 1;
        (!several || session.reply_bytes <= SESSION_REPLY_BYTES_MAX).then_some((id, session))
    }
}

impl Cached {
    /// The frame gets a buffer of its own: it must not keep the whole piece it came in.
    fn take(from: &mut Bytes) -> Option<Cached> {
        if from.len() < Session::CACHED_HEADER_BYTES {
            return None;
        }
        let end = CommandNumber(from.get_u64_le());
        let length = from.get_u32_le() as usize;
        if from.len() < length {
            return None;
        }
        let frame = Bytes::copy_from_slice(&from.split_to(length));
        Some(Cached { end, frame })
    }
}
