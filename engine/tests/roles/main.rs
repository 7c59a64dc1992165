//! Each role at its own edge: what it answers, counted or decided once more by an oracle that is too simple to be wrong
//! wherever there is one. The tests here fail for the mutants of `cargo mutants`; those that survive are listed, with
//! the reason, in `../SURVIVORS.md`.

mod acceptor;
mod admission;
mod arriving;
mod batch;
mod candidate;
mod config;
mod divergence;
#[path = "../doubles/mod.rs"]
mod doubles;
mod driver;
mod election;
mod fetching;
mod flow;
mod following;
mod intake;
mod leader;
mod leading;
mod learner;
mod one;
mod persist;
mod quorum;
mod recovery;
mod rejoining;
mod sessions;
mod slots;

use synod_engine::ids::{Ballot, ReplicaId};

fn ballot(round: u64, replica: u8) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}
