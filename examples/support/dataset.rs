//! Sources with what should be written for them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;

use super::Error;

#[derive(Args, Clone, Debug)]
pub struct DatasetArgs {
    /// A file of sources, one a line; with --reference
    #[arg(
        long,
        value_name = "FILE",
        requires = "reference",
        required_unless_present = "data",
        help_heading = "Dataset"
    )]
    pub source: Option<PathBuf>,
    /// A file of references, line by line those of the sources
    #[arg(long, value_name = "FILE", requires = "source", help_heading = "Dataset")]
    pub reference: Option<PathBuf>,
    /// Both in one file, a JSON object a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "reference"], help_heading = "Dataset")]
    pub data: Option<PathBuf>,
    /// The fields of such an object that hold the source and the reference
    #[arg(long, value_names = ["SOURCE", "REFERENCE"], num_args = 2, default_values = ["document", "summary"], help_heading = "Dataset")]
    pub fields: Vec<String>,
    /// Leave out so many at the beginning
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Dataset")]
    pub skip: usize,
    /// Take no more than so many
    #[arg(long, value_name = "N", help_heading = "Dataset")]
    pub count: Option<usize>,
}

/// A source and its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub source: String,
    pub reference: String,
}

impl DatasetArgs {
    pub fn read(&self) -> Result<Vec<Example>, Error> {
        let all = match (&self.source, &self.reference, &self.data) {
            (Some(source), Some(reference), _) => aligned(source, reference)?,
            (_, _, Some(data)) => objects(data, &self.fields)?,
            _ => return Err("name a dataset: --source and --reference, or --data".into()),
        };
        let count = all.len();
        let taken: Vec<_> = all.into_iter().skip(self.skip).take(self.count.unwrap_or(usize::MAX)).collect();
        if taken.is_empty() {
            return Err(format!("of {count} sources none is left after --skip {}", self.skip).into());
        }
        Ok(taken)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()).into())
}

fn aligned(source: &Path, reference: &Path) -> Result<Vec<Example>, Error> {
    let (sources, references) = (read(source)?, read(reference)?);
    let (a, b) = (sources.lines().count(), references.lines().count());
    if a != b {
        let (source, reference) = (source.display(), reference.display());
        return Err(format!("{source} has {a} lines, {reference} has {b}: expected one reference a source").into());
    }
    let example = |(source, reference): (&str, &str)| Example { source: source.into(), reference: reference.into() };
    Ok(sources.lines().zip(references.lines()).map(example).collect())
}

fn objects(path: &Path, fields: &[String]) -> Result<Vec<Example>, Error> {
    let object = |(number, line): (usize, &str)| {
        let place = format!("{}, line {}", path.display(), number + 1);
        let object: Value = serde_json::from_str(line).map_err(|error| format!("{place}: {error}"))?;
        let field = |name: &String| {
            let text = object[name].as_str();
            text.map(str::to_owned).ok_or_else(|| Error::from(format!("{place} has no text in the field {name:?}")))
        };
        Ok(Example { source: field(&fields[0])?, reference: field(&fields[1])? })
    };
    read(path)?.lines().enumerate().map(object).collect()
}
