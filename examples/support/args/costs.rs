use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{pair::PrecisionArg, whole};
use crate::support::{costs::CostsOptions, trial::Metric};

#[derive(Args, Clone, Debug)]
pub struct CostsArgs {
    /// A big model whose passes are measured in place of the pair's: one that writes the same, as one that was made larger
    #[arg(long, value_name = "DIR", requires = "cost_little", help_heading = "Costs")]
    cost_big: Option<PathBuf>,
    /// The little model to go with it
    #[arg(long, value_name = "DIR", requires = "cost_big", help_heading = "Costs")]
    cost_little: Option<PathBuf>,
    /// A file of measured costs: read if it is there and was measured for this pair and these sources, else written
    #[arg(long, value_name = "FILE", help_heading = "Costs")]
    costs: Option<PathBuf>,
    /// How many of the sources to time by the clock where that is asked for [default: 40]
    #[arg(long, value_name = "N", value_parser = whole(1..=u64::MAX), help_heading = "Costs")]
    timed: Option<usize>,
    /// How the weights of those models are held [default: f32]
    #[arg(long, value_enum, requires = "cost_big", help_heading = "Costs")]
    cost_precision: Option<PrecisionArg>,
}

impl CostsArgs {
    pub fn options(&self) -> CostsOptions {
        let precision = self.cost_precision.unwrap_or(PrecisionArg::F32).into();
        let models = self.cost_big.clone().zip(self.cost_little.clone()).map(|(big, little)| (big, little, precision));
        CostsOptions { models, file: self.costs.clone(), timed: self.timed.unwrap_or(40) }
    }

    /// Whether it was said how many sources are timed.
    pub fn times(&self) -> bool {
        self.timed.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricArg {
    Bleu,
    Chrf,
    #[value(name = "rougeL")]
    RougeL,
}

impl From<MetricArg> for Metric {
    fn from(metric: MetricArg) -> Self {
        match metric {
            MetricArg::Bleu => Self::Bleu,
            MetricArg::Chrf => Self::Chrf,
            MetricArg::RougeL => Self::RougeL,
        }
    }
}
