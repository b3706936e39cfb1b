//! What the examples share.
#![allow(dead_code)] // each example uses its part

pub mod candidates;
pub mod costs;
pub mod dataset;
pub mod log;
pub mod metrics;
pub mod models;
pub mod pair;
pub mod policy;
pub mod sentences;
pub mod trial;

use std::{process::ExitCode, time::Duration};

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

pub fn spinner(message: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

pub fn bar(length: u64, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left").expect("the template is valid");
    ProgressBar::new(length).with_style(style).with_message(message)
}

/// The middle of the values, the lower one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
