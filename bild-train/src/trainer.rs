//! A training: a model, its optimizer, its place in the data; what one step does; and a checkpoint of all of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    Tensor,
    module::{AutodiffModule, Module, ModuleVisitor, Param},
    tensor::{
        TensorData,
        backend::{AutodiffBackend, Backend},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    compute::Compute,
    data::{Batch, Batches, Example, Examples},
    error::{Result, TrainError, file},
    files::{self, Numbers},
    loss::{Loss, Score, Teacher},
    optimizer::{AdamW, Gradients, Memory, Optimizer, Rule, Schedule, number},
    random::{Dropouts, mix},
};

/// What a [`Trainer`] trains: [`T5`](crate::T5), or a module of your own.
pub trait Trainable<B: AutodiffBackend>: AutodiffModule<B> {
    /// Refuses an example, saying why.
    ///
    /// # Errors
    ///
    /// If the model cannot be trained on it.
    fn check(&self, example: &Example) -> Result<(), String>;

    /// Examples as one batch.
    fn batch(&self, examples: &[Example]) -> Batch;

    /// The sum of the losses of the tokens of a batch, times `scale`.
    fn loss(&self, batch: &Batch, loss: Loss, scale: f32, dropouts: Dropouts) -> Tensor<B, 1>;

    /// How good it is on a batch; nothing is dropped and no gradient computed.
    fn score(&self, batch: &Batch, loss: Loss) -> Score;

    /// Writes what is trained into a directory that is there and empty.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    fn save(&self, directory: &Path) -> Result<()>;

    /// Takes what is trained from such a directory.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or is of another model.
    fn restore(self, directory: &Path) -> Result<Self>;
}

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is made small.
    pub loss: Loss,
    /// By which rule.
    pub rule: Rule,
    /// How fast.
    pub schedule: Schedule,
    /// The longest that a gradient may be, all parameters' as one vector: a longer one is made so long.
    pub clip: Option<f64>,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// How many tokens the sources of a batch have at most, and its targets, with their padding.
    pub tokens: usize,
    /// The probability that a number is dropped.
    pub dropout: f32,
    /// What the order of the data and what is dropped come from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            loss: Loss::cross_entropy(),
            rule: Rule::AdamW(AdamW::default()),
            schedule: Schedule::constant(1e-3),
            clip: Some(1.0),
            accumulate: 1,
            tokens: 4096,
            dropout: 0.1,
            seed: 0,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let refuse = |sentence: String| Err(TrainError::Settings(sentence));
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("the dropout is {}, expected a number in [0, 1)", self.dropout));
        }
        if self.accumulate == 0 || self.tokens == 0 {
            return refuse("a step is of at least one batch, and a batch of at least one token".into());
        }
        if !(self.schedule.rate >= 0.0 && self.schedule.rate.is_finite()) {
            return refuse(format!("the rate is {}, expected a number from 0", self.schedule.rate));
        }
        if self.clip.is_some_and(|clip| clip.is_nan() || clip <= 0.0) {
            return refuse("gradients are clipped to a length above 0".into());
        }
        match self.loss {
            Loss::CrossEntropy { smoothing } if !(0.0..1.0).contains(&smoothing) => {
                refuse(format!("labels are smoothed by {smoothing}, expected a number in [0, 1)"))
            }
            _ => Ok(()),
        }
    }
}

/// A place in the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How often all examples were seen.
    pub epoch: usize,
    /// How many batches of this epoch were.
    pub batch: usize,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub step: usize,
    /// The mean loss of a token.
    pub loss: f64,
    /// Tokens of targets.
    pub tokens: usize,
    /// The rate.
    pub rate: f64,
    /// How long the gradient was, before it was clipped.
    pub norm: f64,
}

/// A training under way. All that it is lies in a checkpoint: a training that goes on from one takes the same steps, bit for bit on
/// flex, as if it had never stopped.
#[derive(Debug)]
pub struct Trainer<B: AutodiffBackend, M, E> {
    /// There is always one; a step takes it and puts it back.
    model: Option<M>,
    optimizer: Optimizer<B::InnerBackend>,
    settings: Settings,
    examples: E,
    batches: Batches,
    /// The batches of the epoch of the position.
    epoch: Vec<Vec<usize>>,
    position: Position,
    steps: usize,
    /// What tells the model that it began with, and the examples, from others.
    digests: Digests,
    device: B::Device,
}

