//! Mistakes as people make them in English, put into clean sentences: sources for a corrector, whose targets are the sentences
//! as they were.

use crate::random::Random;

/// Words that are taken for each other, in lower case.
const CONFUSIONS: [&[&str]; 14] = [
    &["their", "there", "they're"],
    &["its", "it's"],
    &["your", "you're"],
    &["to", "too"],
    &["then", "than"],
    &["lose", "loose"],
    &["affect", "effect"],
    &["whose", "who's"],
    &["were", "where", "we're"],
    &["quite", "quiet"],
    &["advice", "advise"],
    &["accept", "except"],
    &["hear", "here"],
    &["a", "an"],
];

/// The kinds of mistakes, each as often as the others where it can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Case,
    Punctuation,
    Apostrophe,
    Doubled,
    Swapped,
    Confused,
    ArticleMissing,
}

const MISTAKES: [Mistake; 7] = [
    Mistake::Case,
    Mistake::Punctuation,
    Mistake::Apostrophe,
    Mistake::Doubled,
    Mistake::Swapped,
    Mistake::Confused,
    Mistake::ArticleMissing,
];

/// Puts mistakes into English sentences. The same seed makes the same mistakes, on any machine.
#[derive(Clone, Debug)]
pub struct EnglishNoise {
    rate: f64,
    random: Random,
}

impl EnglishNoise {
    /// Makes a mistake in so many words of all, on average: 1 / 12 is one in twelve. Only words that have room for a mistake take
    /// one, at most one each.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self { rate, random: Random::new(seed) }
    }

    /// The sentence with mistakes, and how many they are.
    pub fn apply(&mut self, sentence: &str) -> (String, usize) {
        let (mut words, mut count) = (Vec::new(), 0);
        for word in sentence.split(' ') {
            if self.random.unit() >= self.rate {
                words.push(word.to_owned());
                continue;
            }
            // The kinds from a random one on: the first that has room.
            let first = self.random.below(MISTAKES.len());
            let kinds = (0..MISTAKES.len()).map(|i| MISTAKES[(first + i) % MISTAKES.len()]);
            match kinds.into_iter().find_map(|mistake| self.make(mistake, word)) {
                Some(wrong) => {
                    count += 1;
                    words.extend((!wrong.is_empty()).then_some(wrong));
                }
                None => words.push(word.to_owned()),
            }
        }
        (words.join(" "), count)
    }

    /// The word with that mistake, empty if it goes; nothing if it has no room for it.
    fn make(&mut self, mistake: Mistake, word: &str) -> Option<String> {
        let letters: Vec<char> = word.chars().collect();
        let wrong = match mistake {
            Mistake::Case => {
                let first = *letters.first()?;
                let changed: String =
                    if first.is_uppercase() { first.to_lowercase().collect() } else { first.to_uppercase().collect() };
                changed + &letters[1..].iter().collect::<String>()
            }
            Mistake::Punctuation => word.strip_suffix(['.', ',', '?', '!', ';', ':'])?.to_owned(),
            Mistake::Apostrophe => word.replacen(['\'', '’'], "", 1),
            Mistake::Doubled => {
                let at = self.letter(&letters, |_| true)?;
                let mut letters = letters;
                if letters.get(at + 1) == Some(&letters[at]) {
                    letters.remove(at);
                } else {
                    letters.insert(at, letters[at]);
                }
                letters.into_iter().collect()
            }
            Mistake::Swapped => {
                let at = self.letter(&letters, |at| letters.get(at + 1).is_some_and(|next| next.is_lowercase()))?;
                let mut letters = letters;
                letters.swap(at, at + 1);
                letters.into_iter().collect()
            }
            Mistake::Confused => {
                let (stem, mark) = word.split_at(word.trim_end_matches(['.', ',', '?', '!', ';', ':']).len());
                let lower = stem.to_lowercase();
                let set = CONFUSIONS.iter().find(|set| set.contains(&lower.as_str()))?;
                let others: Vec<&&str> = set.iter().filter(|other| **other != lower).collect();
                let other = others[self.random.below(others.len())];
                let is_capital = stem.starts_with(char::is_uppercase);
                let mut other: Vec<char> = other.chars().collect();
                if is_capital {
                    other[0] = other[0].to_ascii_uppercase();
                }
                other.into_iter().collect::<String>() + mark
            }
            Mistake::ArticleMissing => ["a", "an", "the"].contains(&word.to_lowercase().as_str()).then(String::new)?,
        };
        (wrong != word).then_some(wrong)
    }

    /// A lower-case letter of a word of at least three, which is not its first.
    fn letter(&mut self, letters: &[char], fits: impl Fn(usize) -> bool) -> Option<usize> {
        let places: Vec<usize> = (1..letters.len()).filter(|&at| letters[at].is_lowercase() && fits(at)).collect();
        (letters.len() >= 3 && !places.is_empty()).then(|| places[self.random.below(places.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENTENCE: &str = "I don't know whose book that is, but it's better than the one on their table.";

    #[test]
    fn every_kind_of_mistake_is_made() {
        let mut noise = EnglishNoise::new(1.0, 1);
        let mut make = |mistake, word: &str| noise.make(mistake, word).unwrap_or("-".into());
        assert_eq!(make(Mistake::Case, "Tom"), "tom");
        assert_eq!(make(Mistake::Case, "äpfel"), "Äpfel");
        assert_eq!(make(Mistake::Punctuation, "table."), "table");
        assert_eq!(make(Mistake::Apostrophe, "don't"), "dont");
        assert_eq!(make(Mistake::Swapped, "the"), "teh");
        assert_eq!(make(Mistake::Confused, "It's,"), "Its,");
        assert_eq!(make(Mistake::ArticleMissing, "The"), "");
        assert!(["seee", "se"].contains(&make(Mistake::Doubled, "see").as_str()));
        for (mistake, word) in [
            (Mistake::Case, "7"),
            (Mistake::Punctuation, "table"),
            (Mistake::Apostrophe, "dont"),
            (Mistake::Doubled, "is"),
            (Mistake::Swapped, "OK"),
            (Mistake::Confused, "table"),
            (Mistake::ArticleMissing, "then"),
            (Mistake::Case, ""),
        ] {
            assert_eq!(make(mistake, word), "-", "{mistake:?} in {word}");
        }
    }

    #[test]
    fn as_many_as_asked_for_and_the_same_for_the_same_seed() {
        let run = |rate, seed| {
            let mut noise = EnglishNoise::new(rate, seed);
            (0..2000).map(|_| noise.apply(SENTENCE)).collect::<Vec<_>>()
        };
        let (found, again, other) = (run(1.0 / 12.0, 5), run(1.0 / 12.0, 5), run(1.0 / 12.0, 6));
        assert_eq!(found, again);
        assert_ne!(found, other);
        let (mistakes, words) =
            (found.iter().map(|(_, count)| count).sum::<usize>(), 2000 * SENTENCE.split(' ').count());
        let rate = mistakes as f64 / words as f64;
        assert!((rate * 12.0 - 1.0).abs() < 0.05, "{rate}");
        assert!(found.iter().all(|(text, count)| (text == SENTENCE) == (*count == 0)));
        assert_eq!(run(0.0, 1)[0], (SENTENCE.to_owned(), 0));
    }
}
