//! A pair with sentences to try policies on: what was written, and how good it is.

use bild::{
    Output, Settings,
    decode::{BoxedPair, Generator, Overflow, Source, Statistics},
    models::Tokenizer,
    policies::AnyPolicy,
};

use crate::{
    Conditions, Error, Example, Result,
    metrics::{Scores, Sentence},
    text,
};

/// What quality is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metric {
    /// BLEU, of the whole.
    #[default]
    Bleu,
    /// chrF, of the whole.
    Chrf,
    /// ROUGE-L, the mean of the sentences.
    RougeL,
}

impl Metric {
    /// The score that is meant.
    pub fn of(self, scores: &Scores) -> f64 {
        match self {
            Self::Bleu => scores.bleu,
            Self::Chrf => scores.chrf,
            Self::RougeL => scores.rouge_l,
        }
    }

    /// Its name for a reader.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu => "BLEU",
            Self::Chrf => "chrF",
            Self::RougeL => "ROUGE-L",
        }
    }
}

/// A pair, and sources with their references to decode with it.
#[derive(Clone, Debug)]
pub struct Bench {
    /// What decodes.
    pub pair: BoxedPair,
    /// Of both models.
    pub tokenizer: Tokenizer,
    /// What stands before every source.
    pub prefix: String,
    /// Of every generation.
    pub settings: Settings,
    /// The sources as tokens, the prefix included.
    pub sources: Vec<Source>,
    /// The same as text.
    pub examples: Vec<Example>,
}

/// What a policy did with one sentence.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What was written.
    pub text: String,
    /// What the scores need of it.
    pub sentence: Sentence,
    /// The tokens, and how they came about.
    pub output: Output,
}

impl Bench {
    /// Puts a pair and examples together.
    ///
    /// # Errors
    ///
    /// If there is no example, every source or every reference is blank, or the tokenizer fails.
    pub fn new(
        pair: BoxedPair,
        tokenizer: Tokenizer,
        examples: Vec<Example>,
        prefix: &str,
        settings: Settings,
    ) -> Result<Self> {
        for (what, field) in [("source", (|e| &e.source) as fn(&Example) -> &String), ("reference", |e| &e.reference)] {
            if examples.iter().all(|example| field(example).trim().is_empty()) {
                return Err(format!("there is nothing to compare: every {what} is blank").into());
            }
        }
        let source = |example: &Example| tokenizer.encode(&format!("{prefix}{}", example.source)).map(Source::new);
        let sources = examples.iter().map(source).collect::<bild::decode::Result<_>>()?;
        Ok(Self { pair, tokenizer, prefix: prefix.into(), settings, sources, examples })
    }

    /// What a person should know of the sources, as sentences: how many are cut, or mostly unknown to the tokenizer.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn warnings(&self) -> Result<Vec<String>> {
        let (all, (_, cut), mut unknown) = (self.sources.len(), self.read(), 0);
        for example in &self.examples {
            unknown += usize::from(text::is_unknown(&self.tokenizer, &example.source)?);
        }
        let mut warnings = Vec::new();
        if unknown > 0 {
            warnings.push(format!(
                "of {unknown} of {all} sources more than half is unknown to the tokenizer: it has no tokens for them"
            ));
        }
        if cut > 0 && self.settings.overflow == Overflow::Truncate {
            let most = self.settings.max_source_tokens;
            warnings.push(format!("{cut} of {all} sources have more than {most} tokens and are cut to that"));
        }
        Ok(warnings)
    }

    /// How many tokens the models read in all, and how many sources are cut.
    pub fn read(&self) -> (usize, usize) {
        let most = self.settings.max_source_tokens;
        let lengths = self.sources.iter().map(|source| source.tokens().len());
        lengths.fold((0, 0), |(tokens, cut), length| (tokens + length.min(most), cut + usize::from(length > most)))
    }

    /// The mean length of the sources as they are read, in tokens.
    pub fn mean_length(&self) -> usize {
        (self.read().0 / self.sources.len()).max(1)
    }

    /// What a result depends on beside the models and the examples.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn conditions(&self) -> Result<Conditions> {
        Conditions::default().with("the settings", &self.settings)?.with("the prefix", &self.prefix)
    }

    /// Some of the sentences, from all parts of it from `begin` on, with a pair that may be another.
    pub fn some(&self, pair: BoxedPair, begin: usize, count: usize) -> Self {
        let all = self.sources.len() - begin;
        let count = count.clamp(1, all);
        let chosen = (0..count).map(|i| begin + i * all / count);
        let (examples, sources) = chosen.map(|i| (self.examples[i].clone(), self.sources[i].clone())).unzip();
        let (tokenizer, prefix) = (self.tokenizer.clone(), self.prefix.clone());
        Self { pair, tokenizer, prefix, settings: self.settings.clone(), sources, examples }
    }

    /// The generator of a policy.
    ///
    /// # Errors
    ///
    /// If the two models of the pair do not speak the same tokens.
    pub fn generator(&self, policy: &AnyPolicy) -> Result<Generator<BoxedPair>> {
        Ok(Generator::new(self.pair.clone(), policy.clone())?.with_settings(self.settings.clone()))
    }

    /// Judges what was written for a sentence.
    fn judge(&self, index: usize, output: Output) -> Result<Decoded> {
        let text = self.tokenizer.decode(&output.tokens)?;
        let sentence = Sentence::of(&text, &self.examples[index].reference);
        Ok(Decoded { text, sentence, output })
    }

    /// Decodes some of the sentences, several at once and with their events: for quality and counts, not for times. `each` is
    /// called after every one.
    ///
    /// # Errors
    ///
    /// If a generation fails; which one is said.
    pub fn decode(&self, policy: &AnyPolicy, indices: &[usize], mut each: impl FnMut()) -> Result<Vec<Decoded>> {
        let generator = self.generator(policy)?.with_settings(self.settings.clone().with_trace(true));
        let mut decoded = Vec::new();
        let mut failed = None;
        let sources = indices.iter().map(|&index| self.sources[index].clone());
        generator.generate_many(sources, |i, result| {
            match result.map_err(Error::from).and_then(|output| self.judge(indices[i], output)) {
                Ok(done) => decoded.push(done),
                Err(error) => failed = failed.take().or(Some(format!("source {}: {error}", indices[i] + 1))),
            }
            each();
        });
        failed.map_or(Ok(decoded), |error| Err(error.into()))
    }
}

/// The scores of what was decoded.
pub fn scores(decoded: &[Decoded]) -> Scores {
    Scores::of(decoded.iter().map(|decoded| &decoded.sentence))
}

/// The counts of what was decoded.
pub fn statistics(decoded: &[Decoded]) -> Statistics {
    let mut sum = Statistics::default();
    decoded.iter().for_each(|decoded| sum += &decoded.output.statistics);
    sum
}
