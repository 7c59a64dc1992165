//! Every interleaving of a small cluster, by the production core. See [`model`] for what is modelled and how.
//!
//! The larger scope: `SYNOD_MODEL=large cargo test --release -p synod-engine --test model_check -- --nocapture`

mod model;

use model::scope::{Bug, Scope};
use model::search::Search;

/// A leader whose no-op is chosen everywhere; a client's value at it; the other proposer takes over.
const HANDOVER: Scope = Scope {
    name: "handover",
    stands: [0, 1],
    requests: 1,
    crashes: 0,
    led: true,
    resends: false,
    rejects: false,
    evicts: false,
    fetches: false,
    bug: None,
};

fn num(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap())
}

#[test]
fn probe() {
    let scope = Scope {
        name: "probe",
        stands: [num("S1", 1), num("S2", 1)],
        requests: num("RQ", 1),
        crashes: num("CR", 0),
        led: num("LED", 0) == 1,
        resends: num("RS", 0) == 1,
        rejects: num("RJ", 0) == 1,
        evicts: num("EV", 0) == 1,
        fetches: num("FE", 0) == 1,
        bug: None,
    };
    match Search::run(&scope) {
        Ok(explored) => println!("{explored:?}"),
        Err(found) => panic!("{}\n{}", found.violation, found.path),
    }
}

#[test]
fn mutants() {
    let crashing = Scope {
        crashes: 1,
        ..HANDOVER
    };
    let again = Scope { stands: [1,0], crashes: 1, ..HANDOVER };
    let again2 = Scope { stands: [2,0], crashes: 1, ..HANDOVER };
    for (scope, bug) in [(&again, Bug::StaleAcknowledgement), (&again2, Bug::LowestBallotWins),
    ] {
        let started = std::time::Instant::now();
        match Search::run(&scope.with_bug(bug)) {
            Ok(explored) => println!("{bug:?} NOT FOUND {explored:?}"),
            Err(found) => println!(
                "{bug:?}: {:?}\n{}\n{}",
                started.elapsed(),
                found.path,
                found.violation
            ),
        }
    }
    for (scope, bug) in [
        (&crashing, Bug::DiskLosesDurable),
        (&crashing, Bug::PromisesNotWritten),
        (&HANDOVER, Bug::RepliesBeforeSync),
        (&HANDOVER, Bug::StaleAcknowledgement),
        (&HANDOVER, Bug::AcknowledgedTwice),
        (&HANDOVER, Bug::PromiseWithoutValues),
        (&HANDOVER, Bug::LowestBallotWins),
        (&crashing, Bug::RestartForgetsAccepted),
        (&HANDOVER, Bug::AcceptTakenForChosen),
    ] {
        let started = std::time::Instant::now();
        match Search::run(&scope.with_bug(bug)) {
            Ok(explored) => println!("{bug:?} NOT FOUND {explored:?}"),
            Err(found) => println!(
                "{bug:?}: {:?}\n{}\n{}",
                started.elapsed(),
                found.path,
                found.violation
            ),
        }
    }
}
