//! A directory of files as the WAL needs it, synchronous. Everything below may fail, tear or lie.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::retries::{TRANSIENT_PAUSE, is_full, is_out_of_handles, is_transient};
use crate::buffer::{AlignedBuffer, PAGE_BYTES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    Read,
    /// A new small file; it must not exist.
    Create,
    /// A segment for writing whole pages.
    Segment,
    /// A new segment for writing whole pages; it must not exist.
    CreateSegment,
}

/// The calls the WAL makes on a directory and its files.
pub trait Disk: Clone + Send + 'static {
    type File: Clone + Send + 'static;

    /// Names and sizes of the regular files. One that is renamed meanwhile may be missing.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Self::File>;
    /// Reads exactly the buffer's length.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// For messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// How long a call is tried again that may succeed in a moment. Whoever asked may try again from the start after that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes a call until it does not fail in passing, but no longer than [`PATIENCE`]. Not for a sync: one that failed may
/// have dropped what it was to make durable.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match call() {
            Err(error)
                if (is_transient(&error) || is_out_of_handles(&error))
                    && started.elapsed() < PATIENCE =>
            {
                std::thread::sleep(TRANSIENT_PAUSE);
            }
            done => return done,
        }
    }
}

/// A directory of the operating system. Its calls may take their time, and are made beside the loop.
#[derive(Clone)]
pub struct RealDisk {
    directory: Arc<PathBuf>,
    /// Segments are written around the page cache.
    direct: bool,
    /// `Durability::None` never syncs.
    syncs: bool,
    /// The directory's lock file: the lock goes with the last handle.
    _lock: Option<Arc<File>>,
}

impl RealDisk {
    pub fn new(directory: &Path, direct: bool, syncs: bool) -> RealDisk {
        RealDisk {
            directory: Arc::new(directory.to_path_buf()),
            direct,
            syncs,
            _lock: None,
        }
    }

    /// The same, holding the lock.
    pub(crate) fn locked(self, lock: File) -> RealDisk {
        RealDisk {
            _lock: Some(Arc::new(lock)),
            ..self
        }
    }

    /// The same directory, written in another way.
    pub(crate) fn like(&self, direct: bool, syncs: bool) -> RealDisk {
        RealDisk {
            direct,
            syncs,
            ..self.clone()
        }
    }

    /// Tries a direct write, because a file system may refuse it at open (tmpfs) or only when written to.
    pub fn try_direct(&self) -> io::Result<()> {
        let disk = self.like(true, self.syncs);
        let name = "ready-probe.tmp";
        let page = AlignedBuffer::new(PAGE_BYTES);
        let tried = disk
            .open(name, OpenMode::CreateSegment)
            .and_then(|file| disk.write_at(&file, 0, page.as_ref()));
        let tried = match tried {
            // No answer, and no reason to start in another way than with room.
            Err(error) if is_full(&error) => disk.read_direct(),
            tried => tried,
        };
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tried.and(Err(error)),
            Ok(()) | Err(_) => tried,
        }
    }

    /// Tries a direct read of a segment.
    fn read_direct(&self) -> io::Result<()> {
        let files = self.list()?;
        let segment = files
            .iter()
            .find(|(name, bytes)| name.ends_with(".seg") && *bytes >= PAGE_BYTES as u64);
        let Some((name, _)) = segment else {
            return Ok(());
        };
        let mut page = AlignedBuffer::new(PAGE_BYTES);
        let file = self.open(name, OpenMode::Segment)?;
        self.read_at(&file, 0, page.as_mut_slice())
    }
}

impl Disk for RealDisk {
    type File = Arc<File>;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for item in patiently(|| fs::read_dir(self.directory.as_path()))? {
            let item = item?;
            let metadata = match item.metadata() {
                Ok(metadata) => metadata,
                // Renamed or removed since it was listed, by another thread of this process.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_file() {
                let name = item.file_name().to_string_lossy().into_owned();
                files.push((name, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<File>> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::Create | OpenMode::CreateSegment => {
                options.read(true).write(true).create_new(true)
            }
            OpenMode::Segment => options.read(true).write(true),
        };
        if self.direct && matches!(mode, OpenMode::Segment | OpenMode::CreateSegment) {
            options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        }
        patiently(|| options.open(self.path(name))).map(Arc::new)
    }

    fn read_at(&self, file: &Arc<File>, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        patiently(|| file.read_exact_at(buffer, offset))
    }

    fn write_at(&self, file: &Arc<File>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // From its start again: the same bytes at the same place.
        patiently(|| file.write_all_at(bytes, offset))
    }

    fn sync(&self, file: &Arc<File>) -> io::Result<()> {
        if self.syncs { file.sync_data() } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        patiently(|| fs::rename(self.path(from), self.path(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        patiently(|| fs::remove_file(self.path(name)))
    }

    fn sync_directory(&self) -> io::Result<()> {
        if !self.syncs {
            return Ok(());
        }
        patiently(|| File::open(self.directory.as_path()))?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
