//! The random stream: SplitMix64, written out so that no dependency's update can change a seed's bytes.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), with the constants
//! of the reference `splitmix64.c`.

/// A seeded stream of numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, by multiplication: its bias, `bound` / 2^64, is too small to be seen in any
    /// run, and a rejection loop would only slow the stream down.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_the_published_one() {
        // First outputs of the reference splitmix64.c for seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn below_reaches_both_ends_and_nothing_else() {
        let mut random = Random::new(42);
        let mut seen = [0u32; 3];
        (0..3000).for_each(|_| seen[random.below(3) as usize] += 1);
        assert!(seen.iter().all(|&n| n > 900), "{seen:?}");
    }
}
