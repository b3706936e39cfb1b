//! What an output does not show of itself.

use bild::{Output, decode::Finish, models::Tokenizer};

use crate::Error;

/// A warning about a text that the tokenizer mostly does not know, if it is one.
pub(crate) fn unknown(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>, Error> {
    let (count, all) = bild_eval::text::unknown(tokenizer, text)?;
    Ok((2 * count > all).then(|| format!("{count} of its {all} tokens stand for what the tokenizer does not know")))
}

/// A warning about an output whose time was up, if it was.
pub(crate) fn time_up(output: &Output) -> Option<String> {
    let written = match output.tokens.len() {
        0 => "before anything was written".to_owned(),
        1 => "after 1 token".to_owned(),
        count => format!("after {count} tokens"),
    };
    (output.finish == Finish::Deadline).then(|| format!("its time was up (`max_time` of the checkpoint) {written}"))
}
