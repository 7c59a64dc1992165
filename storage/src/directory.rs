//! A data directory: its identity and its first segment.

use synod_engine::ids::{ClusterId, Incarnation, ReplicaId};

use crate::buffer::PAGE_BYTES;
use crate::config::Options;
use crate::disk::{Disk, OpenMode};
use crate::error::OpenError;
use crate::format::{
    GROUPS_AT, HeaderError, IDENTITY_FILE, IDENTITY_TEMPORARY, Identity, Sequence,
    TEMPORARY_SUFFIX, VERSION, mix,
};
use crate::keeper::{Hints, Keeper, Trouble};
use crate::snapshot;

/// Makes an empty directory a founding member's. Refuses one that holds anything of a WAL.
pub fn initialise<D: Disk>(disk: &D, options: &Options) -> Result<(), OpenError> {
    found(disk, options, Incarnation::FOUNDING)
}

/// Makes an empty directory that of a replica which lost its disk. Its incarnation says so for ever: what it promised
/// before is gone, and it must not vote as if it had never promised anything. `incarnation` is a random number, unlike any
/// that this replica had before: by it the cluster tells one disk from another. Refuses a directory that holds anything
/// of a WAL.
pub fn initialise_readmitted<D: Disk>(
    disk: &D,
    options: &Options,
    incarnation: Incarnation,
) -> Result<(), OpenError> {
    assert!(
        incarnation != Incarnation::FOUNDING,
        "a readmitted replica is no founding member"
    );
    found(disk, options, incarnation)
}

/// The identity comes last: a directory with an identity has its first segment, so "no segment at all" is always a
/// loss; an interrupted init is simply done again.
fn found<D: Disk>(disk: &D, options: &Options, incarnation: Incarnation) -> Result<(), OpenError> {
    options.check();
    clear_remains(disk)?;
    let identity = Identity {
        cluster: options.cluster,
        replica: options.replica,
        incarnation,
        segment_bytes: options.segment_bytes,
    };
    let mut keeper = Keeper {
        disk: disk.clone(),
        cluster: identity.cluster,
        replica: identity.replica,
        segment_bytes: identity.segment_bytes,
        seed: mix(identity.incarnation.0, options.seed),
        next: Sequence::FIRST,
        ready_files: Default::default(),
        ready_files_max: 0,
        hints: Hints::default(),
        paces: false,
    };
    keeper.prepare().map_err(|trouble| match trouble {
        Trouble::NoRoom(source) | Trouble::Failed(source) => OpenError::Io {
            what: "preparing",
            path: disk.path(&Sequence::FIRST.segment_name()),
            source,
        },
    })?;
    disk.open(IDENTITY_TEMPORARY, OpenMode::Create)
        .and_then(|file| {
            disk.write_at(&file, 0, &identity.encode())?;
            disk.sync(&file)?;
            disk.rename(IDENTITY_TEMPORARY, IDENTITY_FILE)?;
            disk.sync_directory()
        })
        .map_err(OpenError::io("writing", disk.path(IDENTITY_FILE)))
}

/// Reads the identity and checks that the directory is this replica's.
pub fn check_identity<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    replica: ReplicaId,
) -> Result<Identity, OpenError> {
    let identity = read_identity(disk)?;
    let path = disk.path("");
    if identity.cluster != cluster {
        return Err(OpenError::WrongCluster {
            path,
            found: identity.cluster,
            expected: cluster,
        });
    }
    if identity.replica != replica {
        return Err(OpenError::WrongReplica {
            path,
            found: identity.replica,
            expected: replica,
        });
    }
    Ok(identity)
}

pub fn read_identity<D: Disk>(disk: &D) -> Result<Identity, OpenError> {
    let path = disk.path(IDENTITY_FILE);
    let files = list(disk)?;
    let Some((_, bytes)) = files.iter().find(|(name, _)| name == IDENTITY_FILE) else {
        return match files.iter().find(|(name, _)| is_data(name)) {
            Some((name, _)) if !is_interrupted_init(disk, &files) => Err(OpenError::Remains {
                path: disk.path(""),
                found: name.clone(),
            }),
            Some(_) | None => Err(OpenError::NotInitialised {
                path: disk.path(""),
            }),
        };
    };
    let mut image = vec![0; (*bytes).min(PAGE_BYTES as u64) as usize];
    disk.open(IDENTITY_FILE, OpenMode::Read)
        .and_then(|file| disk.read_at(&file, 0, &mut image))
        .map_err(OpenError::io("reading", path.clone()))?;
    Identity::decode(&image).map_err(|error| match error {
        HeaderError::Version(found) => OpenError::Version {
            path,
            found,
            expected: VERSION,
        },
        HeaderError::Damaged(why) => OpenError::IdentityDamaged {
            path,
            why: why.to_string(),
        },
    })
}

/// Removes unfinished files of an earlier process.
pub fn clear_temporary<D: Disk>(disk: &D) -> Result<(), OpenError> {
    for (name, _) in list(disk)? {
        let ours = ["wal-", "ready-", snapshot::PREFIX]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == IDENTITY_TEMPORARY;
        if ours && name.ends_with(TEMPORARY_SUFFIX) {
            remove(disk, &name)?;
        }
    }
    Ok(())
}

/// Leaves the way free for an init, or refuses: whatever may hold data stays.
fn clear_remains<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let files = list(disk)?;
    if files.iter().any(|(name, _)| name == IDENTITY_FILE) {
        return Err(OpenError::AlreadyInitialised {
            path: disk.path(""),
        });
    }
    if is_interrupted_init(disk, &files) {
        remove(disk, &Sequence::FIRST.segment_name())?;
    } else if let Some((name, _)) = files.iter().find(|(name, _)| is_data(name)) {
        return Err(OpenError::Remains {
            path: disk.path(""),
            found: name.clone(),
        });
    }
    clear_temporary(disk)
}

/// Whether the only segment is the first one, never written to: what an init leaves that was cut short.
fn is_interrupted_init<D: Disk>(disk: &D, files: &[(String, u64)]) -> bool {
    let first = Sequence::FIRST.segment_name();
    let mut segments = files.iter().filter(|(name, _)| is_data(name));
    if segments.next().is_none_or(|(name, _)| *name != first) || segments.next().is_some() {
        return false;
    }
    let mut page = vec![0; PAGE_BYTES];
    disk.open(&first, OpenMode::Read)
        .and_then(|file| disk.read_at(&file, GROUPS_AT, &mut page))
        .is_ok_and(|()| page.iter().all(|byte| *byte == 0))
}

fn is_data(name: &str) -> bool {
    let segment = name.starts_with("wal-") || name.starts_with("ready-");
    segment && name.ends_with(".seg") || snapshot::slot_of_name(name).is_some()
}

fn list<D: Disk>(disk: &D) -> Result<Vec<(String, u64)>, OpenError> {
    disk.list().map_err(OpenError::io("listing", disk.path("")))
}

fn remove<D: Disk>(disk: &D, name: &str) -> Result<(), OpenError> {
    disk.remove(name)
        .map_err(OpenError::io("removing", disk.path(name)))
}
