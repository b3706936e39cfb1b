//! Standard input and long files, line by line.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use bild_eval::text::decoded;

use crate::{Error, progress, streams::say};

/// The longest line that is read.
const LONGEST_LINE: u64 = 64 << 20;

/// The lines of standard input as they come.
pub(crate) fn lines() -> impl Iterator<Item = Result<String, Error>> + Send {
    lines_of(BufReader::new(io::stdin()), "standard input".into())
}

/// The lines of what has this name, one after the other.
pub(crate) fn lines_of(
    mut reader: impl BufRead + Send,
    name: String,
) -> impl Iterator<Item = Result<String, Error>> + Send {
    let mut number = 0;
    let mut line = move || -> Result<Option<String>, Error> {
        number += 1;
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
        read.map_err(|error| format!("{name} cannot be read: {error}"))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 > LONGEST_LINE {
            let most = LONGEST_LINE >> 20;
            return Err(format!("{name}, line {number}: it is longer than {most} MiB").into());
        }
        let is_last = !bytes.ends_with(b"\n");
        if !is_last {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        let line = decoded(bytes, &name, number)?;
        // A mark at the end is no line.
        Ok(Some(line).filter(|line| !is_last || !line.is_empty()))
    };
    let mut failed = false;
    std::iter::from_fn(move || {
        let next = if failed { None } else { line().transpose() };
        failed = matches!(next, Some(Err(_)));
        next
    })
}

/// Says that standard input is going to be read, before anything is drawn, if it is a person's.
pub(crate) fn greet() {
    if io::stdin().is_terminal() {
        progress::hide();
        say("Reading standard input; Ctrl-D ends it.");
    }
}
