//! Times decoding with one checkpoint or a pair.

mod measure;
mod profile;
mod rows;
mod throughput;

use std::{fmt::Write, num::NonZeroUsize, path::PathBuf, time::Instant};

use bild::{
    Output,
    decode::{Overflow, Pair, Source, Token},
};
use bild_eval::read_bandwidth;

use measure::{Measured, Spread, measure};
use serde_json::json;
use throughput::Throughput;

use crate::{
    Error,
    files::Files,
    options::{MOST_TOKENS, PairArgs, PolicyArgs, whole},
    pair::{Limits, PairOptions},
    policy::needs,
    streams::Stdout,
};

/// Time decoding with one checkpoint or a pair.
///
/// The source has fixed ids, the number of new tokens is fixed, and end-of-sequence is ignored. Beside --big, without anything
/// that drafts, that model is timed alone.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Tokens in the source
    #[arg(long, value_name = "N", default_value = "64", value_parser = whole(1..=MOST_TOKENS))]
    source_len: usize,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value = "64", value_parser = whole(1..=MOST_TOKENS))]
    new_tokens: usize,
    /// Time single passes over so many rows each, after 64 tokens, and a step of what drafts, in place of generations
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = whole(1..=1024), conflicts_with_all = ["profile", "at_once"])]
    rows: Vec<usize>,
    /// Also time so many generations at once, beside as many one after the other
    #[arg(long, value_name = "N", value_parser = whole(2..=1024))]
    at_once: Option<usize>,
    /// Time so many sources in place of one, with their encoders: tokens a second in all
    #[arg(long, value_name = "N", value_parser = whole(1..=65_536), conflicts_with_all = ["profile", "at_once", "rows"])]
    sources: Option<usize>,
    /// How many of the sources are decoded together [default: what suits the machine]
    #[arg(long, value_name = "N", value_parser = whole(1..=1024), requires = "sources")]
    batch: Option<usize>,
    /// Show where the time of a pass goes; measuring it takes some itself
    #[arg(long, conflicts_with = "at_once")]
    profile: bool,
    /// How often to measure, after one run that warms up
    #[arg(long, value_name = "N", default_value = "5", value_parser = whole(1..=1_000_000))]
    runs: usize,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let mut files = Files::default();
    files.reads("--policy-file", args.policy.file()).reads_pair(&args.pair)?.check()?;
    if args.profile {
        profile::install()?;
    }
    // So many tokens by the models alone, whatever a checkpoint says about generating.
    let pair = PairOptions { ignore_generation_config: true, ..args.pair.options() };
    let policy = args.pair.policy(&args.policy)?;
    let begun = Instant::now();
    let loaded = pair.load(needs(&policy))?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    // Fixed, spread over the vocabulary, without the lowest ids, which are special.
    let most = loaded.pair.vocabulary().size.min(32_000).saturating_sub(3).max(1);
    let source_of = |number| source(args.source_len, number, most);
    let source = source_of(0);
    if !args.rows.is_empty() {
        let passes = rows::Passes::measure(&loaded.pair, &source, &args.rows, 64, args.runs)?;
        out.line(if args.json { passes.json() } else { passes.text() }.trim_end())?;
        return Ok(true);
    }
    let limits = Limits {
        max_new_tokens: Some(args.new_tokens),
        max_source_tokens: args.source_len,
        overflow: Overflow::Error,
        seed: 0,
    };
    let settings = loaded.settings(&limits)?.with_end_tokens([]);
    let mut generator = loaded.generator(&policy, settings.clone())?;
    if let Some(batch) = args.batch.and_then(NonZeroUsize::new) {
        generator = generator.with_at_once(batch);
    }
    if let Some(count) = args.sources {
        let sources: Vec<_> = (0..count).map(source_of).collect();
        let throughput = Throughput::measure(&generator, &sources, args.runs)?;
        out.line(if args.json { throughput.json() } else { throughput.text() }.trim_end())?;
        return Ok(true);
    }
    let measured = measure(args, &generator, &source)?;
    let threads = pair.loading.threads();
    let peak_rss_mib = peak_rss_mib(); // before the buffer of the bandwidth
    let read_gb_per_s = read_bandwidth(threads);
    let machine = Machine { threads, load_ms, peak_rss_mib, read_gb_per_s, folders: pair.folders()? };
    out.line(report(args, &measured, machine).trim_end())?;
    Ok(true)
}

