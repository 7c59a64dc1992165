//! The promises of every verdict, kept against made-up runs whose truth is known. Seeds are fixed, so that a promise is
//! either kept or broken, and not sometimes. The table in docs/statistics.md is printed by
//! `cargo test --release -p synod-harness --lib statistics::truth -- --ignored --nocapture`.

use super::{Difference, Family, Generator};

/// What runs scatter like. On a machine that others share most runs scatter a little, and now and then one is hit.
#[derive(Clone, Copy, Debug)]
enum Noise {
    /// The logarithm is normal with this deviation.
    Even(f64),
    /// The same, and one run of ten loses a fifth.
    Stalls(f64),
    /// Every other cell scatters three times as much.
    Uneven(f64),
}

impl Noise {
    /// One run of a cell whose true figure is 1.
    fn run(self, cell: usize, generator: &mut Generator) -> f64 {
        let deviation = match self {
            Noise::Even(deviation) | Noise::Stalls(deviation) => deviation,
            Noise::Uneven(deviation) if cell.is_multiple_of(2) => deviation,
            Noise::Uneven(deviation) => deviation * 3.0,
        };
        let hit = matches!(self, Noise::Stalls(_)) && generator.below(10) == 0;
        (normal(generator) * deviation).exp() * if hit { 0.8 } else { 1.0 }
    }

    fn runs(self, cell: usize, count: usize, generator: &mut Generator) -> Vec<f64> {
        (0..count).map(|_| self.run(cell, generator)).collect()
    }
}

/// Close to a standard normal variable.
fn normal(generator: &mut Generator) -> f64 {
    let sum: f64 = (0..12)
        .map(|_| generator.below(1 << 20) as f64 / f64::from(1 << 20))
        .sum();
    sum - 6.0
}

/// The share of comparisons of `systems` equal systems with one baseline, under `loads` loads each, that have a false
/// verdict anywhere.
fn false_comparisons(noise: Noise, runs: usize, systems: usize, loads: usize, trials: u64) -> f64 {
    let misled = (0..trials).filter(|trial| {
        let mut generator = Generator::new(0xaa00 + trial);
        let family = Family::of(systems * loads);
        (0..loads).any(|load| {
            let baseline = noise.runs(load, runs, &mut generator);
            (0..systems).any(|system| {
                let other = noise.runs(load + system + 1, runs, &mut generator);
                family.ratio(&baseline, &other).unwrap().is_decided()
            })
        })
    });
    misled.count() as f64 / trials as f64
}

/// Of two builds, one slower by `effect`: five runs each to learn the scatter, then as many as the tool asks for. Gives
/// the share found and the mean number of runs.
fn found_with_runs_asked_for(
    noise: Noise,
    effect: f64,
    verdicts: usize,
    trials: u64,
) -> (f64, f64) {
    let family = Family::of(verdicts);
    let (mut found, mut made) = (0u64, 0u64);
    for trial in 0..trials {
        let mut generator = Generator::new(0xab00 + trial);
        let mut pilot = || noise.runs(0, 5, &mut generator);
        let difference = Difference::between(&pilot(), &pilot()).unwrap();
        let Some(count) = family.runs_to_find(effect, &difference) else {
            continue;
        };
        made += u64::from(count);
        let before = noise.runs(0, count as usize, &mut generator);
        let after = noise.runs(0, count as usize, &mut generator);
        let after: Vec<f64> = after.iter().map(|run| run / (1.0 + effect)).collect();
        let ratio = family.ratio(&before, &after).unwrap();
        found += u64::from(ratio.is_decided() && ratio.ratio > 1.0);
    }
    (found as f64 / trials as f64, made as f64 / trials as f64)
}

/// The share of simultaneous intervals of one comparison that all hold the true ratio.
fn covering(noise: Noise, runs: usize, verdicts: usize, trials: u64) -> f64 {
    let family = Family::of(verdicts);
    let held = (0..trials).filter(|trial| {
        let mut generator = Generator::new(0xac00 + trial);
        (0..verdicts).all(|cell| {
            let over = noise.runs(cell, runs, &mut generator);
            let under = noise.runs(cell, runs, &mut generator);
            let ratio = family.ratio(&over, &under).unwrap();
            ratio.low <= 1.0 && 1.0 <= ratio.high
        })
    });
    held.count() as f64 / trials as f64
}

const NOISES: [Noise; 4] = [
    Noise::Even(0.04),
    Noise::Even(0.11),
    Noise::Stalls(0.04),
    Noise::Uneven(0.05),
];

#[test]
fn equal_systems_are_told_apart_in_one_of_twenty_comparisons_at_most() {
    for noise in NOISES {
        for (runs, systems, loads) in [(5, 1, 1), (5, 9, 3), (3, 9, 3)] {
            // 300 trials of one in twenty scatter by 1.3 %: two deviations are allowed for that. The table has 2,000.
            let misled = false_comparisons(noise, runs, systems, loads, 300);
            assert!(
                misled <= 0.075,
                "{noise:?}, {runs} runs, {systems} systems, {loads} loads: {misled} (seeds 0xaa00…)"
            );
        }
    }
}

#[test]
fn a_change_of_10_percent_is_found_with_the_runs_that_are_asked_for() {
    for noise in [Noise::Even(0.04), Noise::Even(0.08)] {
        let (found, runs) = found_with_runs_asked_for(noise, 0.1, 7, 300);
        assert!(
            found >= 0.8,
            "{noise:?}: {found} with {runs} runs on average (seeds 0xab00…)"
        );
    }
}

#[test]
fn the_intervals_of_a_comparison_hold_together() {
    for noise in NOISES {
        let held = covering(noise, 5, 7, 300);
        assert!(held >= 0.925, "{noise:?}: {held} (seeds 0xac00…)");
    }
}

#[test]
fn a_single_run_decides_nothing() {
    let family = Family::of(1);
    assert_eq!(family.ratio(&[2.0], &[1.0, 1.1]), None);
    let estimate = family.ratio_or_estimate(&[2.0], &[1.0]).unwrap();
    assert!(!estimate.is_decided() && estimate.ratio == 2.0);
    assert!(
        family
            .ratio(&[2.0, 2.1, 2.05], &[1.0, 1.1, 1.05])
            .unwrap()
            .is_decided()
    );
}

#[test]
#[ignore = "prints the table of docs/statistics.md; seconds in a release build"]
fn table() {
    println!("| runs scatter | runs | verdicts | false comparisons | intervals hold together |");
    println!("|--|--|--|--|--|");
    for noise in NOISES {
        for (runs, systems, loads) in [(3, 9, 3), (5, 1, 1), (5, 9, 3), (10, 9, 3)] {
            let verdicts = systems * loads;
            println!(
                "| {noise:?} | {runs} | {verdicts} | {:.1} % | {:.1} % |",
                false_comparisons(noise, runs, systems, loads, 2_000) * 100.0,
                covering(noise, runs, verdicts, 2_000) * 100.0
            );
        }
    }
    println!("\n| runs scatter | slower by | verdicts | runs asked for, mean | found |");
    println!("|--|--|--|--|--|");
    for noise in [Noise::Even(0.04), Noise::Even(0.08), Noise::Stalls(0.04)] {
        for (effect, verdicts) in [(0.05, 7), (0.1, 7), (0.1, 27), (0.2, 27)] {
            let (found, runs) = found_with_runs_asked_for(noise, effect, verdicts, 1_000);
            println!(
                "| {noise:?} | {:.0} % | {verdicts} | {runs:.1} | {:.0} % |",
                effect * 100.0,
                found * 100.0
            );
        }
    }
}
