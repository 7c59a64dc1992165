//! The real ring on a real file, with answers of the kernel made up.

use std::collections::VecDeque;
use std::fs::OpenOptions;

use super::*;

/// What the kernel is made to say, one after the other; then what it says itself.
#[derive(Default)]
pub struct Script {
    /// Errors of `io_uring_enter`: nothing was taken.
    pub enters: VecDeque<i32>,
    /// Results of completions, in place of the true ones.
    pub results: VecDeque<i32>,
}

const BYTES: usize = 16 << 10;
/// Generous: only what hangs takes so long.
const GUARD: Duration = Duration::from_secs(60);

struct Bench {
    writer: UringWriter,
    file: Arc<File>,
    _directory: tempfile::TempDir,
}

/// `None` where the kernel refuses io_uring, which is not what is tested here.
fn bench() -> Option<Bench> {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let signal = Signal::new().unwrap();
    let Ok(writer) = UringWriter::new(&signal, BYTES, 2, true) else {
        println!("skipped: io_uring cannot be used here");
        return None;
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true);
    let file = Arc::new(options.open(directory.path().join("segment")).unwrap());
    Some(Bench {
        writer,
        file,
        _directory: directory,
    })
}

impl Bench {
    /// Starts a write of pages that are told apart.
    fn start(&mut self, ticket: u64) {
        let mut buffer = self.writer.take_buffer().unwrap();
        buffer.as_mut_slice().copy_from_slice(&content(ticket));
        self.writer.start_write(GroupWrite {
            ticket,
            file: self.file.clone(),
            offset: ticket * BYTES as u64,
            buffer,
            bytes: BYTES,
        });
    }

    /// As the loop does it, until the next write ended.
    fn next(&mut self) -> Written {
        let started = Instant::now();
        loop {
            self.writer.flush().unwrap();
            if let Some(written) = self.writer.take_written() {
                return written;
            }
            assert!(started.elapsed() < GUARD);
            std::thread::sleep(TRANSIENT_PAUSE);
        }
    }

    fn check(&self, ticket: u64) {
        use std::os::unix::fs::FileExt;
        let mut found = vec![0; BYTES];
        let at = ticket * BYTES as u64;
        self.file.read_exact_at(&mut found, at).unwrap();
        assert!(found == content(ticket));
    }
}

fn content(ticket: u64) -> Vec<u8> {
    let page = |i: usize| (i / 512) as u8 ^ (ticket as u8 + 1);
    (0..BYTES).map(page).collect()
}

fn counter(retries: &Retries, name: &str) -> u64 {
    let mut found = None;
    retries.counters(&mut |other, value| {
        if other == name {
            found = Some(value);
        }
    });
    found.unwrap()
}

#[test]
fn what_the_kernel_calls_transient_is_tried_again() {
    for code in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        let Some(mut bench) = bench() else { return };
        bench.writer.kernel.enters = [code; 3].into();
        bench.writer.kernel.results = [-code; 3].into();
        bench.start(0);
        let written = bench.next();
        assert_eq!(written.ticket, 0);
        written.outcome.unwrap();
        bench.check(0);
        assert!(counter(&bench.writer.retries(), "wal_write_retries") >= 3);
        // The other place was free all the time.
        bench.start(1);
        bench.next().outcome.unwrap();
        bench.check(1);
    }
}

#[test]
fn a_short_write_goes_on_behind_what_is_written() {
    let Some(mut bench) = bench() else { return };
    // Three pages of four, of which the last in part; one of the other two; nothing; and then the rest.
    bench.writer.kernel.results = [10_000, 4096, 0].into();
    bench.start(0);
    bench.next().outcome.unwrap();
    bench.check(0);
    assert_eq!(counter(&bench.writer.retries(), "wal_short_writes"), 2);
    // It says how much, so a lie would show: the second page was never written by the first try.
    bench.file.set_len(0).unwrap();
    bench.writer.kernel.results = [4096].into();
    bench.start(1);
    bench.next().outcome.unwrap();
    bench.check(1);
}

#[test]
fn a_full_disk_is_waited_for_while_other_writes_go_on() {
    let Some(mut bench) = bench() else { return };
    bench.writer.kernel.results = [-libc::ENOSPC, -libc::EDQUOT, -libc::ENOSPC].into();
    bench.start(0);
    bench.writer.flush().unwrap();
    let retries = bench.writer.retries();
    let started = Instant::now();
    while !retries.is_full() {
        assert!(bench.writer.take_written().is_none());
        assert!(started.elapsed() < GUARD);
    }
    bench.next().outcome.unwrap();
    bench.check(0);
    assert!(!retries.is_full());
    assert_eq!(retries.full_tries(), 3);
}

#[test]
fn anything_else_is_final() {
    for code in [libc::EIO, libc::EFBIG, libc::EROFS] {
        let Some(mut bench) = bench() else { return };
        bench.writer.kernel.results = [-code].into();
        bench.start(0);
        let error = bench.next().outcome.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(code));
    }
    let Some(mut bench) = bench() else { return };
    bench.writer.kernel.enters = [libc::EBADF].into();
    bench.start(0);
    let error = bench.writer.flush().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_writer_goes_while_a_write_rests_and_another_is_under_way() {
    let Some(mut bench) = bench() else { return };
    bench.writer.kernel.results = [-libc::ENOSPC].into();
    bench.start(0);
    bench.writer.flush().unwrap();
    let started = Instant::now();
    while !bench.writer.retries().is_full() {
        assert!(bench.writer.take_written().is_none());
        assert!(started.elapsed() < GUARD);
    }
    bench.writer.kernel.enters = [libc::EAGAIN; 2].into();
    bench.start(1);
    let Bench { writer, .. } = bench;
    drop(writer);
    assert!(started.elapsed() < GUARD);
}
