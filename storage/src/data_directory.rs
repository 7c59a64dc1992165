//! A data directory on real files: made, checked, locked, and then opened for its snapshots and its WAL.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use synod_engine::ids::Incarnation;

use crate::backend::retries::is_full;
use crate::config::{Config, Durability, Options};
use crate::directory::{self, initialise, read_identity};
use crate::disk::RealDisk;
use crate::error::OpenError;
use crate::file_system::overwrite_in_place;
use crate::format::{Identity, LOCK_FILE};
use crate::signal::Signal;
use crate::snapshot::{Owner, Snapshots};

/// The snapshots of a data directory.
pub type FileSnapshots = Snapshots<RealDisk>;

/// A directory of this replica that no other process uses meanwhile. Snapshots come first, because the WAL is replayed
/// from the one that was restored; whatever is opened of it holds the lock.
pub struct DataDirectory {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    /// Through the page cache, with syncs.
    pub(crate) plain: RealDisk,
    pub(crate) signal: Signal,
}

impl DataDirectory {
    /// Takes an initialised directory, and removes what an earlier process left unfinished there.
    pub fn open(config: Config) -> Result<DataDirectory, OpenError> {
        config.options().check();
        let path = config.directory.clone();
        check_directory(&path)?;
        let plain = RealDisk::new(&path, false, true);
        // Before the lock: asking an uninitialised or foreign directory must not leave a lock file there.
        directory::check_identity(&plain, config.cluster, config.replica)?;
        let plain = plain.locked(lock(&path)?);
        let identity = directory::check_identity(&plain, config.cluster, config.replica)?;
        directory::clear_temporary(&plain)?;
        let signal = Signal::new().map_err(OpenError::io("making an eventfd for", path))?;
        Ok(DataDirectory {
            config,
            identity,
            plain,
            signal,
        })
    }

    /// Of each segment, as the directory was initialised.
    pub fn segment_bytes(&self) -> u64 {
        self.identity.segment_bytes
    }

    /// The snapshots. They raise the same event as the WAL.
    pub fn open_snapshots(&self) -> Result<FileSnapshots, OpenError> {
        let syncs = self.config.durability == Durability::Sync;
        // Around the page cache, or a burst of what it held back would meet the WAL's writes.
        let direct = syncs && self.plain.try_direct().is_ok();
        let owner = Owner {
            cluster: self.identity.cluster,
            replica: self.identity.replica,
        };
        Snapshots::open(
            self.plain.like(direct, syncs),
            owner,
            self.config.seed,
            Some(self.signal.clone()),
        )
    }
}

/// Makes a directory a founding member's, explicitly: no cluster forms by itself. Refuses one that is somebody's
/// already.
pub fn init(config: &Config) -> Result<(), OpenError> {
    make(config, initialise)
}

/// Makes an empty directory that of a replica which lost its disk, as `incarnation`: a random number,
/// unlike any that it had before. Refuses as [`init`] does.
pub fn readmit(config: &Config, incarnation: Incarnation) -> Result<(), OpenError> {
    make(config, |disk, options| {
        directory::initialise_readmitted(disk, options, incarnation)
    })
}

fn make(
    config: &Config,
    how: impl FnOnce(&RealDisk, &Options) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let directory = &config.directory;
    if !directory.is_dir() && directory.exists() {
        return Err(OpenError::NotADirectory {
            path: directory.clone(),
        });
    }
    std::fs::create_dir_all(directory)
        .and_then(|()| sync_parent(directory))
        .map_err(OpenError::io("making", directory.clone()))?;
    let _lock = lock(directory)?;
    // Where that is refused the log works all the same, and its opening tells.
    let _ = overwrite_in_place(directory);
    let disk = RealDisk::new(directory, false, true);
    let direct = disk.try_direct().is_ok();
    how(&RealDisk::new(directory, direct, true), &config.options())
}

/// Distinct answers for "not there" and "not a directory"; an absent one counts as not initialised.
fn check_directory(directory: &Path) -> Result<(), OpenError> {
    if directory.is_dir() {
        return Ok(());
    }
    let path = directory.to_path_buf();
    match std::fs::metadata(directory) {
        Ok(_) => Err(OpenError::NotADirectory { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NotInitialised { path })
        }
        Err(error) => Err(OpenError::io("opening", path)(error)),
    }
}

/// Takes the directory's lock, or says who has it.
pub(crate) fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(OpenError::io("opening", path.clone()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let holder = match file.read_to_string(&mut pid) {
            Ok(bytes) if bytes > 0 => format!("process {}", pid.trim()),
            Ok(_) | Err(_) => "another process".to_string(),
        };
        return Err(OpenError::Locked {
            path: directory.to_path_buf(),
            holder,
        });
    }
    // Over what is there: on a full disk a file that was cut to nothing may stay so. Then nobody learns who holds the
    // lock; the lock holds all the same.
    let holder = format!("{}\n", std::process::id());
    match file
        .write_all_at(holder.as_bytes(), 0)
        .and_then(|()| file.set_len(holder.len() as u64))
    {
        Err(error) if !is_full(&error) => Err(OpenError::io("writing", path)(error)),
        Ok(()) | Err(_) => Ok(file),
    }
}

/// The directory's own name must survive a power cut too.
fn sync_parent(directory: &Path) -> io::Result<()> {
    let absolute = std::fs::canonicalize(directory)?;
    match absolute.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// For a scan, which asks for any directory's identity.
pub(crate) fn identity_of(directory: &Path) -> Result<Identity, OpenError> {
    check_directory(directory)?;
    read_identity(&RealDisk::new(directory, false, true))
}
