//! The state machine of a replay, chosen at run time, and where it keeps a command's stamp.

use bytes::{Bytes, BytesMut};
use synod_engine::client::LENGTH_BYTES;
use synod_engine::ids::Slot;
use synod_engine::machine::kv::KvCommand;
use synod_engine::machine::{KvMachine, LogMachine};
use synod_engine::reply::{REPLIES_BYTES_MAX, RepliesFrame, Reply, SLOT_REPLIES_BYTES_MAX};
use synod_engine::seams::StateMachine;
use synod_engine::snapshot::{RestoreError, Restored, Restoring};

use super::sessions::LastCommands;
use super::stamps::STAMP_BYTES;
use crate::cli::MachineChoice;

pub struct Machine {
    machine: Choice,
    reply: BytesMut,
    /// Bytes of the replies of this slot, and of the frame that the present request's replies make.
    slot_bytes: usize,
    frame_bytes: usize,
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
            slot_bytes: 0,
            frame_bytes: 0,
        }
    }

    pub fn begin_slot(&mut self) {
        self.slot_bytes = 0;
    }

    pub fn begin_request(&mut self) {
        self.frame_bytes = RepliesFrame::ITEMS_AT;
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
        self.frame_bytes += LENGTH_BYTES;
        // A reply without room in its frame or slot is empty, and counts as that.
        let frame_room = REPLIES_BYTES_MAX.saturating_sub(self.frame_bytes);
        let slot_room = SLOT_REPLIES_BYTES_MAX - self.slot_bytes;
        let reply = &mut Reply::new(&mut self.reply, frame_room.min(slot_room));
        match &mut self.machine {
            Choice::Kv(machine) => machine.apply(command, reply),
            Choice::Log(machine) => machine.apply(command, reply),
        }
        let kept = reply.kept().len();
        self.frame_bytes += kept;
        self.slot_bytes += kept;
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
        slot_bytes: 0,
        frame_bytes: 0,
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

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use synod_engine::client::Request;
    use synod_engine::ids::{CommandNumber, SessionId};
    use synod_engine::state::State;

    use super::super::sessions::Sessions;
    use super::*;

    fn request(out: &mut BytesMut, session: u64, first: u64, commands: &[Bytes]) {
        let mut run = BytesMut::new();
        for command in commands {
            run.put_u32_le(command.len() as u32);
            run.put_slice(command);
        }
        Request {
            session: SessionId(session),
            first: CommandNumber(first),
            acknowledged: CommandNumber(first),
            count: commands.len() as u32,
            commands: run.freeze(),
        }
        .put(out);
    }

    #[test]
    fn replies_without_room_count_here_as_they_do_in_the_engine() {
        let session = 1 << 16;
        let value = vec![7; 250 << 10];
        let put = KvCommand::Put {
            key: b"k",
            value: &value,
        };
        let get = KvCommand::Get { key: b"k" }.encode().expect("a short key");
        let (mut opened, mut reads) = (BytesMut::new(), BytesMut::new());
        request(&mut opened, 0, 1, &[]);
        request(
            &mut opened,
            session,
            1,
            &[put.encode().expect("a short key")],
        );
        // More than fits one frame, and more frames than fit one slot.
        for first in 0..20 {
            request(&mut reads, session, 2 + 30 * first, &vec![get.clone(); 30]);
        }
        let mut engine = State::new(KvMachine::default());
        let mut sessions = Sessions::default();
        let mut machine = Machine::new(MachineChoice::Kv);
        for (slot, value) in [(1, opened.freeze()), (2, reads.freeze())] {
            engine.apply(Slot(slot), value.clone(), |_, _| {});
            machine.begin_slot();
            sessions.apply(Slot(slot), &value, &mut |_, command, is_first| {
                if is_first {
                    machine.begin_request();
                }
                machine.apply(command);
            });
        }
        assert!(engine.scratch.replies_dropped > 0);
        assert_eq!(engine.machine.hash(), machine.hash());
    }
}
