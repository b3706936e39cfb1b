use std::path::{Path, PathBuf};

use bild_eval::{CostFile, Metric};
use clap::{Args, ValueEnum};

use super::{pair::PrecisionArg, whole};
use crate::{
    models::Loading,
    pair::{Drafting, PairOptions},
};

#[derive(Args, Clone, Debug)]
pub(crate) struct CostsArgs {
    /// A big model whose passes are measured in place of the pair's: one that writes the same, as one that was made larger
    #[arg(long, value_name = "DIR", requires = "cost_drafting", help_heading = "Costs")]
    cost_big: Option<PathBuf>,
    /// The little model to go with it
    #[arg(long, value_name = "DIR", requires = "cost_big", group = "cost_drafting", help_heading = "Costs")]
    cost_little: Option<PathBuf>,
    /// The draft decoder to go with it, where the pair has one
    #[arg(long, value_name = "DIR", requires = "cost_big", group = "cost_drafting", help_heading = "Costs")]
    cost_shared_encoder: Option<PathBuf>,
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
    /// How many of the sources are timed by the clock.
    pub(crate) fn timed(&self) -> usize {
        self.timed.unwrap_or(40)
    }

    /// Whether that was said.
    pub(crate) fn times(&self) -> bool {
        self.timed.is_some()
    }

    /// The file of the costs.
    pub(crate) fn file(&self, resume: Option<&Path>) -> CostFile {
        CostFile { named: self.costs.clone(), log: resume.map(Path::to_owned) }
    }

    /// Other models whose passes are measured, loaded as those that decode but for their precision.
    pub(crate) fn pair(&self, decoding: &Loading) -> Option<PairOptions> {
        let big = Some(self.cost_big.clone()?);
        let precision = self.cost_precision.unwrap_or(PrecisionArg::F32).into();
        let loading = Loading { big: precision, little: precision, ..decoding.clone() };
        let little = self.cost_little.clone();
        let drafting = self.cost_shared_encoder.clone().map_or(Drafting::Little, Drafting::SharedEncoder);
        Some(PairOptions { big, little, lookup: None, drafting, loading, ignore_generation_config: true })
    }

    /// The folders of those.
    pub(crate) fn folders(&self) -> Vec<(&'static str, PathBuf)> {
        let folders = [
            ("--cost-big", &self.cost_big),
            ("--cost-little", &self.cost_little),
            ("--cost-shared-encoder", &self.cost_shared_encoder),
        ];
        folders.into_iter().filter_map(|(option, folder)| Some((option, folder.clone()?))).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricArg {
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