/// The source with this number: ids spread over a vocabulary of which the first `most` after the special ones are used.
fn source(length: usize, number: usize, most: usize) -> Source {
    Source::new((0..length).map(|i| (3 + (i + 31 * number) * 7919 % most) as Token).collect::<Vec<_>>())
}

/// What was found out beside the measured runs.
struct Machine {
    threads: usize,
    load_ms: f64,
    peak_rss_mib: Option<f64>,
    read_gb_per_s: Option<f64>,
    /// The models, by the options that name them.
    folders: Vec<(&'static str, PathBuf)>,
}

fn report(args: &Args, measured: &Measured, machine: Machine) -> String {
    let Machine { threads, load_ms, peak_rss_mib, read_gb_per_s, folders } = machine;
    let outputs = &measured.outputs;
    let of = |value: fn(&Output) -> f64| outputs.iter().map(value).collect::<Vec<_>>();
    let encoders = of(|output| output.statistics.encode_time.as_secs_f64() * 1e3);
    let tokens = of(|output| {
        let decoding = output.statistics.total_time - output.statistics.encode_time;
        decoding.as_secs_f64() * 1e3 / output.tokens.len() as f64
    });
    let (encoder, token) = (Spread::of(&encoders), Spread::of(&tokens));
    if args.json {
        let folder = |option| folders.iter().find(|(name, _)| *name == option).map(|(_, folder)| folder);
        let object = json!({
            "encoder_ms": encoder.median, "encoder_ms_min": encoder.min, "encoder_ms_max": encoder.max,
            "ms_per_token": token.median, "ms_per_token_min": token.min, "ms_per_token_max": token.max,
            "load_ms": load_ms, "first_ms": measured.first_ms, "peak_rss_mib": peak_rss_mib,
            "read_gb_per_s": read_gb_per_s, "model": folder("--big"), "little": folder("--little"),
            "shared_encoder": folder("--shared-encoder"), "early_exit": folder("--early-exit"),
            "source_len": args.source_len, "source_tokens": args.source_len, "truncated": false, "new_tokens": args.new_tokens, "threads": threads,
            "precision": format!("{:?}", args.pair.precision).to_lowercase(), "runs": args.runs,
            "runs_ms": { "encoder": encoders, "token": tokens }, "at_once": measured.at_once, "stats": outputs[0].statistics,
            "profile": args.profile.then(|| profile::read().json()),
        });
        return object.to_string();
    }
    let mut text = format!("{:<16} {load_ms:>9.0} ms\n", "loading");
    text += &encoder.line("encoder");
    text += &token.line("a token");
    if let (Some(count), Some(Spread { median, min, max })) = (args.at_once, measured.at_once) {
        let name = format!("{count} at once");
        let _ = writeln!(text, "{name:<16} {median:>9.2} times as fast as in turn ({min:.2} to {max:.2})");
    }
    if let Some(peak) = peak_rss_mib {
        let _ = writeln!(text, "{:<16} {peak:>9.1} MiB", "peak memory");
    }
    let _ = match read_gb_per_s {
        Some(speed) => writeln!(text, "{:<16} {speed:>9.1} GB/s", "read bandwidth"),
        None => {
            writeln!(text, "{:<16} not measured: there is no memory for a buffer that no cache holds", "read bandwidth")
        }
    };
    let _ = writeln!(text, "{:<16} {}", "the first run", outputs[0].statistics);
    if args.profile {
        text += &profile::read().to_string();
    }
    text
}

/// The most memory this process has held, where the system tells (Linux).
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
