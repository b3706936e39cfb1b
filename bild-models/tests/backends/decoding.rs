//! Decoding: what flex writes, every backend writes.

use std::{num::NonZeroUsize, path::PathBuf};

use crate::common::{Numbers, fixture, load_on, random_model_on};
use bild_core::{Event, Generator, Model, NoDraft, Pass, SessionLimit, Settings, Source, Token, VerifierSession, Want};
use bild_models::{Checkpoint, EarlyExit, SharedEncoder, T5};
use bild_policies::{Bild, Lossless, Variant};
use burn::tensor::backend::Backend;
use burn_flex::Flex;
use serde_json::{Value, json};

on_every_backend! {
    traces_of_the_pair_are_the_recorded_ones;
    one_row_is_what_it_is_among_others;
    lossless_is_greedy_for_random_pairs;
    early_exit_is_lossless;
    a_draft_decoder_is_lossless;
    the_models_of_a_pair_may_be_on_different_backends;
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn pair<B: Backend>() -> (T5<B>, T5<B>) {
    (load_on(&repository("tests/fixtures/little")), load_on(&repository("models/de-en/big")))
}

/// Recorded generations of the repository's pair whose closest decision is not close.
fn traces_of_the_pair_are_the_recorded_ones<B: Backend>() {
    let traces = std::fs::read_to_string(repository("tests/fixtures/traces.json")).unwrap();
    let traces: Vec<Value> = serde_json::from_str(&traces).unwrap();
    let clear = traces.iter().filter(|trace| trace["margin"].as_f64().unwrap() > 1e-3);
    let pair = pair::<B>();
    let mut count = 0;
    for trace in clear.step_by(12) {
        let number = |field: &str| trace[field].as_f64().unwrap() as f32;
        let variant: Variant = serde_json::from_value(trace["variant"].clone()).unwrap();
        let policy = Bild::new(number("fallback"), number("rollback")).unwrap().with_variant(variant);
        let policy = policy.with_max_draft(NonZeroUsize::new(number("max_draft") as usize));
        let settings = Settings::default().with_max_new_tokens(number("max_new_tokens") as usize).with_trace(true);
        let generator = Generator::new(pair.clone(), policy).unwrap().with_settings(settings);
        let source: Vec<Token> = serde_json::from_value(trace["source_ids"].clone()).unwrap();
        let output = generator.generate(Source::new(source)).unwrap();
        let recorded = |event: &&Event| matches!(event, Event::Fallback { .. } | Event::Rollback { .. });
        let events: Vec<Value> = output.events.iter().filter(recorded).map(|event| json!(event)).collect();
        assert_eq!(json!(output.tokens), trace["tokens"]);
        assert_eq!(json!(events), trace["events"]);
        count += 1;
    }
    assert!(count >= 10, "{count} traces were looked at");
}

/// Logits and reductions, for passes of one row and of several, beside flex.
fn one_row_is_what_it_is_among_others<B: Backend>() {
    fn rows<B: Backend>(model: &T5<B>, passes: &[&[Token]], want: Want) -> Vec<bild_core::Row> {
        let source = Source::new([13, 99, 5, 1]);
        let mut session = model.begin(&source, &SessionLimit::new(8)).unwrap();
        let mut score = |new: &&[Token]| session.score(&Pass::verify(session.length(), new, want)).unwrap();
        passes.iter().flat_map(&mut score).collect()
    }
    let (model, flex) = (pair::<B>().1, pair::<Flex>().1);
    let tokens: [Token; 5] = [0, 13, 5, 177, 617];
    let alone: Vec<&[Token]> = tokens.chunks(1).collect();
    for passes in [&alone[..], &[&tokens[..]], &[&tokens[..1], &tokens[1..4], &tokens[4..]]] {
        for want in [Want::default().with_logits(), Want::default().with_entropy()] {
            for (found, expected) in rows(&model, passes, want).iter().zip(rows(&flex, passes, want)) {
                assert_eq!(found.argmax, expected.argmax);
                assert!((found.probability - expected.probability).abs() < 1e-4);
                let (Some(found), Some(expected)) = (&found.logits, &expected.logits) else { continue };
                let difference = found.iter().zip(&expected[..]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(difference < 1e-3, "logits differ by {difference}");
            }
        }
    }
}

fn lossless_is_greedy_for_random_pairs<B: Backend>() {
    for seed in 0..4 {
        let shape = |layers: usize, tied: bool| json!({ "num_decoder_layers": layers, "tie_word_embeddings": tied });
        let big = random_model_on::<B>(shape(2, seed % 2 == 0), seed);
        let little = if seed == 0 { big.clone() } else { random_model_on::<B>(shape(1, true), seed + 1000) };
        let source = Source::new(Numbers(seed).tokens(3 + seed as usize, 37));
        let settings = Settings::default().with_max_new_tokens(12);
        let alone = Generator::new((NoDraft, big.clone()), Lossless::default()).unwrap();
        let greedy = alone.with_settings(settings.clone()).generate(&source).unwrap().tokens;
        for max_draft in [1, 2, 5, 16] {
            let policy = Lossless { fallback: None, max_draft: NonZeroUsize::new(max_draft) };
            let generator = Generator::new((little.clone(), big.clone()), policy).unwrap();
            let found = generator.with_settings(settings.clone()).generate(&source).unwrap().tokens;
            assert_eq!(found, greedy, "pair {seed}, drafts of {max_draft}");
        }
    }
}

fn early_exit_is_lossless<B: Backend>() {
    let model = random_model_on::<B>(json!({ "num_decoder_layers": 3 }), 4);
    let source = Source::new(Numbers(4).tokens(7, 37));
    let settings = Settings::default().with_max_new_tokens(12);
    let alone = Generator::new((NoDraft, model.clone()), Lossless::default()).unwrap();
    let greedy = alone.with_settings(settings.clone()).generate(&source).unwrap().tokens;
    for layers in 1..3 {
        let pair = EarlyExit::new(model.clone(), layers).unwrap();
        let generator = Generator::new(pair, Lossless::default().with_fallback(0.0).unwrap()).unwrap();
        let found = generator.with_settings(settings.clone()).generate(&source).unwrap().tokens;
        assert_eq!(found, greedy, "{layers} layers");
    }
}

fn a_draft_decoder_is_lossless<B: Backend>() {
    let big = load_on::<B>(&fixture("t5-v1_0"));
    let checkpoint = Checkpoint::open(fixture("../t5-v1_0-draft")).unwrap();
    let source = Source::new(Numbers(4).tokens(7, 503));
    let settings = Settings::default().with_max_new_tokens(12);
    let alone = Generator::new((NoDraft, big.clone()), Lossless::default()).unwrap();
    let greedy = alone.with_settings(settings.clone()).generate(&source).unwrap().tokens;
    for pair in [SharedEncoder::load(big.clone(), &checkpoint), SharedEncoder::of_layers(big.clone(), &[1, 0])] {
        let generator = Generator::new(pair.unwrap(), Lossless::default()).unwrap();
        assert_eq!(generator.with_settings(settings.clone()).generate(&source).unwrap().tokens, greedy);
    }
}

fn the_models_of_a_pair_may_be_on_different_backends<B: Backend>() {
    let ((little, big), (flex_little, flex_big)) = (pair::<B>(), pair::<Flex>());
    let checkpoint = Checkpoint::open(repository("models/de-en/big")).unwrap();
    let source = Source::new(checkpoint.tokenizer().unwrap().encode("Ich habe heute leider keine Zeit.").unwrap());
    let expected = Generator::new((NoDraft, flex_big.clone()), Lossless::default()).unwrap().generate(&source).unwrap();
    let mixed = Generator::new((flex_little, big), Lossless::default()).unwrap().generate(&source).unwrap();
    assert_eq!(mixed.tokens, expected.tokens);
    let mixed = Generator::new((little, flex_big), Lossless::default()).unwrap().generate(&source).unwrap();
    assert_eq!(mixed.tokens, expected.tokens);
}
