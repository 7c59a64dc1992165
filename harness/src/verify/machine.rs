//! The state machine of a replay, chosen at run time, and where it keeps a command's stamp.

use bytes::{Bytes, BytesMut};
use synod_engine::ids::Slot;
use synod_engine::machine::kv::KvCommand;
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::seams::StateMachine;
use synod_engine::snapshot::{RestoreError, Restored, Restoring};

use super::sessions::LastCommands;
use super::stamps::STAMP_BYTES;
use crate::cli::MachineChoice;

pub struct Machine {
    machine: Choice,
    reply: BytesMut,
}

enum Choice {
    Kv(KvMachine),
    Log(LogMachine),
}

impl Machine {
    pub fn new(machine: MachineChoice) -> Machine {
        Machine {
            machine: match machine {
                MachineChoice::Kv => Choice::Kv(KvMachine::default()),
                MachineChoice::Log => Choice::Log(LogMachine::default()),
            },
            reply: BytesMut::new(),
        }
    }

    /// The machine that a snapshot holds, the slot it is of, and the last command of each session in it.
    pub fn restore(
        machine: MachineChoice,
        parts: &mut impl Iterator<Item = Bytes>,
    ) -> Result<(Machine, Slot, LastCommands), RestoreError> {
        match machine {
            MachineChoice::Kv => restore(parts).map(|restored| taken(restored, Choice::Kv)),
            MachineChoice::Log => restore(parts).map(|restored| taken(restored, Choice::Log)),
        }
    }

    pub fn apply(&mut self, command: &[u8]) {
        self.reply.clear();
        match &mut self.machine {
            Choice::Kv(machine) => machine.apply(command, &mut self.reply),
            Choice::Log(machine) => machine.apply(command, &mut self.reply),
        }
    }

    pub fn hash(&self) -> u64 {
        match &self.machine {
            Choice::Kv(machine) => machine.hash(),
            Choice::Log(machine) => machine.hash(),
        }
    }

    /// What a load's command carries.
    pub fn stamp<'a>(&self, command: &'a [u8]) -> Stamp<'a> {
        let bytes = match &self.machine {
            Choice::Kv(_) => match KvCommand::decode(command) {
                Some(KvCommand::Put { value, .. } | KvCommand::Cas { value, .. }) => value,
                Some(KvCommand::Get { .. } | KvCommand::Delete { .. }) => return Stamp::NoRoom,
                None => return Stamp::Missing,
            },
            Choice::Log(_) => command,
        };
        bytes.first_chunk().map_or(Stamp::Missing, Stamp::Of)
    }
}

fn restore<M: StateMachine + Default>(
    parts: &mut impl Iterator<Item = Bytes>,
) -> Result<Restored<M>, RestoreError> {
    let mut restoring = Restoring::new(M::default());
    for part in parts {
        restoring.take(&part)?;
    }
    restoring.finish()
}

fn taken<M: StateMachine>(
    restored: Restored<M>,
    choice: impl FnOnce(M) -> Choice,
) -> (Machine, Slot, LastCommands) {
    let slot = restored.state.applied();
    let last = restored.state.sessions.iter();
    let last = last.map(|(session, last)| (session.0, last.0)).collect();
    let machine = Machine {
        machine: choice(restored.state.machine),
        reply: BytesMut::new(),
    };
    (machine, slot, last)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp<'a> {
    Of(&'a [u8; STAMP_BYTES]),
    /// A command that carries nothing that could be told apart.
    NoRoom,
    /// None of a load's.
    Missing,
}
