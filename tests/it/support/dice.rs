//! Repeatable chance: a seed gives the same story again.

use std::time::Duration;

/// A small generator (splitmix64); its seed is printed, so that a failure can be played again.
pub(crate) struct Dice(u64);

impl Dice {
    /// Begins from `TIDINGS_STORY_SEED`, or from a seed of the moment.
    pub(crate) fn thrown(story: &str) -> Self {
        let seed = option_seed().unwrap_or_else(|| {
            let since = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
            u64::from(since.subsec_nanos()) ^ since.as_secs().rotate_left(32)
        });
        println!("{story}: TIDINGS_STORY_SEED={seed}");
        Self(seed)
    }

    /// Begins from this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of 64 bits.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// At most this long.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).expect("a short wait") + 1))
    }

    /// Draws one of these items; `None` if there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(usize::try_from(self.below(items.len() as u64)).ok()?) }
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

fn option_seed() -> Option<u64> {
    super::setting("TIDINGS_STORY_SEED")
}
