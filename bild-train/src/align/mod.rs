//! A little model made for a big one: trained on what the big one writes, without references, and measured before and after.

mod card;
mod outputs;
mod report;
mod stoppable;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bild::{
    CancelToken, Checkpoint, LoadOptions, Precision,
    decode::{BoxedPair, Generator, NoDraft, Overflow, Pair, Source, Token, Vocabulary},
    models::{EarlyExit, SharedEncoder},
    policies::{AnyPolicy, BigAlone},
};
use bild_eval::{
    Bench, Conditions, Observer, digest_of_folder, digest_of_texts,
    shortlist::{self, Coverage},
};
use serde::{Deserialize, Serialize};

use crate::{
    Flex,
    data::Examples,
    error::{Result, TrainError, file},
    files::check_replaceable,
    random::Random,
    run::Run,
    t5::{Frozen, Layers, Shrink, T5},
};

pub use outputs::Outputs;
pub use report::{Measured, MeasuredPolicy, measure};
use stoppable::Stoppable;

/// What is to draft beside the big model.
#[derive(Clone, Debug)]
pub enum Drafter {
    /// A smaller model with the same tokenizer.
    Little(PathBuf),
    /// Some layers of the big model, with an encoder of its own.
    Shrunk(Shrink),
    /// Some decoder layers of the big model, which read the big model's encoder ([`SharedEncoder`]).
    SharedEncoder(Layers),
    /// The big model's own first decoder layers, with a trained norm and adapter between them and its head
    /// ([`EarlyExit`]).
    EarlyExit {
        /// How many layers.
        layers: usize,
        /// The rank of the adapter.
        rank: usize,
    },
}

/// The sources with what was written for them.
fn pairs(outputs: &Outputs) -> Result<Vec<shortlist::Pair>> {
    (0..outputs.len()).map(|i| outputs.example(i).map(|example| (example.source, example.target))).collect()
}

/// How a little model is aligned with a big one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Alignment {
    /// What is trained.
    pub drafter: Drafter,
    /// How it is trained, and for how many steps.
    pub run: Run,
    /// How many of the big model's most likely tokens are kept at each position, for a loss that needs them: 32.
    pub best: usize,
    /// How many sources are held out to measure on, where none are given: 500.
    pub held_out: usize,
    /// How often each held-out sentence is timed with each policy; if that is not said, as often as ten seconds hold.
    pub rounds: Option<usize>,
    /// How the big model computes that writes, and both that are measured: in f32.
    pub precision: Precision,
    /// How the big model writes.
    pub decoding: bild::Settings,
    /// What stands before every source.
    pub prefix: String,
}

/// Text to align on.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// Sources to train on.
    pub sources: Vec<String>,
    /// Sources to measure on, with what a person wrote for them; none, for some of the sources, which are compared with what the
    /// big model writes.
    pub held_out: Vec<bild_eval::Example>,
}

/// What came of an alignment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Aligned {
    /// How many sources it was trained on.
    pub sources: usize,
    /// For how many steps.
    pub steps: usize,
    /// How many sentences it was measured on.
    pub held_out: usize,
    /// The draft model as it was.
    pub before: Measured,
    /// The draft model as it is.
    pub after: Measured,
    /// What the tokens that `shortlist.json` names cover of the big model's outputs.
    pub coverage: Coverage,
    /// The fastest policy that loses at most a point of BLEU, if one is sure to.
    pub policy: Option<AnyPolicy>,
}

impl Alignment {
    /// An alignment of `drafter` by a training.
    pub fn new(drafter: Drafter, run: Run) -> Self {
        Self {
            drafter,
            run,
            best: 32,
            held_out: 500,
            rounds: None,
            precision: Precision::F32,
            decoding: bild::Settings::default(),
            prefix: String::new(),
        }
    }

