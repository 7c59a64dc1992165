//! Lines for whoever reads stderr or stdout, given away without waiting for the reader.
//!
//! A reader may stand still (the pipe is full), go away (EPIPE), or be a file on a full disk (ENOSPC). None of that may
//! stop the event loop or end the process, so a thread writes, behind a queue of bounded size. What finds no room
//! there, or cannot be written, is lost; it is counted, and a line tells of it as soon as one gets through again.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

/// Bytes of lines that wait for their reader.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// Clones share the queue and its thread.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Apart, because it is asked for in every turn.
    lost: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// When the write began that is under way.
    writing_since: Option<Instant>,
    /// The last write failed: there is nobody to tell of losses yet.
    failing: bool,
}

enum Entry {
    Text(Vec<u8>),
    /// So many lines are missing here, and nobody was told yet.
    Lost(u64),
}

/// What is to be written next.
struct Next {
    lost: u64,
    text: Option<Vec<u8>>,
}

impl Lines {
    /// Starts the thread that writes to `target`. Fails where no thread can be started.
    pub fn new(target: impl AsFd + Send + 'static) -> std::io::Result<Lines> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || writer.write_all(target.as_fd()))?;
        Ok(Lines(shared))
    }

    /// Never waits for the reader. Texts are whole lines, or what a terminal shows for a moment.
    pub fn push(&self, text: &[u8]) {
        let mut queue = self.0.lock();
        if queue.bytes + text.len() > QUEUED_BYTES_MAX {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            match queue.entries.back_mut() {
                Some(Entry::Lost(lost)) => *lost += 1,
                Some(Entry::Text(_)) | None => queue.entries.push_back(Entry::Lost(1)),
            }
        } else {
            queue.bytes += text.len();
            queue.entries.push_back(Entry::Text(text.to_vec()));
        }
        self.0.changed.notify_all();
    }

