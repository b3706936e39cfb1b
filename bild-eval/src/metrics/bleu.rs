//! BLEU as sacrebleu counts it by default: 13a tokens, four orders, exponential smoothing, case kept, one reference.

use super::{is_space, ngrams::Counts};

pub(super) const ORDERS: usize = 4;

/// What BLEU needs of a sentence.
pub(super) fn counts(hypothesis: &str, reference: &str) -> Counts<ORDERS> {
    let (hypothesis, reference) = (spaced(hypothesis), spaced(reference));
    Counts::of(&tokens(&hypothesis), &tokens(&reference))
}

/// From 0 to 100. It is 0 where nothing matches, and where no hypothesis has four tokens.
pub(super) fn score(counts: &Counts<ORDERS>) -> f64 {
    let Counts(orders) = counts;
    if orders.iter().all(|order| order.matches == 0) || orders.iter().any(|order| order.hypothesis == 0) {
        return 0.0;
    }
    let mut smoothed = 1.0;
    let mut logarithms = 0.0;
    for order in orders {
        let matches = if order.matches == 0 {
            smoothed /= 2.0;
            smoothed
        } else {
            order.matches as f64
        };
        logarithms += (matches / order.hypothesis as f64).ln();
    }
    let lengths = orders[0].reference as f64 / orders[0].hypothesis as f64;
    let brevity = if lengths > 1.0 { (1.0 - lengths).exp() } else { 1.0 };
    100.0 * brevity * (logarithms / ORDERS as f64).exp()
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
        super::reference::{assert_near, read},
        *,
    };

    #[test]
    fn bleu_of_sentences_and_of_all() {
        let reference = read();
        let mut all = Counts::default();
        for pair in &reference.pairs {
            let statistics = counts(&pair.0, &pair.1);
            assert_near(score(&statistics), pair.2.0, (&pair.0, &pair.1));
            all += &statistics;
        }
        assert_near(score(&all), reference.corpus.0, "all");
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
