//! Tests by chance that can be repeated.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Names the seed of a run that is to be repeated, as far as chance is not the scheduler's.
const SEED: &str = "MAINSTAY_TEST_SEED";

/// Numbers by chance. Source: Marsaglia, "Xorshift RNGs", 2003.
pub(crate) struct Chance(u64);

impl Chance {
    /// The seed that is asked for, or any; it is printed.
    pub(crate) fn new() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0) | 1);
        println!("{SEED}={seed}");
        Self(seed)
    }

    /// Other numbers, which follow from the same seed. Source: `splitmix64`, since the generator's own
    /// numbers are its states, too.
    pub(crate) fn fork(&mut self) -> Self {
        let mut seed = self.next();
        seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((seed ^ (seed >> 31)) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether something happens that happens once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of several, of which there is at least one.
    pub(crate) fn pick<T: Copy>(&mut self, several: &[T]) -> T {
        several[self.index(several.len())]
    }

    /// The place of one of so many.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        let at = self.below(u64::try_from(count).unwrap());
        usize::try_from(at).unwrap()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
