//! A program that runs for months: what it took it gives back, and what it computes stays the same. Alone in its process, because it
//! watches all of its memory.

mod common;

use bild_core::{Generator, Request, Settings, Source};
use bild_models::{Checkpoint, LoadOptions, Precision, T5, Threads};
use bild_policies::Lossless;
use common::{Numbers, TestBackend, config, write_checkpoint};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn nothing_is_kept_and_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let shape = json!({ "vocab_size": 500, "d_model": 64, "d_kv": 8, "num_heads": 8, "d_ff": 128 });
    write_checkpoint(directory.path(), &config(shape), 1, |_| {});
    let load = |precision, threads| {
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let options = LoadOptions::default().with_precision(precision).with_threads(threads);
        T5::<TestBackend>::load_with(&checkpoint, &Default::default(), &options).unwrap()
    };
    models_come_and_go(&load);
    threads_come_and_go();
    generations_come_and_go(&load);
    a_hundred_runs_have_the_same_bits(&load);
}

type Load<'a> = &'a dyn Fn(Precision, Threads) -> T5<TestBackend>;

fn alone() -> Threads {
    Threads::new(1).unwrap()
}

fn models_come_and_go(load: Load<'_>) {
    let threads = Threads::new(2).unwrap();
    let held_after = |count: usize| {
        for i in 0..count {
            let precision = [Precision::F32, Precision::Int8, Precision::Int4][i % 3];
            let generator = Generator::new(
                (load(precision, threads.clone()), load(precision, threads.clone())),
                Lossless::default(),
            );
            let settings = Settings::default().with_max_new_tokens(2);
            generator.unwrap().with_settings(settings).generate(Source::new([3, 1])).unwrap();
        }
        MEMORY.current_usage()
    };
    let begun = held_after(30);
    let ended = held_after(500); // two models each
    assert!(ended < begun + begun / 50, "{begun} bytes were held after 60 models, {ended} after 1,060");
}

#[cfg(target_os = "linux")]
fn threads_come_and_go() {
    let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = count();
    for _ in 0..50 {
        let threads = Threads::new(4).unwrap();
        assert!(count() > before);
        drop(threads);
    }
    for _ in 0..100 {
        if count() <= before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{} threads are left of {before}", count());
}

#[cfg(not(target_os = "linux"))]
fn threads_come_and_go() {}

fn generations_come_and_go(load: Load<'_>) {
    let pair = (load(Precision::Int8, alone()), load(Precision::F32, alone()));
    let generator = Generator::new(pair, Lossless::default()).unwrap();
    let settings = Settings::default().with_max_new_tokens(8);
    let held_after = |count: usize| {
        let mut numbers = Numbers(5);
        for _ in 0..count {
            let source = Source::new(numbers.tokens(1 + numbers.0 as usize % 7, 500));
            generator.generate(Request::new(source).with_settings(settings.clone())).unwrap();
        }
        MEMORY.current_usage()
    };
    // `BILD_GENERATIONS=100000` for as many as a service does in a day, and its speed in each tenth of them.
    let count = std::env::var("BILD_GENERATIONS").map_or(3000, |count| count.parse().unwrap());
    let begun = held_after(50);
    for tenth in 1..=10 {
        let start = std::time::Instant::now();
        let held = held_after(count / 10);
        let each = start.elapsed() / (count / 10) as u32;
        println!("{} generations: {held} bytes are held, {each:?} each of the last", tenth * count / 10);
        assert!(held < begun + begun / 50, "{begun} bytes were held after 50 generations, {held} later");
    }
}

/// Alone and among others, and with any number of threads.
fn a_hundred_runs_have_the_same_bits(load: Load<'_>) {
    let source = Source::new(Numbers(9).tokens(12, 500));
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let mut first = None;
        for threads in 1..=3 {
            let threads = Threads::new(threads).unwrap();
            let pair = (load(Precision::Int4, threads.clone()), load(precision, threads));
            let generator = Generator::new(pair, Lossless::default()).unwrap();
            let settings = Settings::default().with_max_new_tokens(20);
            let generator = generator.with_settings(settings);
            let mut check = |output: bild_core::Output| {
                let bits: Vec<u32> = output.log_probs.iter().map(|x| x.to_bits()).collect();
                let found = (output.tokens, bits);
                assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "{precision:?}");
            };
            (0..20).for_each(|_| check(generator.generate(source.clone()).unwrap()));
            let many = std::iter::repeat_n(source.clone(), 14);
            generator.generate_many(many, |_, result| check(result.unwrap()));
        }
    }
}
