//! Which fault strikes when: drawn from the seed alone, so that a seed repeats it. Whom it strikes may depend on who
//! leads at that time; what is left to chance there is drawn here as well.

use serde::Serialize;

use super::fault::{Fault, Lane};
use super::random::Random;
use crate::failure::usage;

/// Faults of one lane follow each other about this fast.
const PACE_MS: u64 = 3_500;
/// A fault needs this much time to strike and to be undone.
const SLOT_MS_MIN: u64 = 1_500;
/// The cluster has this much peace at first.
const START_MS: u64 = 1_000;
/// And at the end, in which it has to converge: this share of a run, within these bounds.
const CALM_SHARE: u64 = 4;
const CALM_MS: std::ops::RangeInclusive<u64> = 3_000..=8_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub fault: Fault,
    pub at_ms: u64,
    pub lasts_ms: u64,
    /// Prefer the leader as the victim.
    pub leader: bool,
    /// Decides everything else.
    pub draw: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    pub calm_from_ms: u64,
    pub processes: Vec<Planned>,
    pub network: Vec<Planned>,
}

impl Schedule {
    /// Fails if the time is too short for every fault to strike once.
    pub fn new(seed: u64, seconds: u32, faults: &[Fault]) -> anyhow::Result<Schedule> {
        let total_ms = u64::from(seconds) * 1_000;
        let calm_ms = (total_ms / CALM_SHARE).clamp(*CALM_MS.start(), *CALM_MS.end());
        let calm_from_ms = total_ms.saturating_sub(calm_ms);
        let mut random = Random::new(seed, 1);
        let mut lane = |lane: Lane| -> anyhow::Result<Vec<Planned>> {
            let deck: Vec<Fault> = faults
                .iter()
                .copied()
                .filter(|f| f.lane() == lane)
                .collect();
            let needed = deck.len() as u64 * SLOT_MS_MIN + START_MS;
            if needed > calm_from_ms {
                return Err(usage(format!(
                    "--seconds {seconds}: too short for each of {} faults of the {} to strike: at least {}",
                    deck.len(),
                    lane.name(),
                    seconds_needed(needed)
                )));
            }
            Ok(plan_lane(&deck, calm_from_ms, &mut random))
        };
        Ok(Schedule {
            calm_from_ms,
            processes: lane(Lane::Processes)?,
            network: lane(Lane::Network)?,
        })
    }
}

/// The least whole seconds of a run that leave `faults_ms` before its calm end.
fn seconds_needed(faults_ms: u64) -> u64 {
    let by_share = (faults_ms * CALM_SHARE).div_ceil(CALM_SHARE - 1);
    let calm_ms = (by_share / CALM_SHARE).clamp(*CALM_MS.start(), *CALM_MS.end());
    (faults_ms + calm_ms).div_ceil(1_000)
}

/// Equal slots, a fault in each: the shuffled deck again and again, so that each comes before any comes twice.
fn plan_lane(deck: &[Fault], until_ms: u64, random: &mut Random) -> Vec<Planned> {
    let window_ms = until_ms - START_MS;
    let slots = (window_ms / PACE_MS).max(deck.len() as u64);
    let slot_ms = window_ms / slots.max(1);
    let mut planned = Vec::new();
    let mut left: Vec<Fault> = Vec::new();
    for slot in 0..slots {
        if left.is_empty() {
            left = deck.to_vec();
            random.shuffle(&mut left);
        }
        let Some(fault) = left.pop() else {
            return planned;
        };
        let lasts_ms = random.within(fault.lasts_ms()).min(slot_ms * 6 / 10);
        planned.push(Planned {
            fault,
            at_ms: START_MS + slot * slot_ms + random.below(slot_ms - lasts_ms),
            lasts_ms,
            leader: random.percent(50),
            draw: random.next(),
        });
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        let plan = |seed| Schedule::new(seed, 60, &Fault::ALL).unwrap();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_fault_comes_and_ends_before_the_calm() {
        for seed in 0..200 {
            for seconds in [30, 60, 600] {
                let schedule = Schedule::new(seed, seconds, &Fault::ALL).unwrap();
                let mut seen: Vec<Fault> = Vec::new();
                for lane in [&schedule.processes, &schedule.network] {
                    let mut free_from = 0;
                    for planned in lane {
                        let what = format!("seed {seed}: {planned:?}");
                        assert!(planned.at_ms >= free_from, "{what}");
                        free_from = planned.at_ms + planned.lasts_ms;
                        assert!(free_from < schedule.calm_from_ms, "{what}");
                        seen.push(planned.fault);
                    }
                }
                for fault in Fault::ALL {
                    assert!(seen.contains(&fault), "seed {seed}: {fault:?} is missing");
                }
            }
        }
    }

    #[test]
    fn a_run_too_short_says_how_long_it_has_to_be() {
        for faults in [&Fault::ALL[..], &Fault::ALL[..1], &Fault::ALL[..4]] {
            let shortest = (1..60).find(|s| Schedule::new(1, *s, faults).is_ok());
            let shortest = shortest.expect("a minute is enough");
            let error = Schedule::new(1, shortest - 1, faults).expect_err("too short");
            assert!(error.to_string().contains("too short"), "{error}");
            if shortest > 6 {
                assert!(
                    error.to_string().ends_with(&format!("at least {shortest}")),
                    "{error}"
                );
            }
        }
        assert_eq!(Schedule::new(1, 10, &[]).unwrap().network, []);
    }
}
