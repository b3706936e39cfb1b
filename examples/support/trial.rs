//! A policy on sentences: what was written, how good it is, and what it took.

use bild::{AnyPolicy, Generator, Output, Settings, Source, Statistics, Tokenizer};
use serde_json::{Value, json};

use super::{
    Error,
    conditions::Conditions,
    costs::Costs,
    dataset::Example,
    metrics::{Scores, Sentence},
    pair::{AnyPair, Limits, Loaded},
    streams::say,
    text,
};

/// How many tokens of a source the models read, and whether it was cut to the limit.
pub fn source_of(source: &Source, settings: &Settings) -> (usize, bool) {
    let (length, most) = (source.tokens().len(), settings.max_source_tokens);
    (length.min(most), length > most)
}

/// The little model alone is decoded as a model alone, whose passes are counted as a verifier's: they are its own.
pub fn count_as(policy: &AnyPolicy, output: &mut Output) {
    if let AnyPolicy::Little(_) = policy {
        let statistics = &mut output.statistics;
        statistics.draft_steps += std::mem::take(&mut statistics.verifier_calls);
        statistics.verifier_tokens = 0;
    }
}

/// What quality is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    #[default]
    Bleu,
    Chrf,
    RougeL,
}

impl Metric {
    pub fn of(self, scores: &Scores) -> f64 {
        match self {
            Self::Bleu => scores.bleu,
            Self::Chrf => scores.chrf,
            Self::RougeL => scores.rouge_l,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu => "BLEU",
            Self::Chrf => "chrF",
            Self::RougeL => "ROUGE-L",
        }
    }
}

/// Sources as tokens with their references, and the pair to decode them with.
pub struct Bench {
    pub loaded: Loaded,
    pub tokenizer: Tokenizer,
    pub prefix: String,
    pub settings: Settings,
    pub sources: Vec<Source>,
    pub examples: Vec<Example>,
}

/// What a policy did with one sentence.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub text: String,
    pub sentence: Sentence,
    pub output: Output,
}

impl Bench {
    /// Says on standard error how many sources are cut, if any are.
    pub fn new(loaded: Loaded, examples: Vec<Example>, prefix: &str, limits: &Limits) -> Result<Self, Error> {
        for (what, field) in [("source", (|e| &e.source) as fn(&Example) -> &String), ("reference", |e| &e.reference)] {
            if examples.iter().all(|example| field(example).trim().is_empty()) {
                return Err(format!("there is nothing to compare: every {what} is blank").into());
            }
        }
        let tokenizer = loaded.tokenizer()?.clone();
        let mut unknown = 0;
        for example in &examples {
            unknown += usize::from(text::unknown_share(&tokenizer, &example.source)?.is_some());
        }
        if unknown > 0 {
            let all = examples.len();
            say(format_args!(
                "warning: of {unknown} of {all} sources more than half is unknown to the tokenizer: it has no tokens for them"
            ));
        }
        let source = |example: &Example| tokenizer.encode(&format!("{prefix}{}", example.source)).map(Source::new);
        let sources = examples.iter().map(source).collect::<Result<_, _>>()?;
        let settings = loaded.settings(limits)?;
        if loaded.is_sampled()? {
            say("note: the checkpoint asks to be sampled (`do_sample`); what is compared here is greedy");
        }
        if let Some(deadline) = settings.deadline {
            say(format_args!(
                "note: the checkpoint ends a generation after {} s (`max_time`), finished or not",
                deadline.as_secs_f64()
            ));
        }
        let bench = Self { loaded, tokenizer, prefix: prefix.into(), settings, sources, examples };
        let (_, cut) = bench.read();
        if cut > 0 && limits.overflow == bild::Overflow::Truncate {
            let (all, most) = (bench.sources.len(), limits.max_source_tokens);
            say(format_args!("warning: {cut} of {all} sources have more than {most} tokens and are cut to that"));
        }
        Ok(bench)
    }

    /// How many tokens the models read in all, and how many sources are cut.
    pub fn read(&self) -> (usize, usize) {
        let read = self.sources.iter().map(|source| source_of(source, &self.settings));
        read.fold((0, 0), |(tokens, count), (length, cut)| (tokens + length, count + usize::from(cut)))
    }

    /// The same for a result in JSON.
    pub fn read_json(&self) -> Value {
        let (source_tokens, truncated) = self.read();
        json!({ "source_tokens": source_tokens, "truncated": truncated })
    }

    /// What a result depends on beside the dataset.
    pub fn conditions(&self) -> Result<Conditions, Error> {
        Ok(self.loaded.conditions()?.with("the settings", &self.settings)?.with("the prefix", &self.prefix)?)
    }

    pub fn pair(&self) -> &AnyPair {
        &self.loaded.pair
    }

    pub fn generator(&self, policy: &AnyPolicy) -> Result<Generator<AnyPair>, Error> {
        self.pair().generator(policy, self.settings.clone())
    }

    /// Judges what was written for a sentence.
    fn judge(&self, index: usize, output: Output) -> Result<Decoded, Error> {
        let text = self.tokenizer.decode(&output.tokens)?;
        let sentence = Sentence::of(&text, &self.examples[index].reference);
        Ok(Decoded { text, sentence, output })
    }

    /// Decodes some of the sentences, several at once: for quality and counts, not for times.
    pub fn decode(&self, policy: &AnyPolicy, indices: &[usize], mut each: impl FnMut()) -> Result<Vec<Decoded>, Error> {
        let generator = self.generator(policy)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut decoded = Vec::new();
        let mut failed = None;
        let sources = indices.iter().map(|&index| self.sources[index].clone());
        generator.generate_many(sources, threads, |i, result| {
            let counted = result.map(|mut output| {
                count_as(policy, &mut output);
                output
            });
            match counted.map_err(Error::from).and_then(|output| self.judge(indices[i], output)) {
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

/// The milliseconds that one output takes by its counted passes and what they cost.
pub fn predicted_one(output: &Output, costs: &Costs, policy: &AnyPolicy) -> f64 {
    match policy {
        AnyPolicy::Little(_) => costs.encode_little + output.statistics.draft_steps as f64 * costs.draft,
        _ => costs.of(output),
    }
}

/// The milliseconds that they take together.
pub fn predicted(decoded: &[Decoded], costs: &Costs, policy: &AnyPolicy) -> f64 {
    decoded.iter().map(|decoded| predicted_one(&decoded.output, costs, policy)).sum()
}
