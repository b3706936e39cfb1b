//! Random numbers that a seed decides, the same on every machine.

use bild_core::Source;

/// SplitMix64's finalizer: every bit of the result depends on every bit of `x`.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A seed that another source makes another, so that sources with the same seed do not share their luck.
pub(crate) fn of_source(seed: u64, source: &Source) -> u64 {
    source.tokens().iter().fold(seed, |seed, &token| mix(seed ^ (u64::from(token) + 1)))
}

/// A number in [0, 1) that `seed` and `position` decide.
pub(crate) fn uniform(seed: u64, position: u64) -> f32 {
    let bits = mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (bits >> 40) as f32 / (1u64 << 24) as f32
}

/// SplitMix64 (Steele et al. 2014).
pub(crate) struct Generator(u64);

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number in [0, 1), of 53 bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}
