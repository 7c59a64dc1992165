//! The limit on open files: raised as far as allowed, and compared with what a replica needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::usage;

/// Of a replica, besides segments and sockets: the three standard ones, its runtime, signals, events and ring, the lock
/// of its directory, what keeper and readers have open for a moment, and the files of a snapshot that is written,
/// restored or read.
const FILES_BESIDE: u64 = 32;

/// Raises the soft limit to the hard one: the soft one is that low for programs that use `select`, and this is none.
/// Where that fails, what [`check`] compares is the soft limit.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Refuses a start that would be met by the limit later, when a segment is due.
pub fn check(segments_open: usize, sockets: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let need = FILES_BESIDE + segments_open as u64 + sockets as u64;
    match limit.current {
        Some(current) if current < need => Err(usage(format!(
            "this process may have {current} files open{}, and a replica needs up to {need}: raise the limit, with \
             `ulimit -n {need}` in its shell, `LimitNOFILE=` of its unit, or nofile in limits.conf",
            hard(limit.maximum)
        ))),
        Some(_) | None => Ok(()),
    }
}

fn hard(maximum: Option<u64>) -> String {
    maximum.map_or(String::new(), |maximum| format!(" (hard limit {maximum})"))
}
