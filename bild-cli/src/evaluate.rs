//! Quality and speed of a policy on a dataset, beside the big model alone in the same run.

use std::{fmt::Write, path::PathBuf};

use bild_eval::{Log, OutputFile, Record, dataset, evaluate};

use serde_json::Value;

use crate::{
    Error,
    files::Files,
    options::{self, DatasetArgs, PairArgs, PolicyArgs, TextArgs, whole},
    policy::{Needs, needs},
    prepared,
    progress::Terminal,
    streams::{Stdout, say},
};

/// Tell the quality and the speed of a policy on a dataset.
///
/// That is BLEU, chrF and ROUGE, and how many times as fast it is as the big model alone, both timed in turn on every sentence.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// How often to time every sentence; more rounds tell the machine's noise [default: as many as ten seconds hold, 20 at
    /// most]
    #[arg(long, value_name = "N", value_parser = whole(1..=1000))]
    rounds: Option<usize>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Write the outputs to this file, one a line
    #[arg(long, value_name = "FILE")]
    hyp: Option<PathBuf>,
    /// Keep what is done in this file, and go on from there if it is there already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let pair = args.pair.options();
    let mut files = Files::default();
    args.dataset.name(&mut files);
    files.reads_pair(&args.pair)?;
    files.reads("--policy-file", args.policy.file());
    files.writes("--hyp", args.hyp.as_deref()).writes("--resume", args.resume.as_deref()).check()?;
    let hyp = args.hyp.as_deref().map(OutputFile::tried).transpose()?;
    let policy = args.policy.policy()?;
    // The big model is always there, to be compared with.
    let needs = if needs(&policy) == Needs::Big { Needs::Big } else { Needs::Both };
    args.pair.warn(&args.policy, needs);
    options::warn(args.texts.warning(&policy));
    if needs == Needs::Big {
        options::warn(["the big model is compared with itself".into()]);
    }
    let mut examples = args.dataset.read()?;
    let count = args.dataset.taken(examples.len());
    let loaded = pair.load(needs)?;
    let limits = args.texts.limits(args.dataset.max_source_tokens, true);
    let data = dataset::conditions(&examples)?;
    examples.truncate(count);
    let models = loaded.conditions()?;
    let bench = prepared::bench(&loaded, examples, &args.texts.prefix, &limits)?;
    // What was done under other conditions is not gone on with. The number of sentences may grow.
    let conditions = || models.and(bench.conditions()?).and(data).with("the policy", &policy);
    let terminal = Terminal::default();
    let log = Log::open(args.resume.as_deref(), "evaluate", conditions, &terminal)?;
    let evaluation = evaluate(&bench, &loaded.decoded_by(&policy)?, args.rounds, log, &terminal)?;
    let result = evaluation.json(&bench);
    let printed = if args.json { out.line(&result) } else { out.line(table(&result)) };
    if let Some(hyp) = &hyp {
        let line = |record: &Record| record.text.replace(['\n', '\r'], " ") + "\n";
        hyp.write(&evaluation.records.iter().map(|(policy, _)| line(policy)).collect::<String>())?;
    }
    warn(&result);
    printed.map(|()| true)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// The result for a reader.
fn table(result: &Value) -> String {
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
fn warn(result: &Value) {
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
