//! Models from their folders.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bild::{Checkpoint, Flex, LoadOptions, Precision, T5, Threads, models::Shortlist};

use crate::{Error, progress::spinner, streams::say};

/// How the models of a pair are held, and with how many threads they compute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loading {
    pub(crate) big: Precision,
    pub(crate) little: Precision,
    /// The file of the tokens that drafts are made of, if not of all.
    pub(crate) shortlist: Option<PathBuf>,
    /// One a physical core, if none is said.
    pub(crate) threads: Option<usize>,
}

impl Loading {
    /// The options of the big model and of the little one, which share their threads.
    pub(crate) fn options(&self) -> Result<[LoadOptions; 2], Error> {
        let threads = self.threads.map(Threads::new).transpose()?.unwrap_or_default();
        let list = self.shortlist.as_ref().map(Shortlist::open).transpose()?.map(Arc::new);
        let options = |precision| {
            let options = LoadOptions::default().with_precision(precision).with_threads(threads.clone());
            // The big model verifies with all tokens, and may draft by an early exit.
            list.clone().into_iter().fold(options, LoadOptions::with_shortlist)
        };
        Ok([options(self.big), options(self.little)])
    }

    /// How many threads that is.
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| Threads::default().count())
    }
}

/// Whether there is no such folder, and a checkpoint of the hub may have this name.
pub(crate) fn is_like_a_hub_name(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err()
        && path.is_relative()
        && path.components().count() <= 2
        && !path.starts_with(".")
}

/// What to do about a name that only the hub may know.
pub(crate) const HUB_HINT: &str = " (if it is a name on the hub: build with --features hub)";

/// The name under which the hub may have a checkpoint, if the program was built with `--features hub`.
pub(crate) fn hub_name(path: &Path) -> Option<&str> {
    path.to_str().filter(|_| cfg!(feature = "hub") && is_like_a_hub_name(path))
}

/// Opens a folder or, if there is none and the program was built with `--features hub`, a checkpoint of the hub, with a progress
/// bar if standard error is a terminal.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, Error> {
    #[cfg(feature = "hub")]
    if let Some(name) = hub_name(path) {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        return Ok(bild::models::Hub::from_env().with_progress(is_terminal).checkpoint(name)?);
    }
    Ok(Checkpoint::open(path)?)
}

/// Loads a model, with a spinner if that takes a while.
pub(crate) fn load(checkpoint: &Checkpoint, name: &str, options: &LoadOptions) -> Result<T5<Flex>, Error> {
    let spinner = spinner(format!("Loading {name}"));
    let model = T5::load_with(checkpoint, &Default::default(), options);
    spinner.finish_and_clear();
    let model = model?;
    warn(&model, checkpoint);
    Ok(model)
}

/// Says what of a checkpoint has no effect.
pub(crate) fn warn(model: &T5<Flex>, checkpoint: &Checkpoint) {
    for warning in model.warnings() {
        say(format_args!("warning: {}: {warning}", checkpoint.directory().display()));
    }
}

/// The folder of the pair that is used where none is named: `models/de-en` of bild's repository, in the working directory or
/// in the folder that the environment variable `BILD_MODELS` names.
pub(crate) fn default_pair() -> Result<PathBuf, Error> {
    let here = Path::new("models/de-en").to_owned();
    let models = env::var_os("BILD_MODELS").filter(|models| !models.is_empty());
    let there = models.map(|models| Path::new(&models).join("de-en"));
    let places: Vec<PathBuf> = [here].into_iter().chain(there).collect();
    if let Some(folder) = places.iter().find(|folder| folder.is_dir()) {
        return Ok(folder.clone());
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let hub = if cfg!(feature = "hub") { ", or a model of the hub as google/flan-t5-small," } else { "" };
    Err(format!(
        "no model is named, and there is no {}: name a folder that transformers saved{hub} by --big, or fetch models/de-en \
         from bild's repository and name the folder that holds de-en by the environment variable BILD_MODELS",
        places.join(" and no ")
    )
    .into())
}
