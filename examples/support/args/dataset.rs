use std::path::PathBuf;

use clap::Args;

use super::{MOST_TOKENS, whole};
use crate::support::{
    Error,
    dataset::{DatasetOptions, Place},
};

#[derive(Args, Clone, Debug)]
pub struct DatasetArgs {
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
    pub max_source_tokens: usize,
}

impl DatasetArgs {
    pub fn options(&self) -> Result<DatasetOptions, Error> {
        let place = match (self.source.clone(), self.reference.clone(), self.data.clone()) {
            (Some(source), Some(reference), _) => Place::Lines { source, reference },
            (_, _, Some(data)) => Place::Objects { data, fields: [self.fields[0].clone(), self.fields[1].clone()] },
            _ => return Err("name a dataset: --source and --reference, or --data".into()),
        };
        Ok(DatasetOptions { place, skip: self.skip, count: self.count })
    }
}
