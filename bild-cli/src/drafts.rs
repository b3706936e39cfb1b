//! Choosing how drafts are made: none of it changes what a lossless policy writes.

use std::path::PathBuf;

use bild::{
    Precision,
    policies::{AnyPolicy, BigAlone},
};
use bild_eval::{Costs, Example, Observer, candidates};
use serde_json::{Value, json};

use crate::{
    Error, models::Loading, options::PrecisionArg, pair::PairOptions, policy::Needs, prepared::PreparedArgs,
    progress::Terminal,
};

/// On how many sentences ways to draft are compared.
const SENTENCES: usize = 100;

/// How what drafts is loaded, and how fast it is.
pub(crate) struct Way {
    pub(crate) loading: Loading,
    /// How many times as fast as the big model alone, losslessly, by counted passes and what passes cost.
    speedup: f64,
}

/// Every precision with all tokens and with every list.
pub(crate) fn ways(given: &Loading, precisions: &[PrecisionArg], lists: &[PathBuf]) -> Vec<Way> {
    let precisions: Vec<Precision> = match precisions {
        [] => vec![given.little],
        some => some.iter().map(|&precision| precision.into()).collect(),
    };
    let lists: Vec<Option<PathBuf>> = match lists {
        [] => vec![given.shortlist.clone()],
        some => [None].into_iter().chain(some.iter().cloned().map(Some)).collect(),
    };
    let with = |little| lists.iter().map(move |list| Loading { little, shortlist: list.clone(), ..given.clone() });
    precisions.into_iter().flat_map(with).map(|loading| Way { loading, speedup: 0.0 }).collect()
}

/// Measures what their drafts cost and decodes some sentences with each, losslessly; the fastest comes first.
pub(crate) fn measure(
    args: &PreparedArgs,
    pair: &PairOptions,
    examples: &[Example],
    ways: &mut [Way],
    terminal: &Terminal,
) -> Result<(), Error> {
    let examples = &examples[..SENTENCES.min(examples.len() / 2)];
    let all: Vec<usize> = (0..examples.len()).collect();
    // What the big model costs and writes does not depend on what drafts.
    let mut big: Option<(Costs, f64)> = None;
    for way in &mut *ways {
        let loaded = PairOptions { loading: way.loading.clone(), ..pair.clone() }.load(Needs::Both)?;
        let bench = args.bench(&loaded, examples.to_vec())?;
        let mut costs = Costs::measure(&bench.pair, bench.mean_length(), terminal)?;
        if let Some((of_big, _)) = &big {
            (costs.encode_big, costs.verify) = (of_big.encode_big, of_big.verify.clone());
        } else {
            let alone = bench.decode(&AnyPolicy::Big(BigAlone {}), &all, || ())?;
            big = Some((costs.clone(), costs.of_all(&alone)));
        }
        terminal.begins("Comparing ways to draft", all.len());
        let found = bench.decode(&candidates::lossless(&costs)?, &all, || terminal.advances())?;
        terminal.ends();
        way.speedup = big.as_ref().map_or(0.0, |(_, alone)| alone / costs.of_all(&found));
    }
    ways.sort_by(|a, b| b.speedup.total_cmp(&a.speedup));
    Ok(())
}

impl Way {
    /// As a result of `tune`.
    pub(crate) fn json(&self) -> Value {
        let Loading { little, shortlist, .. } = &self.loading;
        json!({ "little_precision": little, "shortlist": shortlist, "speedup": self.speedup })
    }

    /// The options that make drafts so.
    fn options(&self) -> String {
        let list = self.loading.shortlist.as_ref().map(|list| format!(" --shortlist {}", list.display()));
        let precision = format!("{:?}", self.loading.little).to_lowercase();
        format!("--little-precision {precision}{}", list.unwrap_or_default())
    }
}

/// What was found, if there was a choice.
pub(crate) fn words(ways: &[Way]) -> String {
    let [best, rest @ ..] = ways else { return String::new() };
    if rest.is_empty() {
        return String::new();
    }
    let rest: Vec<String> = rest.iter().map(|way| format!("{:.2} with {}", way.speedup, way.options())).collect();
    format!(
        "\nDrafts were made with {}, which is fastest losslessly: {:.2} times as fast as the big model alone by counted passes ({}). \
         Give these options with the policy.",
        best.options(),
        best.speedup,
        rest.join(", ")
    )
}
