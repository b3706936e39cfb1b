//! BLEU as sacrebleu counts it by default: 13a tokens, four orders, exponential smoothing, case kept, one reference.

use std::ops::AddAssign;

use super::{is_space, ngrams, shared_ngrams};

const ORDERS: usize = 4;

/// What BLEU needs of a sentence; those of several add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BleuStatistics {
    hypothesis_length: usize,
    reference_length: usize,
    /// N-grams of the hypothesis that are in the reference too, from single tokens on.
    matches: [usize; ORDERS],
    /// N-grams of the hypothesis.
    totals: [usize; ORDERS],
}

impl BleuStatistics {
    pub fn of(hypothesis: &str, reference: &str) -> Self {
        let (hypothesis, reference) = (spaced(hypothesis), spaced(reference));
        let (hypothesis, reference) = (tokens(&hypothesis), tokens(&reference));
        Self {
            hypothesis_length: hypothesis.len(),
            reference_length: reference.len(),
            matches: std::array::from_fn(|order| shared_ngrams(&reference, &hypothesis, order + 1)),
            totals: std::array::from_fn(|order| ngrams(hypothesis.len(), order + 1)),
        }
    }

    /// From 0 to 100. It is 0 where nothing matches, and where no hypothesis has four tokens.
    pub fn score(&self) -> f64 {
        if self.matches == [0; ORDERS] || self.totals.contains(&0) {
            return 0.0;
        }
        let mut smoothed = 1.0;
        let mut logarithms = 0.0;
        for (&matches, &total) in self.matches.iter().zip(&self.totals) {
            let matches = if matches == 0 {
                smoothed /= 2.0;
                smoothed
            } else {
                matches as f64
            };
            logarithms += (matches / total as f64).ln();
        }
        let lengths = self.reference_length as f64 / self.hypothesis_length as f64;
        let brevity = if lengths > 1.0 { (1.0 - lengths).exp() } else { 1.0 };
        100.0 * brevity * (logarithms / ORDERS as f64).exp()
    }
}

impl AddAssign<&Self> for BleuStatistics {
    fn add_assign(&mut self, other: &Self) {
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
        for order in 0..ORDERS {
            self.matches[order] += other.matches[order];
            self.totals[order] += other.totals[order];
        }
    }
}

fn tokens(spaced: &str) -> Vec<&str> {
    spaced.split(is_space).filter(|token| !token.is_empty()).collect()
}

/// The text with spaces between the tokens of mteval's 13a.
fn spaced(text: &str) -> String {
    // A hyphen at the end of a line joins it to the next one; at the end of the text it stays, whatever space follows.
    let text = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    // In this order `&amp;lt;` becomes `<`, and `&amp;quot;` stays an entity.
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let mut spaced = String::from(" ");
    for character in text.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '\'' | ',' | '-' | '.') {
            spaced.extend([' ', character, ' ']);
        } else {
            spaced.push(character);
        }
    }
    spaced.push(' ');
    let is_point = |character| matches!(character, '.' | ',');
    let is_digit = |character: char| character.is_ascii_digit();
    // A point stays within a number, and a hyphen is only cut off a digit before it.
    let spaced = replace_pairs(&spaced, |a, b| !is_digit(a) && is_point(b), |a, b| [a, ' ', b, ' ']);
    let spaced = replace_pairs(&spaced, |a, b| is_point(a) && !is_digit(b), |a, b| [' ', a, ' ', b]);
    replace_pairs(&spaced, |a, b| is_digit(a) && b == '-', |a, b| [a, ' ', b, ' '])
}

/// Replaces neighbours that fit, from left to right: a character is part of one pair at most.
fn replace_pairs(text: &str, fits: impl Fn(char, char) -> bool, with: impl Fn(char, char) -> [char; 4]) -> String {
    let mut replaced = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        match characters.next_if(|&second| fits(first, second)) {
            Some(second) => replaced.extend(with(first, second)),
            None => replaced.push(first),
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::{
        super::reference::{Pair, assert_near, read},
        *,
    };

    #[test]
    fn bleu_of_sentences_and_of_all() {
        let reference = read();
        let mut all = BleuStatistics::default();
        for pair in &reference.pairs {
            let statistics = BleuStatistics::of(&pair.0, &pair.1);
            assert_near(statistics.score(), pair.2.0, (&pair.0, &pair.1));
            all += &statistics;
        }
        assert_near(all.score(), reference.corpus.0, "all");
    }

    #[test]
    fn statistics_add_up() {
        let pairs = read().pairs;
        let sum = |pairs: &[Pair]| {
            let mut sum = BleuStatistics::default();
            pairs.iter().for_each(|pair| sum += &BleuStatistics::of(&pair.0, &pair.1));
            sum
        };
        let (left, right) = pairs.split_at(pairs.len() / 3);
        let mut parts = sum(left);
        parts += &sum(right);
        assert_eq!(parts, sum(&pairs));
    }

    #[test]
    fn tokens_are_those_of_13a() {
        let tokens = |text| tokens(&spaced(text)).join("|");
        assert_eq!(tokens("It's 1,000.5 (or 3-4), e.g. <b>."), "It's|1,000.5|(|or|3|-|4|)|,|e|.|g|.|<|b|>|.");
        assert_eq!(tokens("&amp;lt;&amp;quot;&quot;"), "<|&|quot|;|\"");
        assert_eq!(tokens("well-\nknown <skipped>ends-\n"), "wellknown|ends-");
        assert_eq!(tokens("wait...,5 a..5"), "wait|.|.|.|,5|a|.|.5");
        assert_eq!(tokens(" \t\u{1f}\u{a0}"), "");
    }
}
