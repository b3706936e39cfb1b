use std::path::PathBuf;

use bild_eval::{Example, dataset};
use clap::Args;

use super::{MOST_TOKENS, whole};
use crate::{Error, files::Files};

#[derive(Args, Clone, Debug)]
pub(crate) struct DatasetArgs {
    /// A file of sources, one a line, "-" for standard input; with --reference
    #[arg(
        long,
        value_name = "FILE",
        requires = "reference",
        required_unless_present = "data",
        help_heading = "Dataset"
    )]
    source: Option<PathBuf>,
    /// A file of references, line by line those of the sources
    #[arg(long, value_name = "FILE", requires = "source", help_heading = "Dataset")]
    reference: Option<PathBuf>,
    /// Both in one file, a JSON object a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "reference"], help_heading = "Dataset")]
    data: Option<PathBuf>,
    /// The fields of such an object that hold the source and the reference
    #[arg(long, value_names = ["SOURCE", "REFERENCE"], num_args = 2, default_values = ["document", "summary"], requires = "data", help_heading = "Dataset")]
    fields: Vec<String>,
    /// Leave out so many at the beginning
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole(0..=u64::MAX), help_heading = "Dataset")]
    skip: usize,
    /// Take no more than so many
    #[arg(long, value_name = "N", value_parser = whole(1..=u64::MAX), help_heading = "Dataset")]
    count: Option<usize>,
    /// The most tokens of a source, prefix included; what is longer is cut
    #[arg(long, value_name = "N", default_value = "512", value_parser = whole(1..=MOST_TOKENS), help_heading = "Dataset")]
    pub(crate) max_source_tokens: usize,
}

impl DatasetArgs {
    /// Names the files that are read.
    pub(crate) fn name(&self, files: &mut Files) {
        files.reads("--source", self.source.as_deref()).reads("--reference", self.reference.as_deref());
        files.reads("--data", self.data.as_deref());
    }

    /// The examples after those that are skipped, all of them. [`taken`](Self::taken) says how many are asked for.
    pub(crate) fn read(&self) -> Result<Vec<Example>, Error> {
        let mut all = match (&self.source, &self.reference, &self.data) {
            (Some(source), Some(reference), _) => dataset::read_lines(source, reference)?,
            (_, _, Some(data)) => dataset::read_objects(data, &[self.fields[0].clone(), self.fields[1].clone()])?,
            _ => return Err("name a dataset: --source and --reference, or --data".into()),
        };
        if self.skip >= all.len() {
            return Err(format!("of {} sources none is left after --skip {}", all.len(), self.skip).into());
        }
        all.drain(..self.skip);
        Ok(all)
    }

    /// How many examples of so many are asked for.
    pub(crate) fn taken(&self, count: usize) -> usize {
        self.count.map_or(count, |most| most.min(count))
    }

    /// The examples that are asked for.
    pub(crate) fn examples(&self) -> Result<Vec<Example>, Error> {
        let mut examples = self.read()?;
        examples.truncate(self.taken(examples.len()));
        Ok(examples)
    }
}
