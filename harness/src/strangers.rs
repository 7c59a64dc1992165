//! Strangers at the door of a replica: first packets of connections that never go on, a few thousand a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use synod_transport::Flood;

/// 29 Mbit/s.
pub const PACKETS_PER_S: u32 = 3_000;
const PORTS: usize = 64;

/// A flood in a thread of its own. It ends when this is dropped.
pub struct Strangers {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Flood>>,
}

impl Strangers {
    /// Those of different salts are different ones.
    pub fn crowd(to: SocketAddr, salt: u32) -> anyhow::Result<Strangers> {
        let mut flood = Flood::new(to, PORTS, salt).context("strangers have no ports")?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            flood.run(PACKETS_PER_S, || !seen.load(Ordering::Relaxed));
            flood
        });
        Ok(Strangers {
            over,
            thread: Some(thread),
        })
    }

    /// Ends the flood; how many packets it sent, and how many answers came.
    pub fn end(mut self) -> anyhow::Result<(u64, u64)> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        match thread.join() {
            Ok(flood) => Ok((flood.sent, flood.answered)),
            Err(_) => anyhow::bail!("the flood of strangers panicked"),
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
