//! N-grams that two texts share.

use std::{collections::HashMap, hash::Hash, ops::AddAssign};

/// The n-grams of a text and its reference, from single tokens on; those of several sentences add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts<const ORDERS: usize>(pub(super) [Order; ORDERS]);

/// The n-grams of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(super) hypothesis: usize,
    pub(super) reference: usize,
    /// N-grams of the hypothesis that are in the reference too.
    pub(super) matches: usize,
}

impl<const ORDERS: usize> Counts<ORDERS> {
    pub(super) fn of<T: Eq + Hash>(hypothesis: &[T], reference: &[T]) -> Self {
        Self(std::array::from_fn(|order| Order {
            hypothesis: ngrams(hypothesis.len(), order + 1),
            reference: ngrams(reference.len(), order + 1),
            matches: shared_ngrams(reference, hypothesis, order + 1),
        }))
    }
}

impl<const ORDERS: usize> Default for Counts<ORDERS> {
    fn default() -> Self {
        Self([Order::default(); ORDERS])
    }
}

impl<const ORDERS: usize> AddAssign<&Self> for Counts<ORDERS> {
    fn add_assign(&mut self, other: &Self) {
        for (order, other) in self.0.iter_mut().zip(&other.0) {
            order.hypothesis += other.hypothesis;
            order.reference += other.reference;
            order.matches += other.matches;
        }
    }
}

/// How many n-grams a sequence of `length` has.
pub(super) fn ngrams(length: usize, n: usize) -> usize {
    (length + 1).saturating_sub(n)
}

/// How many n-grams two sequences share. One that is in both several times counts as often as the fewer.
pub(super) fn shared_ngrams<T: Eq + Hash>(left: &[T], right: &[T], n: usize) -> usize {
    let mut unmatched: HashMap<&[T], usize> = HashMap::new();
    for ngram in left.windows(n) {
        *unmatched.entry(ngram).or_default() += 1;
    }
    let mut take = |ngram: &[T]| match unmatched.get_mut(ngram) {
        Some(left @ 1..) => {
            *left -= 1;
            true
        }
        _ => false,
    };
    right.windows(n).filter(|ngram| take(ngram)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut sum = Counts::<2>::of(b"ab", b"abc");
        sum += &Counts::of(b"ba", b"b");
        let order = |hypothesis, reference, matches| Order { hypothesis, reference, matches };
        assert_eq!(sum, Counts([order(4, 4, 3), order(2, 2, 1)]));
    }

    #[test]
    fn shared_ngrams_are_counted_as_often_as_the_fewer() {
        assert_eq!(shared_ngrams(b"aaab", b"abaa", 1), 4);
        assert_eq!(shared_ngrams(b"aaab", b"abaa", 2), 2);
        assert_eq!(shared_ngrams(b"ab", b"abc", 3), 0);
        assert_eq!((ngrams(2, 2), ngrams(2, 3), ngrams(0, 1), ngrams(0, 6)), (1, 0, 0, 0));
    }
}
