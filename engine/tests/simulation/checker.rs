//! What must hold whatever happens.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use bytes::BytesMut;

use synod_engine::seams::StateMachine;

/// Everything that any replica ever executed, in order. All replicas must walk along the same history.
#[derive(Debug, Default)]
pub struct History {
    pub executed: Vec<Vec<u8>>,
    once: HashSet<Vec<u8>>,
}

/// The state machine under test: checks each command against the common history as it executes.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    history: Rc<RefCell<History>>,
    position: usize,
}

impl Witness {
    pub fn new(history: &Rc<RefCell<History>>) -> Witness {
        Witness {
            history: history.clone(),
            position: 0,
        }
    }

    pub fn position(&self) -> usize {
        self.position
    }
}

impl StateMachine for Witness {
    fn apply(&mut self, command: &[u8], reply: &mut BytesMut) {
        let mut history = self.history.borrow_mut();
        match history.executed.get(self.position) {
            Some(known) => assert_eq!(
                known, command,
                "replicas disagree about the {}th command",
                self.position
            ),
            None => {
                assert!(
                    history.once.insert(command.to_vec()),
                    "{command:?} is executed twice"
                );
                history.executed.push(command.to_vec());
            }
        }
        self.position += 1;
        reply.extend_from_slice(&command[..command.len().min(16)]);
    }

    fn hash(&self) -> u64 {
        self.position as u64
    }
}
