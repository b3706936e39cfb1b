//! A training from its first step to its last: with checkpoints, looks at held-out text, and an end that can be asked for.

mod curve;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bild::CancelToken;
use bild_eval::Observer;

use crate::{
    Flex,
    data::Examples,
    error::{Result, TrainError, file},
    t5::T5,
    trainer::{Settings, Trainer},
};
use curve::Curve;

/// How long a model is trained, and how.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// How.
    pub settings: Settings,
    /// The number of the last step.
    pub steps: usize,
    /// So many steps lie between two looks at the held-out examples: 100.
    pub look: usize,
    /// After this time at most there is a checkpoint: 2 minutes.
    pub checkpoint: Duration,
}

impl Run {
    /// So many steps.
    pub fn new(settings: Settings, steps: usize) -> Self {
        Self { settings, steps, look: 100, checkpoint: Duration::from_secs(120) }
    }

    /// Takes the steps that are left of a training whose checkpoints are in the directory `work`; at the end `curve.svg` is there too.
    /// Nothing if `stop` was cancelled: then there is a checkpoint of the last step.
    ///
    /// # Errors
    ///
    /// As [`Trainer::new`], [`Trainer::resume`] and [`Trainer::step`]; if more steps were taken already, or a file cannot be written.
    pub fn run(
        &self,
        model: T5<Flex>,
        examples: &dyn Examples,
        held_out: &dyn Examples,
        work: &Path,
        stop: &CancelToken,
        observer: &dyn Observer,
    ) -> Result<Option<T5<Flex>>> {
        let (checkpoints, device) = (work.join("checkpoints"), Default::default());
        let resumed = Trainer::resume(model.clone(), examples, self.settings.clone(), &checkpoints, &device)?;
        let mut trainer = match resumed {
            Some(trainer) => trainer,
            None => Trainer::new(model, examples, self.settings.clone(), &device)?,
        };
        if trainer.steps() > self.steps {
            let (checkpoints, taken, asked) = (checkpoints.display(), trainer.steps(), self.steps);
            return Err(TrainError::Settings(format!(
                "{checkpoints} is of a training that took {taken} steps, more than the {asked} that are asked for"
            )));
        }
        let mut curve = Curve::open(&work.join("curve.jsonl"), trainer.steps())?;
        observer.begins("Training", self.steps.saturating_sub(trainer.steps()));
        let mut saved = Instant::now();
        while trainer.steps() < self.steps {
            if trainer.steps().is_multiple_of(self.look.max(1)) {
                curve.look(&trainer, held_out, observer)?;
            }
            curve.took(trainer.step()?);
            observer.advances();
            let is_stopped = stop.is_cancelled();
            if is_stopped || saved.elapsed() >= self.checkpoint || trainer.steps() == self.steps {
                trainer.save(&checkpoints)?;
                saved = Instant::now();
            }
            if is_stopped {
                observer.ends();
                return Ok(None);
            }
        }
        curve.look(&trainer, held_out, observer)?;
        observer.ends();
        let svg = work.join("curve.svg");
        fs::write(&svg, curve.svg()).map_err(file(&svg, "written"))?;
        Ok(Some(trainer.into_model()))
    }
}
