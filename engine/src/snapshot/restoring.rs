//! From the bytes of a snapshot back to the state.

use crate::ids::Slot;
use crate::members::Members;
use crate::seams::StateMachine;
use crate::sessions::Sessions;
use crate::state::State;

use super::body::{Item, Kind, Reader};

/// A state that is being rebuilt as the bytes of its snapshot come in.
pub struct Restoring<M> {
    reader: Reader,
    machine: M,
    sessions: Sessions,
    header: Option<(Slot, Members)>,
    checksum: Option<u64>,
}

/// The state at the slot of a snapshot that was read to its end and found intact.
#[derive(Debug)]
pub struct Restored<M> {
    pub state: State<M>,
    pub members: Members,
    pub checksum: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot is not well-formed: {0}")]
    Malformed(&'static str),
    #[error("the snapshot is of format {found}, this program reads 1")]
    Version { found: u32 },
    #[error("the snapshot's checksum does not fit its content")]
    Checksum,
    #[error("the snapshot ends before its content does")]
    Short,
}

impl<M: StateMachine> Restoring<M> {
    /// `machine` is empty.
    pub fn new(machine: M) -> Restoring<M> {
        Restoring {
            reader: Reader::new(),
            machine,
            sessions: Sessions::default(),
            header: None,
            checksum: None,
        }
    }

    /// The next bytes, in whatever portions.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.reader.push(bytes);
        while self.checksum.is_none() {
            match self.reader.next()? {
                None => return Ok(()),
                Some(Item::Header(slot, members)) => self.header = Some((slot, *members)),
                Some(Item::Piece(Kind::Sessions, piece)) => {
                    if !self.sessions.restore(piece) {
                        return Err(RestoreError::Malformed("its sessions can't be"));
                    }
                }
                Some(Item::Piece(Kind::Machine, piece)) => {
                    if !self.machine.restore(&piece) {
                        return Err(RestoreError::Malformed("its state machine can't be"));
                    }
                }
                Some(Item::End(checksum)) => self.checksum = Some(checksum),
            }
        }
        if self.reader.is_empty() {
            Ok(())
        } else {
            Err(RestoreError::Malformed("it goes on after its end"))
        }
    }

    /// All bytes were taken.
    pub fn finish(self) -> Result<Restored<M>, RestoreError> {
        let checksum = self.checksum.ok_or(RestoreError::Short)?;
        let (slot, members) = self.header.ok_or(RestoreError::Short)?;
        Ok(Restored {
            state: State::at(slot, self.machine, self.sessions),
            members,
            checksum,
        })
    }
}
