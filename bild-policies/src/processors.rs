//! The logits processors that users of a generator expect, as transformers defines them: the decoder's start token counts as
//! one that was written before.

use bild_core::{Encode, Error, LogitsProcessor, Prefix, Result, Token, Vocabulary};

fn forbid(logits: &mut [f32], token: Token) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

/// The decoder's start token and what was written after it.
fn written(prefix: &Prefix<'_>) -> Vec<Token> {
    std::iter::once(prefix.start).chain(prefix.tokens.iter().copied()).collect()
}

/// Divides the logits of these tokens by the penalty if positive, else multiplies them, once for each token.
fn penalize(logits: &mut [f32], mut tokens: Vec<Token>, penalty: f32) {
    tokens.sort_unstable();
    tokens.dedup();
    for token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// Far beyond what makes sense, and far from where a logit overflows.
pub(crate) const PENALTIES: std::ops::RangeInclusive<f32> = 1e-3..=1e3;

pub(crate) const A_PENALTY: &str = "a number from 0.001 to 1000";

fn checked_penalty(name: &'static str, penalty: f32) -> Result<f32> {
    if PENALTIES.contains(&penalty) {
        Ok(penalty)
    } else {
        Err(Error::Setting { name, found: penalty.to_string(), expected: A_PENALTY })
    }
}

/// Refuses tokens that a vocabulary does not have: a processor that names them would do nothing.
fn check_tokens<'t>(
    processor: &'static str,
    tokens: impl IntoIterator<Item = &'t Token>,
    vocabulary: &Vocabulary,
) -> Result<()> {
    let check = |&token: &Token| vocabulary.check(token, || format!("of the logits processor {processor}"));
    tokens.into_iter().try_for_each(check)
}

/// Makes tokens that were written before less likely: their logits are divided by the penalty if positive, else multiplied
/// (Keskar et al. 2019, arXiv 1909.05858, section 4.1, as transformers has it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RepetitionPenalty(f32);

impl RepetitionPenalty {
    /// With a penalty from 0.001 to 1000; 1 changes nothing, below 1 repetition is encouraged.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `penalty` is outside that range or NaN.
    pub fn new(penalty: f32) -> Result<Self> {
        checked_penalty("the repetition penalty", penalty).map(Self)
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        penalize(logits, written(prefix), self.0);
    }
}

/// Makes tokens of the source more likely: the reverse of [`RepetitionPenalty`] (`encoder_repetition_penalty`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceBonus(f32);

impl SourceBonus {
    /// With a bonus from 0.001 to 1000; 1 changes nothing, below 1 tokens of the source are less likely.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `bonus` is outside that range or NaN.
    pub fn new(bonus: f32) -> Result<Self> {
        checked_penalty("the bonus of the source's tokens", bonus).map(Self)
    }
}

impl LogitsProcessor for SourceBonus {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        penalize(logits, prefix.source.tokens().to_vec(), 1.0 / self.0);
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
        ngram_size(size).map(Self)
    }
}

impl LogitsProcessor for NoRepeatNgram {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        let written = written(prefix);
        forbid_ngrams(logits, &written, &written, self.0.get());
    }
}

/// Never writes a sequence of so many tokens that stands in the source (`encoder_no_repeat_ngram_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSourceNgram(std::num::NonZeroUsize);

impl NoSourceNgram {
    /// For sequences of `size` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `size` is 0.
    pub fn new(size: usize) -> Result<Self> {
        ngram_size(size).map(Self)
    }
}

impl LogitsProcessor for NoSourceNgram {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        forbid_ngrams(logits, prefix.source.tokens(), &written(prefix), self.0.get());
    }
}

fn ngram_size(size: usize) -> Result<std::num::NonZeroUsize> {
    let error = || Error::Setting { name: "the size of an n-gram", found: "0".into(), expected: "at least 1" };
    size.try_into().map_err(|_| error())
}

/// Forbids what would complete a sequence of `size` tokens of `of` after `written`.
fn forbid_ngrams(logits: &mut [f32], of: &[Token], written: &[Token], size: usize) {
    let Some(start) = written.len().checked_sub(size - 1) else { return };
    let last = &written[start..];
    for ngram in of.windows(size).filter(|ngram| &ngram[..size - 1] == last) {
        forbid(logits, ngram[size - 1]);
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

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        check_tokens("ForcedFirst", [&self.0], vocabulary)
    }
}

/// Writes one of these tokens as the last that the limit allows, if the text has not ended before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForcedLast(pub Vec<Token>);

impl LogitsProcessor for ForcedLast {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        let known: Vec<usize> = self.0.iter().map(|&token| token as usize).filter(|&t| t < logits.len()).collect();
        if prefix.tokens.len() + 1 == prefix.limit && !known.is_empty() {
            logits.fill(f32::NEG_INFINITY);
            known.into_iter().for_each(|token| logits[token] = 0.0);
        }
    }

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        check_tokens("ForcedLast", &self.0, vocabulary)
    }
}

/// Never writes these tokens; those that a vocabulary does not have are left out, as in transformers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppress(pub Vec<Token>);

impl LogitsProcessor for Suppress {
    fn process(&self, _: &Prefix<'_>, logits: &mut [f32]) {
        self.0.iter().for_each(|&token| forbid(logits, token));
    }
}