    /// Lines that nobody got, so far.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written that can be, no longer than `bound`, and not at all for a reader that has
    /// stood still for so long already.
    pub fn flush(&self, bound: Duration) {
        let until = Instant::now() + bound;
        let mut queue = self.0.lock();
        while !queue.is_done() {
            let now = Instant::now();
            let stands_still = queue
                .writing_since
                .is_some_and(|since| now.duration_since(since) >= bound);
            if now >= until || stands_still {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, until - now);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    /// Whether nothing is left that could be written now.
    fn is_done(&self) -> bool {
        let untellable = |entry: &Entry| matches!(entry, Entry::Lost(_)) && self.failing;
        self.writing_since.is_none() && self.entries.iter().all(untellable)
    }

    /// A loss is told before the line behind it. While writes fail that line is what finds out whether they still do.
    fn take_next(&mut self) -> Option<Next> {
        if self.is_done() {
            return None;
        }
        let mut next = Next {
            lost: 0,
            text: None,
        };
        while let Some(entry) = self.entries.pop_front() {
            match entry {
                Entry::Lost(lost) => next.lost += lost,
                Entry::Text(text) => {
                    self.bytes -= text.len();
                    next.text = Some(text);
                    break;
                }
            }
        }
        self.writing_since = Some(Instant::now());
        Some(next)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread. It ends with the process, in the middle of a write if need be.
    fn write_all(&self, target: BorrowedFd<'_>) {
        // Behind a line of which only a part arrived.
        let mut torn = false;
        loop {
            let mut next = self.wait_for_next();
            let mut failing = false;
            if next.lost > 0 {
                let notice = notice(next.lost, torn);
                failing = write(target, notice.as_bytes(), &mut torn).is_err();
                if !failing {
                    next.lost = 0;
                }
            }
            let mut lost = 0;
            if let Some(text) = &next.text {
                failing = failing || write(target, text, &mut torn).is_err();
                lost = u64::from(failing);
            }
            self.lost.fetch_add(lost, Ordering::Relaxed);
            let mut queue = self.lock();
            queue.failing = failing;
            queue.writing_since = None;
            if next.lost + lost > 0 {
                queue.entries.push_front(Entry::Lost(next.lost + lost));
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn wait_for_next(&self) -> Next {
        let mut queue = self.lock();
        loop {
            if let Some(next) = queue.take_next() {
                return next;
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn notice(lost: u64, torn: bool) -> String {
    let (start, lines) = (
        if torn { "\n" } else { "" },
        if lost == 1 { "line" } else { "lines" },
    );
    format!(
        "{start}{lost} {lines} lost here: nobody took them in time, or they could not be written\n"
    )
}

/// Waits for the reader, whatever blocking mode others gave the file. `torn` tells whether the last line is whole.
fn write(target: BorrowedFd<'_>, text: &[u8], torn: &mut bool) -> Result<(), Errno> {
    let mut rest = text;
    while !rest.is_empty() {
        match retry_on_intr(|| rustix::io::write(target, rest)) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                *torn = !rest[..written].ends_with(b"\n");
                rest = &rest[written..];
            }
            Err(Errno::AGAIN) => {
                let mut writable = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                retry_on_intr(|| poll(&mut writable, None))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// Generous: only a thread that hangs takes so long.
    const GUARD: Duration = Duration::from_secs(60);

    /// So many lines that neither pipe nor queue take them all.
    const LINES: usize = 40_000;

    fn line(number: usize) -> String {
        format!("line {number:06} {}\n", "x".repeat(50))
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let lines = Lines::new(writer).expect("a thread");
        let pushed: u64 = LINES as u64;
        (0..LINES).for_each(|number| lines.push(line(number).as_bytes()));
        let lost = lines.lost();
        assert!(lost > 0 && lost < pushed, "{lost} of {pushed}");
        lines.flush(Duration::from_millis(20));
        // From here on it reads: what was kept comes in order, then how much is missing, then what is new.
        let mut reader = reader;
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("the end\n") {
                let bytes = reader.read(&mut buffer).expect("a pipe is read");
                text.push_str(std::str::from_utf8(&buffer[..bytes]).expect("ASCII"));
            }
            text
        });
        lines.flush(GUARD);
        lines.push(b"the end\n");
        let text = reading.join().expect("the reader ends");
        let kept = pushed - lost;
        let expected: Vec<String> = (0..kept as usize).map(line).collect();
        let expected = format!("{}{}the end\n", expected.concat(), notice(lost, false));
        assert!(text == expected, "{} bytes", text.len());
        assert_eq!(lines.lost(), lost);
    }

    #[test]
    fn without_a_reader_every_line_is_counted_and_nothing_else_happens() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let lines = Lines::new(writer).expect("a thread");
        for number in 0..10 {
            lines.push(line(number).as_bytes());
            lines.flush(GUARD);
            assert_eq!(lines.lost(), number as u64 + 1);
        }
    }

    #[test]
    fn who_comes_back_hears_how_much_was_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("a fifo");
        let open = |flags| rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        let first = open(OFlags::RDONLY | OFlags::NONBLOCK).expect("a reader");
        let lines = Lines::new(open(OFlags::WRONLY).expect("a writer")).expect("a thread");
        drop(first);
        for number in 0..3 {
            lines.push(line(number).as_bytes());
        }
        lines.flush(GUARD);
        let mut second = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK).expect("a reader"));
        lines.push(b"back\n");
        lines.flush(GUARD);
        let mut buffer = [0; 4096];
        let bytes = second.read(&mut buffer).expect("it was written");
        let text = String::from_utf8_lossy(&buffer[..bytes]);
        assert_eq!(text, format!("{}back\n", notice(3, false)));
        assert_eq!(lines.lost(), 3);
    }

    #[test]
    fn a_file_that_others_made_non_blocking_is_waited_for() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag");
        let lines = Lines::new(writer).expect("a thread");
        let text = vec![b'y'; QUEUED_BYTES_MAX / 2];
        lines.push(&text);
        let mut reader = reader;
        let mut taken = 0;
        let mut buffer = [0; 4096];
        while taken < text.len() {
            taken += reader.read(&mut buffer).expect("a pipe is read");
        }
        assert_eq!(lines.lost(), 0);
    }
}
