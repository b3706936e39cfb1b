//! Ctrl-C, for what must not end in the middle.

use bild::CancelToken;

use crate::{Error, streams::say};

/// A token that Ctrl-C cancels; a second one ends the program.
pub(crate) fn stop() -> Result<CancelToken, Error> {
    let token = CancelToken::default();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if cancelled.is_cancelled() {
            std::process::exit(130);
        }
        say("stopping after this step; once more ends at once");
        cancelled.cancel();
    })?;
    Ok(token)
}