/// Does not write these tokens at one place: first, or after a forced first token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuppressAt {
    /// How many tokens stand before the place.
    pub at: usize,
    /// What is not written there.
    pub tokens: Vec<Token>,
}

impl LogitsProcessor for SuppressAt {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        if prefix.tokens.len() == self.at {
            self.tokens.iter().for_each(|&token| forbid(logits, token));
        }
    }
}

/// Makes the end of a sequence more likely with every token after a number of them (`exponential_decay_length_penalty`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthDecay {
    /// How many tokens are written before it begins.
    pub after: usize,
    /// By what the end grows more likely with every token: |logit| · (factor^tokens − 1) is added. Above 0; below 1 it grows
    /// less likely.
    pub factor: f32,
}

impl LogitsProcessor for LengthDecay {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        let Some(tokens) = prefix.tokens.len().checked_sub(self.after).filter(|&tokens| tokens > 0) else { return };
        let growth = self.factor.powi(i32::try_from(tokens).unwrap_or(i32::MAX)) - 1.0;
        for &token in prefix.end {
            if let Some(logit) = logits.get_mut(token as usize).filter(|logit| logit.is_finite()) {
                *logit = (*logit + logit.abs() * growth).min(f32::MAX);
            }
        }
    }

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        let _ = vocabulary;
        if self.factor > 0.0 && self.factor.is_finite() {
            return Ok(());
        }
        let (found, expected) = (self.factor.to_string(), "a number above 0");
        Err(Error::Setting { name: "the factor of a length decay", found, expected })
    }
}

/// Adds a number to the logit of a token, or of the last token of a sequence where the others of it stand before, from the start token
/// on, as in transformers 5.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceBias(pub Vec<(Vec<Token>, f32)>);

impl LogitsProcessor for SequenceBias {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        for (sequence, bias) in &self.0 {
            if let Some(logit) = completing(sequence, prefix).and_then(|token| logits.get_mut(token as usize)) {
                *logit += bias;
            }
        }
    }

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        let bias = self.0.iter().map(|(_, bias)| *bias).find(|bias| bias.is_nan() || *bias == f32::INFINITY);
        if let Some(bias) = bias {
            let (found, expected) = (bias.to_string(), "a number, or -inf");
            return Err(Error::Setting { name: "the bias of a sequence", found, expected });
        }
        check_tokens("SequenceBias", self.0.iter().flat_map(|(sequence, _)| sequence), vocabulary)
    }
}

/// The token that completes a sequence after what was written, the start token too.
fn completing(sequence: &[Token], prefix: &Prefix<'_>) -> Option<Token> {
    let (&last, before) = sequence.split_last()?;
    let from_start = before.split_first().is_some_and(|(first, rest)| *first == prefix.start && rest == prefix.tokens);
    (from_start || prefix.tokens.ends_with(before)).then_some(last)
}

/// Never writes one of these sequences of tokens. One that is an end-of-sequence token alone is left out; one that holds such
/// a token beside others is refused, because it was meant otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadWords(pub Vec<Vec<Token>>);

impl BadWords {
    /// Words in the forms that they take in a text: as they are, in lower case and with a capital; at the beginning of a word
    /// and after a mark. Words of which they are a part stay, unless they are written with the same pieces: with "die" goes "died" where
    /// a tokenizer writes that as "die" and "d".
    ///
    /// ```no_run
    /// # fn example(tokenizer: &impl bild::decode::Encode) -> bild::decode::Result<()> {
    /// let settings = bild::Settings::default()
    ///     .with_processor(bild::policies::processors::BadWords::words(tokenizer, ["damn", "Hell"])?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn words<W: AsRef<str>>(tokenizer: &impl Encode, words: impl IntoIterator<Item = W>) -> Result<Self> {
        const MARK: &str = "(";
        let mark = tokenizer.encode_plain(MARK)?;
        let mut forms: Vec<Vec<Token>> = Vec::new();
        for word in words {
            let word = word.as_ref().trim();
            let lower = word.to_lowercase();
            let capital: String =
                lower.chars().take(1).flat_map(char::to_uppercase).chain(lower.chars().skip(1)).collect();
            for form in [word, &lower, &capital] {
                forms.push(tokenizer.encode_plain(form)?);
                forms.extend(
                    tokenizer.encode_plain(&format!("{MARK}{form}"))?.strip_prefix(&mark[..]).map(<[_]>::to_vec),
                );
            }
        }
        forms.retain(|form| !form.is_empty());
        forms.sort_unstable();
        forms.dedup();
        Ok(Self(forms))
    }
}

impl LogitsProcessor for BadWords {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        for word in &self.0 {
            if let Some(last) = completing(word, prefix)
                && !(word.len() == 1 && prefix.end.contains(&last))
            {
                forbid(logits, last);
            }
        }
    }

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        let ends = |word: &&Vec<Token>| word.len() > 1 && word.iter().any(|token| vocabulary.end.contains(token));
        if let Some(word) = self.0.iter().find(ends) {
            let expected = "tokens without end-of-sequence, which never stands in a text (`Tokenizer::encode_plain` leaves it out)";
            return Err(Error::Setting { name: "a bad word", found: format!("{word:?}"), expected });
        }
        check_tokens("BadWords", self.0.iter().flatten(), vocabulary)
    }
}
