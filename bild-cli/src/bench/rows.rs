//! Times single passes.

use std::{collections::BTreeMap, time::Instant};

use bild::decode::{Pair, PairSession, Pass, SessionLimit, Source, Token, Want};
use serde_json::json;

use super::measure::Spread;
use crate::{Error, progress::bar};

/// The milliseconds of a verifier's pass for each number of rows, and of a step of what drafts, if something does.
pub(crate) struct Passes {
    pass_ms: BTreeMap<usize, Spread>,
    draft_ms: Option<Spread>,
}

impl Passes {
    /// Times them in turn, `runs` times each, after `before` tokens that are in the cache.
    pub(crate) fn measure<P: Pair>(
        pair: &P,
        source: &Source,
        rows: &[usize],
        before: usize,
        runs: usize,
    ) -> Result<Self, Error> {
        let vocabulary = pair.vocabulary();
        let token = |at: usize| if at == 0 { vocabulary.start } else { ((3 + at * 7919) % vocabulary.size) as Token };
        let tokens: Vec<Token> = (0..before + rows.iter().max().unwrap_or(&1)).map(token).collect();
        let mut session = pair.begin(source, &SessionLimit::new(tokens.len()))?;
        let mut timed = |pass: Pass<'_>| -> Result<(f64, usize), Error> {
            let begun = Instant::now();
            let found = session.pass(&pass)?.len();
            Ok((begun.elapsed().as_secs_f64() * 1e3, found))
        };
        let want = Want::default();
        timed(Pass::verify(0, &tokens[..before], want))?;
        let (_, drafts) = timed(Pass::draft(0, &tokens[..before], want))?;
        let (mut passes, mut steps) = (BTreeMap::<usize, Vec<f64>>::new(), Vec::new());
        let progress = bar(runs, "Measuring");
        // The first time warms up.
        for run in 0..=runs {
            for &count in rows {
                let (ms, _) = timed(Pass::verify(before, &tokens[before..before + count], want))?;
                passes.entry(count).or_default().extend((run > 0).then_some(ms));
            }
            if drafts > 0 {
                let (ms, _) = timed(Pass::draft(before, &tokens[before..before + 1], want))?;
                steps.extend((run > 0).then_some(ms));
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        let pass_ms = passes.into_iter().map(|(rows, ms)| (rows, Spread::of(&ms))).collect();
        Ok(Self { pass_ms, draft_ms: (drafts > 0).then(|| Spread::of(&steps)) })
    }

    pub(crate) fn json(&self) -> String {
        json!({ "pass_ms": self.pass_ms, "draft_ms": self.draft_ms }).to_string()
    }

    pub(crate) fn text(&self) -> String {
        let rows = |(rows, spread): (&usize, &Spread)| {
            spread.line(&format!("{rows} row{}", if *rows == 1 { "" } else { "s" }))
        };
        let draft = self.draft_ms.map(|spread| spread.line("a draft"));
        self.pass_ms.iter().map(rows).chain(draft).collect()
    }
}
