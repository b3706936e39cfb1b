//! Short lists of tokens to draft with, learned from outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bild::{decode::Token, models::Shortlist};
use serde::{Deserialize, Serialize};

/// A source with what a big model wrote for it, in tokens.
pub type Pair = (Vec<Token>, Vec<Token>);

/// How many tokens are called frequent where nobody says: a tenth of a vocabulary, at most 1,500.
pub fn frequent(vocabulary: usize) -> usize {
    (vocabulary / 10).min(1500)
}

/// Learns a [`Shortlist`] from outputs: the `frequent` most frequent of their tokens and, for each token of a source, at most `beside`
/// others that it explains best. What explains what is found by the expectation of IBM's model 1 (Brown et al., 1993), over the
/// tokens that are not frequent anyway. The same outputs give the same list.
pub fn learn(pairs: &[Pair], frequent: usize, beside: usize) -> Shortlist {
    let mut counts: BTreeMap<Token, usize> = BTreeMap::new();
    pairs.iter().flat_map(|(_, output)| output).for_each(|&token| *counts.entry(token).or_default() += 1);
    let mut by_count: Vec<(usize, Token)> = counts.into_iter().map(|(token, count)| (count, token)).collect();
    by_count.sort_unstable_by(|(a, x), (b, y)| b.cmp(a).then(x.cmp(y)));
    let most: BTreeSet<Token> = by_count.iter().take(frequent).map(|&(_, token)| token).collect();
    let mut list = Shortlist::new(most.iter().copied());
    for (source, explained) in explained(pairs, &most) {
        let mut explained: Vec<(f64, Token)> =
            explained.into_iter().filter(|&(_, count)| count > 0.1).map(|(token, count)| (count, token)).collect();
        explained.sort_unstable_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
        if !explained.is_empty() {
            list = list.with_beside(source, explained.into_iter().take(beside).map(|(_, token)| token));
        }
    }
    list
}

/// How often each token of the outputs, but for `most`, is explained by each token of the sources.
fn explained(pairs: &[Pair], most: &BTreeSet<Token>) -> BTreeMap<Token, BTreeMap<Token, f64>> {
    /// After so many rounds the order of what is likely hardly changes.
    const ROUNDS: usize = 4;
    let mut probability: HashMap<(Token, Token), f64> = HashMap::new();
    let mut counts = BTreeMap::new();
    for round in 0..ROUNDS {
        counts = BTreeMap::<Token, BTreeMap<Token, f64>>::new();
        for (source, output) in pairs {
            for &token in output.iter().filter(|token| !most.contains(token)) {
                let weight = |from: Token| match round {
                    0 => 1.0,
                    _ => probability.get(&(from, token)).copied().unwrap_or_default(),
                };
                let sum: f64 = source.iter().map(|&from| weight(from)).sum();
                for &from in source.iter().filter(|_| sum > 0.0) {
                    *counts.entry(from).or_default().entry(token).or_default() += weight(from) / sum;
                }
            }
        }
        probability.clear();
        for (&from, explained) in &counts {
            let sum: f64 = explained.values().sum();
            probability.extend(explained.iter().map(|(&token, count)| ((from, token), count / sum)));
        }
    }
    counts
}

/// What a [`Shortlist`] covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Coverage {
    /// The outputs that it was looked at for.
    pub outputs: usize,
    /// The share of their tokens that are in the list of their source.
    pub covered: f64,
    /// How many tokens the list of a source has in the mean.
    pub tokens: f64,
}

impl Coverage {
    /// Of outputs that the list was not learned from; the tokens `end` are in every list.
    pub fn measure(list: &Shortlist, pairs: &[Pair], end: &[Token]) -> Self {
        let (mut all, mut covered, mut tokens) = (0, 0, 0);
        for (source, output) in pairs {
            let scored = list.tokens(source);
            all += output.len();
            covered +=
                output.iter().filter(|&token| end.contains(token) || scored.binary_search(token).is_ok()).count();
            tokens += scored.len();
        }
        let mean = |sum: usize, count: usize| sum as f64 / count.max(1) as f64;
        Self { outputs: pairs.len(), covered: mean(covered, all), tokens: mean(tokens, pairs.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each word has its translation, between words that are everywhere.
    fn pairs() -> Vec<Pair> {
        (0..40u32).map(|i| (vec![10 + i % 8, 30 + i % 5, 1], vec![2, 50 + i % 8, 2, 70 + i % 5, 1])).collect()
    }

    #[test]
    fn what_is_frequent_and_what_stands_beside_a_source_is_listed() {
        let list = learn(&pairs(), 2, 1);
        assert_eq!(list.frequent().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(list.tokens(&[13, 32]), [1, 2, 13, 32, 53, 72]);
        let found = Coverage::measure(&list, &pairs(), &[]);
        assert_eq!((found.outputs, found.covered, found.tokens), (40, 1.0, 6.8), "the end of a source brings one too");
        let found = Coverage::measure(&learn(&pairs(), 1, 0), &pairs(), &[1]);
        assert_eq!((found.covered, found.tokens), (0.6, 4.0), "the most frequent and the end of five");
    }

    #[test]
    fn nothing_is_learned_from_nothing() {
        assert_eq!(learn(&[], 5, 5), Shortlist::default());
        assert_eq!(learn(&[(vec![1], vec![])], 5, 5), Shortlist::default());
        assert_eq!(Coverage::measure(&Shortlist::default(), &[], &[]).covered, 0.0);
    }
}
