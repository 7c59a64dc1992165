//! The commands of a session that have no reply yet, as the runs in which they were submitted.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use synod_engine::client::{ClientMessage, LENGTH_BYTES, REQUEST_HEADER_BYTES, Request};
use synod_engine::codec::FRAME_PREFIX_BYTES;
use synod_engine::ids::{CommandNumber, SessionId, Time};
use synod_engine::seams::Frame;

/// Small runs that wait together travel as one request of up to this many bytes: admission, batching and replies
/// cost per request.
const MERGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a request frame in front of its commands: length, kind, header.
const HEAD_BYTES: usize = FRAME_PREFIX_BYTES + 1 + REQUEST_HEADER_BYTES;

pub struct Run {
    pub first: CommandNumber,
    pub count: u32,
    /// count × (length u32 | command)
    pub commands: Bytes,
    submitted: Time,
    expired: bool,
}

/// Runs without a gap between them, from the first command without a reply to the last one submitted.
pub struct Runs {
    runs: VecDeque<Run>,
    bytes: usize,
    /// Leading runs that are known to be over their deadline.
    expired: usize,
    /// Every command below has its reply.
    acknowledged: CommandNumber,
    /// The number of the next command submitted.
    next: CommandNumber,
}

impl Run {
    fn end(&self) -> CommandNumber {
        self.first.plus(self.count)
    }
}

impl Runs {
    pub fn new(first: CommandNumber) -> Runs {
        Runs {
            runs: VecDeque::new(),
            bytes: 0,
            expired: 0,
            acknowledged: first,
            next: first,
        }
    }

    pub fn acknowledged(&self) -> CommandNumber {
        self.acknowledged
    }

