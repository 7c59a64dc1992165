//! One write until it is acknowledged, over all its attempts.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::target::Target;

/// How long the first attempt may take. Well above what a healthy system under full load needs, because a repeated
/// attempt costs it twice.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// The next one knows that something is wrong, and a lost one must not hide when the system serves again. Doubles.
const RETRY_PATIENCE: Duration = Duration::from_millis(250);
/// Between attempts; doubles as well.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(160);
/// Spreads the attempts of many writes over time, so that one of them always comes soon.
const PHASES: u32 = 16;

pub struct Command {
    pub number: u64,
    pub key: u64,
    /// Sent, or in an open loop meant to be sent.
    pub start_ns: u64,
    pub value: Bytes,
}

pub struct Done {
    pub number: u64,
    pub key: u64,
    pub start_ns: u64,
    /// Attempts after the first: each may have happened although nobody said so.
    pub retries: u64,
    /// Of those before a retry, how many brought no answer at all.
    pub unanswered: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Command {
    pub async fn run<T: Target>(self, target: Rc<T>, deadline: Duration) -> Done {
        let begun = Instant::now();
        let mut done = Done {
            number: self.number,
            key: self.key,
            start_ns: self.start_ns,
            retries: 0,
            unanswered: 0,
            error: None,
        };
        let phase = (self.number % u64::from(PHASES)) as u32;
        let (mut patience, mut pause) = (FIRST_PATIENCE, PAUSE);
        loop {
            let error = match timeout(patience, target.write(self.key, self.value.clone())).await {
                Ok(Ok(())) => return done,
                Ok(Err(error)) => error.to_string(),
                Err(_) => {
                    done.unanswered += 1;
                    "no answer".to_owned()
                }
            };
            if begun.elapsed() >= deadline {
                done.error = Some(error);
                return done;
            }
            sleep(pause + pause * phase / PHASES).await;
            pause = (pause * 2).min(PAUSE_MAX);
            patience = match done.retries {
                0 => RETRY_PATIENCE,
                _ => (patience * 2).min(FIRST_PATIENCE),
            };
            done.retries += 1;
        }
    }
}