/// What a training is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Digests {
    /// Of the numbers of the model as it was before the first step.
    model: u64,
    /// How many examples there are, and a hash of their tokens.
    examples: (usize, u64),
}

/// A checkpoint, besides the tensors.
#[derive(Serialize, Deserialize)]
struct State {
    settings: Settings,
    position: Position,
    steps: usize,
    digests: Digests,
    /// How often each parameter was changed.
    changed: BTreeMap<u64, usize>,
}

impl<B, M, E> Trainer<B, M, E>
where
    B: AutodiffBackend,
    B::InnerBackend: Compute,
    M: Trainable<B>,
    E: Examples,
{
    /// One that begins.
    ///
    /// # Errors
    ///
    /// If there are no examples, one of them cannot be trained on, or the settings make no sense.
    pub fn new(model: M, examples: E, settings: Settings, device: &B::Device) -> Result<Self> {
        let begun = digest(&model);
        Self::begin(model, begun, examples, settings, device)
    }

    /// With a model that was another one, of this digest, before the first step.
    fn begin(model: M, begun: u64, examples: E, settings: Settings, device: &B::Device) -> Result<Self> {
        settings.check()?;
        if examples.is_empty() {
            return Err(TrainError::Settings("there are no examples to train on".into()));
        }
        let (mut hash, mut best) = (0, None);
        for index in 0..examples.len() {
            let example = examples.example(index)?;
            for part in [&example.source, &example.target] {
                hash = part.iter().fold(mix(hash, part.len() as u64), |hash, &token| mix(hash, token.into()));
            }
            let refuse = |reason| TrainError::Example { index, reason };
            model.check(&example).map_err(refuse)?;
            if settings.loss.needs_teacher() {
                let Some(Teacher { best: found, .. }) = example.teacher else {
                    return Err(refuse("it has no teacher's distributions, which the loss needs".into()));
                };
                let best = *best.get_or_insert(found);
                if found != best {
                    let sentence = format!("its teacher has {found} tokens for each position, and others have {best}");
                    return Err(refuse(sentence));
                }
            }
            let longest = example.source.len().max(example.target.len());
            if longest > settings.tokens {
                let sentence = format!("it has {longest} tokens, and a batch at most {}", settings.tokens);
                return Err(refuse(sentence));
            }
        }
        let batches = Batches::new(&examples, settings.tokens, settings.seed);
        let digests = Digests { model: begun, examples: (examples.len(), hash) };
        Ok(Self {
            model: Some(model),
            optimizer: Optimizer::new(settings.rule),
            epoch: batches.of_epoch(0),
            settings,
            examples,
            batches,
            position: Position::default(),
            steps: 0,
            digests,
            device: device.clone(),
        })
    }

    /// The model as it is.
    pub fn model(&self) -> &M {
        self.model.as_ref().expect("a step puts the model back")
    }

    /// The model as it was left.
    pub fn into_model(self) -> M {
        self.model.expect("a step puts the model back")
    }

    /// How it is trained.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The place in the data.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many batches this epoch has.
    pub fn batches(&self) -> usize {
        self.epoch.len()
    }

    /// How many steps were taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Takes one step.
    ///
    /// # Errors
    ///
    /// If an example cannot be read, or the loss is not a number any more: the model is as it was before the step.
    pub fn step(&mut self) -> Result<Step> {
        let mut position = self.position;
        let mut epoch = None;
        let mut batches = Vec::new();
        for _ in 0..self.settings.accumulate {
            if position.batch == epoch.as_ref().unwrap_or(&self.epoch).len() {
                position = Position { epoch: position.epoch + 1, batch: 0 };
                epoch = Some(self.batches.of_epoch(position.epoch));
            }
            let indices = &epoch.as_ref().unwrap_or(&self.epoch)[position.batch];
            let examples = indices.iter().map(|&index| self.examples.example(index)).collect::<Result<Vec<_>>>()?;
            batches.push(self.model().batch(&examples));
            position.batch += 1;
        }
        let tokens: usize = batches.iter().map(Batch::target_tokens).sum();
        let scale = 1.0 / tokens.max(1) as f32;
        let mut gradients = Gradients::default();
        let mut loss = 0.0;
        for (part, batch) in batches.iter().enumerate() {
            let seed = mix(mix(self.settings.seed, self.steps as u64), part as u64);
            let dropouts = Dropouts::new(self.settings.dropout, seed);
            let of_part = self.model().loss(batch, self.settings.loss, scale, dropouts);
            loss += number(of_part.clone().inner());
            gradients.add(self.model(), of_part);
        }
        let (rate, norm) = (self.settings.schedule.rate(self.steps), gradients.norm());
        if !loss.is_finite() || !norm.is_finite() {
            return Err(TrainError::Diverged { step: self.steps, loss });
        }
        let factor = match self.settings.clip {
            // As PyTorch: the small number keeps a gradient of nothing from being divided by it.
            Some(clip) => (clip / (norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let model = self.model.take().expect("a step puts the model back");
        self.model = Some(self.optimizer.step(model, gradients, rate, factor));
        let step = Step { step: self.steps, loss, tokens, rate, norm };
        self.steps += 1;
        self.position = position;
        if let Some(epoch) = epoch {
            self.epoch = epoch;
        }
        Ok(step)
    }

    /// How good the model is on examples, cut into batches as those of the training.
    ///
    /// # Errors
    ///
    /// If an example cannot be read.
    pub fn score(&self, examples: &dyn Examples, loss: Loss) -> Result<Score> {
        let mut score = Score::default();
        for indices in Batches::new(examples, self.settings.tokens, 0).of_epoch(0) {
            let examples = indices.iter().map(|&index| examples.example(index)).collect::<Result<Vec<_>>>()?;
            score = score.and(self.model().score(&self.model().batch(&examples), loss));
        }
        Ok(score)
    }

    /// Writes a checkpoint into a directory of checkpoints: it is there whole or not at all, and the one before it is removed after
    /// that. Returns where it is; a [`T5`](crate::T5) of which nothing is frozen can be loaded from there.
    ///
    /// # Errors
    ///
    /// If it cannot be written, as on a full disk: the checkpoint before it is still there.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<PathBuf> {
        let directory = directory.as_ref();
        let mut tensors = BTreeMap::new();
        let mut changed = BTreeMap::new();
        for (id, memory) in self.optimizer.memories() {
            changed.insert(*id, memory.steps);
            for (i, moment) in memory.moments.iter().enumerate() {
                let numbers = Numbers { shape: moment.dims().into(), values: moment.to_data().iter::<f32>().collect() };
                tensors.insert(format!("{id}.{i}"), numbers);
            }
        }
        let state = State {
            settings: self.settings.clone(),
            position: self.position,
            steps: self.steps,
            digests: self.digests,
            changed,
        };
        let state = serde_json::to_vec_pretty(&state).expect("a state is JSON");
        let to = directory.join(format!("{PREFIX}{:08}", self.steps));
        // What a kill or a full disk left of saves before.
        for left in files::directories(directory)? {
            if left.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!(".{PREFIX}"))) {
                files::remove(&left)?;
            }
        }
        files::publish(&to, |partial| {
            self.model().save(partial)?;
            files::write_tensors(&partial.join(OPTIMIZER), &tensors)?;
            files::write(&partial.join(STATE), &state)
        })?;
        for (_, other) in checkpoints(directory)?.into_iter().filter(|(_, other)| *other != to) {
            files::remove(&other)?;
        }
        Ok(to)
    }

    /// One that goes on from the last checkpoint of a directory; given the same model as at the beginning, the same examples and
    /// the same settings. Nothing if there is no checkpoint.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); if the checkpoint cannot be read, or is of a training of another model, or with other settings or
    /// examples.
    pub fn resume(
        model: M,
        examples: E,
        settings: Settings,
        directory: impl AsRef<Path>,
        device: &B::Device,
    ) -> Result<Option<Self>> {
        let Some((_, from)) = checkpoints(directory.as_ref())?.pop() else { return Ok(None) };
        let path = from.join(STATE);
        let state = fs::read(&path).map_err(file(&path, "read"))?;
        let broken = |reason| TrainError::Broken { path: path.clone(), reason };
        let state: State = serde_json::from_slice(&state).map_err(|error| broken(error.to_string()))?;
        // JSON may change the last bit of a number, but not twice.
        let read_back = serde_json::to_vec(&settings).and_then(|json| serde_json::from_slice::<Settings>(&json));
        if read_back.ok().as_ref() != Some(&state.settings) {
            let path = path.display();
            return Err(TrainError::Settings(format!("{path} is of a training with other settings: go on with those")));
        }
        let begun = digest(&model);
        if begun != state.digests.model {
            let path = path.display();
            let sentence = format!("{path} is of a training that began with another model: begin in another folder");
            return Err(TrainError::Settings(sentence));
        }
        let mut trainer = Self::begin(model.restore(&from)?, begun, examples, settings, device)?;
        if state.digests.examples != trainer.digests.examples {
            let path = path.display();
            let (found, expected) = (trainer.examples.len(), state.digests.examples.0);
            let sentence = format!("{path} is of a training on {expected} other examples, and here are {found}");
            return Err(TrainError::Settings(sentence));
        }
        let mut tensors = files::read_tensors(&from.join(OPTIMIZER))?;
        let mut memories = BTreeMap::new();
        for (id, steps) in state.changed {
            let numbers = (0..).map_while(|i| tensors.remove(&format!("{id}.{i}")));
            let moment = |numbers: Numbers| {
                let count = numbers.values.len();
                Tensor::from_data(TensorData::new(numbers.values, [count]), device)
            };
            memories.insert(id, Memory { steps, moments: numbers.map(moment).collect() });
        }
        trainer.optimizer = Optimizer::with_memories(trainer.settings.rule, memories);
        trainer.epoch = trainer.batches.of_epoch(state.position.epoch);
        (trainer.position, trainer.steps) = (state.position, state.steps);
        Ok(Some(trainer))
    }

    /// The device of the model.
    pub fn device(&self) -> &B::Device {
        &self.device
    }
}

