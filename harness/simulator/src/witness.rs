//! The state machine under test: the production key-value machine, and a record of what it executed.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;

use synod_engine::machine::kv::{KvCommand, KvMachine};
use synod_engine::reply::Reply;
use synod_engine::seams::StateMachine;
use xxhash_rust::xxh3::xxh3_64;

use crate::checker::Executed;

#[derive(Default)]
pub struct Witness {
    machine: KvMachine,
    done: Rc<RefCell<Vec<Executed>>>,
    /// Commands until it executes one that nobody sent, once.
    misapplies_in: Option<u64>,
}

impl Witness {
    pub fn misapplying(after: u64) -> Witness {
        Witness {
            misapplies_in: Some(after),
            ..Witness::default()
        }
    }

    /// No client reads what it writes, so that nobody notices by a reply.
    fn misapply(&mut self) {
        let command = KvCommand::Put {
            key: b"of nobody",
            value: b"",
        };
        let command = command.encode().expect("the key is short");
        let mut reply = BytesMut::new();
        self.machine.apply(&command, &mut Reply::new(&mut reply, 1));
    }

    pub fn machine(&self) -> &KvMachine {
        &self.machine
    }

    /// What was executed since somebody looked last.
    pub fn done(&self) -> Rc<RefCell<Vec<Executed>>> {
        self.done.clone()
    }
}

impl StateMachine for Witness {
    fn apply(&mut self, command: &[u8], reply: &mut Reply<'_>) {
        if let Some(left) = &mut self.misapplies_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.misapplies_in = None;
                self.misapply();
            }
        }
        self.machine.apply(command, reply);
        self.done.borrow_mut().push(Executed {
            command: xxh3_64(command),
            reply: xxh3_64(reply.kept()),
        });
    }

    fn hash(&self) -> u64 {
        self.machine.hash()
    }

    fn empty(&self) -> Witness {
        Witness {
            machine: self.machine.empty(),
            done: self.done.clone(),
            misapplies_in: None,
        }
    }

    fn begin_snapshot(&mut self) {
        self.machine.begin_snapshot();
    }

    fn write_snapshot(&mut self, bytes_max: usize, out: &mut BytesMut) -> bool {
        self.machine.write_snapshot(bytes_max, out)
    }

    fn snapshot_bytes(&self) -> usize {
        self.machine.snapshot_bytes()
    }

    fn end_snapshot(&mut self) {
        self.machine.end_snapshot();
    }

    fn restore(&mut self, piece: &[u8]) -> bool {
        self.machine.restore(piece)
    }
}
