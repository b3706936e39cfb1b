//! The policy on a command line, shared by the examples.

use std::{fs, num::NonZeroUsize};

use bild::{
    AnyFallback, AnyPolicy, AnyRollback, BigAlone, Bild, HighCrossEntropy, LittleAlone, Lossless, LowProbability,
    Variant,
};
use clap::{Args, ValueEnum};

/// What decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Both models, by fallback and rollback: fast, nearly the big model's text
    Bild,
    /// Both models, token for token the big model's text
    Lossless,
    /// The big model alone
    Big,
    /// The little model alone
    Little,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VariantArg {
    /// The paper's Algorithm 1
    Paper,
    /// The program its authors released
    Released,
}

#[derive(Args, Clone, Debug)]
pub struct PolicyArgs {
    /// What decodes
    #[arg(long, value_enum, default_value = "bild", help_heading = "Policy")]
    policy: Mode,
    /// A file that holds the policy as JSON, as `tune` writes it, in place of the options about it
    #[arg(long, value_name = "FILE", value_parser = read, help_heading = "Policy")]
    policy_file: Option<AnyPolicy>,
    /// Whose decoding `--policy bild` follows
    #[arg(long, value_enum, default_value = "paper", help_heading = "Policy")]
    pub variant: VariantArg,
    /// The big model is asked where the little one's probability is below this, in [0, 1] [default: 0.5]
    #[arg(long, value_name = "ALPHA", help_heading = "Policy")]
    pub fallback: Option<f32>,
    /// A draft is taken back where its cross-entropy under the big model is above this, in nats, "inf" for never; for
    /// `--policy bild` [default: 2]
    #[arg(long, value_name = "ALPHA", help_heading = "Policy")]
    pub rollback: Option<f32>,
    /// The most tokens to draft before the big model is asked, or "none" for no limit
    #[arg(long, value_name = "N|none", default_value = "10", value_parser = draft_length, help_heading = "Policy")]
    pub max_draft: DraftLength,
}

#[derive(Clone, Copy, Debug)]
pub struct DraftLength(pub Option<NonZeroUsize>);

fn draft_length(text: &str) -> Result<DraftLength, String> {
    match text {
        "none" => Ok(DraftLength(None)),
        number => number.parse().map(|n| DraftLength(Some(n))).map_err(|_| "expected a positive number or none".into()),
    }
}

/// Reads a policy from a file.
fn read(path: &str) -> Result<AnyPolicy, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("it holds no policy: {error}"))
}

impl PolicyArgs {
    /// Which models the policy needs.
    pub fn mode(&self) -> Mode {
        match self.policy_file {
            None => self.policy,
            Some(AnyPolicy::Big(_)) => Mode::Big,
            Some(AnyPolicy::Little(_)) => Mode::Little,
            Some(AnyPolicy::Lossless(_)) => Mode::Lossless,
            Some(_) => Mode::Bild,
        }
    }

    pub fn policy(&self) -> bild::Result<AnyPolicy> {
        if let Some(policy) = &self.policy_file {
            return Ok(policy.clone());
        }
        let max_draft = self.max_draft.0;
        Ok(match self.policy {
            Mode::Bild => {
                let default = Bild::default();
                let variant = match self.variant {
                    VariantArg::Paper => Variant::Paper,
                    VariantArg::Released => Variant::Released,
                };
                let fallback = self.fallback.unwrap_or(default.fallback.alpha());
                let rollback = self.rollback.unwrap_or(default.rollback.alpha());
                bild(fallback, rollback, variant, max_draft)?
            }
            Mode::Lossless => {
                let policy = Lossless::default().max_draft(max_draft);
                AnyPolicy::Lossless(self.fallback.map_or(Ok(policy), |alpha| policy.fallback(alpha))?)
            }
            Mode::Big => AnyPolicy::Big(BigAlone {}),
            Mode::Little => AnyPolicy::Little(LittleAlone {}),
        })
    }
}

/// The paper's policy.
pub fn bild(
    fallback: f32,
    rollback: f32,
    variant: Variant,
    max_draft: Option<NonZeroUsize>,
) -> bild::Result<AnyPolicy> {
    let fallback = AnyFallback::Probability(LowProbability::new(fallback)?);
    let rollback = AnyRollback::CrossEntropy(HighCrossEntropy::new(rollback)?);
    Ok(AnyPolicy::Bild(Bild::with_rules(fallback, rollback).variant(variant).max_draft(max_draft)))
}

/// A policy as JSON. Not by way of f64, which would show the digits that f32 does not have.
pub fn json(policy: &AnyPolicy) -> serde_json::Value {
    let text = serde_json::to_string(policy).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
