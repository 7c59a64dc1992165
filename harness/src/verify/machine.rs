//! The state machine of a replay, chosen at run time, and where it keeps a command's stamp.

use bytes::BytesMut;
use synod_engine::machine::kv::KvCommand;
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::seams::StateMachine;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp<'a> {
    Of(&'a [u8; STAMP_BYTES]),
    /// A command that carries nothing that could be told apart.
    NoRoom,
    /// None of a load's.
    Missing,
}
