//! Policies as files hold them.

use std::{num::NonZeroUsize, path::Path};

use bild::{
    Bild,
    policies::{AnyFallback, AnyPolicy, AnyRollback, HighCrossEntropy, LowProbability, Variant},
};

use bild_eval::text;

use crate::Error;

/// Which models a policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Both,
    Big,
    Little,
}

pub(crate) fn needs(policy: &AnyPolicy) -> Needs {
    match policy {
        AnyPolicy::Big(_) => Needs::Big,
        AnyPolicy::Little(_) => Needs::Little,
        _ => Needs::Both,
    }
}

/// Whether a policy draws random numbers.
pub(crate) fn is_random(policy: &AnyPolicy) -> bool {
    let text = serde_json::to_string(policy).unwrap_or_default();
    text.contains("\"sampling\"") || text.contains("\"random\"")
}

/// Reads a policy from a file.
pub(crate) fn read(path: &Path) -> Result<AnyPolicy, Error> {
    let text = text::read(path)?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} holds no policy: {}", text::name(path), bild::decode::plain_words(&error)).into())
}

/// The paper's policy.
pub(crate) fn bild(
    fallback: f32,
    rollback: f32,
    variant: Variant,
    max_draft: Option<NonZeroUsize>,
) -> bild::decode::Result<AnyPolicy> {
    let fallback = AnyFallback::Probability(LowProbability::new(fallback)?);
    let rollback = AnyRollback::CrossEntropy(HighCrossEntropy::new(rollback)?);
    Ok(AnyPolicy::Bild(Bild::with_rules(fallback, rollback).with_variant(variant).with_max_draft(max_draft)))
}
