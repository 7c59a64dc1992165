//! The files and the directory of the memory disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, OpenMode};
use crate::format::SECTOR;

/// What the disk does to the next call that changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, the call works.
    None,
    /// An IO error; a write's sectors stay as unsynced ones.
    Io,
    /// The disk is full.
    Full,
    /// Only this many bytes of a write arrive.
    Short(usize),
}

/// A handle: clones share the disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFile(usize);

#[derive(Clone, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of the directory since its last sync.
    name_changes: Vec<NameChange>,
    faults: VecDeque<Fault>,
    /// Calls that change the disk, so far.
    changes: u64,
    /// From this one on nothing works any more: the power is gone.
    power_off_at: Option<u64>,
    /// No file can be made or grow.
    full: bool,
    /// And nothing can be overwritten, as where each write takes new room.
    copies_on_write: bool,
}

/// Shared between the two views and between copies of a disk until one of them changes: a crash copies no file.
#[derive(Clone, Default)]
struct Contents {
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone)]
struct Unsynced {
    /// A group's write becomes durable by itself, when it ends; the others by a sync of the file.
    ticket: Option<u64>,
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Insert(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl MemoryDisk {
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("a user of the memory disk panicked")
    }

    /// The next changing calls meet these faults, one each.
    pub fn inject(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }

    /// Changing calls so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Every change from the `n`-th on fails.
    pub fn power_off_at(&self, n: u64) {
        self.state().power_off_at = Some(n);
    }

    /// No injected fault and no loss of power that is still to come comes any more. A disk that is off stays off.
    pub fn sound(&self) {
        let state = &mut *self.state();
        state.faults.clear();
        state.power_off_at = state.power_off_at.filter(|at| state.changes >= *at);
    }

    /// From now on there is no room for new files, or there is again. What exists can be overwritten all the time.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether overwriting takes room as well, as on a file system that copies on write.
    pub fn copies_on_write(&self, copies: bool) {
        self.state().copies_on_write = copies;
    }

    /// Sectors and name changes that a crash now may lose.
    pub fn at_risk(&self) -> (usize, usize) {
        let state = self.state();
        let writes = state.files.iter().flat_map(|file| &file.unsynced);
        let sectors = writes.map(|write| write.bytes.len().div_ceil(SECTOR)).sum();
        (sectors, state.name_changes.len())
    }

    /// The disk as it is after a power cut. Of the unsynced sectors (in the order of their writes) and of the
    /// unsynced name changes those stay for which the choices say so.
    pub fn crash(
        &self,
        mut keep_sector: impl FnMut(usize) -> bool,
        mut keep_name: impl FnMut(usize) -> bool,
    ) -> MemoryDisk {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for (i, change) in state.name_changes.iter().enumerate() {
            if keep_name(i) {
                change.apply(&mut names);
            }
        }
        let mut next_sector = 0;
        let mut files = Vec::new();
        for file in &state.files {
            let mut durable = file.durable.clone();
            for write in &file.unsynced {
                for (i, sector) in write.bytes.chunks(SECTOR).enumerate() {
                    if keep_sector(next_sector) {
                        put(&mut durable, write.offset + (i * SECTOR) as u64, sector);
                    }
                    next_sector += 1;
                }
            }
            files.push(Contents {
                now: durable.clone(),
                durable,
                unsynced: Vec::new(),
            });
        }
        let state = State {
            files,
            durable_names: names.clone(),
            names,
            ..State::default()
        };
        MemoryDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A copy with a disk of its own, as durable as it reads.
    pub fn copy(&self) -> MemoryDisk {
        self.crash(|_| true, |_| true)
    }

    /// The contents of a file, to look at.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].now.to_vec()
    }

    /// Changes a file behind the WAL's back, durably.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        let file = &mut state.files[file];
        change(Arc::make_mut(&mut file.now));
        file.durable = file.now.clone();
    }

