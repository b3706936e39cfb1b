//! Sources with what should be written for them.

use std::path::Path;

use serde_json::Value;

use crate::{Conditions, Error, Result, digest_of_texts, text};

/// A source and its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text to decode.
    pub source: String,
    /// What is expected of it.
    pub reference: String,
}

/// What a result on these examples depends on, wherever they lie.
///
/// # Errors
///
/// None that is expected.
pub fn conditions(examples: &[Example]) -> Result<Conditions> {
    let sources = digest_of_texts(examples.iter().map(|example| &*example.source));
    let references = digest_of_texts(examples.iter().map(|example| &*example.reference));
    Conditions::default().with("the sources", sources)?.with("the references", references)
}

/// The examples of two files, line by line.
///
/// # Errors
///
/// If a file cannot be read, they have not the same number of lines, or hold none.
pub fn read_lines(source: &Path, reference: &Path) -> Result<Vec<Example>> {
    let (sources, references) = (text::read(source)?, text::read(reference)?);
    let (a, b) = (sources.lines().count(), references.lines().count());
    if a != b {
        let (source, reference) = (text::name(source), text::name(reference));
        return Err(format!("{source} has {a} lines, {reference} has {b}: expected one reference a source").into());
    }
    let example = |(source, reference): (&str, &str)| Example { source: source.into(), reference: reference.into() };
    some(source, sources.lines().zip(references.lines()).map(example).collect())
}

/// The examples of one file, a JSON object a line, in these two fields of it. A blank line is no object and is passed over.
///
/// # Errors
///
/// If the file cannot be read, a line is no such object, or there is none.
pub fn read_objects(path: &Path, fields: &[String; 2]) -> Result<Vec<Example>> {
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
    some(path, text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(object).collect::<Result<_>>()?)
}

/// The examples of a file, if it has any.
fn some(path: &Path, examples: Vec<Example>) -> Result<Vec<Example>> {
    if examples.is_empty() {
        return Err(format!("{} holds no source", text::name(path)).into());
    }
    Ok(examples)
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

    fn read(text: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("x.jsonl");
        std::fs::write(&data, text).unwrap();
        let examples = read_objects(&data, &["a".into(), "b".into()]).map_err(|error| error.to_string())?;
        Ok(examples.into_iter().map(|e| e.source + &e.reference).collect())
    }

    #[test]
    fn objects_a_line() {
        let text = b"\xef\xbb\xbf{\"a\":\"1\",\"b\":\"x\"}\r\n\r\n \n\xef\xbb\xbf{\"a\":\"2\",\"b\":\"y\"}";
        assert_eq!(read(text).unwrap(), ["1x", "2y"]);
        assert!(read(b"").unwrap_err().ends_with("x.jsonl holds no source"));
        assert!(
            read(b"\n{\"a\":").unwrap_err().ends_with("line 2, column 5: it is not JSON: EOF while parsing a value")
        );
        assert!(read(b"[1]").unwrap_err().ends_with("line 1 is no JSON object"));
        assert!(read(b"{\"a\":\"1\"}").unwrap_err().ends_with("line 1 has no text in the field \"b\""));
        assert!(read(b"{\"a\":\"1\",\"b\":\"\xff\"}").unwrap_err().contains("line 1, byte 15: it is not UTF-8"));
    }

    #[test]
    fn lines_of_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let [source, reference] = ["s", "r"].map(|name| folder.path().join(name));
        std::fs::write(&source, "\u{feff}eins\r\n\u{feff}zwei").unwrap();
        std::fs::write(&reference, "one\ntwo\n").unwrap();
        let example = |source: &str, reference: &str| Example { source: source.into(), reference: reference.into() };
        assert_eq!(read_lines(&source, &reference).unwrap(), [example("eins", "one"), example("zwei", "two")]);
        std::fs::write(&reference, "one\n").unwrap();
        assert!(read_lines(&source, &reference).unwrap_err().to_string().contains("has 2 lines"));
        std::fs::write(&source, "").unwrap();
        assert!(read_lines(&source, &source).unwrap_err().to_string().ends_with("s holds no source"));
    }
}
