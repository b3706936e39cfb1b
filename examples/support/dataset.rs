//! Sources with what should be written for them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Error, conditions::Conditions, digest::of_texts, output::Files, text};

/// Where a dataset is.
#[derive(Clone, Debug)]
pub enum Place {
    /// Line by line in two files.
    Lines { source: PathBuf, reference: PathBuf },
    /// In one file, a JSON object a line, in these fields.
    Objects { data: PathBuf, fields: [String; 2] },
}

/// Which part of it.
#[derive(Clone, Debug)]
pub struct DatasetOptions {
    pub place: Place,
    pub skip: usize,
    pub count: Option<usize>,
}

/// A source and its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub source: String,
    pub reference: String,
}

impl DatasetOptions {
    /// Names the files that are read.
    pub fn name(&self, files: &mut Files) {
        match &self.place {
            Place::Lines { source, reference } => {
                files.reads("--source", Some(source)).reads("--reference", Some(reference));
            }
            Place::Objects { data, .. } => {
                files.reads("--data", Some(data));
            }
        }
    }

    /// The examples after those that are skipped, all of them. [`taken`](Self::taken) says how many are asked for.
    pub fn read(&self) -> Result<Vec<Example>, Error> {
        let mut all = match &self.place {
            Place::Lines { source, reference } => aligned(source, reference)?,
            Place::Objects { data, fields } => objects(data, fields)?,
        };
        let count = all.len();
        if count == 0 {
            let (Place::Lines { source: path, .. } | Place::Objects { data: path, .. }) = &self.place;
            return Err(format!("{} holds no source", text::name(path)).into());
        }
        if self.skip >= count {
            return Err(format!("of {count} sources none is left after --skip {}", self.skip).into());
        }
        all.drain(..self.skip);
        Ok(all)
    }

    /// How many examples of so many are asked for.
    pub fn taken(&self, count: usize) -> usize {
        self.count.map_or(count, |most| most.min(count))
    }
}

/// What a result on these examples depends on, wherever they lie.
pub fn conditions(examples: &[Example]) -> Result<Conditions, Error> {
    let sources = of_texts(examples.iter().map(|example| &*example.source));
    let references = of_texts(examples.iter().map(|example| &*example.reference));
    Ok(Conditions::default().with("the sources", sources)?.with("the references", references)?)
}

fn aligned(source: &Path, reference: &Path) -> Result<Vec<Example>, Error> {
    let (sources, references) = (text::read(source)?, text::read(reference)?);
    let (a, b) = (sources.lines().count(), references.lines().count());
    if a != b {
        let (source, reference) = (text::name(source), text::name(reference));
        return Err(format!("{source} has {a} lines, {reference} has {b}: expected one reference a source").into());
    }
    let example = |(source, reference): (&str, &str)| Example { source: source.into(), reference: reference.into() };
    Ok(sources.lines().zip(references.lines()).map(example).collect())
}

/// A blank line is no object and is passed over.
fn objects(path: &Path, fields: &[String; 2]) -> Result<Vec<Example>, Error> {
    let object = |(number, line): (usize, &str)| {
        let place = format!("{}, line {}", text::name(path), number + 1);
        let object: Value = serde_json::from_str(line).map_err(|error| broken(&place, &error))?;
        if !object.is_object() {
            return Err(Error::from(format!("{place} is no JSON object")));
        }
        let field = |name: &String| {
            let text = object[name].as_str();
            text.map(str::to_owned).ok_or_else(|| Error::from(format!("{place} has no text in the field {name:?}")))
        };
        Ok(Example { source: field(&fields[0])?, reference: field(&fields[1])? })
    };
    let text = text::read(path)?;
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(object).collect()
}

/// An error of JSON within a line, whose own number says nothing.
fn broken(place: &str, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    format!("{place}, column {}: it is not JSON: {reason}", error.column()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], skip: usize) -> Result<Vec<Example>, String> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("x.jsonl");
        std::fs::write(&data, text).unwrap();
        let place = Place::Objects { data, fields: ["a".into(), "b".into()] };
        DatasetOptions { place, skip, count: None }.read().map_err(|error| error.to_string())
    }

    #[test]
    fn objects_a_line() {
        let text = b"\xef\xbb\xbf{\"a\":\"1\",\"b\":\"x\"}\r\n\r\n \n{\"a\":\"2\",\"b\":\"y\"}";
        let sources = |skip| read(text, skip).unwrap().into_iter().map(|e| e.source + &e.reference).collect::<Vec<_>>();
        assert_eq!(sources(0), ["1x", "2y"]);
        assert_eq!(sources(1), ["2y"]);
        assert_eq!(read(text, 2).unwrap_err(), "of 2 sources none is left after --skip 2");
        assert!(read(b"", 0).unwrap_err().ends_with("x.jsonl holds no source"));
        assert!(
            read(b"\n{\"a\":", 0).unwrap_err().ends_with("line 2, column 5: it is not JSON: EOF while parsing a value")
        );
        assert!(read(b"[1]", 0).unwrap_err().ends_with("line 1 is no JSON object"));
        assert!(read(b"{\"a\":\"1\"}", 0).unwrap_err().ends_with("line 1 has no text in the field \"b\""));
        assert!(read(b"{\"a\":\"1\",\"b\":\"\xff\"}", 0).unwrap_err().contains("line 1, byte 15: it is not UTF-8"));
    }

    #[test]
    fn lines_of_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let [source, reference] = ["s", "r"].map(|name| folder.path().join(name));
        let options = DatasetOptions {
            place: Place::Lines { source: source.clone(), reference: reference.clone() },
            skip: 0,
            count: Some(1),
        };
        std::fs::write(&source, "\u{feff}eins\r\nzwei").unwrap();
        std::fs::write(&reference, "one\ntwo\n").unwrap();
        let examples = options.read().unwrap();
        assert_eq!(examples[0], Example { source: "eins".into(), reference: "one".into() });
        assert_eq!((examples.len(), options.taken(2), options.taken(0)), (2, 1, 0));
        std::fs::write(&reference, "one\n").unwrap();
        assert!(options.read().unwrap_err().to_string().contains("has 2 lines"));
    }
}