    /// Aligns, and writes the draft model with a card, its figures and a policy into the directory `out`. What is under way is kept
    /// in the directory `work`: with the same text and settings it goes on from there. Nothing if `stop` was cancelled; then the
    /// last step is kept too.
    ///
    /// # Errors
    ///
    /// If a model cannot be loaded, the two have not the same tokens, the text is empty or cannot be tokenized, `work` is of another
    /// alignment, `out` is a folder with anything but a model in it, holds one that is read or `work` or lies in `work`, or a file
    /// cannot be written.
    pub fn run(
        &self,
        big: &Checkpoint,
        text: &Text,
        [work, out]: [&Path; 2],
        stop: &CancelToken,
        observer: &dyn Observer,
    ) -> Result<Option<Aligned>> {
        let read: Vec<&Path> = match &self.drafter {
            Drafter::Little(little) => vec![big.directory(), little],
            _ => vec![big.directory()],
        };
        check_replaceable(out, &read, work)?;
        fs::create_dir_all(work).map_err(file(work, "made"))?;
        let (sources, held_out) = self.split(text, observer)?;
        let model = self.model(big)?;
        let before = work.join("before");
        self.save(&model, big, &before)?;
        let writer = self.load(big)?;
        // Whether they belong together is found out before anything takes long.
        self.pair(writer.clone(), &before)?;
        let conditions = self.conditions(big)?;
        let written = |sources: &[String], file: &str| {
            self.outputs(&writer, big, sources, &conditions, &work.join(file), stop, observer)
        };
        let aside: Vec<String> = held_out.iter().map(|example| example.source.clone()).collect();
        let Some(outputs) = written(&sources, "outputs.bin")? else { return Ok(None) };
        let Some(aside) = written(&aside, "held-out.bin")? else { return Ok(None) };
        let vocabulary = Pair::vocabulary(&(NoDraft, writer)).clone();
        let Some(model) = self.run.run(model, &outputs, &aside, work, stop, observer)? else { return Ok(None) };
        let after = work.join("after");
        self.save(&model, big, &after)?;
        drop(model);

        let verifier = self.load(big)?;
        let measured = |directory: &Path| {
            let pair = self.pair(verifier.clone(), directory)?;
            let pair = Arc::new(Stoppable { pair, stop: stop.clone() });
            let bench = self.bench(pair, big, &held_out, &aside)?;
            let found = measure(&bench, self.rounds, observer);
            // What was stopped has failed, or come to its end all the same: either way nothing is published.
            if stop.is_cancelled() { Ok(None) } else { Ok::<_, TrainError>(Some((bench.sources.len(), found?))) }
        };
        let Some((_, (before, _))) = measured(&before)? else { return Ok(None) };
        let Some((measured_on, (after_measured, policy))) = measured(&after)? else { return Ok(None) };
        let list = shortlist::learn(&pairs(&outputs)?, shortlist::frequent(vocabulary.size), 8);
        let aligned = Aligned {
            sources: sources.len(),
            steps: self.run.steps,
            held_out: measured_on,
            before,
            after: after_measured,
            coverage: Coverage::measure(&list, &pairs(&aside)?, &vocabulary.end),
            policy,
        };
        self.publish(&aligned, &list, &after, work, out)?;
        Ok(Some(aligned))
    }

    /// The sources to train on, each once and none that is held out, and what is held out.
    fn split(&self, text: &Text, observer: &dyn Observer) -> Result<(Vec<String>, Vec<bild_eval::Example>)> {
        let mut held_out: Vec<bild_eval::Example> = text.held_out.clone();
        held_out.retain(|example| !example.source.trim().is_empty());
        let mut seen: HashSet<&str> = held_out.iter().map(|example| &*example.source).collect();
        let mut sources: Vec<&str> = text.sources.iter().map(|source| &**source).collect();
        sources.retain(|source| !source.trim().is_empty() && seen.insert(source));
        let dropped = text.sources.len() - sources.len();
        if dropped > 0 {
            observer.notes(&format!("{dropped} of {} sources are blank, or there already", text.sources.len()));
        }
        let mut random = Random::new(self.run.settings.seed);
        random.shuffle(&mut sources);
        let mut sources: Vec<String> = sources.into_iter().map(str::to_owned).collect();
        if text.held_out.is_empty() {
            let aside = sources.split_off(sources.len().saturating_sub(self.held_out));
            held_out =
                aside.into_iter().map(|source| bild_eval::Example { source, reference: String::new() }).collect();
        }
        if sources.is_empty() || held_out.is_empty() {
            return Err(TrainError::Data(format!(
                "{} different sources are too few: {} are held out to measure on, and others are needed to train on",
                sources.len() + held_out.len(),
                self.held_out,
            )));
        }
        Ok((sources, held_out))
    }

    /// The draft model as it begins.
    fn model(&self, big: &Checkpoint) -> Result<T5<Flex>> {
        let device = Default::default();
        match &self.drafter {
            Drafter::Little(directory) => T5::open(&Checkpoint::open(directory)?, &device),
            Drafter::Shrunk(shrink) => T5::shrunk(big, shrink, &device),
            Drafter::SharedEncoder(layers) => {
                let shrink = Shrink { encoder: Layers::All, decoder: layers.clone() };
                let frozen = Frozen { embedding: true, encoder: true, decoder: false, norm: false, head: true };
                Ok(T5::shrunk(big, &shrink, &device)?.with_frozen(frozen))
            }
            Drafter::EarlyExit { layers, rank } => T5::early_exit(big, *layers, *rank, &device),
        }
    }

    fn save(&self, model: &T5<Flex>, big: &Checkpoint, directory: &Path) -> Result<()> {
        match &self.drafter {
            Drafter::SharedEncoder(layers) => {
                let layers = layers.of(bild::models::T5Config::of(big)?.decoder_layers)?;
                model.save_shared_encoder(directory, big.digest()?, &layers)
            }
            Drafter::EarlyExit { .. } => model.save_early_exit(directory, big.digest()?),
            Drafter::Little(_) | Drafter::Shrunk(_) => model.save(directory),
        }
    }

