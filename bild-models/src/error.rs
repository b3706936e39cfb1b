use std::path::PathBuf;

/// Why a checkpoint could not be loaded, as a sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or directory could not be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory holds none of the files that one of is needed.
    #[error("{path} holds {missing}", path = path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// What it lacks, as in "no config.json".
        missing: String,
    },
    /// A file is not what its name says.
    #[error("{path} is broken: {reason}", path = path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of a configuration is missing or makes no sense.
    #[error("{path}: `{field}` is {found}, expected {expected}", path = path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The checkpoint is of a model that this crate does not decode.
    #[error("{path} describes {model}, which is not supported: {supported}", path = path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// The model.
        model: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A model cannot draft with so many of its layers.
    #[error(
        "{layers} decoder layers were to draft for a T5 that has {all}: expected at least 1, and fewer than it has"
    )]
    EarlyExit {
        /// How many were to draft.
        layers: usize,
        /// How many there are.
        all: usize,
    },
    /// A draft decoder cannot be made of such layers.
    #[error(
        "a draft decoder was to be made of the layers {layers:?} of a T5 that has {all} decoder layers: expected at least one, \
         each below {all}"
    )]
    DraftLayers {
        /// The layers, counted from 0.
        layers: Vec<usize>,
        /// How many there are.
        all: usize,
    },
    /// What drafts with parts of a big model, a draft decoder or an early exit, cannot be used so.
    #[error("{path} describes {problem}", path = path.display())]
    Drafter {
        /// The file that says so.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A short list of tokens is for another vocabulary.
    #[error(
        "the short list of tokens names the token {token}, of a vocabulary of {vocabulary}: it was made for another model"
    )]
    Shortlist {
        /// The token.
        token: bild_core::Token,
        /// How many tokens the model has.
        vocabulary: usize,
    },
    /// CUDA is asked for and cannot run here.
    #[error("CUDA cannot be used here: {missing}")]
    Cuda {
        /// What it lacks, and what to do.
        missing: String,
    },
    /// The backend's floats are too short for a T5.
    #[error("the backend {backend} computes in {float}: a T5 needs f32 here, take the backend's type with f32")]
    Floats {
        /// The backend, as Burn names it.
        backend: String,
        /// Its floats.
        float: String,
    },
    /// The backend has no such weights on this device.
    #[error("the backend {backend} does not compute with weights in {precision} on this device: take f32")]
    Precision {
        /// The backend, as Burn names it.
        backend: String,
        /// What was asked for.
        precision: String,
    },
    /// The backend computes wrongly here.
    #[error(
        "the backend {backend} computes wrongly here: {difference}. Its driver, or Burn's fusion of kernels, may be to blame; \
         `LoadOptions::self_test(false)` loads the model all the same"
    )]
    SelfTest {
        /// The backend, as Burn names it.
        backend: String,
        /// What differs, and by how much.
        difference: String,
    },
    /// A checkpoint cannot be had from the hub.
    #[error("{repository} (revision {revision}) cannot be had from {endpoint}: {reason}")]
    Hub {
        /// The name of the checkpoint.
        repository: String,
        /// The branch, tag or commit.
        revision: String,
        /// The address of the hub.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// The threads asked for cannot be had.
    #[error("{count} threads cannot be had: {reason}")]
    Threads {
        /// How many were asked for.
        count: usize,
        /// Why not.
        reason: String,
    },
    /// The model is larger than the memory that is free.
    #[error("the model of {path} takes {needed} of memory to load, and {free} are free", path = path.display())]
    Memory {
        /// The checkpoint.
        path: PathBuf,
        /// What it takes, as in "3.1 GB".
        needed: String,
        /// What is free.
        free: String,
    },
    /// A tensor is missing or not as the configuration says.
    #[error("{path}: tensor `{name}` {problem}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A result with this crate's [`LoadError`].
pub(crate) type Result<T, E = LoadError> = std::result::Result<T, E>;
