//! What a draft model is worth beside its big model: on text that it was not trained on.

use std::fmt::Write;

use bild::{
    Lossless,
    decode::{Generator, Source},
    policies::{AnyPolicy, BigAlone, CostAware},
};
use bild_eval::{
    Agreement, Bench, Costs, Log, Metric, Observer, TuneOptions, candidates, evaluate, scores, speedup, tune,
};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a pair does on held-out text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measured {
    /// How near the draft model's distributions are to the big one's.
    pub agreement: Agreement,
    /// Of the drafts of `Lossless`, how many stand.
    pub acceptance: f64,
    /// The tokens that `Lossless` commits for each pass of the big model.
    pub block_efficiency: f64,
    /// The BLEU of the big model alone.
    pub big: f64,
    /// `Lossless`, `CostAware` around it, and the paper's policy with tuned thresholds, by the clock.
    pub policies: Vec<MeasuredPolicy>,
}

/// What one policy does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MeasuredPolicy {
    /// Its name and thresholds.
    pub name: String,
    /// The BLEU that it loses to the big model alone, on the same sentences.
    pub loss: f64,
    /// How many times as fast as the big model alone it is.
    pub speedup: f64,
    /// Where that lies with 95 %.
    pub interval: Option<(f64, f64)>,
}

/// Measures a pair on a bench, timing each sentence in so many rounds or as many as ten seconds hold, and finds the fastest policy that loses at most a point of BLEU, if there is one that is sure to.
///
/// # Errors
///
/// If a generation fails.
pub fn measure(bench: &Bench, rounds: Option<usize>, observer: &dyn Observer) -> Result<(Measured, Option<AnyPolicy>)> {
    let all: Vec<usize> = (0..bench.sources.len()).collect();
    let decode = |policy: &AnyPolicy| {
        observer.begins("Decoding", all.len());
        let decoded = bench.decode(policy, &all, || observer.advances());
        observer.ends();
        decoded
    };
    let big = decode(&AnyPolicy::Big(BigAlone {}))?;
    // As they were read: the settings may cut them.
    let generator = Generator::new(&bench.pair, BigAlone {})?.with_settings(bench.settings.clone());
    let read = |source: &Source| Ok(generator.prepare(source.clone(), 0)?.source().clone());
    let sources = bench.sources.iter().map(read).collect::<Result<Vec<_>>>()?;
    let outputs = sources.iter().zip(big.iter().map(|decoded| &*decoded.output.tokens));
    let agreement = Agreement::measure(&bench.pair, outputs, observer)?;
    let lossless = AnyPolicy::Lossless(Lossless::default());
    let counted = bild_eval::statistics(&decode(&lossless)?);

    let costs = Costs::measure(&bench.pair, bench.mean_length(), observer)?;
    // How long a draft may be is left to its cost: a fallback would only end it sooner.
    let without_limit = AnyPolicy::Lossless(Lossless::without_limit());
    let aware = AnyPolicy::CostAware(CostAware::new(Box::new(without_limit)));
    let mut policies = Vec::new();
    for (name, policy) in [("Lossless", &lossless), ("CostAware around Lossless", &aware)] {
        let evaluation = evaluate(bench, policy, rounds, Log::in_memory(), observer)?;
        let speed = speedup(&evaluation.times);
        let found = evaluation.json(bench);
        let loss =
            found["big"]["bleu"].as_f64().zip(found["bleu"].as_f64()).map_or(f64::NAN, |(big, found)| big - found);
        policies.push(MeasuredPolicy { name: name.into(), loss, speedup: speed.times, interval: speed.interval });
    }
    let mut options = TuneOptions::default().with_loss(1.0, Metric::Bleu);
    let mut tuned = None;
    if TuneOptions::check(all.len()).is_ok() {
        let found = tune(bench, &costs, &options, Log::in_memory(), observer)?;
        tuned = found.is_allowed.then_some(found.policy);
        options.candidates = Some(candidates::grid()?);
        let found = tune(bench, &costs, &options, Log::in_memory(), observer)?;
        let clock = found.judged_on.by_the_clock;
        policies.push(MeasuredPolicy {
            name: format!("Bild, {}", found.setting),
            loss: found.judged_on.loss,
            speedup: clock.speedup,
            interval: clock.interval,
        });
    }
    let measured = Measured {
        agreement,
        acceptance: counted.acceptance_rate().unwrap_or(f64::NAN),
        block_efficiency: counted.block_efficiency().unwrap_or(f64::NAN),
        big: scores(&big).bleu,
        policies,
    };
    Ok((measured, tuned))
}

impl Measured {
    /// A table of both, in Markdown: before and after an alignment.
    pub fn table(&self, after: &Self) -> String {
        let mut table = String::from("| | before | after |\n|---|---|---|\n");
        let mut row = |name: &str, before: String, after: String| {
            _ = writeln!(table, "| {name} | {before} | {after} |");
        };
        let share = |x: f64| format!("{x:.3}");
        let of = |f: fn(&Self) -> f64| (share(f(self)), share(f(after)));
        for (name, (before, after)) in [
            ("its most likely token is the big model's", of(|m| m.agreement.argmax)),
            ("divergence from the big model, nats", of(|m| m.agreement.divergence)),
            ("accepted by sampling at temperature 1", of(|m| m.agreement.overlap)),
            ("drafts of `Lossless` that stand", of(|m| m.acceptance)),
            ("tokens for each pass of the big model", of(|m| m.block_efficiency)),
        ] {
            row(name, before, after);
        }
        row("BLEU of the big model", format!("{:.2}", self.big), format!("{:.2}", after.big));
        let speed = |policy: &MeasuredPolicy| {
            let interval = policy.interval.map_or(String::new(), |(low, high)| format!(" ({low:.2} to {high:.2})"));
            format!("{:.2} times{interval}, {:.1} BLEU lost", policy.speedup, policy.loss + 0.0)
        };
        for (a, b) in self.policies.iter().zip(&after.policies) {
            let name = if a.name == b.name { a.name.clone() } else { format!("{}; {}", a.name, b.name) };
            row(&format!("as fast as the big model alone: {name}"), speed(a), speed(b));
        }
        table
    }
}
