//! Every checkpoint of `fixtures/t5` against the numbers of transformers.

use crate::common::fixture;
use bild_core::{Generator, Model, NoDraft, Pass, SessionLimit, Settings, Source, Token, VerifierSession, Want};
use bild_models::{Checkpoint, T5};
use bild_policies::Lossless;
use burn::tensor::backend::Backend;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    source: Vec<Token>,
    decoder_input: Vec<Token>,
    encoder_first_row: Vec<f32>,
    encoder_last_row: Vec<f32>,
    logits_last_row: Vec<f32>,
    argmax_rows: Vec<Token>,
    logsumexp_rows: Vec<f32>,
    greedy: Vec<Token>,
}

/// The largest difference, relative to the largest magnitude of the expected row.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let magnitude = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs())) / magnitude
}

/// What of a checkpoint can be checked.
#[derive(PartialEq)]
enum Check {
    Everything,
    /// Its head is not in its file: the reference logits are of random numbers that were put in its place.
    EncoderOnly,
}

fn check<B: Backend>(name: &str, what: Check) {
    let model = T5::<B>::load(&Checkpoint::open(fixture(name)).unwrap(), &Default::default()).unwrap();
    let expected = std::fs::read_to_string(fixture(name).join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.cases.len(), 5);
    for case in expected.cases {
        let source = Source::new(case.source);
        let encoded = model.encode(&source).unwrap();
        let d_model = model.config().d_model;
        assert!(difference(&encoded[..d_model], &case.encoder_first_row) < 1e-4, "{name}: encoder");
        assert!(difference(&encoded[encoded.len() - d_model..], &case.encoder_last_row) < 1e-4, "{name}: encoder");

        if what == Check::EncoderOnly {
            continue;
        }
        let mut session = model.begin(&source, &SessionLimit::new(case.decoder_input.len())).unwrap();
        let scored = session.score(&Pass::verify(0, &case.decoder_input, Want::default().with_logits())).unwrap();
        assert_eq!(scored.iter().map(|row| row.argmax).collect::<Vec<_>>(), case.argmax_rows, "{name}");
        let last = scored.last().unwrap().logits.as_deref().unwrap();
        assert!(difference(last, &case.logits_last_row) < 1e-4, "{name}: logits");
        for (row, expected) in scored.iter().zip(&case.logsumexp_rows) {
            let logits = row.logits.as_deref().unwrap();
            let found = logits[row.argmax as usize] - row.probability.ln();
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name}: log-sum-exp");
        }

        let settings = Settings::default().with_max_new_tokens(case.greedy.len() - 1);
        let generator = Generator::new((NoDraft, model.clone()), Lossless::default()).unwrap().with_settings(settings);
        let output = generator.generate(&source).unwrap();
        assert_eq!(output.tokens, case.greedy[1..], "{name}: greedy");
    }
}

macro_rules! fixtures {
    ($($test:ident: $name:literal, $what:ident;)*) => {
        on_every_backend! { $($test;)* }
        $(fn $test<B: Backend>() { check::<B>($name, Check::$what); })*
    };
}

fixtures! {
    t5_1_0: "t5-v1_0", Everything;
    t5_1_1_in_shards: "t5-v1_1", Everything;
    other_position_buckets: "t5-buckets", Everything;
    weights_in_f16: "t5-f16", Everything;
    weights_in_bf16: "t5-bf16", EncoderOnly;
    mt5_from_pytorch: "mt5", Everything;
}
