//! Why a data directory cannot be opened: each in one line that names the place and the remedy.

use std::io;
use std::path::PathBuf;

use synod_engine::ids::{ClusterId, ReplicaId, Slot};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{what} {} failed: {source}; check that the disk has room and the process may write there",
        path.display()
    )]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is not a directory; name a directory for the WAL", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} holds no WAL; initialise it with `--init` if this replica is new to the cluster", path.display())]
    NotInitialised { path: PathBuf },
    #[error("{} is initialised already; open it without `--init`, or name another directory", path.display())]
    AlreadyInitialised { path: PathBuf },
    #[error(
        "{} holds no identity but {found}, as if parts of a WAL were lost; restore it, or name another directory",
        path.display()
    )]
    Remains { path: PathBuf, found: String },
    #[error("{} is in use by {holder}; stop that process first, two never share one", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error(
        "{} is of format version {found}, this build reads {expected}; use the build that wrote it, or upgrade",
        path.display()
    )]
    Version {
        path: PathBuf,
        found: u32,
        expected: u32,
    },
    #[error(
        "{} belongs to cluster {found}, this replica to cluster {expected}; name the right directory",
        path.display()
    )]
    WrongCluster {
        path: PathBuf,
        found: ClusterId,
        expected: ClusterId,
    },
    #[error(
        "{} belongs to replica {found}, this is replica {expected}; name the right directory",
        path.display()
    )]
    WrongReplica {
        path: PathBuf,
        found: ReplicaId,
        expected: ReplicaId,
    },
    #[error("{}, offset 0: the identity is damaged ({why}); restore it from a copy", path.display())]
    IdentityDamaged { path: PathBuf, why: String },
    /// At the end of the WAL: nothing behind tells what was promised there.
    #[error(
        "{} is missing ({why}), and nothing tells what it held: promises, and slots above {}; restore the file, or \
         readmit this replica with an empty directory (`--readmit`)",
        path.display(),
        known.0
    )]
    SegmentMissing {
        path: PathBuf,
        why: String,
        /// The highest slot of the WAL before.
        known: Slot,
    },
    /// At the end of the WAL: nothing behind tells what was promised there.
    #[error(
        "{}, offset {offset}: durable data is damaged ({why}), and nothing behind it tells what it held: promises, \
         and slots above {}; restore the file, or readmit this replica with an empty directory (`--readmit`)",
        path.display(),
        known.0
    )]
    Damaged {
        path: PathBuf,
        offset: u64,
        why: String,
        /// The highest slot of the WAL before.
        known: Slot,
    },
    #[error(
        "{}, offset {offset}: a record of kind {kind} is of a newer format; use the build that wrote it",
        path.display()
    )]
    NewerFormat {
        path: PathBuf,
        offset: u64,
        kind: u8,
    },
    #[error("io_uring was asked for and cannot be used: {0}; choose `auto` or `blocking`")]
    Uring(String),
}

impl OpenError {
    /// For `map_err` on a call to the system.
    pub fn io(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { what, path, source }
    }
}
