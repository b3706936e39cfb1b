use std::path::{Path, PathBuf};

use bild::LoadError;

/// Why training cannot begin or go on, as a sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A checkpoint could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file could not be read or written.
    #[error("{path} cannot be {what}: {source}", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// As in "written".
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a training's state is not what it should be.
    #[error("{path} is broken: {reason}", path = path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model cannot be made so.
    #[error("this model cannot be made: {0}")]
    Model(String),
    /// There is nothing to train on, or a file of it cannot be used.
    #[error("{0}")]
    Data(String),
    /// A model cannot decode.
    #[error(transparent)]
    Decode(#[from] bild::Error),
    /// What was written cannot be judged.
    #[error(transparent)]
    Evaluation(#[from] bild_eval::Error),
    /// An example cannot be trained on.
    #[error("example {index} cannot be trained on: {reason}")]
    Example {
        /// Its index, from 0.
        index: usize,
        /// Why not.
        reason: String,
    },
    /// The settings make no sense, or are others than those that a training was begun with.
    #[error("{0}")]
    Settings(String),
    /// The loss is not a number any more.
    #[error("the loss is {loss} at step {step}: the rate is too high, or the model was broken before")]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
}

/// A result with this crate's [`TrainError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// What [`std::io`] says, with the file.
pub(crate) fn file(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> TrainError {
    move |source| TrainError::File { path: path.into(), what, source }
}
