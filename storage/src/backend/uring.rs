//! io_uring without a thread: direct writes from registered buffers, each durable by itself (RWF_DSYNC).
//!
//! The only file with unsafe code. What it rests on:
//! - A write's buffer and file are owned by its place in `under_way` from before the kernel hears of the write until
//!   its completion was taken. A buffer's memory never moves or changes size ([`AlignedBuffer`]).
//! - Registered buffers are those of `buffers`; together, `buffers` and `under_way` own all of them as long as the
//!   ring lives. Dropping waits for every completion first.
//! - An operation is pushed only while the submission queue has room: it is as long as there are buffers, and a write
//!   is pushed again only after its completion was taken.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

use super::completion::Completion;
use super::retries::{FULL_PAUSE, Retries, TRANSIENT_MAX, TRANSIENT_PAUSE, is_transient};
use super::{GroupWrite, Written};
use crate::buffer::AlignedBuffer;
use crate::signal::Signal;

pub struct UringWriter {
    ring: IoUring,
    buffers: Vec<AlignedBuffer>,
    registered: bool,
    flags: i32,
    /// By buffer number, which is also the completion's user data.
    under_way: Vec<Option<UnderWay>>,
    /// Pushed, and not taken by the kernel yet.
    queued: usize,
    /// Since when the kernel has taken nothing.
    refused_since: Option<Instant>,
    /// Writes that rest before they are tried again.
    resting: usize,
    retries: Retries,
    #[cfg(test)]
    kernel: tests::Script,
}

struct UnderWay {
    write: GroupWrite<Arc<File>>,
    /// Bytes of it that are durable: what is left of a short write goes on behind them.
    durable: usize,
    waits_for_room: bool,
    /// Since when there has been no progress.
    troubled_since: Option<Instant>,
    /// Not with the kernel, but to be pushed again then.
    rests_until: Option<Instant>,
}

