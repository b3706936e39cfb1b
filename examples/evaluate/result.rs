//! What was found, for a program and for a reader.

use std::fmt::Write;

use bild::Statistics;
use serde_json::{Value, json};

use crate::{
    Record,
    support::{
        clock::Timed,
        interval::speedup,
        metrics::{Scores, Sentence, bootstrap},
        streams::say,
        trial::Bench,
    },
};

/// Resamples for an interval.
const RESAMPLES: usize = 1000;

pub(crate) fn json(records: &[(&Record, &Record)], times: &[Timed], bench: &Bench) -> Value {
    let judged = |record: &Record, i: usize| Sentence::of(&record.text, &bench.examples[i].reference);
    let found: Vec<Sentence> = records.iter().enumerate().map(|(i, (found, _))| judged(found, i)).collect();
    let big: Vec<Sentence> = records.iter().enumerate().map(|(i, (_, big))| judged(big, i)).collect();
    let interval = |f: &dyn Fn(&[usize]) -> f64| bootstrap(records.len(), RESAMPLES, 1, f);
    let of = |sentences: &[Sentence], indices: &[usize]| Scores::of(indices.iter().map(|&i| &sentences[i]));
    let scores = |sentences: &[Sentence]| {
        let Scores { bleu, chrf, rouge1, rouge2, rouge_l } = Scores::of(sentences.iter());
        json!({ "bleu": bleu, "chrf": chrf, "rouge1": rouge1, "rouge2": rouge2, "rougeL": rouge_l })
    };
    let mut result = scores(&found);
    let (mut sum, mut big_sum) = (Statistics::default(), Statistics::default());
    for (found, big) in records {
        sum += &found.statistics;
        big_sum += &big.statistics;
    }
    let (source_tokens, truncated) = bench.read();
    let speed = speedup(times);
    let more = json!({
        "speedup": speed.times,
        "block_efficiency": sum.block_efficiency(),
        "big_share": sum.verifier_share(),
        "fallback_rate": sum.fallback_rate(),
        "rollback_rate": sum.rollback_rate(),
        "acceptance_rate": sum.acceptance_rate(),
        "sentences": records.len(), "tokens": sum.tokens, "seconds": sum.total_time.as_secs_f64(),
        "source_tokens": source_tokens, "truncated": truncated,
        "draft_steps": sum.draft_steps, "verifier_calls": sum.verifier_calls,
        "same_as_big": records.iter().filter(|(found, big)| found.text == big.text).count(),
        "rounds": times.len() as f64 / records.len() as f64,
        "timed_seconds": times.iter().map(|timed| timed.policy + timed.big).sum::<f64>(),
        "noisy": speed.noisy,
        "intervals": {
            "bleu": interval(&|indices| of(&found, indices).bleu),
            "bleu_loss": interval(&|indices| of(&big, indices).bleu - of(&found, indices).bleu),
            "rougeL": interval(&|indices| of(&found, indices).rouge_l),
            "speedup": speed.interval,
            "speedup_sentences": speed.sentences,
        },
    });
    result.as_object_mut().expect("it is an object").extend(more.as_object().expect("it is an object").clone());
    let mut big = scores(&big);
    big["seconds"] = big_sum.total_time.as_secs_f64().into();
    big["tokens"] = big_sum.tokens.into();
    result["big"] = big;
    result
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// The result for a reader.
pub(crate) fn table(result: &Value) -> String {
    let mut table = format!("{:<18}{:>10}{:>12}\n", "", "policy", "big alone");
    for (name, key) in
        [("BLEU", "bleu"), ("chrF", "chrf"), ("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL")]
    {
        let _ = writeln!(table, "{name:<18}{:>10.2}{:>12.2}", number(&result[key]), number(&result["big"][key]));
    }
    let low_high = |key: &str| {
        let ends = result["intervals"][key].as_array()?;
        Some(format!("{:.2} to {:.2}", number(&ends[0]), number(&ends[1])))
    };
    let _ = writeln!(table, "{:<18}{:>10}", "sentences", result["sentences"]);
    if result["truncated"] != 0 {
        let _ = writeln!(table, "{:<18}{:>10}", "sources cut", result["truncated"]);
    }
    let _ = writeln!(table, "{:<18}{:>10}", "the same text", result["same_as_big"]);
    let _ = write!(table, "{:<18}{:>10.2}", "times as fast", number(&result["speedup"]));
    let _ = match low_high("speedup") {
        Some(interval) => writeln!(
            table,
            "   (95 %: {interval}, for other sentences and the machine's noise within {:.1} s of timing)",
            number(&result["timed_seconds"])
        ),
        None => writeln!(table),
    };
    if let Some(interval) = low_high("bleu_loss") {
        let _ = writeln!(table, "{:<18}{interval:>10}   (95 %, for other sentences)", "BLEU lost");
    }
    for key in ["block_efficiency", "big_share", "fallback_rate", "rollback_rate", "acceptance_rate"] {
        if let Some(value) = result[key].as_f64() {
            let _ = writeln!(table, "{:<18}{value:>10.2}", key.replace('_', " "));
        }
    }
    table.truncate(table.trim_end().len());
    table
}

/// Says what the numbers do not show.
pub(crate) fn warn(result: &Value) {
    if result["sentences"] == 1 {
        say("warning: one sentence says nothing of others: there are no intervals");
    }
    if result["noisy"] == true {
        say(
            "warning: the speedup changed more from moment to moment than the sentences explain: something else was running. \
             The interval holds what was seen of it, and another run may still lie outside; run it on a quiet machine, or \
             with more --rounds",
        );
    }
}