    pub fn next(&self) -> CommandNumber {
        self.next
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    pub fn append(&mut self, now: Time, commands: Bytes, count: u32) -> CommandNumber {
        assert!(count > 0, "a run holds at least one command");
        assert!(
            is_run(&commands, count),
            "the run is not {count} × (length u32 | command)"
        );
        let first = self.next;
        self.next = first.plus(count);
        self.bytes += commands.len();
        self.runs.push_back(Run {
            first,
            count,
            commands,
            submitted: now,
            expired: false,
        });
        first
    }

    /// Forgets every command below `end`.
    pub fn acknowledge(&mut self, end: CommandNumber) {
        assert!(
            end > self.acknowledged && end <= self.next,
            "the replies up to {end:?} answer nothing that is outstanding"
        );
        self.acknowledged = end;
        while let Some(run) = self.runs.front_mut() {
            if run.end() > end {
                if run.first < end {
                    let before = run.commands.len();
                    let answered = (end.0 - run.first.0) as u32;
                    skip_items(&mut run.commands, answered);
                    self.bytes -= before - run.commands.len();
                    run.first = end;
                    run.count -= answered;
                }
                return;
            }
            self.bytes -= run.commands.len();
            self.expired -= usize::from(run.expired);
            self.runs.pop_front();
        }
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.bytes = 0;
        self.expired = 0;
        self.acknowledged = self.next;
    }

    /// The next run whose deadline passed, each once.
    pub fn expire(&mut self, now: Time, deadline_ns: u64) -> Option<(CommandNumber, u32)> {
        if now < self.expires_at(deadline_ns)? {
            return None;
        }
        let run = &mut self.runs[self.expired];
        run.expired = true;
        self.expired += 1;
        Some((run.first, run.count))
    }

    /// When the next run expires.
    pub fn expires_at(&self, deadline_ns: u64) -> Option<Time> {
        let run = self.runs.get(self.expired)?;
        Some(run.submitted.plus(deadline_ns))
    }

    /// A request that begins with command `first`, and how many commands it carries.
    pub fn request(&self, session: SessionId, first: CommandNumber) -> (Frame, u32) {
        assert!(
            first >= self.acknowledged && first < self.next,
            "{first:?} is not outstanding"
        );
        let at = self.runs.partition_point(|run| run.end() <= first);
        let mut commands = self.runs[at].commands.clone();
        let skipped = (first.0 - self.runs[at].first.0) as u32;
        skip_items(&mut commands, skipped);
        let mut count = self.runs[at].count - skipped;
        let mut bytes = commands.len();
        let mut end = at + 1;
        while let Some(run) = self.runs.get(end) {
            if bytes + run.commands.len() > MERGE_BYTES_MAX {
                break;
            }
            bytes += run.commands.len();
            count += run.count;
            end += 1;
        }
        let head = self.head(session, first, count, bytes);
        if end == at + 1 {
            let head = head.freeze();
            let body = commands;
            return (Frame { head, body }, count);
        }
        let mut whole = head;
        whole.reserve(bytes);
        whole.put_slice(&commands);
        for run in self.runs.range(at + 1..end) {
            whole.put_slice(&run.commands);
        }
        let head = whole.freeze();
        let body = Bytes::new();
        (Frame { head, body }, count)
    }

    /// The frame of a request up to its commands. The engine encodes a request only whole, so its frame of an
    /// empty one is taken, and the two lengths are put right.
    fn head(&self, session: SessionId, first: CommandNumber, count: u32, bytes: usize) -> BytesMut {
        let request = Request {
            session,
            first,
            acknowledged: self.acknowledged,
            count,
            commands: Bytes::new(),
        };
        let mut head = BytesMut::from(ClientMessage::Request(request).encode());
        assert_eq!(head.len(), HEAD_BYTES, "the layout of a request changed");
        let length = (HEAD_BYTES - FRAME_PREFIX_BYTES + bytes) as u32;
        head[..FRAME_PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        head[HEAD_BYTES - 4..].copy_from_slice(&(bytes as u32).to_le_bytes());
        head
    }
}

/// Cuts `count` items off the front of a well-formed run.
pub fn skip_items(run: &mut Bytes, count: u32) {
    for _ in 0..count {
        let length = run.get_u32_le() as usize;
        run.advance(length);
    }
}

fn is_run(mut rest: &[u8], count: u32) -> bool {
    for _ in 0..count {
        let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return false;
        };
        let Some(after) = after.get(u32::from_le_bytes(*length) as usize..) else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(commands: &[&[u8]]) -> (Bytes, u32) {
        let mut out = BytesMut::new();
        for command in commands {
            out.put_u32_le(command.len() as u32);
            out.put_slice(command);
        }
        (out.freeze(), commands.len() as u32)
    }

    fn decode(frame: &Frame) -> Request {
        let mut whole = BytesMut::from(&frame.head[..]);
        whole.put_slice(&frame.body);
        let length = whole.get_u32_le() as usize;
        assert_eq!(length, whole.len());
        match ClientMessage::decode(whole.freeze()).expect("well-formed") {
            ClientMessage::Request(request) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    #[test]
    fn runs_that_wait_together_become_one_request_and_are_cut_at_any_command() {
        let mut runs = Runs::new(CommandNumber(1));
        for commands in [&[&b"a"[..], b"bb"][..], &[b"ccc"], &[b"", b"e"]] {
            let (commands, count) = run(commands);
            runs.append(Time(0), commands, count);
        }
        let all: [&[u8]; 5] = [b"a", b"bb", b"ccc", b"", b"e"];
        for first in 1..=5 {
            let (frame, count) = runs.request(SessionId(7), CommandNumber(first));
            let request = decode(&frame);
            assert_eq!((request.first.0, request.count), (first, count));
            assert_eq!(
                request.iter().collect::<Vec<_>>(),
                all[first as usize - 1..]
            );
        }
        runs.acknowledge(CommandNumber(2));
        let (frame, _) = runs.request(SessionId(7), CommandNumber(2));
        let request = decode(&frame);
        assert_eq!(request.acknowledged, CommandNumber(2));
        assert_eq!(request.iter().collect::<Vec<_>>(), all[1..]);
    }

    #[test]
    fn a_long_run_is_sent_without_a_copy() {
        let mut runs = Runs::new(CommandNumber(1));
        let (commands, count) = run(&[&[1; MERGE_BYTES_MAX]]);
        runs.append(Time(0), commands.clone(), count);
        runs.append(Time(0), commands.clone(), count);
        let (frame, count) = runs.request(SessionId(7), CommandNumber(1));
        assert_eq!((count, frame.body.as_ptr()), (1, commands.as_ptr()));
    }
}
