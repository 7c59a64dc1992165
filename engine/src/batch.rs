//! Batches: the commands of one slot. A value is back-to-back requests (see [`crate::client`]), as they came in; an
//! empty value is a no-op. Nothing is allocated per command between intake and apply.
//!
//! A value that is anything else, because some replica has a bug or a flipped bit, is nothing: a no-op, as a whole.
//! Only its bytes decide that, so every replica, each replay and the verifier see it alike, and no chosen value can
//! stop a replica, now or at its next start.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::client::{REQUEST_HEADER_BYTES, Request};
use crate::codec::DecodeError;
use crate::message::Value;

/// Requests that were admitted and wait for room in the window.
#[derive(Clone, Debug)]
pub struct Intake {
    batch_bytes_max: usize,
    /// Full batches, in order.
    closed: VecDeque<Bytes>,
    open: BytesMut,
    bytes: usize,
    /// Bytes of the last batch: the next one starts with that much room, so that it is not moved while it grows.
    last_bytes: usize,
}

impl Intake {
    pub fn new(batch_bytes_max: usize) -> Intake {
        Intake {
            batch_bytes_max,
            closed: VecDeque::new(),
            open: BytesMut::new(),
            bytes: 0,
            last_bytes: 0,
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a request to the open batch; a request is never split over slots.
    pub fn push(&mut self, request: &Request) {
        let length = REQUEST_HEADER_BYTES + request.commands.len();
        assert!(
            length <= self.batch_bytes_max,
            "a request of {length} bytes"
        );
        if self.open.len() + length > self.batch_bytes_max {
            self.closed.push_back(self.open.split().freeze());
        }
        if self.open.is_empty() {
            self.open.reserve(self.last_bytes.max(length));
        }
        request.put(&mut self.open);
        self.bytes += length;
    }

    /// The next batch: the oldest full one, or whatever has gathered since.
    pub fn take(&mut self) -> Option<Value> {
        let value = match self.closed.pop_front() {
            Some(closed) => closed,
            None if self.open.is_empty() => return None,
            None => self.open.split().freeze(),
        };
        self.bytes -= value.len();
        self.last_bytes = value.len();
        Some(value)
    }

    pub fn clear(&mut self) {
        *self = Intake::new(self.batch_bytes_max);
    }
}

/// Requests in one batch at most: what a session is called has 16 bits for the place in the batch that opened it. Far
/// beyond what fits the longest value.
pub const REQUESTS_MAX: usize = 1 << 16;

/// Takes a value apart, request by request, after checking all of it.
pub fn requests(mut value: Value) -> Result<impl Iterator<Item = Request>, DecodeError> {
    check(&value)?;
    Ok(std::iter::from_fn(move || {
        if value.is_empty() {
            return None;
        }
        Some(Request::take_checked(&mut value).expect("the value was just checked"))
    }))
}

/// Whether a value is a batch, to the last command of its last request.
pub fn check(value: &[u8]) -> Result<(), DecodeError> {
    let mut rest = value;
    let mut count = 0;
    while !rest.is_empty() {
        rest = Request::check(rest)?;
        count += 1;
    }
    if count > REQUESTS_MAX {
        return Err(DecodeError::Range);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{CommandNumber, SessionId};

    fn request(session: u64, first: u64, commands: &[Vec<u8>]) -> Request {
        let mut encoded = BytesMut::new();
        for command in commands {
            encoded.put_u32_le(command.len() as u32);
            encoded.put_slice(command);
        }
        Request {
            session: SessionId(session),
            first: CommandNumber(first),
            acknowledged: CommandNumber(1),
            count: commands.len() as u32,
            commands: encoded.freeze(),
        }
    }

    proptest! {
        #[test]
        fn batches_give_back_every_request_in_order_and_stay_within_the_limit(
            runs in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..4), 0..40),
        ) {
            let mut intake = Intake::new(256);
            let requests_in: Vec<Request> = runs
                .iter()
                .enumerate()
                .map(|(index, commands)| request(7, index as u64 + 1, commands))
                .collect();
            for request in &requests_in {
                intake.push(request);
            }
            let mut out = Vec::new();
            while let Some(value) = intake.take() {
                prop_assert!(value.len() <= 256);
                out.extend(requests(value).expect("what was pushed is well-formed"));
            }
            prop_assert_eq!(out, requests_in);
            prop_assert_eq!(intake.bytes(), 0);
        }
    }

    #[test]
    fn a_lone_request_is_a_batch_at_once() {
        let mut intake = Intake::new(1 << 20);
        assert_eq!(intake.take(), None);
        intake.push(&request(1, 1, &[b"x".to_vec()]));
        assert!(intake.take().is_some());
        assert_eq!(intake.take(), None);
    }
}
