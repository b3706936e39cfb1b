//! How near a text is to a reference: BLEU, chrF and ROUGE, equal to those of sacrebleu and of rouge-score.
//!
//! Each sentence is counted once, as a [`Sentence`]; the scores of any choice of sentences then come from adding the
//! counts up, which is what a [`bootstrap`] does a thousand times.

mod bleu;
mod chrf;
mod ngrams;
mod porter;
mod rouge;

use ngrams::Counts;
use rouge::{Rouge, rouge};
use serde::Serialize;

/// What the scores need of a sentence.
#[derive(Clone, Debug, Default)]
pub struct Sentence {
    bleu: Counts<{ bleu::ORDERS }>,
    chrf: Counts<{ chrf::ORDERS }>,
    /// With stems, as is the custom for summaries.
    rouge: Rouge,
}

impl Sentence {
    /// Compares what was written with what was expected.
    pub fn of(hypothesis: &str, reference: &str) -> Self {
        Self {
            bleu: bleu::counts(hypothesis, reference),
            chrf: chrf::counts(hypothesis, reference),
            rouge: rouge(hypothesis, reference, true),
        }
    }
}

/// The scores of some sentences together, each from 0 to 100. BLEU and chrF are of the whole, ROUGE is the mean of the
/// sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Scores {
    /// BLEU.
    pub bleu: f64,
    /// chrF.
    pub chrf: f64,
    /// ROUGE-1.
    pub rouge1: f64,
    /// ROUGE-2.
    pub rouge2: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
}

impl Scores {
    /// Those of sentences together.
    pub fn of<'a>(sentences: impl Iterator<Item = &'a Sentence>) -> Self {
        let (mut all, mut count) = (Sentence::default(), 0u32);
        for sentence in sentences {
            all.bleu += &sentence.bleu;
            all.chrf += &sentence.chrf;
            all.rouge += &sentence.rouge;
            count += 1;
        }
        let percent = |sum: f64| if count == 0 { 0.0 } else { 100.0 * sum / f64::from(count) };
        Self {
            bleu: bleu::score(&all.bleu),
            chrf: chrf::score(&all.chrf),
            rouge1: percent(all.rouge.rouge1),
            rouge2: percent(all.rouge.rouge2),
            rouge_l: percent(all.rouge.rouge_l),
        }
    }
}

/// The interval that holds 95 % of what `f` says of samples of `count` sentences out of `count`, drawn with
/// replacement; none of one sentence, which says nothing of others. `f` is given the indices of a sample. The same seed gives the same samples, so the difference of two
/// systems on the same sentences may be bootstrapped too.
///
/// # Panics
///
/// If `resamples` is zero.
pub fn bootstrap(count: usize, resamples: usize, seed: u64, f: impl Fn(&[usize]) -> f64) -> Option<(f64, f64)> {
    assert!(resamples > 0, "an interval needs samples");
    if count < 2 {
        return None;
    }
    let values = resampled(count, resamples, seed, f);
    let outside = resamples / 40;
    Some((values[outside], values[resamples - 1 - outside]))
}

/// What `f` says of such samples, in order.
pub(crate) fn resampled(count: usize, resamples: usize, seed: u64, f: impl Fn(&[usize]) -> f64) -> Vec<f64> {
    let mut random = SplitMix64(seed);
    let mut sample = vec![0; count];
    let mut values: Vec<f64> = (0..resamples)
        .map(|_| {
            sample.fill_with(|| random.below(count));
            f(&sample)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A small generator of random numbers, the same on every machine.
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

/// White space as Python's strings have it, with four control characters that Unicode does not count.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// What the original programs say, recorded by `reference.py`.
#[cfg(test)]
mod reference {
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(crate) struct Reference {
        pub(crate) pairs: Vec<Pair>,
        pub(crate) corpus: Numbers,
        pub(crate) stems: Vec<(String, String)>,
    }

    #[derive(Deserialize)]
    pub(crate) struct Pair(pub(crate) String, pub(crate) String, pub(crate) Numbers);

    /// BLEU, chrF, and ROUGE-1, -2 and -L without stems and with them.
    #[derive(Deserialize)]
    pub(crate) struct Numbers(pub(crate) f64, pub(crate) f64, pub(crate) [f64; 3], pub(crate) [f64; 3]);

    pub(crate) fn read() -> Reference {
        serde_json::from_str(include_str!("reference.json")).expect("reference.json is as reference.py writes it")
    }

    #[track_caller]
    pub(crate) fn assert_near(found: f64, expected: f64, of: impl std::fmt::Debug) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}: {of:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::{
        reference::{assert_near, read},
        *,
    };

    fn sentences() -> Vec<Sentence> {
        read().pairs.iter().map(|pair| Sentence::of(&pair.0, &pair.1)).collect()
    }

    #[test]
    fn scores_of_a_corpus() {
        let (sentences, corpus) = (sentences(), read().corpus);
        let scores = Scores::of(sentences.iter());
        assert_near(scores.bleu, corpus.0, "BLEU");
        assert_near(scores.chrf, corpus.1, "chrF");
        for (found, expected) in [scores.rouge1, scores.rouge2, scores.rouge_l].into_iter().zip(corpus.3) {
            assert_near(found, 100.0 * expected, "ROUGE");
        }
        assert_eq!(Scores::of([].iter()), Scores::default());
    }

    #[test]
    fn bootstrap_brackets_the_score() {
        let sentences = sentences();
        let bleu = |indices: &[usize]| Scores::of(indices.iter().map(|&index| &sentences[index])).bleu;
        let interval = |seed| bootstrap(sentences.len(), 200, seed, bleu).unwrap();
        let (low, high) = interval(1);
        let all = Scores::of(sentences.iter()).bleu;
        assert!(low < all && all < high && high - low < 10.0, "{low} < {all} < {high}");
        assert_eq!(interval(1), (low, high));
        assert_ne!(interval(2), (low, high));
    }

    #[test]
    fn bootstrap_of_a_mean() {
        // The mean of 400 numbers with a standard deviation of 0.5 has one of 0.025.
        let mean = |indices: &[usize]| indices.iter().map(|index| (index % 2) as f64).sum::<f64>() / 400.0;
        let (low, high) = bootstrap(400, 2000, 7, mean).unwrap();
        assert!((low - 0.451).abs() < 0.01 && (high - 0.549).abs() < 0.01, "{low} to {high}");
        assert_eq!(bootstrap(3, 1, 7, |indices| indices.len() as f64), Some((3.0, 3.0)));
        for few in [0, 1] {
            assert_eq!(bootstrap(few, 10, 7, |indices| indices.len() as f64), None);
        }
    }

    #[test]
    fn random_numbers_are_those_of_the_published_generator() {
        let mut random = SplitMix64(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
