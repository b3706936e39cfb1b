//! Models from their folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bild::{Checkpoint, Flex, LoadOptions, Precision, T5, Threads};

use super::{Error, progress::spinner, streams::say};

/// How the models of a pair are held, and with how many threads they compute.
#[derive(Clone, Debug, Default)]
pub struct Loading {
    pub big: Precision,
    pub little: Precision,
    /// One a physical core, if none is said.
    pub threads: Option<usize>,
}

impl Loading {
    /// The options of the big model and of the little one, which share their threads.
    pub fn options(&self) -> Result<[LoadOptions; 2], Error> {
        let threads = self.threads.map(Threads::new).transpose()?.unwrap_or_default();
        let options = |precision| LoadOptions::default().precision(precision).threads(threads.clone());
        Ok([options(self.big), options(self.little)])
    }

    /// How many threads that is.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| Threads::default().count())
    }
}

/// Whether there is no such folder, and a checkpoint of the hub may have this name.
pub fn is_like_a_hub_name(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err()
        && path.is_relative()
        && path.components().count() <= 2
        && !path.starts_with(".")
}

/// What to do about a name that only the hub may know.
pub const HUB_HINT: &str = " (if it is a name on the hub: build with --features hub)";

/// The name under which the hub may have a checkpoint, if the program was built with `--features hub`.
pub fn hub_name(path: &Path) -> Option<&str> {
    path.to_str().filter(|_| cfg!(feature = "hub") && is_like_a_hub_name(path))
}

/// Opens a folder or, if there is none and the program was built with `--features hub`, a checkpoint of the hub.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    #[cfg(feature = "hub")]
    if let Some(name) = hub_name(path) {
        return Ok(Checkpoint::from_hub(name)?);
    }
    let checkpoint = Checkpoint::open(path)?;
    for warning in checkpoint.warnings() {
        say(format_args!("warning: {}: {warning}", path.display()));
    }
    Ok(checkpoint)
}

/// Loads a model, with a spinner if that takes a while.
pub fn load(checkpoint: &Checkpoint, name: &str, options: &LoadOptions) -> Result<T5<Flex>, Error> {
    let spinner = spinner(format!("Loading {name}"));
    let model = T5::load_with(checkpoint, &Default::default(), options);
    spinner.finish_and_clear();
    Ok(model?)
}

/// The pair that the repository carries.
pub fn default_pair(role: &str) -> PathBuf {
    let relative = Path::new("models/de-en").join(role);
    if relative.exists() { relative } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(relative) }
}
