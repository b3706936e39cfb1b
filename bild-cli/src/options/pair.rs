use std::path::PathBuf;

use bild::{
    Precision,
    models::LookIn,
    policies::{AnyPolicy, BigAlone},
};
use clap::{Args, ValueEnum};

use super::{PolicyArgs, warn, whole};
use crate::{
    Error,
    models::Loading,
    pair::{Drafting, Exit, PairOptions},
    policy::{Needs, needs},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    F32,
    /// A quarter of the memory, and up to four times as fast
    Int8,
    /// Half of that again for the layers of the decoder; changes more words
    Int4,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Int8 => Self::Int8,
            PrecisionArg::Int4 => Self::Int4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lookup {
    Source,
    Output,
    Both,
}

/// Digits alone are a number of layers.
fn exit(given: &str) -> Result<Exit, String> {
    if !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit()) {
        return match given.parse() {
            Ok(layers @ 1..) => Ok(Exit::Layers(layers)),
            _ => Err("expected a number of layers, from 1, or a folder".into()),
        };
    }
    Ok(Exit::Folder(given.into()))
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PairArgs {
    /// The folder of the big model, as transformers saves it [default: the pair in models/de-en, here or in $BILD_MODELS]
    #[arg(long, visible_alias = "model", value_name = "DIR", help_heading = "Models")]
    pub(crate) big: Option<PathBuf>,
    /// The folder of the little model
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    pub(crate) little: Option<PathBuf>,
    /// Draft by copying what followed the last tokens where they stood before: in place of a little model, or before what is named to draft
    #[arg(long, value_enum, value_name = "WHERE", help_heading = "Models")]
    pub(crate) lookup: Option<Lookup>,
    /// Draft with the first K decoder layers of the big model, in place of a little model; or with what was trained for them: its folder
    #[arg(long, value_name = "K|DIR", conflicts_with_all = ["little", "shared_encoder"], value_parser = exit, help_heading = "Models")]
    pub(crate) early_exit: Option<Exit>,
    /// Draft with a decoder on the big model's encoder, in place of a little model: the folder of the decoder
    #[arg(long, value_name = "DIR", conflicts_with = "little", help_heading = "Models")]
    pub(crate) shared_encoder: Option<PathBuf>,
    /// How weights are held
    #[arg(long, value_enum, default_value = "f32", help_heading = "Models")]
    pub(crate) precision: PrecisionArg,
    /// How those of the little model or of the draft decoder are [default: as the other's]
    #[arg(long, value_enum, help_heading = "Models")]
    pub(crate) little_precision: Option<PrecisionArg>,
    /// Score only some tokens in drafts: those of a list that `bild shortlist` wrote
    #[arg(long, value_name = "FILE", help_heading = "Models")]
    pub(crate) shortlist: Option<PathBuf>,
    /// Threads to compute with [default: one a physical core]
    #[arg(long, value_name = "N", value_parser = whole(1..=1024), help_heading = "Models")]
    pub(crate) threads: Option<usize>,
    /// Leave out what the checkpoint itself says about generating (generation_config.json: lengths, n-grams, repetition, words,
    /// sampling), which counts unless an option says otherwise
    #[arg(long, help_heading = "Models")]
    pub(crate) ignore_generation_config: bool,
}

impl PairArgs {
    pub(crate) fn options(&self) -> PairOptions {
        let lookup = self.lookup.map(|place| match place {
            Lookup::Source => LookIn::Source,
            Lookup::Output => LookIn::Output,
            Lookup::Both => LookIn::Both,
        });
        let drafting = match (&self.early_exit, &self.shared_encoder) {
            (Some(exit), _) => Drafting::EarlyExit(exit.clone()),
            (None, Some(folder)) => Drafting::SharedEncoder(folder.clone()),
            (None, None) if lookup.is_some() && self.little.is_none() => Drafting::Lookup,
            (None, None) => Drafting::Little,
        };
        let loading = Loading {
            big: self.precision.into(),
            little: self.little_precision.unwrap_or(self.precision).into(),
            shortlist: self.shortlist.clone(),
            threads: self.threads,
        };
        let ignore_generation_config = self.ignore_generation_config;
        let (big, little) = (self.big.clone(), self.little.clone());
        PairOptions { big, little, lookup, drafting, loading, ignore_generation_config }
    }

    /// Whether there is anything that drafts: it was named, or is that of the default pair.
    pub(crate) fn drafts(&self) -> bool {
        let options = self.options();
        options.is_default() || options.little.is_some() || options.drafting != Drafting::Little
    }

    /// The policy that decodes, for what needs no pair: without anything that drafts the big model decodes alone. Says what has
    /// no effect.
    pub(crate) fn policy(&self, asked: &PolicyArgs) -> Result<AnyPolicy, Error> {
        let given = asked.policy()?;
        if !self.drafts() && needs(&given) == Needs::Both {
            self.warn(asked, Needs::Big);
            return Ok(Self::alone(asked));
        }
        self.warn(asked, needs(&given));
        Ok(given)
    }

    /// The policy where nothing drafts. Says so if another was given.
    pub(crate) fn alone(asked: &PolicyArgs) -> AnyPolicy {
        let sentence = "the policy has no effect: without --little, --lookup, --early-exit or --shared-encoder the big model \
                        decodes alone";
        warn(asked.is_given().then(|| sentence.into()));
        AnyPolicy::Big(BigAlone {})
    }

    /// Says which options of these and of the policy have no effect when only these models are needed.
    pub(crate) fn warn(&self, asked: &PolicyArgs, needs: Needs) {
        warn(asked.warnings().into_iter().chain(self.warnings(needs)));
    }

    /// Which options have no effect when only these models are needed.
    pub(crate) fn warnings(&self, needs: Needs) -> Vec<String> {
        let big = needs == Needs::Big;
        let one = if big { "the big model" } else { "the little model" };
        let drafting = self.options().drafting;
        let no_weights_draft = matches!(drafting, Drafting::Lookup | Drafting::EarlyExit(_));
        let ignored = [
            ("--big", self.big.is_some() && needs == Needs::Little, true),
            ("--little", self.little.is_some() && big, true),
            ("--lookup", self.lookup.is_some() && needs != Needs::Both, true),
            ("--early-exit", self.early_exit.is_some() && needs != Needs::Both, true),
            ("--shared-encoder", self.shared_encoder.is_some() && needs != Needs::Both, true),
            ("--little-precision", self.little_precision.is_some() && big, true),
            ("--shortlist", self.shortlist.is_some() && needs != Needs::Both, true),
            ("--shortlist", self.shortlist.is_some() && needs == Needs::Both && drafting == Drafting::Lookup, false),
            ("--little-precision", self.little_precision.is_some() && !big && no_weights_draft, false),
        ];
        let sentence = |(option, _, alone): (&str, bool, bool)| {
            let why = if alone { format!("{one} decodes alone") } else { "no little model is loaded".into() };
            format!("{option} has no effect: {why}")
        };
        ignored.into_iter().filter(|(_, ignored, _)| *ignored).map(sentence).collect()
    }
}
