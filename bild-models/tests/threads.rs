//! Whose threads compute what, and in whose stack.

mod common;

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bild_core::{
    CancelToken, Finish, Generator, LogitsProcessor, Model, NoDraft, Overflow, Pass, Prefix, Request, Settings, Source,
    VerifierSession, Want,
};
use bild_models::{Checkpoint, LoadOptions, T5, Threads};
use bild_policies::Lossless;
use burn_flex::Flex;
use common::{Numbers, config, write_checkpoint};
use rayon::prelude::*;
use serde_json::json;

/// A model whose passes are large enough to go to its threads.
fn model(threads: Threads) -> T5<Flex> {
    model_of(2, threads)
}

fn model_of(encoder_layers: usize, threads: Threads) -> T5<Flex> {
    let directory = tempfile::tempdir().unwrap();
    let shape = json!({
        "vocab_size": 8000, "d_model": 128, "d_kv": 16, "num_heads": 4, "d_ff": 256, "num_layers": encoder_layers
    });
    write_checkpoint(directory.path(), &config(shape), 1, |_| {});
    let options = LoadOptions::default().with_threads(threads);
    T5::load_with(&Checkpoint::open(directory.path()).unwrap(), &Default::default(), &options).unwrap()
}

thread_local! {
    static GENERATIONS_BELOW: Cell<usize> = const { Cell::new(0) };
}

/// Looks at what else the thread has under way.
#[derive(Debug)]
struct Depth(&'static AtomicUsize);

impl LogitsProcessor for Depth {
    fn process(&self, _prefix: &Prefix<'_>, _logits: &mut [f32]) {
        self.0.fetch_max(GENERATIONS_BELOW.get(), Ordering::Relaxed);
    }
}

/// A program's own pool, with small stacks and many more generations than threads: a generation that waits for the
/// model's threads must not take another one onto its stack. And each comes to its end as it does alone.
#[test]
fn generations_in_a_foreign_pool_do_not_nest() {
    for count in [1, 2, 3] {
        static DEEPEST: AtomicUsize = AtomicUsize::new(0);
        let model = model(Threads::new(count).unwrap());
        let settings = Settings::default().with_max_new_tokens(12).with_end_tokens([]).with_processor(Depth(&DEEPEST));
        let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap().with_settings(settings);
        let sources: Vec<Source> = (0..64).map(|i| Source::new(Numbers(i).tokens(4 + i as usize % 9, 8000))).collect();
        let expected: Vec<_> = sources.iter().map(|source| generator.generate(source).unwrap().tokens).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).stack_size(256 << 10).build().unwrap();
        let found: Vec<_> = pool.install(|| {
            let generate = |source| {
                let below = GENERATIONS_BELOW.replace(GENERATIONS_BELOW.get() + 1);
                let tokens = generator.generate(source).unwrap().tokens;
                GENERATIONS_BELOW.set(below);
                tokens
            };
            sources.par_iter().map(generate).collect()
        });
        assert_eq!(found, expected);
        assert_eq!(DEEPEST.load(Ordering::Relaxed), 1, "each thread has one generation under way");
    }
}

/// A model of one thread computes in the thread that asks, whatever pool that is part of.
#[test]
fn one_thread_is_one_thread_in_a_foreign_pool_too() {
    let model = model(Threads::new(1).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let source = Source::new(Numbers(1).tokens(600, 8000));
    // While the pool's other threads wait for something to steal, whoever computes leaves them asleep.
    let busy = pool.install(|| {
        model.encode(&source).unwrap();
        let begun: Vec<Duration> = rayon::broadcast(|_| thread_time());
        for _ in 0..5 {
            model.encode(&source).unwrap();
        }
        let ended: Vec<Duration> = rayon::broadcast(|_| thread_time());
        let times = begun.iter().zip(&ended).map(|(begun, ended)| ended.saturating_sub(*begun));
        times.filter(|time| *time > Duration::from_millis(20)).count()
    });
    assert!(busy <= 1, "{busy} threads of the pool computed");
}

/// The processor time of the thread that asks, by what Linux says of it; nothing elsewhere.
fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

#[test]
fn a_source_that_nobody_waits_for_is_not_read_to_its_end() {
    let model = model_of(24, Threads::new(2).unwrap());
    let source = Source::new(Numbers(1).tokens(3000, 8000));
    let settings = Settings::default().with_max_source_tokens(3000, Overflow::Error).with_max_new_tokens(1);
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
    let cancel = CancelToken::default();
    let cancelled = std::thread::scope(|scope| {
        let settings = settings.clone().with_cancel(cancel.clone());
        let (generator, source) = (&generator, &source);
        let generation = scope.spawn(move || {
            generator.stream(Request::new(source.clone()).with_settings(settings)).unwrap().finish().unwrap()
        });
        std::thread::sleep(Duration::from_millis(30));
        cancel.cancel();
        generation.join().unwrap()
    });
    assert_eq!((cancelled.finish, cancelled.tokens.len()), (Finish::Cancelled, 0));
    let late = settings.with_deadline(Duration::from_millis(30));
    let output = generator.stream(Request::new(source.clone()).with_settings(late.clone())).unwrap().finish().unwrap();
    assert_eq!((output.finish, output.tokens.len(), output.statistics.verifier_calls), (Finish::Deadline, 0, 0));
}

/// Whatever is asked for, a sentence; no arithmetic overflows on the way.
#[test]
fn limits_beyond_all_bounds_are_sentences() {
    let generator = Generator::new((NoDraft, model(Threads::new(1).unwrap())), Lossless::default()).unwrap();
    let source = Source::new([3, 1]);
    for tokens in [1 << 60, usize::MAX] {
        let settings = Settings::default().with_max_new_tokens(tokens).with_max_source_tokens(tokens, Overflow::Error);
        let refused = generator
            .stream(Request::new(source.clone()).with_settings(settings.clone()))
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("at most 65536"), "{refused}");
        assert!(generator.bytes_for(&source, &settings) < 1 << 40);
        let limit = bild_core::SessionLimit::new(tokens);
        let mut session = generator.pair().1.begin(&source, &limit).unwrap();
        let refused = session.score(&Pass::verify(0, &[0], Want::default())).unwrap_err();
        assert!(refused.to_string().contains("are free"), "{refused}");
    }
}
