//! chrF as sacrebleu counts it by default: characters alone, six orders, recall twice as heavy, no white space.

use std::ops::AddAssign;

use super::{is_space, ngrams, shared_ngrams};

const ORDERS: usize = 6;
/// How many times as much as precision recall matters.
const BETA: f64 = 2.0;

/// What chrF needs of a sentence; those of several add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChrfStatistics([Order; ORDERS]);

/// The n-grams of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Order {
    hypothesis: usize,
    reference: usize,
    matches: usize,
}

impl ChrfStatistics {
    pub fn of(hypothesis: &str, reference: &str) -> Self {
        let characters = |text: &str| text.chars().filter(|&character| !is_space(character)).collect::<Vec<_>>();
        let (hypothesis, reference) = (characters(hypothesis), characters(reference));
        Self(std::array::from_fn(|order| {
            let n = order + 1;
            let in_reference = ngrams(reference.len(), n);
            Order {
                // A reference that is too short to have any says nothing against the hypothesis.
                hypothesis: if in_reference == 0 { 0 } else { ngrams(hypothesis.len(), n) },
                reference: in_reference,
                matches: shared_ngrams(&reference, &hypothesis, n),
            }
        }))
    }

    /// From 0 to 100: of the mean precision and the mean recall over the orders that both texts are long enough for.
    pub fn score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for order in self.0.iter().filter(|order| order.hypothesis > 0 && order.reference > 0) {
            precision += order.matches as f64 / order.hypothesis as f64;
            recall += order.matches as f64 / order.reference as f64;
            orders += 1.0;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let weight = BETA * BETA;
        100.0 * (1.0 + weight) * precision * recall / (weight * precision + recall) / orders
    }
}

impl AddAssign<&Self> for ChrfStatistics {
    fn add_assign(&mut self, other: &Self) {
        for (order, other) in self.0.iter_mut().zip(&other.0) {
            order.hypothesis += other.hypothesis;
            order.reference += other.reference;
            order.matches += other.matches;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::reference::{Pair, assert_near, read},
        *,
    };

    #[test]
    fn chrf_of_sentences_and_of_all() {
        let reference = read();
        let mut all = ChrfStatistics::default();
        for pair in &reference.pairs {
            let statistics = ChrfStatistics::of(&pair.0, &pair.1);
            assert_near(statistics.score(), pair.2.1, (&pair.0, &pair.1));
            all += &statistics;
        }
        assert_near(all.score(), reference.corpus.1, "all");
    }

    #[test]
    fn statistics_add_up() {
        let pairs = read().pairs;
        let sum = |pairs: &[Pair]| {
            let mut sum = ChrfStatistics::default();
            pairs.iter().for_each(|pair| sum += &ChrfStatistics::of(&pair.0, &pair.1));
            sum
        };
        let (left, right) = pairs.split_at(pairs.len() / 3);
        let mut parts = sum(left);
        parts += &sum(right);
        assert_eq!(parts, sum(&pairs));
    }

    #[test]
    fn short_texts_are_judged_by_the_orders_they_have() {
        assert_eq!(ChrfStatistics::of("ab", "a b").score(), 100.0);
        assert_eq!(ChrfStatistics::of("", "ab").score(), 0.0);
        assert_eq!(ChrfStatistics::of("ab", " ").score(), 0.0);
        assert_eq!(ChrfStatistics::of("日本語", "日 本 語").score(), 100.0);
    }
}
