//! Standard output, which is for whoever asked, and standard error, which is for a person.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use crate::Error;

/// Standard output. Whoever reads it may close it, as `head` does: that is no error. What is written after it goes nowhere, and
/// the program ends as it would have.
#[derive(Default)]
pub(crate) struct Stdout {
    closed: bool,
}

impl Stdout {
    /// Writes a line, or several, at once: a line is never left half written.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        // Flushed, because a full disk shows no earlier.
        match out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            done => done.map_err(|error| format!("standard output cannot be written: {error}"))?,
        }
        Ok(())
    }

    /// Whether nobody reads it any more, so that what makes nothing else may stop.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Writes a line to standard error. If that fails there is nobody left to tell.
pub(crate) fn say(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// What a program ends with: 0 only if all that was asked for was done, 1 if not. (2 is for options that make no sense.)
pub(crate) fn exit(done: Result<bool, Error>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
