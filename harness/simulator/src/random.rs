//! The simulation's own randomness: one seed, one run, on any machine. Integers only: the logarithm of one machine's
//! library need not be that of another's.

/// A generator (splitmix64, Steele et al. 2014). Every use has a stream of its own, so that what one fault draws does
/// not move what another one draws.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd605_bbb5_8c8a_bbfd));
        random.0 = random.next().wrapping_add(stream);
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, or 0 if the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// Both ends included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a thousand cases. Draws nothing where the answer is fixed.
    pub fn permille(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Roughly exponential with this mean, by linear pieces between powers of two; at most 44 times the mean.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let drawn = self.next();
        let zeros = drawn.leading_zeros();
        let mantissa = (drawn << zeros) >> 48 & 0x7fff;
        // -log2 of a number in (0, 1], in units of 2^-15, times ln 2.
        let bits = (u64::from(zeros) + 1) * 0x8000 - mantissa;
        let nats = (bits * 45_426) >> 16;
        ((u128::from(mean) * u128::from(nats)) >> 15) as u64
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = self.below(end as u64 + 1) as usize;
            items.swap(end, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_draws_have_about_the_mean_asked_for() {
        let mut random = Random::new(1, 2);
        let sum: u64 = (0..20_000).map(|_| random.exponential(1_000_000)).sum();
        let mean = sum / 20_000;
        assert!((900_000..1_100_000).contains(&mean), "{mean}");
    }

    #[test]
    fn streams_of_one_seed_differ() {
        assert_ne!(Random::new(1, 1).next(), Random::new(1, 2).next());
        assert_ne!(Random::new(1, 1).next(), Random::new(2, 1).next());
    }
}
