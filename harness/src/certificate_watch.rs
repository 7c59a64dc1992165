//! Looks after the certificates of a running replica: takes in new files, and tells ahead that they end.
//!
//! It has a thread of its own, because a disk that hangs must not hold up the replica's turns.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use synod_transport::Renewal;
use tokio::signal::unix::{SignalKind, signal};

use crate::certs::show::left;
use crate::client_file::Certificates;
use crate::failure::describe;

/// Files are looked at this often. They change twice a year.
const POLL: Duration = Duration::from_secs(3);
/// Whoever has to act may be on holiday.
pub const WARN_S: u64 = 14 * 86_400;
const WARN_EVERY_S: u64 = 86_400;

/// Watches for as long as the transport behind `renewal` runs. SIGHUP has the files read at once.
pub fn start(certificates: Certificates, renewal: Renewal) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (wake, woken) = sync_channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Full: the same was asked for a moment ago.
            let _ = wake.try_send(());
        }
    });
    let stamps = stamps(&certificates);
    let watch = Watch {
        certificates,
        renewal,
        tried: stamps,
        seen: stamps,
        end: EndNotice::default(),
    };
    std::thread::Builder::new()
        .name("certificates".into())
        .spawn(move || watch.run(&woken))
        .context("no thread for the certificates")?;
    Ok(())
}

struct Watch {
    certificates: Certificates,
    renewal: Renewal,
    /// How the files were when they were last read.
    tried: Stamps,
    /// How they were at the last look.
    seen: Stamps,
    end: EndNotice,
}

/// Of each file what changes when it is written; `None` if it is not there.
type Stamps = [Option<(u64, u64, i64, i64)>; 4];

impl Watch {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            let Some(identity) = self.renewal.identity() else {
                return;
            };
            let now = identity.clock().now();
            if let Some(line) = self.end.due(now, identity.expires_in()) {
                tracing::warn!("{}: {line}", identity.certificate_path().display());
            }
            drop(identity);
            let asked = match woken.recv_timeout(POLL) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.look(asked);
        }
    }

    fn look(&mut self, asked: bool) {
        let stamps = stamps(&self.certificates);
        // Certificate and key are two files: whoever replaces both is given the time to finish.
        let settled = stamps == self.seen;
        self.seen = stamps;
        if asked || (settled && stamps != self.tried) {
            self.tried = stamps;
            self.take_in();
        }
        self.renewal.close_revoked();
    }

    fn take_in(&self) {
        let renewed = match self.certificates.load() {
            Ok(identity) => {
                let line = format!(
                    "the certificates were read again: {} is {}, {} left, {} certificates are revoked",
                    identity.certificate_path().display(),
                    identity.fingerprint(),
                    left(identity.expires_in()),
                    identity.revoked().len()
                );
                self.renewal
                    .renew(identity)
                    .map(|()| line)
                    .map_err(|error| error.to_string())
            }
            Err(error) => {
                self.renewal.note_refused();
                Err(describe(&error))
            }
        };
        match renewed {
            Ok(line) => tracing::info!("{line}"),
            Err(error) => {
                tracing::warn!("the new certificates are not used, the old ones stay: {error}")
            }
        }
    }
}

fn stamps(certificates: &Certificates) -> Stamps {
    let stamp = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    [
        stamp(&certificates.ca),
        stamp(&certificates.cert),
        stamp(&certificates.key),
        stamp(&certificates.revoked_file()),
    ]
}

/// Tells ahead that a certificate ends, and that it has ended: once a day.
#[derive(Default)]
struct EndNotice {
    told_at: Option<u64>,
}

impl EndNotice {
    fn due(&mut self, now: u64, expires_in: u64) -> Option<String> {
        if expires_in > WARN_S {
            self.told_at = None;
            return None;
        }
        // A clock that was set back must not silence it.
        let recently = |at: u64| (at..at.saturating_add(WARN_EVERY_S)).contains(&now);
        if self.told_at.is_some_and(recently) {
            return None;
        }
        self.told_at = Some(now);
        let remedy =
            "renew it with `synod certs --renew`; the new file is taken in without a restart";
        Some(match expires_in {
            0 => format!(
                "the certificate has ended, nobody accepts it in a new connection: {remedy}"
            ),
            _ => format!("the certificate ends in {}: {remedy}", left(expires_in)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;

    #[test]
    fn the_end_is_told_ahead_and_once_a_day() {
        let end = 1_000 * DAY_S;
        let mut notice = EndNotice::default();
        let mut told = Vec::new();
        // Looked at each hour, from 20 days before the end to two days after.
        for hour in 0..22 * 24 {
            let now = end - 20 * DAY_S + hour * 3_600;
            if let Some(line) = notice.due(now, end.saturating_sub(now)) {
                told.push(line);
            }
        }
        assert_eq!(told.len(), 16);
        assert!(told[0].contains("ends in 14 days"), "{}", told[0]);
        assert!(told[13].contains("ends in 24 h"), "{}", told[13]);
        assert!(told[14].contains("has ended"), "{}", told[14]);
        // A renewed one is quiet, and its own end is told again.
        assert_eq!(notice.due(end + DAY_S, 300 * DAY_S), None);
        assert!(notice.due(end + DAY_S, DAY_S).is_some());
        // The clock was a year ahead and is right again.
        assert!(notice.due(end - 365 * DAY_S, DAY_S).is_some());
    }
}