impl UringWriter {
    /// Fails where the kernel refuses io_uring (old, seccomp, sysctl). `syncs` is off for `Durability::None` only.
    pub fn new(
        signal: &Signal,
        group_bytes: usize,
        writes_max: usize,
        syncs: bool,
    ) -> io::Result<UringWriter> {
        let ring = IoUring::new((writes_max as u32).next_power_of_two())?;
        ring.submitter()
            .register_eventfd(signal.as_fd().as_raw_fd())?;
        let mut buffers: Vec<AlignedBuffer> = (0..writes_max)
            .map(|i| AlignedBuffer::numbered(group_bytes, i as u16))
            .collect();
        let vectors: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| {
                let memory = buffer.as_mut_slice();
                libc::iovec {
                    iov_base: memory.as_mut_ptr().cast(),
                    iov_len: memory.len(),
                }
            })
            .collect();
        // SAFETY: each vector names memory of a buffer that lives as long as the ring (see above).
        let registered = unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
        Ok(UringWriter {
            ring,
            buffers,
            registered,
            flags: if syncs { libc::RWF_DSYNC } else { 0 },
            under_way: (0..writes_max).map(|_| None).collect(),
            queued: 0,
            refused_since: None,
            resting: 0,
            retries: Retries::default(),
            #[cfg(test)]
            kernel: tests::Script::default(),
        })
    }

    /// False if the limit on locked memory kept the kernel from taking the buffers in; writes cost a little more.
    pub fn registered(&self) -> bool {
        self.registered
    }

    pub fn retries(&self) -> Retries {
        self.retries.clone()
    }

    fn enter(&mut self, wait: usize) -> io::Result<()> {
        loop {
            match self.submit_and_wait(wait) {
                Ok(taken) => {
                    self.queued = self.queued.saturating_sub(taken);
                    if self.queued == 0 {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn submit_and_wait(&mut self, wait: usize) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(code) = self.kernel.enters.pop_front() {
            return Err(io::Error::from_raw_os_error(code));
        }
        self.ring.submit_and_wait(wait)
    }
}

impl UringWriter {
    pub fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.buffers.pop()
    }

    pub fn start_write(&mut self, write: GroupWrite<Arc<File>>) {
        let index = write.buffer.index();
        let place = &mut self.under_way[usize::from(index)];
        assert!(place.is_none(), "a buffer is used for two writes");
        *place = Some(UnderWay {
            write,
            durable: 0,
            waits_for_room: false,
            troubled_since: None,
            rests_until: None,
        });
        self.push(index);
    }

    /// Queues what is left of a write that the kernel does not have.
    fn push(&mut self, index: u16) {
        let place = self.under_way[usize::from(index)].as_ref();
        let UnderWay { write, durable, .. } = place.expect("what is pushed is under way");
        let memory = &write.buffer.as_ref()[*durable..write.bytes];
        let (address, bytes) = (memory.as_ptr(), memory.len() as u32);
        let fd = types::Fd(write.file.as_raw_fd());
        let offset = write.offset + *durable as u64;
        let operation = if self.registered {
            opcode::WriteFixed::new(fd, address, bytes, index)
                .offset(offset)
                .rw_flags(self.flags)
                .build()
        } else {
            opcode::Write::new(fd, address, bytes)
                .offset(offset)
                .rw_flags(self.flags)
                .build()
        };
        // SAFETY: buffer and file are owned by `under_way` until the completion was taken (see above).
        let pushed = unsafe {
            self.ring
                .submission()
                .push(&operation.user_data(u64::from(index)))
        };
        assert!(pushed.is_ok(), "more writes than the ring has room for");
        self.queued += 1;
    }

    /// Gives the kernel what is queued. What it does not take now stays queued for the next call: the loop comes here
    /// in every turn.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.resting > 0 {
            self.resume();
        }
        if self.queued == 0 {
            return Ok(());
        }
        match self.enter(0) {
            Ok(()) => {
                self.refused_since = None;
                Ok(())
            }
            Err(error) if is_transient(&error) => {
                self.retries.note_transient();
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                match since.elapsed() < TRANSIENT_MAX {
                    true => Ok(()),
                    false => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Queues the writes that have rested.
    fn resume(&mut self) {
        let now = Instant::now();
        for index in 0..self.under_way.len() {
            let Some(place) = &mut self.under_way[index] else {
                continue;
            };
            if place.rests_until.is_some_and(|until| until <= now) {
                place.rests_until = None;
                self.resting -= 1;
                self.push(index as u16);
            }
        }
    }

    /// The next write that ended. Those that did not, though the kernel is done with them, go on by themselves.
    pub fn take_written(&mut self) -> Option<Written> {
        loop {
            let completion = self.ring.completion().next()?;
            let index = completion.user_data() as u16;
            let result = completion.result();
            #[cfg(test)]
            let result = self.kernel.results.pop_front().unwrap_or(result);
            if let Some(outcome) = self.judge(index, result) {
                let place = self.under_way[usize::from(index)].take();
                let UnderWay { write, .. } = place.expect("it was judged");
                let ticket = write.ticket;
                self.buffers.push(write.buffer);
                return Some(Written { ticket, outcome });
            }
        }
    }

    /// `None` if the write goes on.
    fn judge(&mut self, index: u16, result: i32) -> Option<io::Result<()>> {
        let place = self.under_way[usize::from(index)].as_mut();
        let place = place.expect("a completion of no write");
        let since = *place.troubled_since.get_or_insert_with(Instant::now);
        match Completion::of(result, place.write.bytes - place.durable) {
            Completion::Whole => {
                self.retries.note_room(&mut place.waits_for_room);
                Some(Ok(()))
            }
            Completion::Part(bytes) => {
                place.durable += bytes;
                place.troubled_since = None;
                self.retries.note_short();
                self.retries.note_room(&mut place.waits_for_room);
                self.push(index);
                None
            }
            Completion::Full => {
                place.troubled_since = None;
                self.retries.note_full(&mut place.waits_for_room);
                self.rest(index, FULL_PAUSE);
                None
            }
            Completion::Transient(error) if since.elapsed() >= TRANSIENT_MAX => Some(Err(error)),
            Completion::Transient(_) => {
                self.retries.note_transient();
                self.rest(index, TRANSIENT_PAUSE);
                None
            }
            Completion::Failed(error) => Some(Err(error)),
        }
    }

    fn rest(&mut self, index: u16, pause: Duration) {
        let place = self.under_way[usize::from(index)].as_mut();
        place.expect("it was judged").rests_until = Some(Instant::now() + pause);
        self.resting += 1;
    }
}

impl Drop for UringWriter {
    /// The kernel reads the buffers until the last completion: they must not go before.
    fn drop(&mut self) {
        let started = Instant::now();
        loop {
            while self.take_written().is_some() {}
            // What rests, the kernel does not have.
            let with_kernel = |place: &Option<UnderWay>| {
                place
                    .as_ref()
                    .is_some_and(|place| place.rests_until.is_none())
            };
            if !self.under_way.iter().any(with_kernel) {
                return;
            }
            match self.enter(1) {
                Ok(()) => {}
                Err(error) if is_transient(&error) && started.elapsed() < TRANSIENT_MAX => {
                    std::thread::sleep(TRANSIENT_PAUSE);
                }
                Err(_) => {
                    // Without a way to wait, leaking the memory is what keeps the kernel's reads sound.
                    std::mem::forget(std::mem::take(&mut self.under_way));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
