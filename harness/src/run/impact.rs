//! What clients saw of each fault: how long nothing was acknowledged, and when the throughput was back.

use crate::load::recorder::INTERVAL_MS;
use crate::run::faults::FaultReport;

const INTERVAL_NS: u64 = INTERVAL_MS * 1_000_000;
/// Of what was usual before the first fault, this share counts as full.
const FULL_MIN: f64 = 0.9;
/// The throughput is back when the mean of this many intervals is.
const BACK_INTERVALS: usize = 5;

/// What nobody told: of a load that kept no silences, whole intervals without an acknowledgement. Shorter than they were.
pub fn silent_intervals(acknowledged: &[u64]) -> Vec<(u64, u64)> {
    let mut silences: Vec<(u64, u64)> = Vec::new();
    for (index, count) in (0..).zip(acknowledged) {
        let (begin, end) = (index * INTERVAL_NS, (index + 1) * INTERVAL_NS);
        match silences.last_mut() {
            _ if *count > 0 => {}
            Some((_, last)) if *last == begin => *last = end,
            Some(_) | None => silences.push((begin, end)),
        }
    }
    silences
}

/// Fills in the gap and the time to full throughput of every fault. `silences` are in nanoseconds of the window,
/// `acknowledged` is per interval of it.
pub fn judge(faults: &mut [FaultReport], silences: &[(u64, u64)], acknowledged: &[u64]) {
    let begins: Vec<u64> = faults.iter().map(|fault| fault.killed_at_ms).collect();
    let end_ms = acknowledged.len() as u64 * INTERVAL_MS;
    let Some(usual) = begins
        .first()
        .map(|begin| median(before(acknowledged, *begin)))
    else {
        return;
    };
    for (index, fault) in faults.iter_mut().enumerate() {
        let from_ms = fault.killed_at_ms;
        let until_ms = begins.get(index + 1).copied().unwrap_or(end_ms);
        let gap = longest(silences, &begins, index);
        fault.gap_ms = gap.map(|(begin, end)| (end - begin) as f64 / 1e6);
        let quiet_until_ms = gap.map_or(from_ms, |(_, end)| (end / 1_000_000).max(from_ms));
        fault.full_after_ms = usual
            .and_then(|usual| full_from(acknowledged, quiet_until_ms, until_ms, usual))
            .map(|full_ms| full_ms.max(quiet_until_ms) - from_ms);
    }
}

fn before(acknowledged: &[u64], begin_ms: u64) -> &[u64] {
    let count = (begin_ms / INTERVAL_MS) as usize;
    &acknowledged[..count.min(acknowledged.len())]
}

/// `None` of nothing: a fault at the very begin has nothing to compare with.
fn median(intervals: &[u64]) -> Option<f64> {
    let mut sorted = intervals.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map(|count| *count as f64)
}

/// The longest silence of the fault with this index.
fn longest(silences: &[(u64, u64)], begins_ms: &[u64], index: usize) -> Option<(u64, u64)> {
    let of_fault = silences
        .iter()
        .filter(|silence| owner(**silence, begins_ms) == Some(index));
    of_fault.max_by_key(|(begin, end)| end - begin).copied()
}

/// The fault in whose time, up to the next one, most of a silence lies: it begins with the last acknowledgement, which is
/// a little before its cause. `None`: it was over before the first fault.
fn owner((begin, end): (u64, u64), begins_ms: &[u64]) -> Option<usize> {
    let mut most = (0, None);
    for (index, from_ms) in begins_ms.iter().enumerate() {
        let next_ms = begins_ms.get(index + 1);
        let until = next_ms.map_or(u64::MAX, |ms| ms * 1_000_000);
        let common = end
            .min(until)
            .saturating_sub(begin.max(from_ms * 1_000_000));
        if common > most.0 {
            most = (common, Some(index));
        }
    }
    most.1
}

/// When the intervals from then on have the usual throughput again, in milliseconds of the window.
fn full_from(acknowledged: &[u64], from_ms: u64, until_ms: u64, usual: f64) -> Option<u64> {
    let first = from_ms.div_ceil(INTERVAL_MS) as usize;
    let last = ((until_ms / INTERVAL_MS) as usize).min(acknowledged.len());
    let stretch = acknowledged.get(first..last)?;
    let wanted = FULL_MIN * usual * BACK_INTERVALS as f64;
    let at = stretch
        .windows(BACK_INTERVALS)
        .position(|window| window.iter().sum::<u64>() as f64 >= wanted)?;
    Some((first + at) as u64 * INTERVAL_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(at_ms: u64) -> FaultReport {
        FaultReport {
            kind: "kill-leader".into(),
            fault: String::new(),
            replicas: vec![1],
            killed_at_ms: at_ms,
            ready_at_ms: at_ms + 1_000,
            gap_ms: None,
            full_after_ms: None,
        }
    }

    /// 100 per interval, nothing from 1.05 to 1.45 s, two fifths of it until 2 s; a second fault at 3 s that lasts.
    #[test]
    fn each_fault_has_its_own_gap_and_return() {
        let mut acknowledged = vec![100; 50];
        acknowledged[10..14].fill(0);
        acknowledged[14..20].fill(40);
        acknowledged[30..].fill(10);
        let silences = [
            (500_000_000, 508_000_000),
            (1_050_000_000, 1_450_000_000),
            (2_995_000_000, 3_030_000_000),
        ];
        let mut faults = [fault(1_000), fault(3_000)];
        judge(&mut faults, &silences, &acknowledged);
        assert_eq!(faults[0].gap_ms, Some(400.0));
        assert_eq!(faults[0].full_after_ms, Some(1_000));
        assert_eq!(faults[1].gap_ms, Some(35.0));
        assert_eq!(faults[1].full_after_ms, None, "it never came back");
    }

    #[test]
    fn a_silence_belongs_to_the_fault_that_most_of_it_follows() {
        for (silence_ms, expected) in [
            ((500, 990), None),
            ((500, 1_010), Some(0)),
            ((2_990, 3_500), Some(1)),
            ((2_000, 3_100), Some(0)),
            ((3_100, 9_000), Some(1)),
        ] {
            let silence = (silence_ms.0 * 1_000_000, silence_ms.1 * 1_000_000);
            assert_eq!(owner(silence, &[1_000, 3_000]), expected, "{silence_ms:?}");
        }
    }

    #[test]
    fn a_fault_that_nobody_notices_has_no_gap_and_is_over_at_once() {
        let mut faults = [fault(1_000)];
        judge(&mut faults, &[], &[100; 30]);
        assert_eq!((faults[0].gap_ms, faults[0].full_after_ms), (None, Some(0)));
    }

    #[test]
    fn intervals_without_an_acknowledgement_are_silences() {
        let silences = silent_intervals(&[5, 0, 0, 1, 0]);
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(silences, [(ms(100), ms(300)), (ms(400), ms(500))]);
    }

    #[test]
    fn nothing_before_is_nothing_to_compare_with() {
        let mut faults = [fault(0)];
        judge(&mut faults, &[(0, 900_000_000)], &[100; 30]);
        assert_eq!(faults[0].gap_ms, Some(900.0));
        assert_eq!(faults[0].full_after_ms, None);
    }
}
