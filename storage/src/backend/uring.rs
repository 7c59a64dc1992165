//! io_uring without a thread: direct writes from registered buffers, each durable by itself (RWF_DSYNC).
//!
//! The only file with unsafe code. What it rests on:
//! - A write's buffer and file are owned by its place in `under_way` from before the kernel hears of the write until
//!   its completion was taken. A buffer's memory never moves or changes size ([`AlignedBuffer`]).
//! - Registered buffers are those of `buffers`; together, `buffers` and `under_way` own all of them as long as the
//!   ring lives. Dropping waits for every completion first.
//! - An operation is pushed only while the submission queue has room: it is as long as there are buffers.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};

use super::{GroupWrite, Written};
use crate::buffer::AlignedBuffer;
use crate::signal::Signal;

pub struct UringWriter {
    ring: IoUring,
    buffers: Vec<AlignedBuffer>,
    registered: bool,
    flags: i32,
    /// By buffer number, which is also the completion's user data.
    under_way: Vec<Option<GroupWrite<Arc<File>>>>,
    queued: usize,
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
        })
    }

    /// False if the limit on locked memory kept the kernel from taking the buffers in; writes cost a little more.
    pub fn registered(&self) -> bool {
        self.registered
    }

    fn enter(&mut self, wait: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(wait) {
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
}

impl UringWriter {
    pub fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        self.buffers.pop()
    }

    pub fn start_write(&mut self, write: GroupWrite<Arc<File>>) {
        let index = write.buffer.index();
        let memory = &write.buffer.as_ref()[..write.bytes];
        let (address, bytes) = (memory.as_ptr(), memory.len() as u32);
        let fd = types::Fd(write.file.as_raw_fd());
        let operation = if self.registered {
            opcode::WriteFixed::new(fd, address, bytes, index)
                .offset(write.offset)
                .rw_flags(self.flags)
                .build()
        } else {
            opcode::Write::new(fd, address, bytes)
                .offset(write.offset)
                .rw_flags(self.flags)
                .build()
        };
        let place = &mut self.under_way[usize::from(index)];
        assert!(place.is_none(), "a buffer is used for two writes");
        *place = Some(write);
        // SAFETY: buffer and file are owned by `under_way` until the completion was taken (see above).
        let pushed = unsafe {
            self.ring
                .submission()
                .push(&operation.user_data(u64::from(index)))
        };
        assert!(pushed.is_ok(), "more writes than the ring has room for");
        self.queued += 1;
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.queued == 0 {
            return Ok(());
        }
        self.enter(0)
    }

    pub fn take_written(&mut self) -> Option<Written> {
        let completion = self.ring.completion().next()?;
        let place = &mut self.under_way[completion.user_data() as usize];
        let write = place.take().expect("a completion of no write");
        let outcome = match completion.result() {
            negative if negative < 0 => Err(io::Error::from_raw_os_error(-negative)),
            written if written as usize == write.bytes => Ok(()),
            written => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("short write of {written} of {} bytes", write.bytes),
            )),
        };
        let ticket = write.ticket;
        self.buffers.push(write.buffer);
        Some(Written { ticket, outcome })
    }
}

impl Drop for UringWriter {
    /// The kernel reads the buffers until the last completion: they must not go before.
    fn drop(&mut self) {
        while self.under_way.iter().any(Option::is_some) {
            while self.take_written().is_some() {}
            if self.under_way.iter().any(Option::is_some) && self.enter(1).is_err() {
                // Without a way to wait, leaking the memory is what keeps the kernel's reads sound.
                std::mem::forget(std::mem::take(&mut self.under_way));
            }
        }
    }
}
