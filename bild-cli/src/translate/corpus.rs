//! A corpus: one JSON object a line, many at once, gone on with where it was cut off, in shares for many machines.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use bild::Output;
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::value::{RawValue, to_raw_value};

use super::{Program, end::End, input::Sources, lines::Translation, report::Report};
use crate::{Error, progress, streams::Stdout, warnings};

/// Which of the lines are done here: of each `of` lines the one at `index`, from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    index: usize,
    of: usize,
}

/// From `3/16`: the third of sixteen.
pub(super) fn shard(given: &str) -> Result<Shard, String> {
    let numbers = given.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
    match numbers {
        Some((index, of)) if (1..=of).contains(&index) => Ok(Shard { index: index - 1, of }),
        _ => Err("expected two numbers, as 3/16 for the third share of sixteen".into()),
    }
}

/// Opens a file to go on with it: each of its lines stands for the next of `sources`. A last line that was cut off is taken away.
/// Returns, too, whether none of them is an error.
fn go_on(path: &Path, sources: &mut impl Iterator<Item = Result<String, Error>>) -> Result<(File, bool), Error> {
    let name = path.display();
    let error = |error: io::Error| format!("--out: {name} cannot be used: {error}");
    if path.exists() && !path.is_file() {
        return Err(format!("--out: {name} cannot be used: it is not a file").into());
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(error)?;
    let mut reader = BufReader::new(File::open(path).map_err(error)?);
    let (mut count, mut kept, mut complete, mut line) = (0, 0, true, Vec::new());
    while reader.read_until(b'\n', &mut line).map_err(error)? > 0 {
        count += 1;
        let object = serde_json::from_slice::<Done>(&line);
        let begins =
            [&b"{\"id\":"[..], b"{\"error\":"].iter().any(|own| own.starts_with(&line) || line.starts_with(own));
        // Within a number it may be cut off where none can end, which is no end of the line to the parser.
        let cut =
            |error: &serde_json::Error| error.is_eof() || matches!(line.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
        if begins && object.as_ref().is_err_and(cut) && !line.ends_with(b"\n") {
            break;
        }
        // A list would be taken for its fields.
        let object = object.ok().filter(|_| line.starts_with(b"{"));
        let object = object.filter(|done| done.error.is_some() || done.text.is_some() && done.tokens.is_some());
        let (failed, Some(id)) = object.map_or((false, None), |done| (done.error.is_some(), done.id)) else {
            return Err(format!("--out: {name}, line {count}, is none of an earlier run: name another file").into());
        };
        complete &= !failed;
        if sources.next().transpose()?.is_none_or(|source| entry(&source).0.get() != id.get()) {
            return Err(format!("--out: {name}, line {count}, is not for these sources: name another file").into());
        }
        kept += line.len() as u64;
        if !line.ends_with(b"\n") {
            file.write_all(b"\n").map_err(error)?;
            kept += 1;
            break; // what was written now is no line of its own
        }
        line.clear();
    }
    file.set_len(kept).map_err(error)?;
    Ok((file, complete))
}

/// A line of sources. What it holds is kept as it is written, so that it takes no more memory than the line, and numbers of any length stay
/// what they are.
#[derive(Deserialize)]
struct Line {
    #[serde(default, deserialize_with = "as_written")]
    id: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "as_written")]
    text: Option<Box<RawValue>>,
}

/// A line that was written earlier.
#[derive(Deserialize)]
struct Done {
    #[serde(default, deserialize_with = "as_written")]
    id: Option<Box<RawValue>>,
    text: Option<IgnoredAny>,
    tokens: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// Of null, too.
fn as_written<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
}

/// A line of results.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

type Entry = (Box<RawValue>, Result<String, String>);

/// The id and the text of a line; without them, what is wrong.
fn entry(line: &str) -> Entry {
    let null = || RawValue::NULL.to_owned();
    let Line { id, text } = match serde_json::from_str(line) {
        // A list would be taken for its fields.
        Ok(_) if !line.trim_start().starts_with('{') => Line { id: None, text: None },
        Ok(line) => line,
        Err(error) => {
            let reason = bild::decode::plain_words(&error);
            return (null(), Err(format!("the line is no JSON object with an \"id\" and a \"text\": {reason}")));
        }
    };
    let text = text.and_then(|text| serde_json::from_str::<String>(text.get()).ok());
    let Some(text) = text else {
        return (id.unwrap_or_else(null), Err("the line has no \"text\" that is a string".into()));
    };
    match id {
        Some(id) => (id, Ok(text)),
        None => (null(), Err("the line has no \"id\"".into())),
    }
}

/// What of an entry is to be translated.
fn text_of((_, text): &Entry) -> Result<&str, Error> {
    text.as_deref().map_err(|error| error.clone().into())
}

impl Program<'_> {
    /// Goes through the lines, many at once: for each of the share one line, in order. One that cannot be translated does not stop
    /// the others. Whether there was none such.
    pub(super) fn translate_corpus(
        &self,
        sources: Sources,
        shard: Option<Shard>,
        path: Option<&Path>,
        out: &mut Stdout,
        report: &mut Report,
    ) -> Result<bool, Error> {
        let Shard { index, of } = shard.unwrap_or(Shard { index: 0, of: 1 });
        // A line that cannot be read ends every share: what comes after it is not known.
        let numbered = sources.lines.enumerate();
        let mut lines = numbered.filter(|(i, line)| line.is_err() || i % of == index).map(|(_, line)| line);
        let bar = progress::spinner("Translating".into());
        let mut complete = true;
        let mut file = None;
        if let Some(path) = path {
            let (found, without_error) = go_on(path, &mut lines)?;
            (file, complete) = (Some(found), without_error);
        }
        let end = End::default();
        let lines = lines.map_while(|line| end.unless(line)).map(|line| entry(&line));
        self.lines(lines, text_of, false, |(id, _), translated| {
            if end.is_closed() {
                return; // a line that was cut off must stay the last
            }
            complete &= translated.is_ok();
            let mut line = Written { id: &id, text: None, tokens: None, truncated: None, error: None };
            match &translated {
                Ok(Translation { text, parts }) => {
                    parts.iter().for_each(|(source, output)| report.add(output, source, false));
                    line.text = Some(text);
                    line.tokens = Some(parts.iter().map(|(_, output)| output.tokens.len()).sum());
                    let cut = |(_, output): &(_, Output)| output.truncated || warnings::time_up(output).is_some();
                    line.truncated = parts.iter().any(cut).then_some(true);
                }
                Err(error) => line.error = Some(error.to_string()),
            }
            let line = to_raw_value(&line).expect("strings, numbers and JSON can be written as JSON");
            let written = match &mut file {
                Some(file) => file.write_all(format!("{line}\n").as_bytes()).map_err(|error| {
                    Error::from(format!(
                        "--out: the file cannot be written: {error}; what is in it stays, and is gone on with"
                    ))
                }),
                None => bar.suspend(|| out.line(line)),
            };
            end.after(written, !out.is_closed());
            bar.inc(1);
        });
        bar.finish_and_clear();
        end.result().map(|()| complete)
    }
}
