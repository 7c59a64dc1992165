//! Kernel counters that the runtime waits for: an eventfd of the WAL, a timerfd of an open loop.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub struct CounterFd(AsyncFd<OwnedFd>);

impl CounterFd {
    /// `fd` is an eventfd or a timerfd, not blocking.
    #[allow(
        deprecated,
        reason = "the replacement is `unsafe` for types that may give up their descriptor; an OwnedFd never does"
    )]
    pub fn new(fd: OwnedFd) -> io::Result<CounterFd> {
        AsyncFd::with_interest(fd, Interest::READABLE).map(CounterFd)
    }

    pub fn fd(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Returns once it counted something, and resets it. May return early once.
    pub async fn counted(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        ready.clear_ready();
        let mut count = [0u8; 8];
        // Nothing to read means that the readiness was of before: whoever waits looks for the news itself.
        let _ = rustix::io::read(self.0.get_ref(), &mut count);
        Ok(())
    }
}
