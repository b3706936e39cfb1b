//! A pair: two models, or one that drafts by look-up, by early exit or by a draft decoder, or one alone.

use std::{fs, mem, path::PathBuf};

use bild::{
    Checkpoint, Settings,
    decode::{BoxedPair, DraftModel, Generator, NoDraft, Overflow, Pair},
    models::{EarlyExit, LookIn, NgramLookup, SharedEncoder, Tokenizer},
    policies::{AnyPolicy, BigAlone, GenerationConfig},
};
use bild_eval::{Conditions, digest_of_folder, digest_of_texts, text};

use crate::{
    Error,
    models::{self, Loading},
    policy::{Needs, needs},
    streams::say,
};

/// What drafts, if a policy wants drafts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Drafting {
    /// A second model.
    #[default]
    Little,
    /// Nothing but look-up.
    Lookup,
    /// The first decoder layers of the big model.
    EarlyExit(Exit),
    /// A draft decoder on the big model's encoder, from its folder.
    SharedEncoder(PathBuf),
}

/// Which early exit drafts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// That after so many layers, as they are.
    Layers(usize),
    /// One that was trained, from its folder.
    Folder(PathBuf),
}

/// Which models to load, and how. Without any it is the default pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairOptions {
    pub(crate) big: Option<PathBuf>,
    pub(crate) little: Option<PathBuf>,
    /// Where what followed the last tokens before is looked up to be copied, before anything else drafts.
    pub(crate) lookup: Option<LookIn>,
    pub(crate) drafting: Drafting,
    pub(crate) loading: Loading,
    /// Whether what the checkpoint says about generating is left out.
    pub(crate) ignore_generation_config: bool,
}

/// A pair with its tokenizer, and what it was loaded from.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) pair: BoxedPair,
    /// Whether that is one model, which decodes alone.
    is_alone: bool,
    tokenizer: Option<Tokenizer>,
    /// What the big model says about generating, or the only one.
    generation: GenerationConfig,
    big: Option<PathBuf>,
    little: Option<PathBuf>,
    /// The folder of the draft decoder or of the exit.
    draft: Option<PathBuf>,
    options: PairOptions,
}

impl PairOptions {
    /// Whether no model was named, so that the default pair is used.
    pub(crate) fn is_default(&self) -> bool {
        self.big.is_none() && self.little.is_none()
    }

    /// The language of the texts, if `given` does not say it.
    pub(crate) fn language(&self, given: Option<&str>) -> String {
        given.unwrap_or(if self.is_default() { "de" } else { "en" }).into()
    }

    /// The folder of the big model, and that of the little one if there is one.
    fn places(&self) -> Result<(PathBuf, Option<PathBuf>), Error> {
        if let Some(big) = &self.big {
            return Ok((big.clone(), self.little.clone()));
        }
        let default = models::default_pair()?;
        Ok((default.join("big"), Some(self.little.clone().unwrap_or_else(|| default.join("little")))))
    }

    /// The folders whose files are read.
    pub(crate) fn folders(&self) -> Result<Vec<(&'static str, PathBuf)>, Error> {
        let (big, little) = self.places()?;
        let draft = match &self.drafting {
            Drafting::Little => little.map(|little| ("--little", little)),
            Drafting::SharedEncoder(folder) => Some(("--shared-encoder", folder.clone())),
            Drafting::EarlyExit(Exit::Folder(folder)) => Some(("--early-exit", folder.clone())),
            Drafting::Lookup | Drafting::EarlyExit(Exit::Layers(_)) => None,
        };
        Ok([("--big", big)].into_iter().chain(draft).collect())
    }

    /// Loads what is needed.
    pub(crate) fn load(&self, needs: Needs) -> Result<Loaded, Error> {
        let (big, little) = self.places()?;
        let little = || {
            little.clone().ok_or(
                "this policy needs something that drafts beside --big: name the folder of the little model by \
                 --little, or give --lookup, --early-exit or --shared-encoder (--policy big is the big model alone)",
            )
        };
        let [big_options, little_options] = self.loading.options()?;
        let load_big = || -> Result<_, Error> {
            let checkpoint = models::open(&big)?;
            let model = models::load(&checkpoint, "the big model", &big_options)?;
            Ok((checkpoint, model))
        };
        let load_little = || -> Result<_, Error> {
            let checkpoint = models::open(&little()?)?;
            let model = models::load(&checkpoint, "the little model", &little_options)?;
            Ok((checkpoint, model))
        };
        let mut draft = None;
        let (big, little, pair) = match (needs, &self.drafting) {
            (Needs::Little, _) => {
                let (little, model) = load_little()?;
                (None, Some(little), (NoDraft, model).boxed())
            }
            (Needs::Both, Drafting::Little) => {
                let ((little, little_model), (big, model)) = (load_little()?, load_big()?);
                (Some(big), Some(little), (little_model, model).boxed())
            }
            (needs, drafting) => {
                let (big, model) = load_big()?;
                let pair = match drafting {
                    Drafting::EarlyExit(Exit::Layers(layers)) if needs == Needs::Both => {
                        EarlyExit::new(model, *layers)?.boxed()
                    }
                    Drafting::EarlyExit(Exit::Folder(folder)) if needs == Needs::Both => {
                        let checkpoint = models::open(folder)?;
                        let pair = EarlyExit::load(model, &checkpoint)?;
                        draft = Some(checkpoint);
                        pair.boxed()
                    }
                    Drafting::SharedEncoder(folder) if needs == Needs::Both => {
                        let checkpoint = models::open(folder)?;
                        let pair = SharedEncoder::load_with(model, &checkpoint, &little_options)?;
                        models::warn(pair.draft(), &checkpoint);
                        draft = Some(checkpoint);
                        pair.boxed()
                    }
                    _ => (NoDraft, model).boxed(),
                };
                (Some(big), None, pair)
            }
        };
        let pair = match self.lookup.filter(|_| needs == Needs::Both) {
            Some(place) => NgramLookup::default().with_look_in(place).or(pair).boxed(),
            None => pair,
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
        let is_alone = needs != Needs::Both;
        Ok(Loaded {
            pair,
            is_alone,
            tokenizer,
            generation,
            big: folder(big),
            little: folder(little),
            draft: folder(draft),
            options: self.clone(),
        })
    }
}

pub(crate) use bild::decode::MOST_TOKENS;

/// What one generation may read and write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// As the checkpoint has it, if none is said.
    pub(crate) max_new_tokens: Option<usize>,
    pub(crate) max_source_tokens: usize,
    pub(crate) overflow: Overflow,
    pub(crate) seed: u64,
}

