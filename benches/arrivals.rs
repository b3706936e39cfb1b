//! How long texts take that arrive at random times: one at a time, in threads of generations, and in a queue.
//!
//! cargo bench --bench arrivals -- models/de-en/big models/de-en/little texts.txt [int8] [big]

use std::{
    env, fs,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use bild::{
    Checkpoint, Flex, LoadOptions, Lossless, Precision, T5, TextGenerator, TextRequest,
    decode::{QueueOptions, in_order},
    policies::{BigAlone, CostAware},
};

type Generator = TextGenerator<(T5<Flex>, T5<Flex>)>;

/// When each text arrives: a Poisson process with so many a second.
fn arrivals(count: usize, rate: f64) -> Vec<Duration> {
    let (mut state, mut at) = (1u64, 0.0);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        at -= (1.0 - (state >> 11) as f64 / (1u64 << 53) as f64).ln() / rate;
        Duration::from_secs_f64(at)
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// The number of each text when its time has come, and that time.
fn arriving(times: &[Duration]) -> impl Iterator<Item = (usize, Instant)> {
    let begun = Instant::now();
    times.iter().enumerate().map(move |(i, &time)| {
        let arrived = begun + time;
        thread::sleep(arrived.saturating_duration_since(Instant::now()));
        (i, arrived)
    })
}

/// Latencies where so many threads take what arrives, each one at a time.
fn in_threads(generator: &Generator, texts: &[String], times: &[Duration], threads: usize) -> Vec<Duration> {
    let mut found = Vec::new();
    let work = |(i, arrived): (usize, Instant)| {
        generator.generate(&texts[i]).unwrap();
        arrived.elapsed()
    };
    in_order(arriving(times), threads, work, |_, latency| found.push(latency));
    found
}

/// Latencies in a queue.
fn in_queue(generator: &Generator, texts: &[String], times: &[Duration]) -> Vec<Duration> {
    let queue = generator.clone().queue(QueueOptions::default());
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (i, arrived) in arriving(times) {
            let response = queue.send(TextRequest::new(texts[i].clone())).unwrap();
            let found = &found;
            scope.spawn(move || {
                response.output().unwrap();
                found.lock().unwrap().push(arrived.elapsed());
            });
        }
    });
    found.into_inner().unwrap()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [big, little, texts, options @ ..] = &args[..] else {
        println!("nothing to do: name the big model, the little one and a file of texts");
        return Ok(());
    };
    let texts: Vec<String> = fs::read_to_string(texts)?.lines().map(str::to_owned).collect();
    let (big, little) = (Checkpoint::open(big)?, Checkpoint::open(little)?);
    let has = |option: &str| options.iter().any(|given| given == option);
    let precision = if has("int8") { Precision::Int8 } else { Precision::F32 };
    let (device, options) = (Default::default(), LoadOptions::default().with_precision(precision));
    let pair = (T5::load_with(&little, &device, &options)?, T5::load_with(&big, &device, &options)?);
    let generator: Generator = TextGenerator::new(big.tokenizer()?, pair, CostAware::new(Lossless::without_limit()))?;
    let generator = if has("big") { generator.with_policy(BigAlone {}) } else { generator };

    // What it can do at most, once it is warm.
    let mut capacity = 0.0;
    for _ in 0..2 {
        let begun = Instant::now();
        generator.generate_many(&texts, |_, output| drop(output.unwrap()));
        capacity = texts.len() as f64 / begun.elapsed().as_secs_f64();
    }
    let count = texts.len();
    let cores = thread::available_parallelism()?.get();
    let at_once = vec![Duration::ZERO; count];
    let together = |threads: usize| {
        let longest = in_threads(&generator, &texts, &at_once, threads).into_iter().max();
        count as f64 / longest.unwrap_or_default().as_secs_f64()
    };
    let (one, threads) = (together(1), together(cores));
    println!("{count} texts, {capacity:.1} a second in a queue, {threads:.1} in threads, {one:.1} one at a time");
    for load in [0.5, 0.9] {
        let times = arrivals(count, load * capacity);
        for (name, latencies) in [
            ("one at a time", in_threads(&generator, &texts, &times, 1)),
            ("threads", in_threads(&generator, &texts, &times, cores)),
            ("queue", in_queue(&generator, &texts, &times)),
        ] {
            let mut latencies = latencies;
            latencies.sort();
            let at = |share: f64| latencies[(share * (count - 1) as f64) as usize].as_secs_f64() * 1e3;
            println!("load {load}, {name}: median {:.1} ms, 95 % {:.1} ms", at(0.5), at(0.95));
        }
    }
    Ok(())
}
