//! Weights of 8 and 4 bits, and the threads that compute with them: near the reference, and as exact about rows as f32 is.

mod common;

use std::path::Path;

use bild_core::{Generator, Model, NoDraft, Pass, SessionLimit, Settings, Source, Token, VerifierSession, Want};
use bild_models::{Checkpoint, LoadError, LoadOptions, Precision, T5, Threads};
use bild_policies::Lossless;
use burn::tensor::backend::Backend;
use burn_flex::Flex;
use burn_ndarray::NdArray;
use common::{Numbers, config, fixture, write_checkpoint};
use serde_json::{Value, json};

/// Those of the reference checkpoints that a small change of the weights changes little: the others, of random weights too,
/// attend to single tokens.
const FIXTURES: [&str; 2] = ["t5-v1_1", "mt5"];

fn load_with<B: Backend>(directory: &Path, options: &LoadOptions) -> T5<B> {
    T5::load_with(&Checkpoint::open(directory).unwrap(), &Default::default(), options).unwrap()
}

fn held(precision: Precision) -> LoadOptions {
    LoadOptions::default().with_precision(precision)
}

/// The logits after each of `tokens`.
fn logits<B: Backend>(model: &T5<B>, source: &Source, tokens: &[Token]) -> Vec<Vec<f32>> {
    let mut session = model.begin(source, &SessionLimit::new(tokens.len())).unwrap();
    let rows = session.score(&Pass::verify(0, tokens, Want::default().with_logits())).unwrap();
    rows.into_iter().map(|row| row.logits.unwrap().to_vec()).collect()
}

/// The root of the mean square of the difference, relative to that of what is expected.
fn difference(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let (found, expected) = (found.concat(), expected.concat());
    let difference = square(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    (difference / square(&mut expected.iter().copied())).sqrt()
}

#[test]
fn logits_are_near_those_of_f32_on_every_backend() {
    let mut numbers = Numbers(3);
    for name in FIXTURES {
        let directory = fixture(name);
        let exact: T5<Flex> = load_with(&directory, &LoadOptions::default());
        let vocab = exact.config().vocab_size;
        let (source, tokens) = (Source::new(numbers.tokens(20, vocab)), numbers.tokens(9, vocab));
        let expected = logits(&exact, &source, &tokens);
        for (precision, most) in [(Precision::Int8, 0.12), (Precision::Int4, 0.8)] {
            let found = logits(&load_with::<Flex>(&directory, &held(precision)), &source, &tokens);
            let rounded = logits(&load_with::<NdArray>(&directory, &held(precision)), &source, &tokens);
            for (backend, found) in [("flex", &found), ("ndarray", &rounded)] {
                let found = difference(found, &expected);
                assert!(found > 1e-4 && found < most, "{name} on {backend}, {precision:?}: {found}");
            }
            // The same weights: what is left is the rounding of inputs.
            let found = difference(&found, &rounded);
            assert!(found < 0.12, "{name} on flex beside ndarray, {precision:?}: {found}");
        }
    }
}

fn random_model(with: Value, seed: u64, options: &LoadOptions) -> T5<Flex> {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(with), seed, |_| {});
    load_with(directory.path(), options)
}

/// Large enough that a pass over several tokens goes to the pool, and a pass over one does not.
fn sizes() -> Value {
    json!({ "vocab_size": 6000, "d_model": 250, "d_kv": 21, "num_heads": 7, "d_ff": 301 })
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_pass_that_threads_share() {
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let options = LoadOptions::default().with_precision(precision);
        let model = random_model(sizes(), 5, &options.clone().with_threads(Threads::new(3).unwrap()));
        let serial = random_model(sizes(), 5, &options.with_threads(Threads::new(1).unwrap()));
        let mut numbers = Numbers(8);
        let (source, tokens) = (Source::new(numbers.tokens(90, 6000)), numbers.tokens(17, 6000));
        let together = logits(&model, &source, &tokens);
        for model in [model, serial] {
            let mut session = model.begin(&source, &SessionLimit::new(tokens.len())).unwrap();
            for (keep, (token, expected)) in tokens.iter().zip(&together).enumerate() {
                let rows = session.score(&Pass::verify(keep, &[*token], Want::default().with_logits())).unwrap();
                let same =
                    rows[0].logits.as_ref().unwrap().iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{precision:?}");
            }
        }
    }
}

#[test]
fn lossless_equals_greedy_whatever_either_model_is_held_in() {
    let mut numbers = Numbers(21);
    for (round, (big, little)) in
        [(Precision::Int8, Precision::Int8), (Precision::Int4, Precision::F32), (Precision::F32, Precision::Int4)]
            .into_iter()
            .enumerate()
    {
        for seed in 0..4 {
            let big = random_model(json!({}), 100 + seed, &held(big));
            // The same weights, so that many drafts stand.
            let little = random_model(json!({}), 100 + seed, &held(little));
            let settings = Settings::default().with_max_new_tokens(40);
            let alone =
                Generator::new((NoDraft, big.clone()), Lossless::default()).unwrap().with_settings(settings.clone());
            let pair = Generator::new((little, big), Lossless::default()).unwrap().with_settings(settings);
            for length in [1, 5, 30] {
                let source = Source::new(numbers.tokens(length, 37));
                let (greedy, lossless) = (alone.generate(&source).unwrap(), pair.generate(&source).unwrap());
                assert_eq!(lossless.tokens, greedy.tokens, "round {round}, seed {seed}");
            }
        }
    }
}

#[test]
fn generations_in_many_threads_write_what_one_writes() {
    let model = random_model(sizes(), 9, &held(Precision::Int8).with_threads(Threads::new(2).unwrap()));
    let settings = Settings::default().with_max_new_tokens(12);
    let generator = Generator::new((model.clone(), model), Lossless::default()).unwrap().with_settings(settings);
    let source = |i: usize| Source::new(Numbers(i as u64).tokens(10 + i, 6000));
    let expected: Vec<_> = (0..6).map(|i| generator.generate(source(i)).unwrap().tokens).collect();
    std::thread::scope(|scope| {
        for (i, expected) in expected.iter().enumerate() {
            let generator = &generator;
            scope.spawn(move || assert_eq!(generator.generate(source(i)).unwrap().tokens, *expected));
        }
    });
}

#[test]
fn threads_are_what_was_asked_for() {
    assert_eq!(Threads::new(1).unwrap().count(), 1);
    assert_eq!(Threads::new(3).unwrap().count(), 3);
    assert!(Threads::default().count() >= 1);
    let error = Threads::new(0).unwrap_err();
    assert!(matches!(error, LoadError::Threads { count: 0, .. }));
    assert_eq!(error.to_string(), "0 threads cannot be had: there must be at least one");
}

#[test]
fn a_precision_has_the_name_of_its_kind() {
    for (precision, name) in [(Precision::F32, "f32"), (Precision::Int8, "int8"), (Precision::Int4, "int4")] {
        assert_eq!(serde_json::from_value::<Precision>(json!(name)).unwrap(), precision);
        assert_eq!(serde_json::to_value(precision).unwrap(), json!(name));
    }
}
