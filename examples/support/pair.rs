//! A pair on a command line: two models, or one that drafts by look-up or by early exit.

use std::path::PathBuf;

use bild::{
    EarlyExit, Flex, LookIn, NgramLookup, NoDraft, Pair, PairSession, Result, SessionLimit, Source, T5, Tokenizer,
    Vocabulary,
};
use clap::{Args, ValueEnum};

use super::{
    Error,
    models::{self, ModelArgs},
};

#[derive(Args, Clone, Debug)]
pub struct PairArgs {
    /// The folder of the big model, as transformers saves it [default: the repository's pair]
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    pub big: Option<PathBuf>,
    /// The folder of the little model
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    pub little: Option<PathBuf>,
    /// Draft by copying what followed the last tokens where they stood before, in place of a little model
    #[arg(long, value_enum, value_name = "WHERE", conflicts_with_all = ["little", "early_exit"], help_heading = "Models")]
    pub lookup: Option<Lookup>,
    /// Draft with the first K decoder layers of the big model, in place of a little model
    #[arg(long, value_name = "K", conflicts_with = "little", help_heading = "Models")]
    pub early_exit: Option<usize>,
    /// Put before every source, as in "summarize: "
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, help_heading = "Models")]
    pub prefix: String,
    #[command(flatten)]
    pub models: ModelArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lookup {
    Source,
    Output,
    Both,
}

/// Whatever drafts, and the big model.
#[derive(Clone)]
pub enum AnyPair {
    Two(T5<Flex>, T5<Flex>),
    Lookup(NgramLookup, T5<Flex>),
    EarlyExit(EarlyExit<Flex>),
    /// One model and nothing else.
    Alone(T5<Flex>),
}

impl PairArgs {
    /// Loads what is named, with the big model's tokenizer.
    pub fn load(&self) -> Result<(Tokenizer, AnyPair), Error> {
        let is_default = self.big.is_none() && self.little.is_none();
        let big = models::open(&self.big.clone().unwrap_or_else(|| models::default_pair("big")))?;
        let [big_options, little_options] = self.models.options()?;
        let load_big = || models::load(&big, "the big model", &big_options);
        let pair = match (&self.little, self.lookup, self.early_exit) {
            (_, Some(place), _) => {
                let place = match place {
                    Lookup::Source => LookIn::Source,
                    Lookup::Output => LookIn::Output,
                    Lookup::Both => LookIn::Both,
                };
                AnyPair::Lookup(NgramLookup::default().look_in(place), load_big()?)
            }
            (_, _, Some(layers)) => AnyPair::EarlyExit(EarlyExit::new(load_big()?, layers)?),
            (None, ..) if !is_default => AnyPair::Alone(load_big()?),
            (little, ..) => {
                let little = models::open(&little.clone().unwrap_or_else(|| models::default_pair("little")))?;
                AnyPair::Two(models::load(&little, "the little model", &little_options)?, load_big()?)
            }
        };
        Ok((big.tokenizer()?, pair))
    }
}

impl AnyPair {
    pub fn big(&self) -> &T5<Flex> {
        match self {
            Self::Two(_, big) | Self::Lookup(_, big) | Self::Alone(big) => big,
            Self::EarlyExit(pair) => pair.model(),
        }
    }

    pub fn little(&self) -> Option<&T5<Flex>> {
        if let Self::Two(little, _) = self { Some(little) } else { None }
    }
}

impl Pair for AnyPair {
    type Session = Box<dyn PairSession>;

    fn vocabulary(&self) -> &Vocabulary {
        match self {
            Self::EarlyExit(pair) => pair.vocabulary(),
            _ => bild::VerifierModel::vocabulary(self.big()),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Two(little, big) => (little.clone(), big.clone()).check(),
            _ => Ok(()),
        }
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok(match self {
            Self::Two(little, big) => Box::new((little.clone(), big.clone()).begin(source, limit)?),
            Self::Lookup(lookup, big) => Box::new((*lookup, big.clone()).begin(source, limit)?),
            Self::EarlyExit(pair) => Box::new(pair.begin(source, limit)?),
            Self::Alone(big) => Box::new((NoDraft, big.clone()).begin(source, limit)?),
        })
    }
}
