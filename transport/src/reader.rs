//! Reading whole frames from one QUIC stream, many per wake-up.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream};

use crate::frame::{FrameCutter, FrameError};
use crate::total::Total;

/// Chunks taken from QUIC per lock of the connection. One chunk is at most one packet.
const CHUNKS_PER_READ: usize = 32;

pub struct FrameReader {
    stream: RecvStream,
    cutter: FrameCutter,
    /// Handed to QUIC to be filled.
    slots: Vec<Bytes>,
    /// Read and not cut yet.
    pending: VecDeque<Bytes>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFailed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Stream(#[from] ReadError),
    #[error("the stream ended")]
    Finished,
}

impl FrameReader {
    pub fn new(stream: RecvStream, frame_bytes_max: usize) -> FrameReader {
        FrameReader {
            stream,
            cutter: FrameCutter::new(frame_bytes_max),
            slots: vec![Bytes::new(); CHUNKS_PER_READ],
            pending: VecDeque::new(),
        }
    }

    /// From now on frames may be this long.
    pub fn allow(&mut self, frame_bytes_max: usize) {
        self.cutter.allow(frame_bytes_max);
    }

    /// Frames that are not here in full count into `unfinished`.
    pub fn share(&mut self, unfinished: Total, bytes_max: usize) {
        self.cutter.share(unfinished, bytes_max);
    }

    /// The first byte of the stream, which stands outside the frames.
    pub async fn byte(&mut self) -> Result<u8, ReadFailed> {
        loop {
            if let Some(chunk) = self.pending.front_mut() {
                if chunk.has_remaining() {
                    return Ok(chunk.get_u8());
                }
                self.pending.pop_front();
            } else {
                self.fill().await?;
            }
        }
    }

    /// One frame; what follows it stays for later.
    pub async fn one(&mut self) -> Result<Bytes, ReadFailed> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Appends every frame that is there, and at least one.
    pub async fn many(&mut self, frames: &mut Vec<Bytes>) -> Result<(), ReadFailed> {
        frames.push(self.one().await?);
        while let Some(frame) = self.cut()? {
            frames.push(frame);
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<Option<Bytes>, FrameError> {
        while let Some(chunk) = self.pending.front_mut() {
            if let Some(frame) = self.cutter.cut(chunk)? {
                return Ok(Some(frame));
            }
            self.pending.pop_front();
        }
        Ok(None)
    }

    async fn fill(&mut self) -> Result<(), ReadFailed> {
        let count = self.stream.read_chunks(&mut self.slots).await?;
        let count = count.ok_or(ReadFailed::Finished)?;
        self.pending
            .extend(self.slots[..count].iter_mut().map(std::mem::take));
        Ok(())
    }
}
