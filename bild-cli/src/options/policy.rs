use std::{num::NonZeroUsize, path::PathBuf};

use bild::{
    Bild, Lossless,
    policies::{AnyPolicy, BigAlone, CostAware, LittleAlone, Variant},
};
use clap::{Args, ValueEnum};

use super::number;
use crate::{Error, pair::Loaded, policy};

/// What decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Both models, token for token the big model's text, drafting as much as pays
    CostAware,
    /// Both models, token for token the big model's text, by fallback and length
    Lossless,
    /// Both models, by fallback and rollback: nearly the big model's text
    Bild,
    /// The big model alone
    Big,
    /// The little model alone
    Little,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VariantArg {
    /// The paper's Algorithm 1
    Paper,
    /// The program its authors released
    Released,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    /// What decodes [default: bild where --variant, --fallback or --rollback is given, else cost-aware]
    #[arg(long, value_enum, help_heading = "Policy")]
    policy: Option<Mode>,
    /// A file that holds the policy as JSON, as `tune` writes it, in place of the options about it
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    policy_file: Option<PathBuf>,
    /// Whose decoding `--policy bild` follows [default: paper]
    #[arg(long, value_enum, help_heading = "Policy")]
    variant: Option<VariantArg>,
    /// The big model is asked where the little one's probability is below this, in [0, 1] [default: 0.5, for `--policy lossless` 0.2,
    /// for `--policy cost-aware` none]
    #[arg(long, value_name = "ALPHA", value_parser = number(0.0, 1.0), allow_hyphen_values = true, help_heading = "Policy")]
    fallback: Option<f64>,
    /// A draft is taken back where its cross-entropy under the big model is above this, in nats, "inf" for never; for
    /// `--policy bild` [default: 2]
    #[arg(long, value_name = "ALPHA", value_parser = number(0.0, f64::INFINITY), allow_hyphen_values = true, help_heading = "Policy")]
    rollback: Option<f64>,
    /// The most tokens to draft before the big model is asked, or "none" for no limit [default: 10, for `--policy cost-aware` none]
    #[arg(long, value_name = "N|none", value_parser = draft_length, help_heading = "Policy")]
    max_draft: Option<DraftLength>,
}

#[derive(Clone, Copy, Debug)]
struct DraftLength(Option<NonZeroUsize>);

fn draft_length(text: &str) -> Result<DraftLength, String> {
    match text {
        "none" => Ok(DraftLength(None)),
        number => number.parse().map(|n| DraftLength(Some(n))).map_err(|_| "expected a positive number or none".into()),
    }
}

impl PolicyArgs {
    fn mode(&self) -> Mode {
        let is_bild = self.variant.is_some() || self.fallback.is_some() || self.rollback.is_some();
        self.policy.unwrap_or(if is_bild { Mode::Bild } else { Mode::CostAware })
    }

    /// The file of the policy, which is read.
    pub(crate) fn file(&self) -> Option<&std::path::Path> {
        self.policy_file.as_deref()
    }

    /// Whether anything about the policy was said.
    pub(crate) fn is_given(&self) -> bool {
        self.policy_file.is_some() || !self.given().is_empty()
    }

    /// The policy that was asked for or, where none was, the one that the checkpoint is to have in place of `default`.
    pub(crate) fn of(&self, loaded: &Loaded, default: AnyPolicy) -> Result<AnyPolicy, Error> {
        if self.is_given() { Ok(default) } else { loaded.policy(default) }
    }

    /// The options that were given, with whether the mode has a use for them.
    fn given(&self) -> Vec<(&'static str, bool)> {
        let (bild, both) = (self.mode() == Mode::Bild, !matches!(self.mode(), Mode::Big | Mode::Little));
        let all = [
            ("--policy", self.policy.is_some(), true),
            ("--variant", self.variant.is_some(), bild),
            ("--fallback", self.fallback.is_some(), both),
            ("--rollback", self.rollback.is_some(), bild),
            ("--max-draft", self.max_draft.is_some(), both),
        ];
        all.into_iter().filter(|(_, given, _)| *given).map(|(name, _, used)| (name, used)).collect()
    }

    /// Which options have no effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mode = self.mode().to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let sentence = |(option, used): (&str, bool)| match (&self.policy_file, used) {
            (Some(_), _) => Some(format!("{option} has no effect beside --policy-file")),
            (None, false) => Some(format!("{option} has no effect with --policy {mode}")),
            (None, true) => None,
        };
        self.given().into_iter().filter_map(sentence).collect()
    }

    pub(crate) fn policy(&self) -> Result<AnyPolicy, Error> {
        if let Some(path) = &self.policy_file {
            return policy::read(path);
        }
        let max_draft = self.max_draft.map_or(NonZeroUsize::new(10), |length| length.0);
        let lossless = |default: Lossless| -> Result<_, Error> {
            let policy = self.max_draft.map_or(default, |length| default.with_max_draft(length.0));
            Ok(AnyPolicy::Lossless(self.fallback.map_or(Ok(policy), |alpha| policy.with_fallback(alpha as f32))?))
        };
        Ok(match self.mode() {
            Mode::CostAware => AnyPolicy::CostAware(CostAware::new(Box::new(lossless(Lossless::without_limit())?))),
            Mode::Lossless => lossless(Lossless::default())?,
            Mode::Bild => {
                let default = Bild::default();
                let variant = match self.variant {
                    None | Some(VariantArg::Paper) => Variant::Paper,
                    Some(VariantArg::Released) => Variant::Released,
                };
                let fallback = self.fallback.map_or(default.fallback.alpha(), |alpha| alpha as f32);
                let rollback = self.rollback.map_or(default.rollback.alpha(), |alpha| alpha as f32);
                policy::bild(fallback, rollback, variant, max_draft)?
            }
            Mode::Big => AnyPolicy::Big(BigAlone {}),
            Mode::Little => AnyPolicy::Little(LittleAlone {}),
        })
    }
}
