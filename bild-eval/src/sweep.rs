//! Quality against speed of many policies.

use std::time::Duration;

use bild::policies::{AnyPolicy, BigAlone};
use serde::{Deserialize, Serialize};

use crate::{
    Bench, Candidate, Costs, Curve, Log, Metric, Observer, Plot, Point, Result, in_turn, metrics::Scores, pareto,
    scores, speedup, statistics,
};

/// What was found for one policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Swept {
    /// What it is compared as.
    pub curve: String,
    /// Its thresholds in words.
    pub label: String,
    /// What decoded.
    pub policy: AnyPolicy,
    /// BLEU.
    pub bleu: f64,
    /// chrF.
    pub chrf: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// The big model's predicted time over this one's.
    pub speedup: f64,
    /// By the clock, where that was asked for.
    pub confirmed: Option<f64>,
    /// Passes of what drafts.
    pub draft_steps: usize,
    /// Passes of the big model.
    pub verifier_calls: usize,
    /// Tokens in the outputs.
    pub tokens: usize,
    /// The milliseconds told from its passes.
    pub predicted: f64,
}

/// Decodes everything by every candidate that the log does not have yet, and compares their times with that of the big model
/// alone.
///
/// # Errors
///
/// If a generation fails, or the log cannot be written.
pub fn sweep(
    bench: &Bench,
    candidates: &[Candidate],
    costs: &Costs,
    log: &mut Log<Swept>,
    observer: &dyn Observer,
) -> Result<Vec<Swept>> {
    observer.begins("Sweeping", candidates.len());
    for candidate in candidates {
        if !log.records.iter().any(|found| found.is_of(candidate)) {
            log.add(one(bench, candidate, costs)?)?;
        }
        observer.advances();
    }
    observer.ends();
    // A log may hold more: it was begun with more candidates.
    let asked = |found: &&Swept| candidates.iter().any(|candidate| found.is_of(candidate));
    let mut found: Vec<Swept> = log.records.iter().filter(asked).cloned().collect();
    let baseline = match found.iter().find(|found| found.curve == "big alone") {
        Some(big) => big.predicted,
        None => {
            let big = Candidate { curve: "", label: String::new(), policy: AnyPolicy::Big(BigAlone {}) };
            one(bench, &big, costs)?.predicted
        }
    };
    for found in &mut found {
        found.speedup = baseline / found.predicted;
    }
    Ok(found)
}

fn one(bench: &Bench, candidate: &Candidate, costs: &Costs) -> Result<Swept> {
    let all: Vec<usize> = (0..bench.sources.len()).collect();
    let decoded = bench.decode(&candidate.policy, &all, || {})?;
    let (Scores { bleu, chrf, rouge_l, .. }, statistics) = (scores(&decoded), statistics(&decoded));
    Ok(Swept {
        curve: candidate.curve.into(),
        label: candidate.label.clone(),
        policy: candidate.policy.clone(),
        bleu,
        chrf,
        rouge_l,
        speedup: 0.0,
        confirmed: None,
        draft_steps: statistics.draft_steps,
        verifier_calls: statistics.verifier_calls,
        tokens: statistics.tokens,
        predicted: costs.of_all(&decoded),
    })
}

impl Swept {
    fn is_of(&self, candidate: &Candidate) -> bool {
        self.curve == candidate.curve && self.label == candidate.label
    }

    fn quality(&self, metric: Metric) -> f64 {
        metric.of(&Scores { bleu: self.bleu, chrf: self.chrf, rouge_l: self.rouge_l, ..Scores::default() })
    }

    fn is_alone(&self) -> bool {
        self.curve.ends_with(" alone")
    }
}

/// The most time for one policy by the clock.
const BUDGET: Duration = Duration::from_secs(600);

/// Times so many policies spread over the front, each in turn with the big model alone, by the clock.
///
/// # Errors
///
/// If a generation fails.
pub fn confirm(
    count: usize,
    metric: Metric,
    timed: &Bench,
    found: &mut [Swept],
    observer: &dyn Observer,
) -> Result<()> {
    let points: Vec<_> = found.iter().map(|found| (found.speedup, found.quality(metric))).collect();
    let mut front: Vec<usize> = (0..found.len())
        .zip(pareto(&points))
        .filter(|(i, best)| *best && !found[*i].is_alone())
        .map(|(i, _)| i)
        .collect();
    front.sort_by(|&a, &b| found[a].speedup.total_cmp(&found[b].speedup));
    let some = count.min(front.len());
    let chosen: Vec<usize> = (0..some).map(|i| front[(i * front.len() + front.len() / 2) / some]).collect();
    observer.begins("Confirming by the clock", some * timed.sources.len());
    let alone = timed.generator(&AnyPolicy::Big(BigAlone {}))?;
    for index in chosen {
        let generator = timed.generator(&found[index].policy)?;
        let times = in_turn([&generator, &alone], timed.sources.iter(), 1, BUDGET, || observer.advances())?;
        found[index].confirmed = Some(speedup(&times).times);
    }
    observer.ends();
    Ok(())
}

/// A table as CSV.
pub fn csv(found: &[Swept]) -> String {
    let mut csv =
        "curve,setting,bleu,chrf,rougeL,speedup,confirmed,draft_steps,verifier_calls,tokens,policy".to_owned();
    for f in found {
        let confirmed = f.confirmed.map(|speedup| format!("{speedup:.3}")).unwrap_or_default();
        let policy = serde_json::to_string(&f.policy).unwrap_or_default().replace('"', "\"\"");
        csv += &format!(
            "\n\"{}\",\"{}\",{:.3},{:.3},{:.3},{:.3},{confirmed},{},{},{},\"{policy}\"",
            f.curve, f.label, f.bleu, f.chrf, f.rouge_l, f.speedup, f.draft_steps, f.verifier_calls, f.tokens
        );
    }
    csv
}

/// A figure as SVG: one curve a policy, the models alone as points.
pub fn figure(metric: Metric, found: &[Swept]) -> String {
    let point = |found: &Swept| Point { x: found.speedup, y: found.quality(metric), label: found.label.clone() };
    let mut curves: Vec<Curve> = Vec::new();
    for f in found.iter().filter(|found| !found.is_alone()) {
        match curves.iter_mut().find(|curve| curve.name == f.curve) {
            Some(curve) => curve.points.push(point(f)),
            None => curves.push(Curve { name: f.curve.clone(), points: vec![point(f)] }),
        }
    }
    let name = metric.name();
    let plot = Plot {
        title: format!("{name} against speedup"),
        x_label: "times as fast as the big model alone".into(),
        y_label: name.into(),
        curves,
        marks: found.iter().filter(|found| found.is_alone()).map(point).collect(),
    };
    plot.svg()
}
