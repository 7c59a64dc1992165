//! Bytes waiting to be written to one stream: bounded, and coalesced so that QUIC sees few large chunks.

use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use tokio::sync::Notify;

use crate::total::Total;

/// Pieces below this are copied into the tail buffer; larger ones are passed on by reference count. A copy of this
/// size costs less than the bookkeeping of a chunk in quinn's send buffer, whose lookups scan all chunks.
const COPY_BYTES_MAX: usize = 4 * 1024;
/// The tail buffer is closed and a new one begun beyond this.
const TAIL_BYTES: usize = 64 * 1024;
/// The first size of a tail buffer: most turns send a few small frames.
const TAIL_BYTES_FIRST: usize = 4 * 1024;

/// The queue of one stream of one connection. It ends with its connection.
pub struct OutQueue {
    state: Mutex<State>,
    bytes_max: usize,
    /// What this queue and others hold together.
    total: Total,
    /// The writer has something to do.
    news: Notify,
}

#[derive(Default)]
struct State {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes pushed and not yet handed to QUIC, those in the writer's hand included.
    bytes: usize,
    /// Frames pushed and not yet wholly handed to QUIC.
    frames: u64,
    /// Something was pushed that the writer was not told about.
    dirty: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Queued as the first since the last flush: somebody has to flush.
    First,
    Queued,
    /// Over the limit: nothing was queued.
    Full,
    /// The connection is gone: nothing was queued.
    Closed,
}

impl OutQueue {
    pub fn new(bytes_max: usize) -> OutQueue {
        OutQueue::counted(bytes_max, Total::default())
    }

    /// One whose bytes are in a total as well.
    pub fn counted(bytes_max: usize, total: Total) -> OutQueue {
        OutQueue {
            state: Mutex::default(),
            bytes_max,
            total,
            news: Notify::new(),
        }
    }

    /// Queues a frame of two parts. The writer is told by [`OutQueue::flush`]. A frame longer than the limit is
    /// taken by an empty queue only, so that it is not refused for ever.
    pub fn push(&self, head: &Bytes, body: &Bytes) -> Pushed {
        let bytes = head.len() + body.len();
        let mut state = self.lock();
        if state.closed {
            return Pushed::Closed;
        }
        if state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Pushed::Full;
        }
        state.bytes += bytes;
        self.total.add(bytes);
        state.frames += 1;
        state.put(head);
        state.put(body);
        if std::mem::replace(&mut state.dirty, true) {
            Pushed::Queued
        } else {
            Pushed::First
        }
    }

    /// Tells the writer that something was pushed.
    pub fn flush(&self) {
        self.lock().dirty = false;
        self.news.notify_one();
    }

    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Refuses everything from now on and returns how many frames were left unwritten.
    pub fn close(&self) -> u64 {
        let mut state = self.lock();
        state.closed = true;
        state.chunks.clear();
        state.tail = BytesMut::new();
        self.total.sub(std::mem::take(&mut state.bytes));
        std::mem::take(&mut state.frames)
    }

    /// Writes what is pushed until the stream fails. `written` is called after each write with the bytes left.
    pub async fn write_to(
        &self,
        stream: &mut SendStream,
        written: impl Fn(usize),
    ) -> quinn::WriteError {
        let mut chunks = Vec::new();
        loop {
            let frames = self.take(&mut chunks);
            if chunks.is_empty() {
                self.news.notified().await;
                continue;
            }
            let mut at = 0;
            while at < chunks.len() {
                match stream.write_chunks(&mut chunks[at..]).await {
                    Ok(progress) => {
                        at += progress.chunks;
                        written(self.wrote(progress.bytes));
                    }
                    Err(error) => return error,
                }
            }
            let mut state = self.lock();
            state.frames = state.frames.saturating_sub(frames);
        }
    }

    /// Swaps everything queued into the empty `chunks`; returns how many frames that is.
    fn take(&self, chunks: &mut Vec<Bytes>) -> u64 {
        chunks.clear();
        let mut state = self.lock();
        state.close_tail();
        std::mem::swap(&mut state.chunks, chunks);
        state.frames
    }

    fn wrote(&self, bytes: usize) -> usize {
        let mut state = self.lock();
        // After close() the count is already 0.
        let counted = bytes.min(state.bytes);
        state.bytes -= counted;
        self.total.sub(counted);
        state.bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of a queue panics")
    }
}

impl State {
    fn put(&mut self, piece: &Bytes) {
        if piece.len() >= COPY_BYTES_MAX {
            self.close_tail();
            self.chunks.push(piece.clone());
            return;
        }
        if self.tail.len() + piece.len() > TAIL_BYTES {
            self.close_tail();
        }
        if self.tail.capacity() == 0 {
            self.tail.reserve(TAIL_BYTES_FIRST);
        }
        self.tail.extend_from_slice(piece);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let chunk = self.tail.split().freeze();
            self.chunks.push(chunk);
        }
    }
}
