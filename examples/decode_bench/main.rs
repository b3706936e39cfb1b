//! Times decoding with one checkpoint or a pair: a source of fixed ids, a fixed number of new tokens, end-of-sequence
//! ignored.
//!
//! cargo run --release --example decode_bench -- --model models/de-en/big

#[path = "../support/mod.rs"]
mod support;

mod bandwidth;
mod profile;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use bild::{Generator, Lossless, NoDraft, Output, Pair, Settings, Source, Threads, Token};
use clap::Parser;
use serde_json::json;
use support::{
    Error, median,
    models::{self, ModelArgs},
    policy::{Mode, PolicyArgs},
};

/// Time decoding with one checkpoint or a pair: a source of fixed ids, a fixed number of new tokens, end-of-sequence
/// ignored.
#[derive(Parser)]
#[command(name = "decode_bench")]
struct Args {
    /// The folder of the model; with --little, of the big one
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The folder of the little model, for a policy of two models
    #[arg(long, value_name = "DIR")]
    little: Option<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Tokens in the source
    #[arg(long, value_name = "N", default_value_t = 64)]
    source_len: usize,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value_t = 64)]
    new_tokens: usize,
    /// Show where the time of a pass goes; measuring it takes some itself
    #[arg(long)]
    profile: bool,
    /// How often to measure, after one run that warms up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// One JSON object on standard output, and nothing else
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    if args.profile {
        profile::install()?;
    }
    let threads = args.models.threads.unwrap_or_else(|| Threads::default().count());
    let [options, little_options] = args.models.options()?;
    let begun = Instant::now();
    let model = models::load(&models::open(&args.model)?, "the model", &options)?;
    let load_little = |path| models::load(&models::open(path)?, "the little model", &little_options);
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    // Fixed, spread over the vocabulary, without the lowest ids, which are special.
    let most = model.config().vocab_size.min(32_000).saturating_sub(3).max(1);
    let source: Vec<Token> = (0..args.source_len).map(|i| (3 + i * 7919 % most) as Token).collect();
    let (source, settings) = (
        Source::new(source),
        Settings::default()
            .max_new_tokens(args.new_tokens)
            .max_source_tokens(args.source_len, bild::Overflow::Error)
            .end_tokens([]),
    );
    let outputs = match (&args.little, args.policy.policy) {
        (Some(little), Mode::Bild | Mode::Lossless) => {
            let little = load_little(little)?;
            measure(
                &Generator::new((little, model), args.policy.policy()?)?.with_settings(settings),
                &source,
                args.runs,
            )?
        }
        (Some(little), Mode::Little) => {
            let little = load_little(little)?;
            measure(
                &Generator::new((NoDraft, little), Lossless::default())?.with_settings(settings),
                &source,
                args.runs,
            )?
        }
        _ => measure(
            &Generator::new((NoDraft, model), Lossless::default())?.with_settings(settings),
            &source,
            args.runs,
        )?,
    };
    let peak_rss_mib = peak_rss_mib(); // before the buffer of the bandwidth
    let read_gb_per_s = bandwidth::read_gb_per_s(threads);
    report(args, threads, &outputs, load_ms, peak_rss_mib, read_gb_per_s);
    Ok(())
}

fn measure<P: Pair>(generator: &Generator<P>, source: &Source, runs: u32) -> Result<Vec<Output>, Error> {
    let progress = support::bar(u64::from(runs) + 1, "Measuring");
    let mut outputs = Vec::new();
    for run in 0..=runs {
        if run == 1 {
            profile::begin(); // without the run that warms up
        }
        outputs.push(generator.generate(source)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(outputs)
}

fn report(
    args: &Args,
    threads: usize,
    outputs: &[Output],
    load_ms: f64,
    peak_rss_mib: Option<f64>,
    read_gb_per_s: f64,
) {
    // The first run warms up; what it took is what a user waits for once.
    let (first, outputs) = outputs.split_first().expect("there is one run more than asked for");
    let first_ms = first.statistics.total_time.as_secs_f64() * 1e3;
    let of = |value: fn(&Output) -> f64| outputs.iter().map(value).collect::<Vec<_>>();
    let encoder = of(|output| output.statistics.encode_time.as_secs_f64() * 1e3);
    let token = of(|output| {
        let decoding = output.statistics.total_time - output.statistics.encode_time;
        decoding.as_secs_f64() * 1e3 / output.tokens.len() as f64
    });
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    if args.json {
        let object = json!({
            "encoder_ms": median(encoder.clone()), "encoder_ms_min": least(&encoder), "encoder_ms_max": most(&encoder),
            "ms_per_token": median(token.clone()), "ms_per_token_min": least(&token), "ms_per_token_max": most(&token),
            "load_ms": load_ms, "first_ms": first_ms, "peak_rss_mib": peak_rss_mib, "read_gb_per_s": read_gb_per_s,
            "model": args.model, "little": args.little, "source_len": args.source_len, "new_tokens": args.new_tokens,
            "threads": threads, "precision": format!("{:?}", args.models.precision).to_lowercase(), "runs": args.runs, "stats": outputs[0].statistics, "profile": args.profile.then(|| profile::read().json()),
        });
        println!("{object}");
        return;
    }
    let line = |name: &str, values: &[f64]| {
        println!("{name:<16} {:>9.3} ms ({:.3} to {:.3})", median(values.to_vec()), least(values), most(values));
    };
    println!("{:<16} {load_ms:>9.0} ms", "loading");
    line("encoder", &encoder);
    line("a token", &token);
    if let Some(peak) = peak_rss_mib {
        println!("{:<16} {peak:>9.1} MiB", "peak memory");
    }
    println!("{:<16} {read_gb_per_s:>9.1} GB/s", "read bandwidth");
    println!("{:<16} {}", "the first run", outputs[0].statistics);
    if args.profile {
        print!("{}", profile::read());
    }
}

/// The most memory this process has held, where the system tells (Linux).
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
