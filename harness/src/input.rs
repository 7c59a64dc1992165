//! Lines of stdin, for processes that are told what to do while they work.

use std::io::BufRead;

use tokio::sync::mpsc;

/// Nobody sends more than a few lines ahead.
const LINES_MAX: usize = 64;

/// The channel closes when stdin does. To be called once per process.
pub fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    // A thread of its own: whatever kind of file stdin is, nothing else waits for it, and the process may end
    // while it still reads.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
