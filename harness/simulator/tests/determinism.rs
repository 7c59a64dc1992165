//! The same seed gives the same trace, byte for byte, here and elsewhere: the traces' hashes are kept in a file.
//! After a change of the engine, write it anew with `SYNOD_UPDATE_GOLDEN=1 cargo test -p synod-simulator`.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use synod_simulator::run::simulate;
use synod_simulator::seams::Honest;
use synod_simulator::swarm::{Bounds, Plan};
use synod_simulator::trace::Trace;
use xxhash_rust::xxh3::xxh3_64;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/traces.txt");
const SEEDS: [u64; 4] = [1, 2, 3, 8];

fn trace(seed: u64) -> String {
    let bounds = Bounds {
        virtual_ns: 12_000_000_000,
        ..Bounds::default()
    };
    let text = Rc::new(RefCell::new(String::new()));
    let sink = {
        let text = text.clone();
        Box::new(move |line: &str| writeln!(text.borrow_mut(), "{line}").unwrap_or_default())
    };
    let outcome = simulate(Plan::draw(seed, &bounds), Honest, Trace::to(sink));
    outcome.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    text.take()
}

#[test]
fn the_same_seed_gives_the_same_trace_here_and_elsewhere() {
    let mut now = String::new();
    for seed in SEEDS {
        let first = trace(seed);
        assert!(
            first.lines().count() > 1_000,
            "seed {seed} does nearly nothing"
        );
        // Not assert_eq: a trace has megabytes.
        assert!(first == trace(seed), "seed {seed} gives two traces");
        let (lines, hash) = (first.lines().count(), xxh3_64(first.as_bytes()));
        writeln!(now, "seed {seed}: {lines} lines, {hash:016x}").expect("strings take everything");
    }
    if std::env::var_os("SYNOD_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).expect("the golden file can be written");
    }
    let known = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert_eq!(
        known, now,
        "rewrite it with SYNOD_UPDATE_GOLDEN=1 if the engine changed on purpose"
    );
}

#[test]
fn different_seeds_give_different_traces() {
    assert!(trace(1) != trace(2));
}
