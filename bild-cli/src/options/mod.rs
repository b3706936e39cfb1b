//! Options, as several commands have them.

mod costs;
mod dataset;
mod pair;
mod policy;
#[cfg(feature = "train")]
mod training;

use std::{ops::RangeInclusive, path::Path};

use bild::{decode::Overflow, policies::AnyPolicy};
use clap::Args;

use crate::{pair::Limits, policy::is_random, streams::say};

pub(crate) use costs::{CostsArgs, MetricArg};
pub(crate) use dataset::DatasetArgs;
pub(crate) use pair::{PairArgs, PrecisionArg};
pub(crate) use policy::PolicyArgs;
#[cfg(feature = "train")]
pub(crate) use training::{LossArg, TrainingArgs};

/// Says what of a command line has no effect.
pub(crate) fn warn(warnings: impl IntoIterator<Item = String>) {
    for warning in warnings {
        say(format_args!("warning: {warning}"));
    }
}

/// The sentences of what has no effect, of those that may hold.
pub(crate) fn ignored<const N: usize>(sentences: [(bool, &str); N]) -> impl Iterator<Item = String> {
    sentences.into_iter().filter(|(holds, _)| *holds).map(|(_, sentence)| sentence.to_owned())
}

/// A whole number within a range.
pub(crate) fn whole(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<u64>().ok().filter(|number| range.contains(number));
        let expected = || match (*range.start(), *range.end()) {
            (least, u64::MAX) => format!("expected a whole number, {least} or more"),
            (least, most) => format!("expected a whole number from {least} to {most}"),
        };
        number.and_then(|number| usize::try_from(number).ok()).ok_or_else(expected)
    }
}

/// The file that a text is in, "-" for standard input: the one that is named, or where no text is given.
pub(crate) fn file<'a>(file: Option<&'a Path>, text: Option<&str>) -> Option<&'a Path> {
    file.or((text.unwrap_or("-") == "-").then_some(Path::new("-")))
}

/// A language that is told into sentences.
pub(crate) fn language(code: &str) -> Result<String, String> {
    if bild_eval::is_known_language(code) {
        return Ok(code.into());
    }
    Err(format!("no such language is known; those known are {}", bild_eval::LANGUAGES.join(", ")))
}

/// The most tokens of a source and of what is written for it.
pub(crate) const MOST_TOKENS: u64 = crate::pair::MOST_TOKENS as u64;

/// A number within a range; `most` may be infinite. NaN is no number.
pub(crate) fn number(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
        let expected = if most.is_finite() {
            format!("expected a number from {least} to {most}")
        } else {
            format!("expected a number, {least} or more, or inf")
        };
        number.ok_or(expected)
    }
}

/// What a generation is given and how much it may write.
#[derive(Args, Clone, Debug)]
pub(crate) struct TextArgs {
    /// Put before every source, as in "translate English to German: "
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// The most tokens to write for a source [default: what the checkpoint says, else 128]
    #[arg(long, value_name = "N", value_parser = whole(1..=MOST_TOKENS))]
    pub(crate) max_new_tokens: Option<usize>,
    /// The seed of a policy that draws random numbers [default: 0]
    #[arg(long, value_name = "N", value_parser = whole(0..=u64::MAX))]
    pub(crate) seed: Option<usize>,
}

/// How long a source may be where a longer one is refused.
#[derive(Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// The most tokens of a source, prefix included
    #[arg(long, value_name = "N", default_value = "2048", value_parser = whole(1..=MOST_TOKENS))]
    pub(crate) max_source_tokens: usize,
    /// Cut a longer source to that, in place of refusing it
    #[arg(long)]
    pub(crate) truncate: bool,
}

impl TextArgs {
    /// The limits, with those of a source.
    pub(crate) fn limits(&self, max_source_tokens: usize, truncate: bool) -> Limits {
        let overflow = if truncate { Overflow::Truncate } else { Overflow::Error };
        let (max_new_tokens, seed) = (self.max_new_tokens, self.seed.unwrap_or(0) as u64);
        Limits { max_new_tokens, max_source_tokens, overflow, seed }
    }

    /// What of it has no effect with this policy.
    pub(crate) fn warning(&self, policy: &AnyPolicy) -> Option<String> {
        let ignored = self.seed.is_some() && !is_random(policy);
        ignored.then(|| "--seed has no effect: this policy draws no random numbers".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let threads = whole(1..=1024);
        assert_eq!(threads("1024"), Ok(1024));
        for text in ["0", "1025", "-1", "x", "", "1.5", "99999999999999999999"] {
            assert_eq!(threads(text).unwrap_err(), "expected a whole number from 1 to 1024");
        }
        assert_eq!(whole(1..=u64::MAX)("0").unwrap_err(), "expected a whole number, 1 or more");
        let points = number(0.0, 100.0);
        assert_eq!(points("0.5"), Ok(0.5));
        for text in ["nan", "inf", "-1", "-inf", "101", "x"] {
            assert_eq!(points(text).unwrap_err(), "expected a number from 0 to 100");
        }
        assert_eq!(number(0.0, f64::INFINITY)("inf"), Ok(f64::INFINITY));
        assert_eq!(number(0.0, f64::INFINITY)("nan").unwrap_err(), "expected a number, 0 or more, or inf");
    }
}