/// What tells the numbers of a model from those of another.
fn digest<B: Backend>(model: &impl Module<B>) -> u64 {
    struct Hash(u64);

    impl<B: Backend> ModuleVisitor<B> for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let tensor = param.val();
            self.0 = tensor.dims().iter().fold(self.0, |hash, &length| mix(hash, length as u64));
            self.0 = tensor.into_data().iter::<f32>().fold(self.0, |hash, x| mix(hash, x.to_bits().into()));
        }
    }

    let mut hash = Hash(0);
    model.visit(&mut hash);
    hash.0
}

/// How the directories of checkpoints are named, before the number of steps.
const PREFIX: &str = "step-";

const STATE: &str = "training.json";

const OPTIMIZER: &str = "optimizer.safetensors";

/// The checkpoints of a directory and their steps, the last one last.
fn checkpoints(directory: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let steps = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok();
    let mut found: Vec<(usize, PathBuf)> =
        files::directories(directory)?.into_iter().filter_map(|path| Some((steps(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use bild::Checkpoint;

    use super::*;
    use crate::{Flex, T5, files::kill};

    /// A save that is killed anywhere leaves a checkpoint from which the training goes on: the one before, or the new one.
    #[test]
    fn a_kill_in_a_save_costs_the_steps_since_the_last_one() {
        let json = br#"{"model_type": "t5", "vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_layers": 1,
            "decoder_start_token_id": 0}"#;
        let about = Checkpoint::from_files([("config.json", json.to_vec())]).unwrap();
        let device = Default::default();
        let model = || T5::<Flex>::random(&about, 1, &device).unwrap();
        let example = |i: u32| Example { source: vec![i, 1], target: vec![i + 1, 1], teacher: None };
        let examples = || (2..20).map(example).collect::<Vec<_>>();
        let settings = || Settings { tokens: 8, ..Settings::default() };
        let directory = tempfile::tempdir().unwrap();
        // Left by a save of another step.
        fs::create_dir(directory.path().join(".step-00000099.partial")).unwrap();
        let mut trainer = Trainer::<Flex, _, _>::new(model(), examples(), settings(), &device).unwrap();
        trainer.step().unwrap();
        trainer.save(directory.path()).unwrap();
        for writes in 0.. {
            trainer.step().unwrap();
            kill::after(Some(writes));
            let saved = trainer.save(directory.path());
            kill::after(None);
            let resumed = Trainer::<Flex, _, _>::resume(model(), examples(), settings(), directory.path(), &device);
            let mut resumed = resumed.unwrap().unwrap();
            let lost = trainer.steps() - resumed.steps();
            assert!(lost <= 1, "{lost} steps after {writes} writes");
            if lost == 0 {
                assert_eq!(resumed.step().unwrap(), trainer.step().unwrap());
            }
            if saved.is_ok() {
                assert!(writes > 10);
                assert_eq!(
                    files::directories(directory.path()).unwrap().len(),
                    1,
                    "nothing is left of saves that were killed"
                );
                return;
            }
            trainer = resumed;
        }
    }
}
