//! chrF as sacrebleu counts it by default: characters alone, six orders, recall twice as heavy, no white space.

use super::{is_space, ngrams::Counts};

pub(super) const ORDERS: usize = 6;
/// How many times as much as precision recall matters.
const BETA: f64 = 2.0;

/// What chrF needs of a sentence.
pub(super) fn counts(hypothesis: &str, reference: &str) -> Counts<ORDERS> {
    let characters = |text: &str| text.chars().filter(|&character| !is_space(character)).collect::<Vec<_>>();
    let mut counts = Counts::of(&characters(hypothesis), &characters(reference));
    // A reference that is too short to have any says nothing against the hypothesis.
    counts.0.iter_mut().filter(|order| order.reference == 0).for_each(|order| order.hypothesis = 0);
    counts
}

/// From 0 to 100: of the mean precision and the mean recall over the orders that both texts are long enough for.
pub(super) fn score(counts: &Counts<ORDERS>) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in counts.0.iter().filter(|order| order.hypothesis > 0 && order.reference > 0) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::reference::{assert_near, read},
        *,
    };

    #[test]
    fn chrf_of_sentences_and_of_all() {
        let reference = read();
        let mut all = Counts::default();
        for pair in &reference.pairs {
            let statistics = counts(&pair.0, &pair.1);
            assert_near(score(&statistics), pair.2.1, (&pair.0, &pair.1));
            all += &statistics;
        }
        assert_near(score(&all), reference.corpus.1, "all");
    }

    #[test]
    fn short_texts_are_judged_by_the_orders_they_have() {
        assert_eq!(score(&counts("ab", "a b")), 100.0);
        assert_eq!(score(&counts("", "ab")), 0.0);
        assert_eq!(score(&counts("ab", " ")), 0.0);
        assert_eq!(score(&counts("日本語", "日 本 語")), 100.0);
    }
}
