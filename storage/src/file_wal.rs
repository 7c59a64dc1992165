//! The WAL on real files: lock, choice of backend, opening.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use synod_engine::ids::{Ballot, Incarnation, Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::{Wal, WalFailed, WalRead};

use crate::backend::{BlockingWriter, FileBackend, UringWriter, Writer};
use crate::config::{BackendChoice, Config, Durability, Options};
use crate::directory::{self, initialise, read_identity};
use crate::disk::RealDisk;
use crate::error::OpenError;
use crate::format::{Identity, LOCK_FILE};
use crate::notes::Notes;
use crate::recovery::{Hole, Replayed};
use crate::signal::Signal;
use crate::wal::{WalCore, group_bytes_max};

/// Holes that get a line of their own in a report.
const HOLE_NOTES_MAX: usize = 16;

/// A WAL in a directory that no other process uses meanwhile.
pub struct FileWal {
    /// Before the lock: dropping it waits for its threads, which use the directory.
    core: WalCore<FileBackend>,
    signal: Signal,
    _lock: File,
}

/// What was found at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// For the operator: which backend serves, and how.
    pub backend: String,
    /// Lines for the operator: fallbacks, holes, a cut tail.
    pub notes: Vec<String>,
    pub incarnation: Incarnation,
    pub last_lsn: Lsn,
    pub promised: Ballot,
    pub trim_floor: Slot,
    pub records: u64,
    pub bytes: u64,
    /// Used segments that were passed over: what they hold, the snapshot covers.
    pub segments_skipped: u64,
}

/// Makes a directory a founding member's, explicitly: no cluster forms by itself. Refuses one that is somebody's
/// already.
pub fn init(config: &Config) -> Result<(), OpenError> {
    make(config, initialise)
}

/// Makes an empty directory that of a replica which lost its disk, as `incarnation`: higher than any that it had
/// before. Refuses as [`init`] does.
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
    let disk = RealDisk::new(directory, false, true);
    let direct = disk.try_direct().is_ok();
    how(&RealDisk::new(directory, direct, true), &config.options())
}

/// Opens an initialised directory, replays every record and hole through `visit` in order, and is then ready for more.
pub fn open(
    config: Config,
    visit: &mut dyn FnMut(Replayed),
) -> Result<(FileWal, OpenReport), OpenError> {
    open_above(config, Slot::ZERO, visit)
}

/// The same for a replica with a snapshot that covers every slot up to `covers`: the replay starts with the segment
/// that holds the first slot above, whatever was written before. Of slots up to `covers`, records may be visited. What
/// was promised and trimmed in segments that were passed over is in the report.
///
/// A trim floor above the slot after `covers` in the report says that slots between are gone: the caller decides.
pub fn open_above(
    config: Config,
    covers: Slot,
    visit: &mut dyn FnMut(Replayed),
) -> Result<(FileWal, OpenReport), OpenError> {
    config.options().check();
    let directory = config.directory.clone();
    check_directory(&directory)?;
    let plain = RealDisk::new(&directory, false, true);
    // Before the lock: asking an uninitialised or foreign directory must not leave a lock file there.
    directory::check_identity(&plain, config.cluster, config.replica)?;
    let lock = lock(&directory)?;
    let identity = directory::check_identity(&plain, config.cluster, config.replica)?;
    directory::clear_temporary(&plain)?;
    let signal =
        Signal::new().map_err(OpenError::io("making an eventfd for", directory.clone()))?;
    let mut notes = Vec::new();
    let (backend, name) = choose_backend(&config, &identity, &signal, &mut notes)?;
    if identity.segment_bytes != config.segment_bytes {
        notes.push(format!(
            "segments have {} bytes as initialised, the configured {} is ignored",
            identity.segment_bytes, config.segment_bytes
        ));
    }
    let (core, opened) = WalCore::open(backend, config.options(), &identity, covers, visit)?;
    notes.extend(opened.holes.iter().take(HOLE_NOTES_MAX).map(describe_hole));
    if opened.holes.len() > HOLE_NOTES_MAX {
        notes.push(format!(
            "{} more holes; `synod wal inspect` lists them",
            opened.holes.len() - HOLE_NOTES_MAX
        ));
    }
    notes.extend(opened.cut.iter().map(|cut| {
        format!(
            "the last write did not complete before the crash: cut {} at offset {} ({})",
            cut.file.display(),
            cut.offset,
            cut.why
        )
    }));
    let report = OpenReport {
        backend: name,
        notes,
        incarnation: opened.incarnation,
        last_lsn: opened.last,
        promised: opened.carried.promised,
        trim_floor: opened.carried.trim_floor,
        records: opened.records,
        bytes: opened.bytes,
        segments_skipped: opened.segments_skipped,
    };
    let wal = FileWal {
        core,
        signal,
        _lock: lock,
    };
    Ok((wal, report))
}

