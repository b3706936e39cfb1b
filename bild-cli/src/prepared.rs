//! How `sweep` and `tune` begin: data, a pair, and what passes cost.

use std::path::PathBuf;

use bild::decode::BoxedPair;
use bild_eval::{Bench, Conditions, Costs, Example, Log, dataset, digest_of_texts};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    files::Files,
    options::{self, CostsArgs, DatasetArgs, PairArgs, TextArgs},
    pair::{Limits, Loaded, PairOptions},
    policy::Needs,
    progress::Terminal,
    streams::say,
};

/// The options of both.
#[derive(Args, Debug)]
pub(crate) struct PreparedArgs {
    #[command(flatten)]
    pub(crate) dataset: DatasetArgs,
    #[command(flatten)]
    pub(crate) pair: PairArgs,
    #[command(flatten)]
    pub(crate) costs: CostsArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// Keep what is done in this file, and go on from there if it is there already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// What they need.
pub(crate) struct Prepared<'a> {
    pub(crate) bench: Bench,
    /// The pair whose passes were measured.
    pub(crate) measured: BoxedPair,
    pub(crate) costs: Costs,
    pub(crate) has_little: bool,
    conditions: Conditions,
    args: &'a PreparedArgs,
}

impl PreparedArgs {
    /// Names the files that are read and written.
    pub(crate) fn name(&self, files: &mut Files) -> Result<(), Error> {
        self.dataset.name(files);
        files.reads_pair(&self.pair)?.reads_folders(self.costs.folders());
        files.writes("--resume", self.resume.as_deref());
        files.writes("--costs", self.costs.file(self.resume.as_deref()).path().as_deref());
        Ok(())
    }

    /// That a seed has no effect, where none of the policies draws random numbers.
    pub(crate) fn seed_warning(&self) -> Option<String> {
        self.texts.seed.map(|_| "--seed has no effect: none of these policies draws random numbers".into())
    }

    /// The sentences, with a pair to decode them.
    pub(crate) fn bench(&self, loaded: &Loaded, examples: Vec<Example>) -> Result<Bench, Error> {
        let limits = self.texts.limits(self.dataset.max_source_tokens, true);
        bench(loaded, examples, &self.texts.prefix, &limits)
    }

    /// Loads the pair, and measures what its passes cost unless that is known.
    pub(crate) fn prepare(
        &self,
        pair: &PairOptions,
        examples: Vec<Example>,
        terminal: &Terminal,
    ) -> Result<Prepared<'_>, Error> {
        let data = dataset::conditions(&examples)?;
        let loaded = pair.load(Needs::Both)?;
        let bench = self.bench(&loaded, examples)?;
        let other = self.costs.pair(&pair.loading);
        if other.as_ref().is_some_and(|other| !loaded.drafts_as(other)) {
            return Err(
                "the passes of --cost-big with --cost-little or --cost-shared-encoder say nothing of a pair that drafts \
                 in another way"
                    .into(),
            );
        }
        let measured = other.map_or_else(|| Ok(loaded.clone()), |other| other.load(Needs::Both))?;
        let file = self.costs.file(self.resume.as_deref());
        let costs = file.costs(&measured.pair, measured.conditions()?, bench.mean_length(), terminal)?;
        let digest = digest_of_texts([&*serde_json::to_string(&costs)?]);
        let conditions = loaded.conditions()?.and(bench.conditions()?).and(data).with("the costs of passes", digest)?;
        let has_little = loaded.has_little();
        Ok(Prepared { bench, measured: measured.pair, costs, has_little, conditions, args: self })
    }
}

impl Prepared<'_> {
    /// The log of what is done.
    pub(crate) fn log<T: Serialize + DeserializeOwned>(
        &self,
        program: &str,
        terminal: &Terminal,
    ) -> Result<Log<T>, Error> {
        Ok(Log::open(self.args.resume.as_deref(), program, || Ok(self.conditions.clone()), terminal)?)
    }
}

/// A bench, with what is to be said of its sources.
pub(crate) fn bench(loaded: &Loaded, examples: Vec<Example>, prefix: &str, limits: &Limits) -> Result<Bench, Error> {
    let settings = loaded.settings(limits)?;
    if loaded.is_sampled()? {
        say("note: the checkpoint asks to be sampled (`do_sample`); what is compared here is greedy");
    }
    if let Some(deadline) = settings.deadline {
        let seconds = deadline.as_secs_f64();
        say(format_args!("note: the checkpoint ends a generation after {seconds} s (`max_time`), finished or not"));
    }
    let bench = Bench::new(loaded.pair.clone(), loaded.tokenizer()?.clone(), examples, prefix, settings)?;
    options::warn(bench.warnings()?);
    Ok(bench)
}
