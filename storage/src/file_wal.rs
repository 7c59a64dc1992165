//! The WAL on real files: choice of backend, opening.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use synod_engine::ids::{Ballot, Incarnation, Lsn, Slot};
use synod_engine::message::Record;
use synod_engine::seams::{Wal, WalFailed, WalRead};

use crate::backend::{BlockingWriter, FileBackend, UringWriter, Writer};
use crate::config::{BackendChoice, Config, Durability};
use crate::data_directory::DataDirectory;
use crate::disk::RealDisk;
use crate::error::OpenError;
use crate::file_system::{FileSystem, copies_on_write};
use crate::format::Identity;
use crate::notes::Notes;
use crate::recovery::{Hole, Replayed};
use crate::signal::Signal;
use crate::wal::{Opened, WalCore, group_bytes_max};

/// Holes that get a line of their own in a report.
const HOLE_NOTES_MAX: usize = 16;

/// A WAL in a directory that no other process uses meanwhile: its disk holds the lock.
pub struct FileWal {
    core: WalCore<FileBackend>,
    signal: Signal,
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

impl DataDirectory {
    /// Opens the WAL, replays every record and hole through `visit` in order, and is then ready for more.
    ///
    /// `covers` is the slot up to which a restored snapshot covers everything; zero without one. The replay starts with
    /// the segment that holds the first slot above, whatever was written before. Of slots up to `covers`, records may
    /// be visited. What was promised and trimmed in segments that were passed over is in the report. A trim floor above
    /// the slot after `covers` in the report says that slots between are gone: the caller decides.
    pub fn open_wal(
        self,
        covers: Slot,
        visit: &mut dyn FnMut(Replayed),
    ) -> Result<(FileWal, OpenReport), OpenError> {
        let DataDirectory {
            config,
            identity,
            plain,
            signal,
        } = self;
        let mut notes = Vec::new();
        let (backend, mut name) = choose_backend(&config, &plain, &identity, &signal, &mut notes)?;
        name.push_str(note_copying(&config.directory, &mut notes));
        if identity.segment_bytes != config.segment_bytes {
            notes.push(format!(
                "segments have {} bytes as initialised, the configured {} is ignored",
                identity.segment_bytes, config.segment_bytes
            ));
        }
        let (core, opened) = WalCore::open(backend, config.options(), &identity, covers, visit)?;
        describe_losses(&opened, &mut notes);
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
        Ok((FileWal { core, signal }, report))
    }
}

/// The WAL of a directory without snapshots: every record is replayed.
pub fn open(
    config: Config,
    visit: &mut dyn FnMut(Replayed),
) -> Result<(FileWal, OpenReport), OpenError> {
    DataDirectory::open(config)?.open_wal(Slot::ZERO, visit)
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

    fn pending_bytes_max(&self) -> usize {
        self.core.pending_bytes_max()
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

/// What belongs to the name of the backend, because figures depend on it.
fn note_copying(directory: &Path, notes: &mut Vec<String>) -> &'static str {
    match copies_on_write(directory) {
        None => "",
        Some(false) => ", no copy-on-write",
        Some(true) => {
            notes.push(format!(
                "{}: its file system copies what is overwritten, which makes each write dearer and lets it find no \
                 room; `--init` turns that off for a directory that it makes, `chattr +C` for files made from then on",
                directory.display()
            ));
            ", with copy-on-write"
        }
    }
}

fn describe_losses(opened: &Opened, notes: &mut Vec<String>) {
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
    plain: &RealDisk,
    identity: &Identity,
    signal: &Signal,
    notes: &mut Vec<String>,
) -> Result<(FileBackend, String), OpenError> {
    let syncs = config.durability == Durability::Sync;
    let directory = &config.directory;
    let unsafe_note = if syncs { "" } else { ", NOT DURABLE: no syncs" };
    if config.backend != BackendChoice::Blocking {
        match uring(config, plain, identity, signal, notes) {
            Ok((backend, name)) => return Ok((backend, format!("{name}{unsafe_note}"))),
            Err(error) if config.backend == BackendChoice::Uring => {
                return Err(OpenError::Uring(error.to_string()));
            }
            Err(error) => notes.push(format!(
                "io_uring with direct writes cannot be used here ({error}); a blocking thread writes instead"
            )),
        }
    }
    let disk = plain.like(false, syncs);
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
    plain: &RealDisk,
    identity: &Identity,
    signal: &Signal,
    notes: &mut Vec<String>,
) -> io::Result<(FileBackend, &'static str)> {
    if let Some(why) = FileSystem::of(&config.directory).refuses_uring() {
        return Err(io::Error::other(why));
    }
    let syncs = config.durability == Durability::Sync;
    // Without syncs the page cache is the point; with them, writes go around it.
    let disk = plain.like(syncs, syncs);
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
