//! The logits processors that users of a generator expect, as transformers defines them.

use bild_core::{Error, LogitsProcessor, Prefix, Result, Token};

fn forbid(logits: &mut [f32], token: Token) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Makes tokens that were written before less likely: their logits are divided by the penalty if positive, else multiplied
/// (Keskar et al. 2019, arXiv 1909.05858, section 4.1, as transformers has it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepetitionPenalty(f32);

impl RepetitionPenalty {
    /// With a penalty above 0; 1 changes nothing, below 1 repetition is encouraged.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `penalty` is not a number above 0.
    pub fn new(penalty: f32) -> Result<Self> {
        if penalty > 0.0 && penalty.is_finite() {
            Ok(Self(penalty))
        } else {
            let found = penalty.to_string();
            Err(Error::Setting { name: "the repetition penalty", found, expected: "a number above 0" })
        }
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        for (i, &token) in prefix.tokens.iter().enumerate() {
            if prefix.tokens[..i].contains(&token) {
                continue; // once for each token
            }
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / self.0 } else { *logit * self.0 };
            }
        }
    }
}

/// Never writes the same sequence of so many tokens twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRepeatNgram(std::num::NonZeroUsize);

impl NoRepeatNgram {
    /// For sequences of `size` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `size` is 0.
    pub fn new(size: usize) -> Result<Self> {
        let error = || Error::Setting { name: "the size of an n-gram", found: "0".into(), expected: "at least 1" };
        size.try_into().map(Self).map_err(|_| error())
    }
}

impl LogitsProcessor for NoRepeatNgram {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        let before = self.0.get() - 1;
        let Some(start) = prefix.tokens.len().checked_sub(before) else { return };
        let last = &prefix.tokens[start..];
        for ngram in prefix.tokens.windows(self.0.get()).filter(|ngram| &ngram[..before] == last) {
            forbid(logits, ngram[before]);
        }
    }
}

/// Does not end a sequence before it has so many tokens, the end-of-sequence token not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinLength(pub usize);

impl LogitsProcessor for MinLength {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        if prefix.tokens.len() < self.0 {
            prefix.end.iter().for_each(|&token| forbid(logits, token));
        }
    }
}

/// Writes this token first, as a model of many languages expects for its target language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedFirst(pub Token);

impl LogitsProcessor for ForcedFirst {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        if prefix.tokens.is_empty() && (self.0 as usize) < logits.len() {
            logits.fill(f32::NEG_INFINITY);
            logits[self.0 as usize] = 0.0;
        }
    }
}

/// Never writes one of these sequences of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadWords(pub Vec<Vec<Token>>);

impl LogitsProcessor for BadWords {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        for word in &self.0 {
            if let Some((&last, before)) = word.split_last()
                && prefix.tokens.ends_with(before)
            {
                forbid(logits, last);
            }
        }
    }
}
