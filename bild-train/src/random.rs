//! Random numbers that are functions of a seed and a position: nothing but the position is to be stored, and no two trainings in one
//! process disturb each other. (Burn's generators are one per backend and process.)

use std::f64::consts::TAU;

/// A well-mixed function of two numbers.
pub(crate) fn mix(seed: u64, position: u64) -> u64 {
    let mut x = seed ^ position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for multiplier in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 30)).wrapping_mul(multiplier);
        x ^= x >> 27;
    }
    x ^ (x >> 31)
}

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    seed: u64,
    position: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: mix(seed, 0), position: 0 }
    }

    fn next(&mut self) -> u64 {
        self.position += 1;
        mix(self.seed, self.position)
    }

    /// In (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A number of the normal distribution, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// The places of one pass through a model at which numbers are dropped.
#[derive(Clone, Debug)]
pub struct Dropouts {
    rate: f32,
    seed: u64,
    places: u64,
}

impl Dropouts {
    /// Drops each number with probability `rate` and scales the others up; which of them are dropped depends on the seed alone.
    pub fn new(rate: f32, seed: u64) -> Self {
        Self { rate, seed, places: 0 }
    }

    /// Drops nothing.
    pub fn none() -> Self {
        Self::new(0.0, 0)
    }

    /// The next place.
    pub fn next_place(&mut self) -> Dropout {
        self.places += 1;
        let mixed = mix(self.seed, self.places);
        Dropout {
            threshold: (f64::from(self.rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - self.rate),
            factor: mixed as u32 | 1,
            offset: (mixed >> 32) as u32,
        }
    }
}

/// Which numbers are dropped at one place.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Where the hash of an index is below it, the number is dropped.
    threshold: u32,
    scale: f32,
    factor: u32,
    offset: u32,
}

impl Dropout {
    /// Whether nothing is dropped.
    pub fn is_none(&self) -> bool {
        self.threshold == 0
    }

    /// What the number at `index` is multiplied by: 0, or the inverse of the probability that it is kept.
    #[inline(always)]
    pub fn factor(&self, index: u32) -> f32 {
        let mut x = index.wrapping_mul(self.factor).wrapping_add(self.offset);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        if x >= self.threshold { self.scale } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_dropped_and_elsewhere_others_are() {
        let mut dropouts = Dropouts::new(0.1, 7);
        let [first, second] = [dropouts.next_place(), dropouts.next_place()];
        let count = 100_000;
        let dropped = |place: Dropout| (0..count).filter(move |&i| place.factor(i) == 0.0);
        assert!((dropped(first).count() as f64 / f64::from(count) - 0.1).abs() < 0.004);
        let both = dropped(first).filter(|&i| second.factor(i) == 0.0).count();
        assert!((both as f64 / f64::from(count) - 0.01).abs() < 0.002);
        let sum: f32 = (0..count).map(|i| first.factor(i)).sum();
        assert!((sum / count as f32 - 1.0).abs() < 0.01);
        assert_eq!(Dropouts::new(0.1, 7).next_place().factor(5), first.factor(5));
        assert!((0..1000).all(|i| Dropouts::none().next_place().factor(i) == 1.0));
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut random = Random::new(3);
        let numbers: Vec<f64> = (0..50_000).map(|_| random.normal()).collect();
        let mean = |f: fn(f64) -> f64| numbers.iter().map(|&x| f(x)).sum::<f64>() / numbers.len() as f64;
        assert!(mean(|x| x).abs() < 0.02 && (mean(|x| x * x) - 1.0).abs() < 0.03);
        assert!((mean(|x| x.powi(4)) - 3.0).abs() < 0.2);
    }
}
