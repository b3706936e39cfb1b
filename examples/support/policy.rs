//! Policies as files hold them.

use std::{num::NonZeroUsize, path::Path};

use bild::{AnyFallback, AnyPolicy, AnyRollback, Bild, HighCrossEntropy, LowProbability, Variant};

use super::{Error, text};

/// Which models a policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Both,
    Big,
    Little,
}

pub fn needs(policy: &AnyPolicy) -> Needs {
    match policy {
        AnyPolicy::Big(_) => Needs::Big,
        AnyPolicy::Little(_) => Needs::Little,
        _ => Needs::Both,
    }
}

/// Whether a policy draws random numbers.
pub fn is_random(policy: &AnyPolicy) -> bool {
    let text = serde_json::to_string(policy).unwrap_or_default();
    text.contains("\"sampling\"") || text.contains("\"random\"")
}

/// Reads a policy from a file.
pub fn read(path: &Path) -> Result<AnyPolicy, Error> {
    let text = text::read(path)?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} holds no policy: {}", text::name(path), text::json_error(&error)).into())
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
