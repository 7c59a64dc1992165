//! From what a disk holds to a WAL that goes on behind it.

use std::collections::VecDeque;
use std::io;

use synod_engine::ids::{Incarnation, Lsn, Slot};

use super::{Counts, WalCore, group_bytes_max};
use crate::backend::Backend;
use crate::config::{Options, READS_IN_FLIGHT_MAX};
use crate::disk::{Disk, OpenMode};
use crate::error::OpenError;
use crate::format::{Identity, Sequence};
use crate::group::Carried;
use crate::notes::Notes;
use crate::reader::Reader;
use crate::recovery::{Cut, Hole, Recovered, Replayed, recover};
use crate::segments::Segments;
use crate::worker::Worker;

/// What an opening found.
pub struct Opened {
    pub incarnation: Incarnation,
    pub last: Lsn,
    pub carried: Carried,
    pub records: u64,
    pub bytes: u64,
    pub holes: Vec<Hole>,
    pub cut: Option<Cut>,
    /// Used segments that were passed over: what they hold, the snapshot covers.
    pub segments_skipped: u64,
}

impl<B: Backend> WalCore<B> {
    /// Replays what `backend`'s disk holds above the slot that a snapshot `covers`, and goes on behind it.
    pub fn open(
        backend: B,
        options: Options,
        identity: &Identity,
        covers: Slot,
        visit: &mut dyn FnMut(Replayed),
    ) -> Result<(WalCore<B>, Opened), OpenError> {
        let disk = backend.disk().clone();
        let recovered = recover(&disk, identity, covers, visit)?;
        // What was read may come from the page cache of a killed process: only now it is durable for sure.
        for segment in recovered.segments.iter().filter(|segment| segment.readable) {
            let name = segment.sequence.segment_name();
            disk.open(&name, OpenMode::Read)
                .and_then(|file| disk.sync(&file))
                .map_err(OpenError::io("syncing", disk.path(&name)))?;
        }
        let opened = Opened {
            incarnation: identity.incarnation,
            last: recovered.last,
            carried: recovered.carried,
            records: recovered.records,
            bytes: recovered.bytes,
            holes: recovered.holes.clone(),
            cut: recovered.cut.clone(),
            segments_skipped: recovered.segments_skipped,
        };
        let wal = WalCore::new(backend, options, identity, recovered)
            .map_err(OpenError::io("starting the threads of", disk.path("")))?;
        Ok((wal, opened))
    }

    fn new(
        backend: B,
        options: Options,
        identity: &Identity,
        recovered: Recovered,
    ) -> io::Result<WalCore<B>> {
        let (disk, signal) = (backend.disk().clone(), backend.signal());
        let notes = Notes::default();
        let segments = Segments::new(
            disk.clone(),
            signal.clone(),
            &options,
            identity,
            &recovered,
            notes.clone(),
        )?;
        let mut reader = Reader::new(disk, segments.live_from());
        let reader = Worker::new(
            "wal-reader",
            READS_IN_FLIGHT_MAX,
            signal,
            Box::new(move |jobs, done| jobs.drain(..).for_each(|job| done(reader.read(&job)))),
        )?;
        let last_used = recovered.segments.last();
        Ok(WalCore {
            group_bytes_max: group_bytes_max(identity.segment_bytes),
            writes_in_flight_max: options.writes_in_flight_max,
            pending_bytes_max: options.pending_bytes_max,
            pending: VecDeque::new(),
            pending_bytes: 0,
            appended: recovered.last,
            sealed: recovered.last,
            durable: recovered.last,
            carried: recovered.carried,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            next_ticket: 1,
            durable_sequence: last_used.map_or(Sequence(0), |segment| segment.sequence),
            durable_floor: recovered.carried.trim_floor,
            wanted_floor: Slot::ZERO,
            segments,
            index: recovered.index,
            reader,
            reads_in_flight: 0,
            read: VecDeque::new(),
            failed: None,
            retries: backend.retries(),
            full: false,
            notes,
            counts: Counts::default(),
            backend,
        })
    }
}