impl Limits {
    /// What a checkpoint says about generating, with these in place of its own.
    pub(crate) fn settings(&self, generation: &GenerationConfig) -> Result<Settings, Error> {
        let settings = generation.settings(Settings::default())?;
        let max_new_tokens = self.max_new_tokens.unwrap_or(settings.max_new_tokens);
        Ok(settings
            .with_max_new_tokens(max_new_tokens)
            .with_max_source_tokens(self.max_source_tokens, self.overflow)
            .with_seed(self.seed))
    }
}

impl Loaded {
    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        let none = "the model has neither tokenizer.json nor spiece.model, and text needs one of them";
        self.tokenizer.as_ref().ok_or_else(|| none.into())
    }

    /// The settings with which this checkpoint generates, in every program: what it says itself about generating, and the
    /// limits in place of its own.
    pub(crate) fn settings(&self, limits: &Limits) -> Result<Settings, Error> {
        limits.settings(&self.generation)
    }

    /// Whether the checkpoint asks to be sampled.
    pub(crate) fn is_sampled(&self) -> Result<bool, Error> {
        Ok(self.generation.sampling()?.is_some())
    }

    /// The policy of this checkpoint where none was asked for: `default`, unless it says that it is to be sampled.
    pub(crate) fn policy(&self, default: AnyPolicy) -> Result<AnyPolicy, Error> {
        let Some(sampling) = self.generation.sampling()? else { return Ok(default) };
        say(
            "note: the checkpoint asks to be sampled (`do_sample`): --policy bild, or --ignore-generation-config, is greedy",
        );
        Ok(AnyPolicy::Sampling(sampling))
    }

    /// What the models are and how they compute: what a result of theirs depends on, and how long it takes.
    pub(crate) fn conditions(&self) -> Result<Conditions, Error> {
        let Loading { big, little, ref shortlist, .. } = self.options.loading;
        let mut conditions = Conditions::default()
            .with("the number of threads", self.options.loading.threads())?
            .with("the version of bild", env!("CARGO_PKG_VERSION"))?
            .with("whether generation_config.json is left out", self.options.ignore_generation_config)?;
        for (name, precision, folder) in [
            ("the big model", big, &self.big),
            ("the little model", little, &self.little),
            ("the draft decoder", little, &self.draft),
        ] {
            if let Some(folder) = folder {
                conditions = conditions
                    .with(name, digest_of_folder(folder)?)?
                    .with(&format!("{name}'s precision"), format!("{precision:?}"))?;
            }
        }
        if let Some(list) = shortlist {
            let list = fs::read_to_string(list).map_err(|error| text::unreadable(list, &error))?;
            conditions = conditions.with("the tokens of drafts", digest_of_texts([&*list]))?;
        }
        let drafting = match &self.options.drafting {
            _ if self.is_alone => "nothing".into(),
            Drafting::Lookup => "look-up".into(),
            Drafting::Little => "a model".into(),
            Drafting::SharedEncoder(_) => "a draft decoder".into(),
            Drafting::EarlyExit(Exit::Folder(_)) => "a trained exit".into(),
            drafting => format!("{drafting:?}"),
        };
        if let Some(place) = self.options.lookup.filter(|_| !self.is_alone) {
            conditions = conditions.with("where drafts are looked up", place)?;
        }
        Ok(conditions.with("what drafts", drafting)?)
    }

    /// Whether it drafts in the way of another pair, so that what passes of that cost says what passes of this do.
    pub(crate) fn drafts_as(&self, other: &PairOptions) -> bool {
        let same = mem::discriminant(&self.options.drafting) == mem::discriminant(&other.drafting);
        !self.is_alone && same && self.options.lookup.is_some() == other.lookup.is_some()
    }

    /// Whether anything drafts.
    #[cfg(feature = "serve")]
    pub(crate) fn drafts(&self) -> bool {
        !self.is_alone
    }

    /// Whether a little model drafts.
    pub(crate) fn has_little(&self) -> bool {
        !self.is_alone && self.options.drafting == Drafting::Little
    }

    /// The policy by which this pair decodes where `policy` is asked for: one model decodes alone as any.
    pub(crate) fn decoded_by(&self, policy: &AnyPolicy) -> Result<AnyPolicy, Error> {
        match needs(policy) {
            Needs::Little if self.is_alone => Ok(AnyPolicy::Big(BigAlone {})),
            Needs::Little if !self.has_little() => {
                Err("the little model alone needs a little model: name it by --little".into())
            }
            _ => Ok(policy.clone()),
        }
    }

    /// The generator of a policy.
    pub(crate) fn generator(&self, policy: &AnyPolicy, settings: Settings) -> Result<Generator<BoxedPair>, Error> {
        Ok(Generator::new(self.pair.clone(), self.decoded_by(policy)?)?.with_settings(settings))
    }
}