    /// Takes a file away behind the WAL's back, durably.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    pub(super) fn start_group(&self, file: &MemoryFile, ticket: u64, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        if state.power_off_at.is_some_and(|at| state.changes >= at) {
            return;
        }
        let file = &mut state.files[file.0];
        put(&mut file.now, offset, bytes);
        file.unsynced.push(Unsynced {
            ticket: Some(ticket),
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn finish_group(&self, file: &MemoryFile, ticket: u64) -> io::Result<()> {
        let mut state = self.state();
        let bytes_whole = usize::MAX;
        state.take_room(state.copies_on_write)?;
        state.change(bytes_whole)?;
        state.files[file.0].settle(|write| write.ticket == Some(ticket));
        Ok(())
    }
}

impl State {
    /// Counts a change and meets it with the next fault.
    fn change(&mut self, bytes: usize) -> io::Result<()> {
        self.changes += 1;
        if self.power_off_at.is_some_and(|at| self.changes >= at) {
            return Err(io::Error::other("the power is off"));
        }
        match self.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(()),
            Fault::Io => Err(io::Error::from_raw_os_error(libc::EIO)),
            Fault::Full => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Fault::Short(arrived) => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("short write of {arrived} of {bytes} bytes"),
            )),
        }
    }

    /// Fails where a file would be made or grow on a full disk.
    fn take_room(&self, more: bool) -> io::Result<()> {
        if more && self.full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.change(0)?;
        change.apply(&mut self.names);
        self.name_changes.push(change);
        Ok(())
    }

    fn file_of(&self, name: &str) -> io::Result<usize> {
        let file = self.names.get(name).copied();
        file.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Insert(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Contents {
    /// Makes the chosen unsynced writes durable.
    fn settle(&mut self, chosen: impl Fn(&Unsynced) -> bool) {
        let durable = &mut self.durable;
        self.unsynced.retain(|write| {
            let settled = chosen(write);
            if settled {
                put(durable, write.offset, &write.bytes);
            }
            !settled
        });
    }
}

fn put(contents: &mut Arc<Vec<u8>>, offset: u64, bytes: &[u8]) {
    let contents = Arc::make_mut(contents);
    let offset = offset as usize;
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let size = |file: &usize| state.files[*file].now.len() as u64;
        Ok(state
            .names
            .iter()
            .map(|(name, file)| (name.clone(), size(file)))
            .collect())
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<MemoryFile> {
        let mut state = self.state();
        match mode {
            OpenMode::Read | OpenMode::Segment => state.file_of(name).map(MemoryFile),
            OpenMode::Create | OpenMode::CreateSegment => {
                if state.names.contains_key(name) {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                state.take_room(true)?;
                let file = state.files.len();
                state.change_name(NameChange::Insert(name.to_string(), file))?;
                state.files.push(Contents::default());
                Ok(MemoryFile(file))
            }
        }
    }

    fn read_at(&self, file: &MemoryFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        match state.files[file.0].now.get(from..from + buffer.len()) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn write_at(&self, file: &MemoryFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let grows = state.files[file.0].now.len() < offset as usize + bytes.len();
        state.take_room(grows || state.copies_on_write)?;
        let faulty = state.change(bytes.len());
        let power_is_on = state.power_off_at.is_none_or(|at| state.changes < at);
        if power_is_on || state.power_off_at == Some(state.changes) {
            // A write that fails may still have reached some sectors; the crash chooses which.
            let file = &mut state.files[file.0];
            put(&mut file.now, offset, bytes);
            file.unsynced.push(Unsynced {
                ticket: None,
                offset,
                bytes: bytes.to_vec(),
            });
        }
        faulty
    }

    fn sync(&self, file: &MemoryFile) -> io::Result<()> {
        let mut state = self.state();
        state.change(0)?;
        state.files[file.0].settle(|write| write.ticket.is_none());
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file_of(from)?;
        state.change_name(NameChange::Rename(from.to_string(), to.to_string(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file_of(name)?;
        state.change_name(NameChange::Remove(name.to_string()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change(0)?;
        let State {
            durable_names,
            name_changes,
            ..
        } = &mut *state;
        for change in name_changes.drain(..) {
            change.apply(durable_names);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }
}
