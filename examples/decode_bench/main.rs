//! Times decoding with one checkpoint or a pair: a source of fixed ids, a fixed number of new tokens, end-of-sequence
//! ignored.
//!
//! cargo run --release --example decode_bench -- --model models/de-en/big

#[path = "../support/mod.rs"]
mod support;

mod bandwidth;
mod measure;
mod profile;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use bild::{Generator, Lossless, NoDraft, Output, Settings, Source, Threads, Token};
use clap::Parser;
use measure::{Measured, Spread, measure};
use serde_json::json;
use support::{
    Error,
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
    /// Also time so many generations at once, beside as many one after the other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    at_once: Option<u32>,
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
    let alone = |model| Generator::new((NoDraft, model), Lossless::default());
    let measured = match (&args.little, args.policy.mode()) {
        (Some(little), Mode::Bild | Mode::Lossless) => {
            let generator = Generator::new((load_little(little)?, model), args.policy.policy()?)?;
            measure(args, &generator.with_settings(settings), &source)?
        }
        (Some(little), Mode::Little) => measure(args, &alone(load_little(little)?)?.with_settings(settings), &source)?,
        _ => {
            let generator = Generator::new((NoDraft, model), args.policy.policy()?)?;
            measure(args, &generator.with_settings(settings), &source)?
        }
    };
    let peak_rss_mib = peak_rss_mib(); // before the buffer of the bandwidth
    let read_gb_per_s = bandwidth::read_gb_per_s(threads);
    report(args, &measured, &Machine { threads, load_ms, peak_rss_mib, read_gb_per_s });
    Ok(())
}

/// What was found out beside the measured runs.
struct Machine {
    threads: usize,
    load_ms: f64,
    peak_rss_mib: Option<f64>,
    read_gb_per_s: f64,
}

fn report(args: &Args, measured: &Measured, machine: &Machine) {
    let Machine { threads, load_ms, peak_rss_mib, read_gb_per_s } = *machine;
    let outputs = &measured.outputs;
    let of = |value: fn(&Output) -> f64| outputs.iter().map(value).collect::<Vec<_>>();
    let encoders = of(|output| output.statistics.encode_time.as_secs_f64() * 1e3);
    let tokens = of(|output| {
        let decoding = output.statistics.total_time - output.statistics.encode_time;
        decoding.as_secs_f64() * 1e3 / output.tokens.len() as f64
    });
    let (encoder, token) = (Spread::of(&encoders), Spread::of(&tokens));
    if args.json {
        let object = json!({
            "encoder_ms": encoder.median, "encoder_ms_min": encoder.min, "encoder_ms_max": encoder.max,
            "ms_per_token": token.median, "ms_per_token_min": token.min, "ms_per_token_max": token.max,
            "load_ms": load_ms, "first_ms": measured.first_ms, "peak_rss_mib": peak_rss_mib,
            "read_gb_per_s": read_gb_per_s, "model": args.model, "little": args.little,
            "source_len": args.source_len, "new_tokens": args.new_tokens, "threads": threads,
            "precision": format!("{:?}", args.models.precision).to_lowercase(), "runs": args.runs,
            "runs_ms": { "encoder": encoders, "token": tokens }, "at_once": measured.at_once, "stats": outputs[0].statistics,
            "profile": args.profile.then(|| profile::read().json()),
        });
        println!("{object}");
        return;
    }
    let line = |name: &str, Spread { median, min, max }: Spread| {
        println!("{name:<16} {median:>9.3} ms ({min:.3} to {max:.3})");
    };
    println!("{:<16} {load_ms:>9.0} ms", "loading");
    line("encoder", encoder);
    line("a token", token);
    if let (Some(count), Some(Spread { median, min, max })) = (args.at_once, measured.at_once) {
        let name = format!("{count} at once");
        println!("{name:<16} {median:>9.2} times as fast as in turn ({min:.2} to {max:.2})");
    }
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
