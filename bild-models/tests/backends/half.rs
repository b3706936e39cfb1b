//! Weights of 16 bits, where a backend has them: what f32 computes, but for their digits.

use bild_core::{Generator, Model, NoDraft, Pass, SessionLimit, Settings, Source, Token, VerifierSession, Want};
use bild_models::{Checkpoint, EarlyExit, LoadError, LoadOptions, Precision, T5};
use bild_policies::Lossless;
use burn::tensor::{DType, backend::Backend};

use crate::common::{config, fixture, load_on, random_model_on, write_checkpoint};

on_every_backend! {
    logits_are_near_those_of_f32;
    lossless_is_greedy;
}

/// With f16 and bf16 how far logits may be from those of f32, over the largest.
const HALVES: [(Precision, DType, f32); 2] = [(Precision::F16, DType::F16, 0.01), (Precision::Bf16, DType::BF16, 0.05)];

/// The model, where the backend has such weights; where not, it says so.
fn loaded<B: Backend>(directory: &std::path::Path, precision: Precision, float: DType) -> Option<T5<B>> {
    let options = LoadOptions::default().with_precision(precision);
    match T5::load_with(&Checkpoint::open(directory).unwrap(), &Default::default(), &options) {
        Ok(model) => Some(model),
        Err(error @ LoadError::Precision { .. }) => {
            let has = B::supports_dtype(&Default::default(), float) && B::name(&Default::default()) != "flex";
            assert!(!has, "{error}");
            assert!(error.to_string().contains("take f32"), "{error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Models whose logits transformers wrote down too (`fixtures`), through a pass of one row and one of several.
fn logits_are_near_those_of_f32<B: Backend>() {
    for (precision, float, tolerance) in HALVES {
        for name in ["t5-v1_0", "t5-v1_1", "mt5"] {
            let Some(half) = loaded::<B>(&fixture(name), precision, float) else { continue };
            let exact = load_on::<burn_flex::Flex>(&fixture(name));
            let source = Source::new([13, 99, 5, 1]);
            let want = Want::default().with_logits();
            let logits = |session: &mut dyn VerifierSession| {
                let first = session.score(&Pass::verify(0, &[0], want)).unwrap();
                let others = session.score(&Pass::verify(1, &[7, 20, 3, 9], want)).unwrap();
                first
                    .iter()
                    .chain(others.iter())
                    .flat_map(|row| row.logits.clone().unwrap().to_vec())
                    .collect::<Vec<_>>()
            };
            let found = logits(&mut half.begin(&source, &SessionLimit::new(8)).unwrap());
            let expected = logits(&mut exact.begin(&source, &SessionLimit::new(8)).unwrap());
            let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            let difference = found.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{name} {precision:?}: {}", difference / largest);
            assert!(difference <= tolerance * largest, "{name} {precision:?}: {difference} of {largest}");
            assert!(difference > 0.0, "{name} {precision:?}: it is not held so");
        }
    }
}

fn lossless_is_greedy<B: Backend>() {
    for (precision, float, _) in HALVES {
        let directory = tempfile::tempdir().unwrap();
        write_checkpoint(directory.path(), &config(serde_json::json!({ "num_decoder_layers": 4 })), 4, |_| {});
        let Some(big) = loaded::<B>(directory.path(), precision, float) else { continue };
        let little = random_model_on::<B>(serde_json::json!({}), 5);
        let settings = Settings::default().with_max_new_tokens(24);
        let source = Source::new([4, 9, 30, 1]);
        let write = |pair: bild_core::BoxedPair| -> Vec<Token> {
            let generator = Generator::new(pair, Lossless::default()).unwrap();
            generator.with_settings(settings.clone()).generate(&source).unwrap().tokens
        };
        use bild_core::Pair;
        let expected = write((NoDraft, big.clone()).boxed());
        assert_eq!(write((little, big.clone()).boxed()), expected);
        assert_eq!(write(EarlyExit::new(big, 2).unwrap().boxed()), expected);
    }
}
