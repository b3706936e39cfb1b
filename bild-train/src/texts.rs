//! Text as examples.

use bild::models::Tokenizer;
use bild_eval::Observer;

use crate::{
    data::Example,
    error::{Result, TrainError},
};

/// Pairs of texts as examples. A pair of which one is blank is left out, and so is one with more than `most` tokens on a side; how
/// many these are is noted.
///
/// # Errors
///
/// If a text cannot be tokenized, or nothing is left.
pub fn examples<'a>(
    tokenizer: &Tokenizer,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    most: usize,
    observer: &dyn Observer,
) -> Result<Vec<Example>> {
    let (mut examples, mut blank, mut long, mut all) = (Vec::new(), 0, 0, 0);
    for (source, target) in pairs {
        all += 1;
        if source.trim().is_empty() || target.trim().is_empty() {
            blank += 1;
            continue;
        }
        let (source, target) = (tokenizer.encode(source)?, tokenizer.encode(target)?);
        if source.len().max(target.len()) > most {
            long += 1;
            continue;
        }
        examples.push(Example { source, target, teacher: None });
    }
    if examples.is_empty() {
        return Err(TrainError::Data(format!(
            "nothing is left to train on: of {all} pairs of texts {blank} have a blank side, and {long} more than {most} tokens"
        )));
    }
    for (count, why) in [(blank, "have a blank side".into()), (long, format!("have a side of more than {most} tokens"))]
    {
        if count > 0 {
            observer.notes(&format!("{count} of {all} pairs of texts {why} and are left out"));
        }
    }
    Ok(examples)
}