impl FileWal {
    /// Readable when [`Wal::durable`] or [`Wal::take_read`] may have news.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Lines for the operator that come up while the WAL runs.
    pub fn notes(&self) -> Notes {
        self.core.notes()
    }

    /// Makes the event unreadable until there is more news. Call it before asking for the news.
    pub fn acknowledge_event(&self) {
        self.signal.acknowledge();
    }
}

impl Wal for FileWal {
    fn append(&mut self, lsn: Lsn, record: &Record) {
        self.core.append(lsn, record);
    }

    fn submit(&mut self) {
        self.core.submit();
    }

    fn durable(&mut self) -> Result<Lsn, WalFailed> {
        self.core.durable()
    }

    fn read(&mut self, from: Slot, through: Slot, bytes_max: usize) -> bool {
        self.core.read(from, through, bytes_max)
    }

    fn take_read(&mut self) -> Result<Option<WalRead>, WalFailed> {
        self.core.take_read()
    }

    fn trim(&mut self, floor: Slot) {
        self.core.trim(floor);
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        self.core.counters(report);
    }
}

fn describe_hole(hole: &Hole) -> String {
    format!(
        "{}, offset {}: damaged ({}); the records from lsn {} to {} are lost, of slots up to {} and promises up to \
         {}: to be fetched again from the other replicas",
        hole.file.display(),
        hole.offset,
        hole.why,
        hole.first.0,
        hole.next.0 - 1,
        hole.carried.slot_max.0,
        hole.carried.promised
    )
}

fn choose_backend(
    config: &Config,
    identity: &Identity,
    signal: &Signal,
    notes: &mut Vec<String>,
) -> Result<(FileBackend, String), OpenError> {
    let syncs = config.durability == Durability::Sync;
    let directory = &config.directory;
    let unsafe_note = if syncs { "" } else { ", NOT DURABLE: no syncs" };
    if config.backend != BackendChoice::Blocking {
        match uring(config, identity, signal, notes) {
            Ok((backend, name)) => return Ok((backend, format!("{name}{unsafe_note}"))),
            Err(error) if config.backend == BackendChoice::Uring => {
                return Err(OpenError::Uring(error.to_string()));
            }
            Err(error) => notes.push(format!(
                "io_uring with direct writes cannot be used here ({error}); a blocking thread writes instead"
            )),
        }
    }
    let disk = RealDisk::new(directory, false, syncs);
    let group_bytes = group_bytes_max(identity.segment_bytes);
    let blocking = BlockingWriter::new(
        disk.clone(),
        signal.clone(),
        group_bytes,
        config.writes_in_flight_max,
    )
    .map_err(OpenError::io("starting the writer for", directory.clone()))?;
    let name = format!("blocking (a thread with pwrite and fdatasync){unsafe_note}");
    let writer = Writer::Blocking(blocking);
    Ok((FileBackend::new(disk, signal.clone(), writer), name))
}

fn uring(
    config: &Config,
    identity: &Identity,
    signal: &Signal,
    notes: &mut Vec<String>,
) -> io::Result<(FileBackend, &'static str)> {
    let syncs = config.durability == Durability::Sync;
    // Without syncs the page cache is the point; with them, writes go around it.
    let disk = RealDisk::new(&config.directory, syncs, syncs);
    if syncs {
        disk.try_direct()?;
    }
    let group_bytes = group_bytes_max(identity.segment_bytes);
    let writes_max = config.writes_in_flight_max;
    let uring = UringWriter::new(signal, group_bytes, writes_max, syncs)?;
    if !uring.registered() {
        notes.push(
            "the limit on locked memory is too low to register write buffers; raise `ulimit -l` for a little less \
             CPU per write"
                .to_string(),
        );
    }
    let name = match (uring.registered(), syncs) {
        (true, true) => "io_uring (direct, registered buffers, a sync with each write)",
        (false, true) => "io_uring (direct, a sync with each write)",
        (_, false) => "io_uring (page cache)",
    };
    let writer = Writer::Uring(Box::new(uring));
    Ok((FileBackend::new(disk, signal.clone(), writer), name))
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
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(OpenError::io("writing", path))?;
    Ok(file)
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
