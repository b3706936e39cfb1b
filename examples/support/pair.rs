//! A pair: two models, or one that drafts by look-up or by early exit, or one alone.

use std::{path::PathBuf, sync::Arc};

use bild::{
    AnyPolicy, BigAlone, Checkpoint, EarlyExit, Flex, GenerationConfig, Generator, LookIn, NgramLookup, NoDraft,
    Overflow, Pair, PairSession, Policy, Result, SessionLimit, Settings, Source, T5, Tokenizer, Vocabulary,
};

use super::{
    Error,
    conditions::Conditions,
    digest,
    models::{self, Loading},
    policy::{Needs, needs},
    streams::say,
};

/// What drafts, if a policy wants drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drafting {
    /// A second model.
    #[default]
    Little,
    /// Copies of what followed the last tokens where they stood before.
    Lookup(LookIn),
    /// So many decoder layers of the big model.
    EarlyExit(usize),
}

/// Which models to load, and how. Without any it is the pair of the repository.
#[derive(Clone, Debug, Default)]
pub struct PairOptions {
    pub big: Option<PathBuf>,
    pub little: Option<PathBuf>,
    pub drafting: Drafting,
    pub loading: Loading,
    /// Whether what the checkpoint says about generating is left out.
    pub ignore_generation_config: bool,
}

/// Whatever drafts, and the big model.
#[derive(Clone)]
pub enum AnyPair {
    Two(T5<Flex>, T5<Flex>),
    Lookup(NgramLookup, T5<Flex>),
    EarlyExit(EarlyExit<T5<Flex>>),
    /// One model and nothing else.
    Alone(T5<Flex>),
}

/// A pair with its tokenizer, and what it was loaded from.
#[derive(Clone)]
pub struct Loaded {
    pub pair: AnyPair,
    tokenizer: Option<Tokenizer>,
    /// What the big model says about generating, or the only one.
    generation: GenerationConfig,
    big: Option<PathBuf>,
    little: Option<PathBuf>,
    options: PairOptions,
}

impl PairOptions {
    /// Whether no model was named, so that the repository's pair is used.
    pub fn is_default(&self) -> bool {
        self.big.is_none() && self.little.is_none()
    }

    /// The folders whose files are read.
    pub fn folders(&self) -> Vec<(&'static str, PathBuf)> {
        let big = self.big.clone().unwrap_or_else(|| models::default_pair("big"));
        let little = self.little.clone().or_else(|| self.is_default().then(|| models::default_pair("little")));
        [("--big", big)].into_iter().chain(little.map(|little| ("--little", little))).collect()
    }

    /// Loads what is needed.
    pub fn load(&self, needs: Needs) -> Result<Loaded, Error> {
        let default = |role| models::default_pair(role);
        let big = || self.big.clone().unwrap_or_else(|| default("big"));
        let little = || match &self.little {
            Some(little) => Ok(little.clone()),
            None if self.is_default() => Ok(default("little")),
            None => {
                Err("this policy needs something that drafts beside --big: name the folder of the little model by \
                         --little, or give --lookup or --early-exit (--policy big is the big model alone)")
            }
        };
        let [big_options, little_options] = self.loading.options()?;
        let load_big = || -> Result<_, Error> {
            let checkpoint = models::open(&big())?;
            let model = models::load(&checkpoint, "the big model", &big_options)?;
            Ok((checkpoint, model))
        };
        let load_little = || -> Result<_, Error> {
            let checkpoint = models::open(&little()?)?;
            let model = models::load(&checkpoint, "the little model", &little_options)?;
            Ok((checkpoint, model))
        };
        let (big, little, pair) = match (needs, self.drafting) {
            (Needs::Little, _) => {
                let (little, model) = load_little()?;
                (None, Some(little), AnyPair::Alone(model))
            }
            (Needs::Both, Drafting::Little) => {
                let ((little, little_model), (big, model)) = (load_little()?, load_big()?);
                (Some(big), Some(little), AnyPair::Two(little_model, model))
            }
            (needs, drafting) => {
                let (big, model) = load_big()?;
                let pair = match drafting {
                    Drafting::Lookup(place) if needs == Needs::Both => {
                        AnyPair::Lookup(NgramLookup::default().look_in(place), model)
                    }
                    Drafting::EarlyExit(layers) if needs == Needs::Both => {
                        AnyPair::EarlyExit(EarlyExit::new(model, layers)?)
                    }
                    _ => AnyPair::Alone(model),
                };
                (Some(big), None, pair)
            }
        };
        let first = big.as_ref().or(little.as_ref()).filter(|_| !self.ignore_generation_config);
        let generation = first.map(Checkpoint::generation_config::<GenerationConfig>).transpose()?.unwrap_or_default();
        for warning in generation.warnings() {
            say(format_args!("warning: what the checkpoint says about generating: {warning}"));
        }
        if !generation.stop_strings().is_empty() {
            say("warning: what the checkpoint says about generating: `stop_strings` is not done by this program");
        }
        let tokenizer = [&big, &little].into_iter().flatten().find_map(|checkpoint| checkpoint.tokenizer().ok());
        let folder = |checkpoint: Option<Checkpoint>| checkpoint.map(|checkpoint| checkpoint.directory().to_owned());
        Ok(Loaded { pair, tokenizer, generation, big: folder(big), little: folder(little), options: self.clone() })
    }
}

