//! What the examples share.
#![allow(dead_code)] // each example uses its part

pub mod policy;
pub mod sentences;

use std::{path::Path, process::ExitCode, time::Duration};

use bild::{Checkpoint, Flex, T5};
use indicatif::{ProgressBar, ProgressStyle};

pub type Error = Box<dyn std::error::Error>;

/// What a program ends with: success only if all that was asked for was done.
pub fn exit(done: Result<bool, Error>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
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
pub fn load(checkpoint: &Checkpoint, name: &str) -> Result<T5<Flex>, Error> {
    let spinner = spinner(format!("Loading {name}"));
    let model = T5::load(checkpoint, &Default::default())?;
    spinner.finish_and_clear();
    Ok(model)
}

pub fn spinner(message: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

pub fn bar(length: u64, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left").expect("the template is valid");
    ProgressBar::new(length).with_style(style).with_message(message)
}

/// The pair that the repository carries.
pub fn default_pair(role: &str) -> std::path::PathBuf {
    let relative = Path::new("models/de-en").join(role);
    if relative.exists() { relative } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(relative) }
}

/// The middle of the values, the lower one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
