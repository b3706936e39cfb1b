//! How good and how fast a policy is, on texts of one's own: what the program `bild` evaluates, sweeps, tunes and draws with.
//!
//! A [`Bench`] is a pair of models with the sources and references it is tried on. [`evaluate`] compares one policy with the
//! big model alone, [`sweep`] many of them, and [`tune`] finds the fastest that loses no more quality than allowed. Times are
//! either taken by the clock, with an interval that knows of the machine's noise ([`speedup`]), or told from counted passes
//! and what a pass costs ([`Costs`]).
//!
//! ```no_run
//! use bild::{Checkpoint, Flex, Settings, T5, decode::Pair};
//! use bild_eval::{Bench, Costs, Log, TuneOptions, dataset, tune};
//!
//! let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
//! let device = Default::default();
//! let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?).boxed();
//! let data = dataset::read_lines("valid.de".as_ref(), "valid.en".as_ref())?;
//! let bench = Bench::new(pair, big.tokenizer()?, data, "", Settings::default())?;
//! let costs = Costs::measure(&bench.pair, bench.mean_length(), &())?;
//! let tuned = tune(&bench, &costs, &TuneOptions::default(), Log::in_memory(), &())?;
//! println!("{}: {}", tuned.curve, tuned.setting);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I be using this crate?
//!
//! To see numbers, run the program `bild` (`bild-cli`). Depend on this crate to compute them within a program of your own.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

mod agreement;
mod bandwidth;
mod bench;
pub mod candidates;
mod clock;
mod conditions;
mod cost_file;
mod costs;
pub mod dataset;
mod digest;
mod error;
mod evaluation;
mod interval;
mod log;
pub mod metrics;
mod observer;
mod output;
mod page;
mod plot;
mod race;
mod sentences;
pub mod shortlist;
mod sweep;
pub mod text;
mod tune;
mod windows;

pub use agreement::Agreement;
pub use bandwidth::{read_bandwidth, sum};
pub use bench::{Bench, Decoded, Metric, scores, statistics};
pub use candidates::Candidate;
pub use clock::{Timed, in_turn, seconds};
pub use conditions::Conditions;
pub use cost_file::CostFile;
pub use costs::Costs;
pub use dataset::Example;
pub use digest::{digest_of_folder, digest_of_texts};
pub use error::{Error, Result};
pub use evaluation::{Done, Evaluation, Record, evaluate};
pub use interval::{Speedup, speedup};
pub use log::Log;
pub use observer::Observer;
pub use output::OutputFile;
pub use page::{STYLE, Trace, page};
pub use plot::{Curve, Plot, Point, pareto};
pub use race::Line;
pub use sentences::{LANGUAGES, Sentence, is_known_language, sentences};
pub use sweep::{Swept, confirm, csv, figure, sweep};
pub use tune::{ByTheClock, ChosenOn, JudgedOn, TuneOptions, Tuned, tune};
pub use windows::{End, Window, windows};

/// The middle of the values, the lower one of two.
///
/// # Panics
///
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