/// The most tokens of a source and of what is written for it, as [`Settings`] has it.
pub const MOST_TOKENS: usize = 65_536;

/// What one generation may read and write.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// As the checkpoint has it, if none is said.
    pub max_new_tokens: Option<usize>,
    pub max_source_tokens: usize,
    pub overflow: Overflow,
    pub seed: u64,
}

impl Loaded {
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        let none = "the model has neither tokenizer.json nor spiece.model, and text needs one of them";
        self.tokenizer.as_ref().ok_or_else(|| none.into())
    }

    /// How many threads were asked for.
    pub fn threads(&self) -> Option<usize> {
        self.options.loading.threads
    }

    /// The settings with which this checkpoint generates, in every program: what it says itself about generating, and the
    /// limits in place of its own.
    pub fn settings(&self, limits: &Limits) -> Result<Settings, Error> {
        let settings = self.generation.settings(Settings::default())?;
        let max_new_tokens = limits.max_new_tokens.unwrap_or(settings.max_new_tokens);
        if !(1..=MOST_TOKENS).contains(&max_new_tokens) {
            return Err(format!(
                "the checkpoint asks for {max_new_tokens} new tokens, and from 1 to {MOST_TOKENS} are possible: name a number by --max-new-tokens"
            )
            .into());
        }
        Ok(settings
            .with_max_new_tokens(max_new_tokens)
            .with_max_source_tokens(limits.max_source_tokens, limits.overflow)
            .with_seed(limits.seed))
    }

    /// Whether the checkpoint asks to be sampled.
    pub fn is_sampled(&self) -> Result<bool, Error> {
        Ok(self.generation.sampling()?.is_some())
    }

    /// The policy of this checkpoint where none was asked for: `default`, unless it says that it is to be sampled.
    pub fn policy(&self, default: AnyPolicy) -> Result<AnyPolicy, Error> {
        let Some(sampling) = self.generation.sampling()? else { return Ok(default) };
        say(
            "note: the checkpoint asks to be sampled (`do_sample`): --policy bild, or --ignore-generation-config, is greedy",
        );
        Ok(AnyPolicy::Sampling(sampling))
    }

    /// What the models are and how they compute: what a result of theirs depends on, and how long it takes.
    pub fn conditions(&self) -> Result<Conditions, Error> {
        let Loading { big, little, .. } = self.options.loading;
        let mut conditions = Conditions::default()
            .with("the number of threads", self.options.loading.threads())?
            .with("the version of bild", env!("CARGO_PKG_VERSION"))?
            .with("whether generation_config.json is left out", self.options.ignore_generation_config)?;
        for (name, precision, folder) in [("big", big, &self.big), ("little", little, &self.little)] {
            if let Some(folder) = folder {
                conditions = conditions
                    .with(&format!("the {name} model"), digest::of_folder(folder)?)?
                    .with(&format!("the {name} model's precision"), format!("{precision:?}"))?;
            }
        }
        let drafting = match &self.pair {
            AnyPair::Two(..) => "a model".into(),
            AnyPair::Alone(_) => "nothing".into(),
            AnyPair::Lookup(..) | AnyPair::EarlyExit(_) => format!("{:?}", self.options.drafting),
        };
        Ok(conditions.with("what drafts", drafting)?)
    }
}

impl AnyPair {
    pub fn big(&self) -> &T5<Flex> {
        match self {
            Self::Two(_, big) | Self::Lookup(_, big) | Self::Alone(big) => big,
            Self::EarlyExit(pair) => pair.model(),
        }
    }

    /// The generator of a policy. A model alone is decoded without the other, which does not even read the source.
    pub fn generator(&self, policy: &AnyPolicy, settings: Settings) -> Result<Generator<Self>, Error> {
        let alone = || Arc::new(BigAlone {}) as Arc<dyn Policy>;
        let (pair, policy) = match (needs(policy), self) {
            (Needs::Little, Self::Two(little, _)) => (Self::Alone(little.clone()), alone()),
            (Needs::Little, Self::Lookup(..) | Self::EarlyExit(_)) => {
                return Err("the little model alone needs a little model: name it by --little".into());
            }
            (Needs::Little, Self::Alone(_)) => (self.clone(), alone()),
            (Needs::Big, _) => (Self::Alone(self.big().clone()), alone()),
            (Needs::Both, _) => (self.clone(), Arc::new(policy.clone()) as Arc<dyn Policy>),
        };
        Ok(Generator::new(pair, policy)?.with_settings(settings))
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
