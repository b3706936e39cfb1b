//! What passes cost, measured once, so that the time of a policy can be told from its counted passes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use bild::{Event, Output, Pair, PairSession, SessionLimit, Source, Token, Want};
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
    /// Measures a pair at a source of `source` tokens, after `generated` tokens: each pass of the big model after the draft
    /// steps that would come before it.
    pub fn measure(pair: &AnyPair, source: usize, generated: usize) -> Result<Self, Error> {
        let progress = bar(ROUNDS as u64, "Measuring passes");
        let [mut encode_big, mut encode_little, mut draft] = [Vec::new(), Vec::new(), Vec::new()];
        let mut verify = vec![Vec::new(); ROWS.len()];
        let most = pair.vocabulary().size - 3;
        let tokens = |count: usize| -> Vec<Token> { (0..count).map(|i| (3 + i * 7919 % most) as Token).collect() };
        let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
        let limit = generated + 18;
        let (source, written) = (Source::new(tokens(source)), tokens(limit));
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut session = pair.begin(&source, &SessionLimit::new(limit))?;
            encode_big.push(milliseconds(begun));
            let begun = Instant::now();
            session.prepare()?;
            encode_little.push(milliseconds(begun));
            session.propose(&written[..generated], Want::default())?;
            session.score(&written[..generated], Want::default())?;
            for (rows, times) in ROWS.iter().zip(&mut verify) {
                let new = &written[generated..generated + rows];
                for token in new {
                    let begun = Instant::now();
                    session.propose(&[*token], Want::default())?;
                    draft.push(milliseconds(begun));
                }
                let begun = Instant::now();
                session.score(new, Want::default().cross_entropy())?;
                times.push(milliseconds(begun));
                session.truncate(generated);
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(Self {
            encode_big: median(encode_big),
            encode_little: median(encode_little),
            draft: median(draft),
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

    /// What passes cost, at the mean length of the sources. A run that can be gone on with keeps its costs: they lie beside
    /// `resume` if no file is named for them.
    pub fn costs(&self, bench: &Bench, resume: Option<&Path>) -> Result<Costs, Error> {
        let path = self.costs.clone().or_else(|| resume.map(|path| path.with_extension("costs.json")));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            let text = fs::read_to_string(path)?;
            return serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into());
        }
        let tokens: usize = bench.sources.iter().map(|source| source.tokens().len()).sum();
        let length = (tokens / bench.sources.len()).max(1);
        let costs = Costs::measure(&self.pair(bench)?, length, length / 2 + 1)?;
        if let Some(path) = &path {
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
