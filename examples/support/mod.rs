//! What the programs share. Only `args` knows of command lines; everything else takes plain values.
#![allow(dead_code)] // each program uses its part

pub mod args;
pub mod candidates;
pub mod clock;
pub mod conditions;
pub mod costs;
pub mod dataset;
pub mod digest;
pub mod interval;
pub mod log;
pub mod metrics;
pub mod models;
pub mod output;
pub mod pair;
pub mod policy;
pub mod progress;
pub mod sentences;
pub mod streams;
pub mod text;
pub mod trial;
pub mod windows;

pub type Error = Box<dyn std::error::Error>;

/// The middle of the values, the lower one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
