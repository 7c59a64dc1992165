//! The rank-sum test (Wilcoxon 1945; Mann and Whitney 1947): are the figures of one group higher? It assumes nothing
//! about how figures scatter.

/// Beyond this many figures together the normal approximation is as good as counting.
const COUNTED_MAX: usize = 60;

/// The two-sided probability that two groups of one kind differ in their rank sum by as much as these. 1 of nothing.
pub fn rank_sum_p(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let ranks = doubled_ranks(a, b);
    let sum: usize = ranks[..a.len()].iter().sum();
    if ranks.len() <= COUNTED_MAX {
        counted(&ranks, a.len(), sum)
    } else {
        approximated(&ranks, a.len(), sum)
    }
}

/// Twice the rank of each figure, so that the mean rank of equal figures is whole.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let rank = |figure: &f64| {
        let below = all.iter().filter(|other| *other < figure).count();
        let equal = all.iter().filter(|other| *other == figure).count();
        2 * below + equal + 1
    };
    all.iter().map(rank).collect()
}

/// Counts for every possible sum how many choices of `size` ranks have it.
fn counted(ranks: &[usize], size: usize, sum: usize) -> f64 {
    let total: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0f64; total + 1]; size + 1];
    ways[0][0] = 1.0;
    for rank in ranks {
        for chosen in (1..=size).rev() {
            for reached in (*rank..=total).rev() {
                ways[chosen][reached] += ways[chosen - 1][reached - rank];
            }
        }
    }
    // In units of 1/len, so that distances from the mean are whole numbers.
    let distance = |sum: usize| (sum * ranks.len()).abs_diff(total * size);
    let all: f64 = ways[size].iter().sum();
    let as_far = ways[size].iter().enumerate();
    let as_far = as_far.filter(|(other, _)| distance(*other) >= distance(sum));
    as_far.map(|(_, ways)| ways).sum::<f64>() / all
}

/// The sum of ranks drawn without replacement is close to normal.
fn approximated(ranks: &[usize], size: usize, sum: usize) -> f64 {
    let n = ranks.len() as f64;
    let mean = ranks.iter().sum::<usize>() as f64 / n;
    let variance = ranks.iter().map(|rank| (*rank as f64 - mean).powi(2));
    let variance = variance.sum::<f64>() / (n - 1.0);
    let of_sum = variance * size as f64 * (1.0 - size as f64 / n);
    if of_sum == 0.0 {
        return 1.0;
    }
    let score = (sum as f64 - mean * size as f64).abs() / of_sum.sqrt();
    super::student_two_sided_p(score, n - 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Deals the figures out in every possible way.
    fn naive(a: &[f64], b: &[f64]) -> f64 {
        let all: Vec<f64> = a.iter().chain(b).copied().collect();
        let wins = |chosen: u32| {
            let (mut wins, mut pairs) = (0.0f64, 0.0);
            for (i, x) in all.iter().enumerate() {
                for (j, y) in all.iter().enumerate() {
                    if chosen >> i & 1 == 1 && chosen >> j & 1 == 0 {
                        pairs += 1.0;
                        wins += if x > y {
                            1.0
                        } else if x == y {
                            0.5
                        } else {
                            0.0
                        };
                    }
                }
            }
            (wins - pairs / 2.0).abs()
        };
        let ours = wins((1 << a.len()) - 1);
        let deals = (0..1u32 << all.len()).filter(|deal| deal.count_ones() as usize == a.len());
        let (mut as_far, mut count) = (0.0, 0.0);
        for deal in deals {
            count += 1.0;
            as_far += f64::from(u8::from(wins(deal) >= ours));
        }
        as_far / count
    }

    proptest! {
        #[test]
        fn counting_is_dealing_out(
            a in prop::collection::vec(0..8u8, 1..6),
            b in prop::collection::vec(0..8u8, 1..6),
        ) {
            let a: Vec<f64> = a.into_iter().map(f64::from).collect();
            let b: Vec<f64> = b.into_iter().map(f64::from).collect();
            prop_assert!((rank_sum_p(&a, &b) - naive(&a, &b)).abs() < 1e-12);
        }
    }

    #[test]
    fn known_probabilities() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0];
        let b = [6.0, 7.0, 8.0, 9.0, 10.0];
        assert!((rank_sum_p(&a, &b) - 2.0 / 252.0).abs() < 1e-12);
        assert_eq!(rank_sum_p(&a, &a), 1.0);
        assert_eq!(rank_sum_p(&a, &[]), 1.0);
        let low: Vec<f64> = (0..40).map(f64::from).collect();
        let high: Vec<f64> = (20..60).map(f64::from).collect();
        assert!(rank_sum_p(&low, &high) < 1e-4);
        assert!(rank_sum_p(&low, &low) > 0.99);
    }
}
