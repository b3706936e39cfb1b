//! Where sources come from.

use std::{fs::File, io::BufReader, path::Path};

use bild_eval::text;

use crate::{Error, stdin, streams::say};

pub(crate) struct Sources {
    /// How many there are, where that is known beforehand.
    pub(crate) count: Option<usize>,
    /// Whether they are an argument, which is there to be translated: a blank one is a mistake.
    pub(crate) is_argument: bool,
    /// As they come: nobody needs to give the next one before a translation is there.
    pub(crate) lines: Box<dyn Iterator<Item = Result<String, Error>> + Send>,
}

impl Sources {
    fn of(text: &str, is_argument: bool) -> Self {
        let lines: Vec<_> = text.lines().map(|line| Ok(line.to_owned())).collect();
        Self { count: Some(lines.len()), is_argument, lines: Box::new(lines.into_iter()) }
    }
}

pub(crate) fn of_text(argument: &str) -> Sources {
    let argument = text::without_marks(argument.into());
    Sources::of(if argument.is_empty() { "\n" } else { &argument }, true)
}

/// The lines of a corpus, which need not fit the memory.
pub(crate) fn of_corpus(path: &Path) -> Result<Sources, Error> {
    if text::is_stdin(path) {
        return of_file(path);
    }
    let file = File::open(path).map_err(|error| text::unreadable(path, &error))?;
    let lines = stdin::lines_of(BufReader::new(file), path.display().to_string());
    Ok(Sources { count: None, is_argument: false, lines: Box::new(lines) })
}

/// The lines of a file, or of standard input as they come.
pub(crate) fn of_file(path: &Path) -> Result<Sources, Error> {
    if text::is_stdin(path) {
        return Ok(Sources { count: None, is_argument: false, lines: Box::new(stdin::lines()) });
    }
    let sources = Sources::of(&text::read(path)?, false);
    if sources.count == Some(0) {
        say(format_args!("warning: {} is empty", path.display()));
    }
    Ok(sources)
}
