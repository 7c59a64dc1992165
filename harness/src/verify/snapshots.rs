//! What the snapshots on the disks say, and which of them a replay starts from.

use std::path::Path;

use anyhow::Context;
use synod_engine::ids::{ReplicaId, Slot};
use synod_storage::snapshot::Body;

use super::machine::Machine;
use super::sessions::LastCommands;
use super::slots::Slots;
use crate::cli::MachineChoice;

/// What one snapshot of a replica holds.
pub struct Kept {
    pub replica: ReplicaId,
    /// Every slot up to here is part of it.
    pub slot: Slot,
    pub state_hash: u64,
    pub sessions: LastCommands,
}

/// Where a replay begins: behind the slots that `machine` and `sessions` are the outcome of.
pub struct Start {
    pub slot: Slot,
    pub machine: Machine,
    pub sessions: LastCommands,
}

impl Start {
    /// Before slot 1.
    pub fn nothing(machine: MachineChoice) -> Start {
        Start {
            slot: Slot::ZERO,
            machine: Machine::new(machine),
            sessions: LastCommands::default(),
        }
    }

    /// As the snapshot of `slot` in a data directory has it.
    pub fn read(machine: MachineChoice, directory: &Path, slot: Slot) -> anyhow::Result<Start> {
        let mut found = None;
        each(machine, directory, true, &mut |start| {
            if start.slot == slot {
                found = Some(start);
            }
        })?;
        found.with_context(|| format!("the snapshot of slot {} is gone", slot.0))
    }
}

/// Every snapshot of a replica, oldest first. With `damage` one that can't be used is no error: it was damaged on
/// purpose, and no start would use it.
pub fn read(
    machine: MachineChoice,
    replica: ReplicaId,
    directory: &Path,
    damage: bool,
) -> anyhow::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    each(machine, directory, damage, &mut |start| {
        kept.push(Kept {
            replica,
            slot: start.slot,
            state_hash: start.machine.hash(),
            sessions: start.sessions,
        });
    })?;
    Ok(kept)
}

/// One after the other, since a state may be large.
fn each(
    machine: MachineChoice,
    directory: &Path,
    damage: bool,
    take: &mut dyn FnMut(Start),
) -> anyhow::Result<()> {
    let (files, refused) = synod_storage::scan_snapshots(directory)?;
    if let Some(refused) = refused.first().filter(|_| !damage) {
        anyhow::bail!("{refused}");
    }
    for file in files {
        let slot = file.info().slot;
        let mut body = Body::new(file);
        let restored = Machine::restore(machine, &mut body);
        // Damage explains a refusal better than the content can.
        let whole = body.finish().map_err(anyhow::Error::from);
        let restored = whole.and_then(|()| Ok(restored?));
        let (machine, own, sessions) = match restored {
            Err(_) if damage => continue,
            restored => {
                restored.with_context(|| format!("restoring the snapshot of slot {}", slot.0))?
            }
        };
        anyhow::ensure!(
            own == slot,
            "the snapshot of slot {} is of slot {}",
            slot.0,
            own.0
        );
        take(Start {
            slot,
            machine,
            sessions,
        });
    }
    Ok(())
}

/// The replica whose WAL the replay reads, by its place, and the slot of the snapshot that it starts from, zero if the
/// WAL is whole: of all that are possible the earliest, so that as much as can be is replayed.
pub fn earliest_start(tables: &[Slots], kept: &[Kept]) -> Option<(usize, Slot)> {
    let starts = tables.iter().enumerate().flat_map(|(place, table)| {
        let own = kept
            .iter()
            .filter(move |kept| kept.replica == table.replica);
        std::iter::once(Slot::ZERO)
            .chain(own.map(|kept| kept.slot))
            .filter(move |slot| table.floor <= slot.next())
            .map(move |slot| (place, slot))
    });
    starts.min_by_key(|(place, slot)| (*slot, *place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_of(floors: &[(u64, &[u64])]) -> Option<(usize, u64)> {
        let (mut tables, mut kept) = (Vec::new(), Vec::new());
        for ((floor, slots), id) in floors.iter().zip(1..) {
            let mut table = Slots::new(ReplicaId(id), Slot(1_000));
            table.floor = Slot(*floor);
            tables.push(table);
            kept.extend(slots.iter().map(|slot| Kept {
                replica: ReplicaId(id),
                slot: Slot(*slot),
                state_hash: 0,
                sessions: LastCommands::default(),
            }));
        }
        earliest_start(&tables, &kept).map(|(place, slot)| (place, slot.0))
    }

    #[test]
    fn the_earliest_start_whose_wal_has_the_rest_is_taken() {
        assert_eq!(start_of(&[(1, &[]), (1, &[])]), Some((0, 0)));
        assert_eq!(start_of(&[(51, &[50, 90]), (1, &[40])]), Some((1, 0)));
        assert_eq!(start_of(&[(51, &[50, 90]), (41, &[40, 80])]), Some((1, 40)));
        // What was installed stands alone; the older snapshot no longer joins the WAL.
        assert_eq!(start_of(&[(91, &[30, 90]), (51, &[50])]), Some((1, 50)));
        assert_eq!(start_of(&[(60, &[50])]), None);
    }
}
