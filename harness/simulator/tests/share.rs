//! A bounded share of what `synod simulate` does. The seeds are the same each time, so that the gate can't turn red by
//! chance; new ones are looked for with `synod simulate --first-seed N --seeds N`.

use synod_simulator::faults::{Fault, FaultSet, Strikes};
use synod_simulator::isolation::isolated;
use synod_simulator::run::{Outcome, simulate};
use synod_simulator::seams::Honest;
use synod_simulator::swarm::{Bounds, Plan};
use synod_simulator::trace::Trace;

const FIXED_SEEDS: u64 = 50;
const VIRTUAL_SECONDS: u64 = 24;

fn bounds(replicas: &[u8], faults: FaultSet) -> Bounds {
    Bounds {
        replicas: replicas.to_vec(),
        faults,
        virtual_ns: VIRTUAL_SECONDS * 1_000_000_000,
    }
}

/// Runs one seed; a failure says how to see it again.
fn run(seed: u64, replicas: &[u8]) -> Outcome {
    let bounds = bounds(replicas, FaultSet::ALL);
    let outcome = isolated(move || simulate(Plan::draw(seed, &bounds), Honest, Trace::default()));
    outcome.unwrap_or_else(|violation| {
        let sizes: Vec<String> = replicas.iter().map(u8::to_string).collect();
        panic!(
            "seed {seed}: {violation}\nrepeat it with: synod simulate --seed {seed} --trace --replicas {} \
             --virtual-seconds {VIRTUAL_SECONDS}",
            sizes.join(",")
        )
    })
}

#[test]
fn fixed_seeds_hold_under_every_fault() {
    let (mut operations, mut compared) = (0, 0);
    for seed in 1..=FIXED_SEEDS {
        let outcome = run(seed, &[3, 5, 7]);
        operations += outcome.operations;
        compared += outcome.milestones.states_compared;
    }
    assert!(
        compared > 10 * FIXED_SEEDS,
        "replicas compared their states only {compared} times"
    );
    assert!(
        operations > 100 * FIXED_SEEDS,
        "only {operations} operations were checked"
    );
}

#[test]
fn unusual_sizes_hold() {
    for seed in 1..=12 {
        run(seed, &[1, 2, 4, 9]);
    }
}

/// Each fault alone, where it can strike alone.
#[test]
fn every_fault_strikes() {
    for fault in Fault::ALL {
        let mut faults = FaultSet::NONE;
        faults.insert(fault);
        let mut strikes = Strikes::default();
        for seed in 0..40 {
            let mut plan = Plan::draw(seed, &bounds(&[5], faults));
            if !plan.faults.contains(fault) {
                continue;
            }
            plan.every_ns = 1_000_000_000;
            if fault == Fault::TornWrite {
                // Only what dies can leave a torn write behind.
                plan.faults.insert(Fault::Crash);
            }
            let outcome = isolated(move || simulate(plan, Honest, Trace::default()));
            let outcome = outcome.unwrap_or_else(|error| panic!("{fault}, seed {seed}: {error}"));
            strikes.merge(&outcome.strikes);
            if strikes.of(fault) > 0 {
                break;
            }
        }
        assert!(strikes.of(fault) > 0, "{fault} never struck");
    }
}

#[test]
fn no_fault_strikes_where_none_is_allowed() {
    let mut strikes = Strikes::default();
    for seed in 1..=5 {
        let bounds = bounds(&[3], FaultSet::NONE);
        let outcome = simulate(Plan::draw(seed, &bounds), Honest, Trace::default());
        strikes.merge(&outcome.expect("a calm cluster works").strikes);
    }
    assert_eq!(strikes, Strikes::default());
}
