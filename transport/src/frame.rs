//! Cutting length-prefixed frames (`length: u32 | content`) out of the chunks that QUIC delivers.

use bytes::{Buf, Bytes, BytesMut};
use synod_engine::codec::FRAME_PREFIX_BYTES;

use crate::total::{Held, Total};

/// Cuts frames out of one stream. A frame that lies inside one chunk is a slice of it; one that spans chunks is
/// assembled once, in a buffer of its exact size.
pub struct FrameCutter {
    frame_bytes_max: usize,
    prefix: [u8; FRAME_PREFIX_BYTES],
    /// How much of `prefix` has arrived. Full only while the frame's content is incomplete.
    prefix_bytes: usize,
    /// Content of a frame that began in an earlier chunk.
    partial: BytesMut,
    /// What all that share a total may hold of such frames.
    shared: Option<(Total, usize)>,
    held: Option<Held>,
}

/// The stream does not hold frames of ours: the connection has to go, for there is no next frame boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max} bytes")]
    OverLimit { bytes: usize, bytes_max: usize },
    #[error("a frame of no bytes has no kind")]
    Empty,
    #[error(
        "too many unfinished requests of all clients wait here: send requests without a pause inside"
    )]
    Crowded,
}

impl FrameCutter {
    pub fn new(frame_bytes_max: usize) -> FrameCutter {
        assert!(frame_bytes_max > 0, "a limit of 0 would refuse every frame");
        FrameCutter {
            frame_bytes_max,
            prefix: [0; FRAME_PREFIX_BYTES],
            prefix_bytes: 0,
            partial: BytesMut::new(),
            shared: None,
            held: None,
        }
    }

    /// From now on frames that are not here in full count into this total, and are refused beyond its limit.
    pub fn share(&mut self, unfinished: Total, bytes_max: usize) {
        self.shared = Some((unfinished, bytes_max));
    }

    /// From the next frame on, this is the limit.
    pub fn allow(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The next whole frame, without its length prefix; `None` once `chunk` is used up.
    pub fn cut(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        if !self.take_prefix(chunk) {
            return Ok(None);
        }
        let length = u32::from_le_bytes(self.prefix) as usize;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.frame_bytes_max {
            return Err(FrameError::OverLimit {
                bytes: length,
                bytes_max: self.frame_bytes_max,
            });
        }
        if self.partial.is_empty() && chunk.len() >= length {
            self.prefix_bytes = 0;
            return Ok(Some(chunk.split_to(length)));
        }
        if self.partial.is_empty() {
            if let Some((unfinished, bytes_max)) = &self.shared {
                let held = unfinished.hold(length, *bytes_max);
                self.held = Some(held.ok_or(FrameError::Crowded)?);
            }
            self.partial.reserve(length);
        }
        let missing = length - self.partial.len();
        let available = missing.min(chunk.len());
        self.partial.extend_from_slice(&chunk[..available]);
        chunk.advance(available);
        if available < missing {
            return Ok(None);
        }
        self.prefix_bytes = 0;
        self.held = None;
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }

    /// Whether the length prefix is complete, after taking what `chunk` has of it.
    fn take_prefix(&mut self, chunk: &mut Bytes) -> bool {
        let missing = FRAME_PREFIX_BYTES - self.prefix_bytes;
        let available = missing.min(chunk.len());
        self.prefix[self.prefix_bytes..self.prefix_bytes + available]
            .copy_from_slice(&chunk[..available]);
        chunk.advance(available);
        self.prefix_bytes += available;
        self.prefix_bytes == FRAME_PREFIX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    /// The oracle: everything in one buffer, cut from the front.
    fn naive(mut stream: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while stream.len() >= 4 {
            let length = u32::from_le_bytes(stream[..4].try_into().expect("four bytes")) as usize;
            if stream.len() < 4 + length {
                break;
            }
            frames.push(stream[4..4 + length].to_vec());
            stream = &stream[4 + length..];
        }
        frames
    }

    fn cut_all(cutter: &mut FrameCutter, chunk: &[u8]) -> Result<Vec<Bytes>, FrameError> {
        let mut chunk = Bytes::copy_from_slice(chunk);
        let mut frames = Vec::new();
        while let Some(frame) = cutter.cut(&mut chunk)? {
            frames.push(frame);
        }
        assert!(chunk.is_empty(), "the cutter left bytes behind");
        Ok(frames)
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_frames_of_the_naive_cutter(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..30),
            cuts in prop::collection::vec(1usize..120, 1..60),
        ) {
            let mut stream = BytesMut::new();
            for content in &contents {
                stream.put_u32_le(content.len() as u32);
                stream.put_slice(content);
            }
            let mut cutter = FrameCutter::new(300);
            let mut frames = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                frames.extend(cut_all(&mut cutter, chunk).expect("well-formed"));
                rest = after;
            }
            prop_assert_eq!(frames, naive(&stream));
        }
    }

    #[test]
    fn a_frame_inside_one_chunk_is_not_copied() {
        let mut chunk = Bytes::from(vec![3, 0, 0, 0, 7, 8, 9]);
        let content = chunk[4..].as_ptr();
        let frame = FrameCutter::new(16).cut(&mut chunk).expect("fits");
        assert_eq!(frame.expect("whole").as_ptr(), content);
    }

    #[test]
    fn frames_that_do_not_end_are_bounded_together_and_give_back_what_they_held() {
        let unfinished = Total::default();
        let cutter = || {
            let mut cutter = FrameCutter::new(16);
            cutter.share(unfinished.clone(), 20);
            cutter
        };
        let (mut one, mut two) = (cutter(), cutter());
        assert_eq!(cut_all(&mut one, &[16, 0, 0, 0, 1]), Ok(vec![]));
        assert_eq!(
            cut_all(&mut two, &[5, 0, 0, 0, 1]),
            Err(FrameError::Crowded)
        );
        // What is there at once was never held.
        assert!(cut_all(&mut cutter(), &[2, 0, 0, 0, 1, 2]).is_ok());
        assert_eq!(unfinished.bytes(), 16);
        assert_eq!(
            cut_all(&mut one, &[1; 15]).map(|frames| frames.len()),
            Ok(1)
        );
        let mut three = cutter();
        assert_eq!(cut_all(&mut three, &[5, 0, 0, 0, 1]), Ok(vec![]));
        assert_eq!(unfinished.bytes(), 5);
        drop(three);
        assert_eq!(unfinished.bytes(), 0);
    }

    #[test]
    fn frames_over_the_limit_and_empty_frames_are_refused() {
        let over = FrameError::OverLimit {
            bytes: 17,
            bytes_max: 16,
        };
        assert_eq!(
            cut_all(&mut FrameCutter::new(16), &[17, 0, 0, 0]),
            Err(over)
        );
        assert_eq!(
            cut_all(&mut FrameCutter::new(16), &[0, 0, 0, 0]),
            Err(FrameError::Empty)
        );
        // The limit itself is allowed.
        let mut whole = vec![16, 0, 0, 0];
        whole.extend([1; 16]);
        assert_eq!(
            cut_all(&mut FrameCutter::new(16), &whole).map(|frames| frames.len()),
            Ok(1)
        );
    }
}
