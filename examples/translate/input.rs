//! Where sources come from.

use std::{
    fs,
    io::{self, BufRead, IsTerminal},
    path::Path,
};

use crate::support::Error;

pub(crate) struct Sources {
    /// How many there are, where that is known beforehand.
    pub(crate) count: Option<usize>,
    pub(crate) lines: Box<dyn Iterator<Item = Result<String, Error>>>,
}

pub(crate) fn sources(text: Option<&str>, file: Option<&Path>) -> Result<Sources, Error> {
    if let Some(text) = text {
        let lines: Vec<_> = text.lines().map(|line| Ok(line.to_owned())).collect();
        let lines = if lines.is_empty() { vec![Ok(String::new())] } else { lines };
        return Ok(Sources { count: Some(lines.len()), lines: Box::new(lines.into_iter()) });
    }
    if let Some(path) = file {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let lines: Vec<_> = text.lines().map(|line| Ok(line.to_owned())).collect();
        if lines.is_empty() {
            return Err(format!("{name} is empty: expected one source a line").into());
        }
        return Ok(Sources { count: Some(lines.len()), lines: Box::new(lines.into_iter()) });
    }
    if io::stdin().is_terminal() {
        eprintln!("Reading standard input, one source a line; Ctrl-D ends it.");
    }
    let read =
        |line: io::Result<String>| line.map_err(|error| format!("standard input cannot be read: {error}").into());
    Ok(Sources { count: None, lines: Box::new(io::stdin().lock().lines().map(read)) })
}
