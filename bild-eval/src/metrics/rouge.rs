//! ROUGE-1, ROUGE-2 and ROUGE-L as rouge-score counts them: lower-case words of ASCII letters and digits.

use std::ops::AddAssign;

use serde::Serialize;

use super::{
    ngrams::{ngrams, shared_ngrams},
    porter,
};

/// F-measures, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rouge {
    pub(super) rouge1: f64,
    pub(super) rouge2: f64,
    /// Of the longest common subsequence of the whole texts; lines are not told apart.
    pub(super) rouge_l: f64,
}

impl AddAssign<&Self> for Rouge {
    fn add_assign(&mut self, other: &Self) {
        self.rouge1 += other.rouge1;
        self.rouge2 += other.rouge2;
        self.rouge_l += other.rouge_l;
    }
}

/// With `stem`, words that differ in their endings alone are the same word.
pub(super) fn rouge(hypothesis: &str, reference: &str, stem: bool) -> Rouge {
    let (hypothesis, reference) = (words(hypothesis, stem), words(reference, stem));
    let of_ngrams = |n| {
        let matches = shared_ngrams(&reference, &hypothesis, n);
        f_measure(matches, ngrams(hypothesis.len(), n), ngrams(reference.len(), n))
    };
    let common = common_subsequence(&hypothesis, &reference);
    let rouge_l = f_measure(common, hypothesis.len(), reference.len());
    Rouge { rouge1: of_ngrams(1), rouge2: of_ngrams(2), rouge_l }
}

fn words(text: &str, stem: bool) -> Vec<String> {
    // All of Unicode in lower case: the Kelvin sign becomes a letter of ASCII.
    let text = text.to_lowercase();
    let words = text.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| if stem && word.len() > 3 { porter::stem(word) } else { word.to_owned() }).collect()
}

/// The harmonic mean of `matches / hypothesis` and `matches / reference`.
fn f_measure(matches: usize, hypothesis: usize, reference: usize) -> f64 {
    if matches == 0 { 0.0 } else { 2.0 * matches as f64 / (hypothesis + reference) as f64 }
}

/// The length of the longest common subsequence.
fn common_subsequence<T: Eq>(left: &[T], right: &[T]) -> usize {
    // `longest[i]` is of what was seen of `right` and the first i of `left`.
    let mut longest = vec![0; left.len() + 1];
    for new in right {
        let mut diagonal = 0;
        for (index, old) in left.iter().enumerate() {
            let above = longest[index + 1];
            longest[index + 1] = if new == old { diagonal + 1 } else { above.max(longest[index]) };
            diagonal = above;
        }
    }
    longest[left.len()]
}

#[cfg(test)]
mod tests {
    use super::{
        super::reference::{assert_near, read},
        *,
    };

    #[test]
    fn rouge_of_sentences_and_their_mean() {
        let reference = read();
        let count = reference.pairs.len() as f64;
        for stem in [false, true] {
            let mut sum = Rouge::default();
            for pair in &reference.pairs {
                let found = rouge(&pair.0, &pair.1, stem);
                let expected = if stem { pair.2.3 } else { pair.2.2 };
                for (found, expected) in [found.rouge1, found.rouge2, found.rouge_l].into_iter().zip(expected) {
                    assert_near(100.0 * found, 100.0 * expected, (&pair.0, &pair.1, stem));
                }
                sum += &found;
            }
            let expected = if stem { reference.corpus.3 } else { reference.corpus.2 };
            for (sum, expected) in [sum.rouge1, sum.rouge2, sum.rouge_l].into_iter().zip(expected) {
                assert_near(100.0 * sum / count, 100.0 * expected, "all");
            }
        }
    }

    #[test]
    fn words_are_of_ascii_letters_and_digits() {
        assert_eq!(
            words("Ponies' 3-4 naïve \u{212a}elvin İs", false),
            ["ponies", "3", "4", "na", "ve", "kelvin", "i", "s"]
        );
        assert_eq!(words("Ponies was running", true), ["poni", "was", "run"]);
        assert!(words("日本語 …", true).is_empty());
    }

    #[test]
    fn common_subsequences() {
        assert_eq!(common_subsequence(b"abcbdab", b"bdcaba"), 4);
        assert_eq!(common_subsequence(b"abc", b""), 0);
        assert_eq!(common_subsequence(b"", b"abc"), 0);
        assert_eq!(common_subsequence(b"abc", b"abc"), 3);
    }
}
