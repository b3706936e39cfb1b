//! Models on a command line, shared by the examples.

use std::path::Path;

use bild::{Checkpoint, Flex, LoadOptions, Precision, T5, Threads};
use clap::{Args, ValueEnum};

use super::{Error, spinner};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    F32,
    /// A quarter of the memory, and up to four times as fast
    Int8,
}

#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// How weights are held
    #[arg(long, value_enum, default_value = "f32", help_heading = "Models")]
    pub precision: PrecisionArg,
    /// How the little model's are [default: as the other's]
    #[arg(long, value_enum, help_heading = "Models")]
    pub little_precision: Option<PrecisionArg>,
    /// Threads to compute with [default: one a physical core]
    #[arg(long, value_name = "N", help_heading = "Models")]
    pub threads: Option<usize>,
}

impl ModelArgs {
    /// The options of the big model and of the little one, which share their threads.
    pub fn options(&self) -> Result<[LoadOptions; 2], Error> {
        let threads = self.threads.map(Threads::new).transpose()?.unwrap_or_default();
        let options = |precision| {
            let precision = match precision {
                PrecisionArg::F32 => Precision::F32,
                PrecisionArg::Int8 => Precision::Int8,
            };
            LoadOptions::default().precision(precision).threads(threads.clone())
        };
        Ok([options(self.precision), options(self.little_precision.unwrap_or(self.precision))])
    }
}

/// Opens a folder or, if there is none and the program was built with `--features hub`, a checkpoint of the hub.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    #[cfg(feature = "hub")]
    if let Some(name) = path.to_str().filter(|name| !path.exists() && !name.starts_with(['/', '.'])) {
        return Ok(Checkpoint::from_hub(name)?);
    }
    if cfg!(not(feature = "hub")) && !path.exists() && path.components().count() == 2 && path.is_relative() {
        let name = path.display();
        return Err(format!("there is no folder {name} (if it is a name on the hub: build with --features hub)").into());
    }
    Ok(Checkpoint::open(path)?)
}

/// Loads a model, with a spinner if that takes a while.
pub fn load(checkpoint: &Checkpoint, name: &str, options: &LoadOptions) -> Result<T5<Flex>, Error> {
    let spinner = spinner(format!("Loading {name}"));
    let model = T5::load_with(checkpoint, &Default::default(), options)?;
    spinner.finish_and_clear();
    Ok(model)
}

/// The pair that the repository carries.
pub fn default_pair(role: &str) -> std::path::PathBuf {
    let relative = Path::new("models/de-en").join(role);
    if relative.exists() { relative } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(relative) }
}
