//! The bytes of a snapshot: pieces with a kind, and a checksum over all of them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::{Incarnation, Slot};
use crate::members::Members;

use super::RestoreError;

const MAGIC: &[u8; 8] = b"SYNOSNAP";
const VERSION: u32 = 3;

const SESSIONS: u8 = 1;
const MACHINE: u8 = 2;
const END: u8 = 255;

const HEADER_BYTES: usize = 8 + 4 + 8 + 1;
const MEMBER_BYTES: usize = 8 + 8;
const PIECE_HEADER_BYTES: usize = 1 + 4;

/// Bytes of one piece: the longest is one session with all its cached replies.
pub const PIECE_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sessions,
    Machine,
}

/// Frames pieces and adds up the checksum.
pub struct Writer {
    hash: Xxh3,
}

impl Writer {
    /// Also returns the header, which goes first.
    pub fn new(slot: Slot, members: &Members) -> (Writer, Bytes) {
        let mut header = BytesMut::new();
        header.put_slice(MAGIC);
        header.put_u32_le(VERSION);
        header.put_u64_le(slot.0);
        header.put_u8(members.iter().count() as u8);
        for (incarnation, since) in members.iter() {
            header.put_u64_le(incarnation.0);
            header.put_u64_le(since.0);
        }
        let mut writer = Writer { hash: Xxh3::new() };
        let header = writer.note(header.freeze());
        (writer, header)
    }

    /// One piece, its content written by `write`.
    pub fn piece(&mut self, kind: Kind, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut piece = BytesMut::new();
        piece.put_u8(match kind {
            Kind::Sessions => SESSIONS,
            Kind::Machine => MACHINE,
        });
        piece.put_u32_le(0);
        write(&mut piece);
        let length = piece.len() - PIECE_HEADER_BYTES;
        assert!(
            length <= PIECE_BYTES_MAX,
            "a piece of {length} bytes can't be read back"
        );
        piece[1..PIECE_HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
        self.note(piece.freeze())
    }

    /// The last piece, and the checksum of all before.
    pub fn end(&self) -> (Bytes, u64) {
        let checksum = self.hash.digest();
        let mut piece = BytesMut::new();
        piece.put_u8(END);
        piece.put_u32_le(8);
        piece.put_u64_le(checksum);
        (piece.freeze(), checksum)
    }

    fn note(&mut self, piece: Bytes) -> Bytes {
        self.hash.update(&piece);
        piece
    }
}

/// What comes out of a body, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    Header(Slot, Box<Members>),
    Piece(Kind, Bytes),
    End(u64),
}

/// Takes a body apart as its bytes come in, in whatever portions.
pub struct Reader {
    buffer: BytesMut,
    hash: Xxh3,
    begun: bool,
}

impl Reader {
    pub fn new() -> Reader {
        Reader {
            buffer: BytesMut::new(),
            hash: Xxh3::new(),
            begun: false,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes are left that are no whole item.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole item, if there is one.
    pub fn next(&mut self) -> Result<Option<Item>, RestoreError> {
        if !self.begun {
            return self.header();
        }
        let Some((kind, rest)) = self.buffer.split_first() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let (kind, length) = (*kind, u32::from_le_bytes(*length) as usize);
        if length > PIECE_BYTES_MAX {
            return Err(RestoreError::Malformed("a piece is longer than any can be"));
        }
        if self.buffer.len() < PIECE_HEADER_BYTES + length {
            return Ok(None);
        }
        let checksum = (kind == END).then(|| self.hash.digest());
        let mut piece = self.cut(PIECE_HEADER_BYTES + length);
        piece.advance(PIECE_HEADER_BYTES);
        match kind {
            SESSIONS => Ok(Some(Item::Piece(Kind::Sessions, piece))),
            MACHINE => Ok(Some(Item::Piece(Kind::Machine, piece))),
            END if length == 8 => match (checksum, piece.get_u64_le()) {
                (Some(own), written) if own == written => Ok(Some(Item::End(written))),
                _ => Err(RestoreError::Checksum),
            },
            _ => Err(RestoreError::Malformed("a piece is of no known kind")),
        }
    }

    fn header(&mut self) -> Result<Option<Item>, RestoreError> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let members = usize::from(self.buffer[HEADER_BYTES - 1]);
        if &self.buffer[..8] != MAGIC {
            return Err(RestoreError::Malformed("it does not begin like one"));
        }
        let version = (&self.buffer[8..12]).get_u32_le();
        if version != VERSION {
            return Err(RestoreError::Version { found: version });
        }
        let length = HEADER_BYTES + members * MEMBER_BYTES;
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut header = self.cut(length);
        header.advance(12);
        let slot = Slot(header.get_u64_le());
        header.advance(1);
        let known = std::iter::from_fn(|| {
            (!header.is_empty())
                .then(|| (Incarnation(header.get_u64_le()), Slot(header.get_u64_le())))
        });
        let members = Members::restored(known).ok_or(RestoreError::Malformed(
            "it is of more replicas than can be",
        ))?;
        self.begun = true;
        Ok(Some(Item::Header(slot, Box::new(members))))
    }

    fn cut(&mut self, length: usize) -> Bytes {
        let cut = self.buffer.split_to(length).freeze();
        self.hash.update(&cut);
        cut
    }
}
