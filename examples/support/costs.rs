//! What passes cost, measured once, so that the time of a policy can be told from its counted passes.

use std::{fs, path::PathBuf, time::Instant};

use bild::{DraftModel, DraftSession, Event, Flex, Output, Source, T5, Token, VerifierModel, VerifierSession, Want};
use serde::{Deserialize, Serialize};

use super::{
    Error, bar, median,
    models::{self, ModelArgs, PrecisionArg},
    pair::AnyPair,
    trial::Bench,
};

const ROWS: [usize; 6] = [1, 2, 4, 8, 11, 17];
const ROUNDS: usize = 9;

/// Milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// Reading a source, by each model.
    pub encode_big: f64,
    pub encode_little: f64,
    /// A step of the little model.
    pub draft: f64,
    /// A pass of the big model over so many tokens, by number.
    pub verify: Vec<(usize, f64)>,
}

impl Costs {
    /// Measures a pair at a source of `source` tokens, after `generated` tokens. A pair without a little model drafts for
    /// nothing.
    pub fn measure(pair: &AnyPair, source: usize, generated: usize) -> Result<Self, Error> {
        let progress = bar((ROUNDS * 2) as u64, "Measuring passes");
        let mut encoders = [Vec::new(), Vec::new()];
        let mut draft = Vec::new();
        let mut verify = vec![Vec::new(); ROWS.len()];
        let tokens = |model: &T5<Flex>, count: usize| -> Vec<Token> {
            let most = model.config().vocab_size - 3;
            (0..count).map(|i| (3 + i * 7919 % most) as Token).collect()
        };
        let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
        let limit = generated + 18;
        for _ in 0..ROUNDS {
            let big = pair.big();
            let source = Source::new(tokens(big, source));
            let written = tokens(big, limit);
            let begun = Instant::now();
            let mut session = VerifierModel::begin(big, &source, limit)?;
            encoders[0].push(milliseconds(begun));
            session.score(&written[..generated], Want::default())?;
            for (rows, times) in ROWS.iter().zip(&mut verify) {
                let begun = Instant::now();
                session.score(&written[generated..generated + rows], Want::default().cross_entropy())?;
                times.push(milliseconds(begun));
                VerifierSession::truncate(&mut session, generated);
            }
            progress.inc(1);
            if let Some(little) = pair.little() {
                let begun = Instant::now();
                let mut session = DraftModel::begin(little, &source, limit)?;
                session.prepare()?;
                encoders[1].push(milliseconds(begun));
                session.propose(&written[..generated], Want::default())?;
                for token in &written[generated..generated + 8] {
                    let begun = Instant::now();
                    session.propose(&[*token], Want::default())?;
                    draft.push(milliseconds(begun));
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        let or_nothing = |times: Vec<f64>| if times.is_empty() { 0.0 } else { median(times) };
        let [big, little] = encoders;
        Ok(Self {
            encode_big: median(big),
            encode_little: or_nothing(little),
            draft: or_nothing(draft),
            verify: ROWS.into_iter().zip(verify.into_iter().map(median)).collect(),
        })
    }

    /// The time of a pass over so many tokens: between those measured in a line, beyond the last on in that line.
    pub fn pass(&self, rows: usize) -> f64 {
        let last = self.verify.len() - 1;
        let after = self.verify.iter().position(|(measured, _)| *measured >= rows).unwrap_or(last).max(1);
        let ((a, from), (b, to)) = (self.verify[after - 1], self.verify[after]);
        from + (to - from) * (rows as f64 - a as f64) / (b - a) as f64
    }

    /// The time of a generation, from its events.
    pub fn of(&self, output: &Output) -> f64 {
        let verified = |event: &Event| match event {
            Event::Verified { drafts, .. } => Some(self.pass(drafts + 1)),
            _ => None,
        };
        let passes: f64 = output.events.iter().filter_map(verified).sum();
        let steps = output.statistics.draft_steps;
        let encode_little = if steps > 0 { self.encode_little } else { 0.0 };
        self.encode_big + encode_little + steps as f64 * self.draft + passes
    }
}

/// Where the costs of passes come from.
#[derive(clap::Args, Clone, Debug)]
pub struct CostsArgs {
    /// A big model whose passes are measured in place of the pair's: one that writes the same, as one that was made larger
    #[arg(long, value_name = "DIR", requires = "cost_little", help_heading = "Costs")]
    pub cost_big: Option<PathBuf>,
    /// The little model to go with it
    #[arg(long, value_name = "DIR", requires = "cost_big", help_heading = "Costs")]
    pub cost_little: Option<PathBuf>,
    /// A file of measured costs: read if it is there, else written
    #[arg(long, value_name = "FILE", help_heading = "Costs")]
    pub costs: Option<PathBuf>,
    /// How many of the sources to time by the clock where that is asked for
    #[arg(long, value_name = "N", default_value_t = 40, help_heading = "Costs")]
    pub timed: usize,
    /// How the weights of those models are held
    #[arg(long, value_enum, default_value = "f32", help_heading = "Costs")]
    pub cost_precision: PrecisionArg,
}

impl CostsArgs {
    /// The pair whose passes are measured.
    fn pair(&self, bench: &Bench) -> Result<AnyPair, Error> {
        let (Some(big), Some(little)) = (&self.cost_big, &self.cost_little) else { return Ok(bench.pair.clone()) };
        let args = ModelArgs { precision: self.cost_precision, little_precision: None, threads: None };
        let [big_options, little_options] = args.options()?;
        let little = models::load(&models::open(little)?, "the little model to measure", &little_options)?;
        Ok(AnyPair::Two(little, models::load(&models::open(big)?, "the big model to measure", &big_options)?))
    }

    /// What passes cost, at the mean length of the sources.
    pub fn costs(&self, bench: &Bench) -> Result<Costs, Error> {
        if let Some(path) = self.costs.as_ref().filter(|path| path.exists()) {
            let text = fs::read_to_string(path)?;
            return serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into());
        }
        let tokens: usize = bench.sources.iter().map(|source| source.tokens().len()).sum();
        let length = (tokens / bench.sources.len()).max(1);
        let costs = Costs::measure(&self.pair(bench)?, length, length / 2 + 1)?;
        if let Some(path) = &self.costs {
            fs::write(path, serde_json::to_string(&costs)?).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(costs)
    }

    /// Some of the sentences, with the pair whose passes are measured.
    pub fn timed(&self, bench: &Bench) -> Result<Bench, Error> {
        let count = self.timed.clamp(1, bench.sources.len());
        // From all parts of the dataset.
        let chosen = (0..count).map(|i| i * bench.sources.len() / count);
        let (examples, sources) = chosen.map(|i| (bench.examples[i].clone(), bench.sources[i].clone())).unzip();
        let settings = bench.settings.clone().trace(false);
        Ok(Bench { pair: self.pair(bench)?, tokenizer: bench.tokenizer.clone(), settings, sources, examples })
    }
}
