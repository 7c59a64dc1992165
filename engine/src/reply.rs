//! Where replies are written while commands execute: in place, without a buffer per reply, and within bounds that no
//! command can get around. A small request of reads could ask for gigabytes of replies: what finds no room is dropped as
//! it is written, so that it costs neither copying nor hashing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::client::{LENGTH_BYTES, put_replies_header};
use crate::ids::{CommandNumber, SessionId};

/// Bytes of one replies frame. It decides what clients see, so it is a constant: equal on every replica.
pub const REPLIES_BYTES_MAX: usize = 4 << 20;

/// Bytes of all replies of one slot, for the same reason: a slot may hold tens of thousands of requests.
pub const SLOT_REPLIES_BYTES_MAX: usize = 64 << 20;

/// The reply of one command, as its state machine writes it. One that finds no room is dropped as a whole: it is empty
/// then, whatever is written to it.
pub struct Reply<'a> {
    buffer: &'a mut BytesMut,
    start: usize,
    /// Bytes that it may have.
    room: usize,
    dropped: bool,
}

/// What is kept from request to request: the buffer that frames are built in, and how much room this slot has left.
#[derive(Debug)]
pub struct Scratch {
    buffer: BytesMut,
    slot_room: usize,
    /// Replies that found no room.
    pub replies_dropped: u64,
    /// Bytes of those that did.
    pub bytes_written: u64,
}

/// Builds a replies frame in place while commands are applied.
pub struct RepliesFrame<'a> {
    scratch: &'a mut Scratch,
    count: u32,
}

impl<'a> Reply<'a> {
    /// Appended to `buffer`, of `room` bytes at most.
    pub fn new(buffer: &'a mut BytesMut, room: usize) -> Reply<'a> {
        let start = buffer.len();
        Reply {
            buffer,
            start,
            room,
            dropped: false,
        }
    }

    pub fn put_u8(&mut self, byte: u8) {
        self.put_slice(&[byte]);
    }

    pub fn put_slice(&mut self, bytes: &[u8]) {
        if self.dropped {
            return;
        }
        if self.kept().len() + bytes.len() > self.room {
            self.dropped = true;
            self.buffer.truncate(self.start);
            return;
        }
        self.buffer.put_slice(bytes);
    }

    /// What was written, or nothing if that found no room.
    pub fn kept(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl Scratch {
    /// The next slot has all its room.
    pub fn begin_slot(&mut self) {
        self.slot_room = SLOT_REPLIES_BYTES_MAX;
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            buffer: BytesMut::new(),
            slot_room: SLOT_REPLIES_BYTES_MAX,
            replies_dropped: 0,
            bytes_written: 0,
        }
    }
}

impl RepliesFrame<'_> {
    /// Where the number of the first command stands in the frame.
    pub const FIRST_AT: usize = 4 + 1 + 8;
    const COUNT_AT: usize = Self::FIRST_AT + 8;
    const BYTES_AT: usize = Self::COUNT_AT + 4;
    /// Bytes in front of the replies.
    pub const ITEMS_AT: usize = Self::BYTES_AT + 4;

    pub fn new(
        scratch: &mut Scratch,
        session: SessionId,
        first: CommandNumber,
    ) -> RepliesFrame<'_> {
        let buffer = &mut scratch.buffer;
        buffer.clear();
        buffer.put_u32_le(0);
        put_replies_header(buffer, session, first, 0);
        buffer.put_u32_le(0);
        RepliesFrame { scratch, count: 0 }
    }

    /// Appends one reply, written by `write`. It is empty if frame or slot have no room for it.
    pub fn push(&mut self, write: impl FnOnce(&mut Reply<'_>)) {
        let scratch = &mut *self.scratch;
        let at = scratch.buffer.len();
        scratch.buffer.put_u32_le(0);
        let frame_room = REPLIES_BYTES_MAX.saturating_sub(at + LENGTH_BYTES);
        let mut reply = Reply::new(&mut scratch.buffer, frame_room.min(scratch.slot_room));
        write(&mut reply);
        scratch.replies_dropped += u64::from(reply.dropped);
        let length = reply.kept().len();
        scratch.slot_room -= length;
        scratch.bytes_written += length as u64;
        scratch.buffer[at..at + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
        self.count += 1;
    }

    /// The frame, length prefix included, in a buffer of just its size: it may be cached for long, and must not keep
    /// more than it says. The buffer it was built in serves the next one.
    pub fn finish(self) -> Bytes {
        let buffer = &mut self.scratch.buffer;
        let items = (buffer.len() - Self::ITEMS_AT) as u32;
        let length = (buffer.len() - 4) as u32;
        buffer[..4].copy_from_slice(&length.to_le_bytes());
        buffer[Self::COUNT_AT..Self::BYTES_AT].copy_from_slice(&self.count.to_le_bytes());
        buffer[Self::BYTES_AT..Self::ITEMS_AT].copy_from_slice(&items.to_le_bytes());
        Bytes::copy_from_slice(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(1 << 16);

    #[test]
    fn what_finds_no_room_is_dropped_as_a_whole_and_what_comes_after_may_fit() {
        let mut buffer = BytesMut::from(&b"before"[..]);
        let mut reply = Reply::new(&mut buffer, 4);
        reply.put_slice(b"abc");
        assert_eq!(reply.kept(), b"abc");
        reply.put_slice(b"de");
        reply.put_u8(b'f');
        assert_eq!(reply.kept(), b"");
        let mut next = Reply::new(&mut buffer, 4);
        next.put_slice(b"abcd");
        assert_eq!(next.kept(), b"abcd");
        assert_eq!(&buffer[..], b"beforeabcd");
    }

    #[test]
    fn a_slot_has_room_for_so_much_whatever_the_number_of_its_requests() {
        let mut scratch = Scratch::default();
        let reply = vec![1; REPLIES_BYTES_MAX / 2];
        let frames = |scratch: &mut Scratch| {
            let mut bytes = 0;
            for first in 1..=1_000 {
                let mut frame = RepliesFrame::new(scratch, SESSION, CommandNumber(first));
                frame.push(|out| out.put_slice(&reply));
                bytes += frame.finish().len() - RepliesFrame::ITEMS_AT - LENGTH_BYTES;
            }
            bytes
        };
        assert_eq!(frames(&mut scratch), SLOT_REPLIES_BYTES_MAX);
        assert_eq!(frames(&mut scratch), 0);
        scratch.begin_slot();
        assert_eq!(frames(&mut scratch), SLOT_REPLIES_BYTES_MAX);
        let kept = SLOT_REPLIES_BYTES_MAX / reply.len();
        assert_eq!(scratch.replies_dropped, 3_000 - 2 * kept as u64);
    }

    #[test]
    fn a_frame_keeps_no_more_than_its_own_bytes() {
        let mut scratch = Scratch::default();
        let mut long = RepliesFrame::new(&mut scratch, SESSION, CommandNumber(1));
        long.push(|out| out.put_slice(&[1; 1 << 20]));
        long.finish();
        let mut short = RepliesFrame::new(&mut scratch, SESSION, CommandNumber(2));
        short.push(|out| out.put_slice(b"x"));
        let frame = short.finish();
        // Whoever owns a buffer alone gets it back with all of its room.
        let frame = frame.try_into_mut().expect("nobody else holds it");
        assert_eq!(frame.capacity(), frame.len());
    }
}
