//! What a backend tries again, counted, and for how long.
//!
//! Three kinds of trouble do not end a write. Room that is missing may come back, however long that takes: the log
//! waits as on a hung disk. What the kernel calls transient (a signal, a short queue, short memory) is over soon, or is
//! a failure after all. And of a short write the rest is written. Everything else is final.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long the kernel may call the same thing transient without any progress.
pub const TRANSIENT_MAX: Duration = Duration::from_secs(10);
/// Before the next try of what was transient.
pub const TRANSIENT_PAUSE: Duration = Duration::from_millis(1);
/// Before the next try on a full disk.
pub const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Whether a later attempt may succeed without anybody's help but that of whoever frees room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether the same call may succeed in a moment.
pub fn is_transient(error: &io::Error) -> bool {
    let transient = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| transient.contains(&code))
}

/// Whether this process, or this machine, has no file handle left: it has when others are closed.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether an attempt from the start may succeed later, where nothing was promised about it yet.
pub fn is_passing(error: &io::Error) -> bool {
    is_full(error) || is_transient(error) || is_out_of_handles(error)
}

/// Clones share the counts.
#[derive(Clone, Default)]
pub struct Retries(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// Writes that wait for room.
    waiting: AtomicUsize,
    full_tries: AtomicU64,
    transient: AtomicU64,
    short: AtomicU64,
}

impl Retries {
    /// A write found no room; `waits` is kept with it.
    pub fn note_full(&self, waits: &mut bool) {
        self.0.full_tries.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(waits, true) {
            self.0.waiting.fetch_add(1, Ordering::Release);
        }
    }

    /// A write got on.
    pub fn note_room(&self, waits: &mut bool) {
        if std::mem::take(waits) {
            self.0.waiting.fetch_sub(1, Ordering::Release);
        }
    }

    pub fn note_transient(&self) {
        self.0.transient.fetch_add(1, Ordering::Relaxed);
    }

    pub fn note_short(&self) {
        self.0.short.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a write waits for room.
    pub fn is_full(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) > 0
    }

    pub fn full_tries(&self) -> u64 {
        self.0.full_tries.load(Ordering::Relaxed)
    }

    pub fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("wal_write_full_tries", self.full_tries());
        report(
            "wal_write_retries",
            self.0.transient.load(Ordering::Relaxed),
        );
        report("wal_short_writes", self.0.short.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_of_one_kind() {
        let kinds = |code| {
            let error = io::Error::from_raw_os_error(code);
            [
                is_full(&error),
                is_transient(&error),
                is_out_of_handles(&error),
            ]
        };
        for code in [libc::ENOSPC, libc::EDQUOT] {
            assert_eq!(kinds(code), [true, false, false]);
        }
        for code in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
            assert_eq!(kinds(code), [false, true, false]);
        }
        for code in [libc::EMFILE, libc::ENFILE] {
            assert_eq!(kinds(code), [false, false, true]);
        }
        for code in [
            libc::EIO,
            libc::EFBIG,
            libc::EROFS,
            libc::EBADF,
            libc::EINVAL,
        ] {
            assert_eq!(kinds(code), [false; 3]);
        }
        // What a sync dropped is not known from a kind without a code.
        let told = io::Error::new(io::ErrorKind::WouldBlock, "told");
        assert!(!is_passing(&told));
    }
}