    /// A model that decodes.
    fn load(&self, checkpoint: &Checkpoint) -> Result<bild::T5<bild::Flex>> {
        Ok(bild::T5::load_with(checkpoint, &Default::default(), &self.loading())?)
    }

    /// The big model with the draft model of a directory.
    fn pair(&self, big: bild::T5<bild::Flex>, directory: &Path) -> Result<BoxedPair> {
        let draft = Checkpoint::open(directory)?;
        let pair = match self.drafter {
            Drafter::SharedEncoder(_) => SharedEncoder::load_with(big, &draft, &self.loading())?.boxed(),
            Drafter::EarlyExit { .. } => EarlyExit::load(big, &draft)?.boxed(),
            Drafter::Little(_) | Drafter::Shrunk(_) => (self.load(&draft)?, big).boxed(),
        };
        pair.check()?;
        Ok(pair)
    }

    /// What the big model's outputs depend on beside their sources.
    fn conditions(&self, big: &Checkpoint) -> Result<Conditions> {
        Ok(Conditions::default()
            .with("the big model", digest_of_folder(big.directory())?)?
            .with("its precision", format!("{:?}", self.precision))?
            .with("the settings of generating", &self.decoding)?
            .with("the prefix", &self.prefix)?)
    }

    /// What the big model writes for sources, those that a file has already among them; nothing if it was stopped.
    #[allow(clippy::too_many_arguments)]
    fn outputs(
        &self,
        model: &bild::T5<bild::Flex>,
        big: &Checkpoint,
        sources: &[String],
        conditions: &Conditions,
        path: &Path,
        stop: &CancelToken,
        observer: &dyn Observer,
    ) -> Result<Option<Outputs>> {
        let digest = digest_of_texts(sources.iter().map(|source| &**source));
        let conditions = conditions.clone().with("the sources", digest)?;
        let vocabulary = Pair::vocabulary(&(NoDraft, model.clone())).clone();
        let best = if self.run.settings.loss.needs_teacher() { self.best.min(vocabulary.size) } else { 0 };
        let mut outputs = Outputs::open(path, best, &conditions)?;
        if outputs.done() < sources.len() {
            let tokenizer = big.tokenizer()?;
            let source = |text: &String| Ok(Source::new(tokenizer.encode(&format!("{}{text}", self.prefix))?));
            let sources = sources.iter().map(source).collect::<Result<Vec<_>>>()?;
            let (all, most) = (sources.len(), self.decoding.max_source_tokens);
            let long = sources.iter().filter(|source| source.tokens().len() > most).count();
            if long > 0 && self.decoding.overflow == Overflow::Truncate {
                observer.notes(&format!("{long} of {all} sources have more than {most} tokens and are cut to that"));
            }
            let generator = Generator::new((NoDraft, model.clone()), BigAlone {})?.with_settings(self.decoding.clone());
            if !outputs.write(&generator, &sources, stop, observer)? {
                return Ok(None);
            }
            let (cut, all, most) = (self.cut(&outputs, &vocabulary)?, outputs.len(), self.decoding.max_new_tokens);
            if cut > 0 {
                observer.notes(&format!("{cut} of {all} outputs have not ended after {most} tokens and are cut there"));
            }
        }
        Ok(Some(outputs))
    }

    /// How many outputs ended for no other reason than that no more tokens are written.
    fn cut(&self, outputs: &Outputs, vocabulary: &Vocabulary) -> Result<usize> {
        let ends = self.decoding.end_tokens.as_ref().unwrap_or(&vocabulary.end);
        let ends_it = |token: &Token| ends.contains(token) || self.decoding.stop_tokens.contains(token);
        let mut cut = 0;
        for index in (0..outputs.len()).filter(|&index| outputs.lengths(index)[1] == self.decoding.max_new_tokens) {
            cut += usize::from(!outputs.example(index)?.target.last().is_some_and(ends_it));
        }
        Ok(cut)
    }

    /// The held-out text to measure a pair on; without references, beside what the big model writes.
    fn bench(
        &self,
        pair: BoxedPair,
        big: &Checkpoint,
        held_out: &[bild_eval::Example],
        aside: &Outputs,
    ) -> Result<Bench> {
        let tokenizer = big.tokenizer()?;
        let mut examples = held_out.to_vec();
        if examples.iter().all(|example| example.reference.is_empty()) {
            for index in 0..aside.len() {
                examples[aside.source(index)].reference = tokenizer.decode(&aside.example(index)?.target)?;
            }
            examples.retain(|example| !example.reference.is_empty());
        }
        Ok(Bench::new(pair, tokenizer, examples, &self.prefix, self.decoding.clone())?)
    }

    fn loading(&self) -> LoadOptions {
        LoadOptions::default().with_precision(self.precision)
    }
}
