//! Drafts by look-up, from a guess, one after the other, and by a model that may never be asked: lossless each, for random models.

mod common;

use std::num::NonZeroUsize;

use bild_core::{
    BoxedPair, DraftModel, DraftSession, Generator, Model, Pair, Pass, Request, SessionLimit, Settings, Source, Token,
    VerifierSession, Want,
};
use bild_models::{EarlyExit, Guess, LookIn, NgramLookup, SharedEncoder, T5};
use bild_policies::{BigAlone, Bild, LittleAlone, Lossless, Sampling, processors::Suppress};
use common::{Numbers, TestBackend, fixture, greedy, load, random_model};
use serde_json::json;

fn model(seed: u64) -> T5<TestBackend> {
    random_model(json!({ "num_decoder_layers": 5, "tie_word_embeddings": seed.is_multiple_of(2) }), seed)
}

#[test]
fn look_up_is_lossless_wherever_it_looks() {
    let mut proposed = 0;
    for seed in 0..40 {
        let model = model(seed);
        let source = Source::new(Numbers(seed).tokens(12, 37));
        let settings = Settings::default().with_max_new_tokens(40);
        let expected = greedy(&model, &source, &settings);
        for place in [LookIn::Source, LookIn::Output, LookIn::Both] {
            let pair = (NgramLookup::default().with_look_in(place), model.clone());
            let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings.clone());
            let output = generator.generate(&source).unwrap();
            assert_eq!(output.tokens, expected);
            proposed += output.statistics.accepted;
        }
    }
    assert!(proposed > 100, "random models repeat themselves, so look-up pays: {proposed}");
}

#[test]
fn a_draft_model_that_is_not_asked_does_not_read_the_source() {
    // 99 is outside the vocabulary, which shows when the source is read.
    let (model, source) = (model(1), Source::new([99]));
    let mut session = model.begin(&source, &SessionLimit::new(8)).unwrap();
    assert!(session.propose(&Pass::draft(0, &[0], Want::default())).is_err());

    let (source, settings) = (Source::new([36, 1]), Settings::default());
    let run = |policy: Box<dyn bild_core::Policy>| {
        let generator = Generator::new((model.clone(), model.clone()), policy).unwrap();
        generator.with_settings(settings.clone()).generate(&source).unwrap()
    };
    let (alone, pair) = (run(Box::new(BigAlone {})), run(Box::<Lossless>::default()));
    assert_eq!(alone.tokens, pair.tokens);
    assert_eq!(alone.statistics.draft_steps, 0);
}

/// The first two tokens of a T5, sampled, against their exact distribution: chi-square at 0.001.
#[test]
fn sampling_has_the_distribution_of_the_model() {
    let (little, big) = (load(&fixture("t5-v1_0")), load(&fixture("t5-f16")));
    let source = Source::new([7, 8, 1]);
    let (k, draws) = (3, 6_000);
    // The k largest of a row, as (token, probability).
    let top = |prefix: &[Token]| -> Vec<(Token, f64)> {
        let mut session = big.begin(&source, &SessionLimit::new(8)).unwrap();
        let row =
            session.score(&Pass::verify(0, prefix, Want::default().with_logits())).unwrap()[prefix.len() - 1].clone();
        let mut all: Vec<(Token, f64)> = (0..).zip(row.logits.unwrap().iter().map(|&x| f64::from(x).exp())).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let sum: f64 = all[..k].iter().map(|(_, weight)| weight).sum();
        all[..k].iter().map(|&(token, weight)| (token, weight / sum)).collect()
    };
    let second = |&(first, p): &(Token, f64)| -> Vec<([Token; 2], f64)> {
        top(&[0, first]).into_iter().map(|(token, q)| ([first, token], p * q)).collect()
    };
    let exact: Vec<([Token; 2], f64)> = top(&[0]).iter().flat_map(second).collect();
    let policy = Sampling::new(1.0).unwrap().with_top_k(k).unwrap().with_max_draft(NonZeroUsize::new(2));
    let generator = Generator::new((little, big.clone()), policy).unwrap();
    let mut counts = vec![0.0; exact.len()];
    for seed in 0..draws {
        let settings = Settings::default().with_max_new_tokens(2).with_end_tokens([]).with_seed(seed);
        let tokens = generator
            .stream(Request::new(source.clone()).with_settings(settings.clone()))
            .unwrap()
            .finish()
            .unwrap()
            .tokens;
        let at = exact.iter().position(|(pair, _)| pair[..] == tokens[..]).expect("it is among the exact ones");
        counts[at] += 1.0;
    }
    let chi: f64 =
        exact.iter().zip(&counts).map(|((_, p), count)| (count - p * draws as f64).powi(2) / (p * draws as f64)).sum();
    assert!(chi < 26.12, "chi-square of 8 degrees of freedom is {chi}"); // passed with the probability 0.001
    assert!(exact.iter().all(|(_, p)| p * draws as f64 >= 5.0));
}

/// What the big model writes, as it is or changed, cut, doubled or with something else in it.
#[test]
fn a_guess_is_lossless_and_is_drafted_as_far_as_it_stands() {
    let (mut tokens, mut calls) = (0, 0);
    for seed in 0..40 {
        let (model, mut numbers) = (model(seed), Numbers(seed));
        let source = Source::new(numbers.tokens(8, 37));
        let settings = Settings::default().with_max_new_tokens(40).with_end_tokens([]);
        let expected = greedy(&model, &source, &settings);
        let generator = Generator::new((Guess, model), Lossless::without_limit()).unwrap().with_settings(settings);
        let generate = |guess: Vec<Token>| {
            let output = generator.generate(source.clone().with_guess(guess)).unwrap();
            assert_eq!(output.tokens, expected, "{seed}");
            output.statistics
        };
        assert_eq!(generate(expected.clone()).verifier_calls, 1, "all of it stands");
        assert_eq!(generate(Vec::new()).judged, 0);
        assert!(generate(expected[..20].to_vec()).accepted >= 20);
        generate(numbers.tokens(40, 37));
        for change in 0..3 {
            let at = 5 + numbers.below(30);
            let mut guess = expected.clone();
            match change {
                0 => guess[at] = (guess[at] + 1) % 37,
                1 => guess.insert(at, (guess[at] + 1) % 37),
                _ => _ = guess.remove(at),
            }
            let found = generate(guess);
            (tokens, calls) = (tokens + expected.len(), calls + found.verifier_calls);
        }
    }
    // Random models repeat themselves, so the place is often not clear; without a guess there are as many passes as tokens.
    assert!(calls * 3 < tokens, "{calls} passes for {tokens} tokens");
}

#[test]
fn nothing_copied_ends_a_generation_before_it_is_judged() {
    for seed in 0..20 {
        let model = model(seed);
        let source = Source::new(Numbers(seed).tokens(8, 35)).with_guess([5, 6, 36]);
        let settings = Settings::default().with_max_new_tokens(8).with_end_tokens([36]);
        let guessed = Generator::new((Guess, model.clone()), Bild::default()).unwrap().with_settings(settings.clone());
        let output = guessed.generate(&source).unwrap();
        assert!(output.statistics.judged >= 3, "{output:?}");
        let little = Generator::new((Guess, model), LittleAlone {}).unwrap().with_settings(settings);
        assert!(little.generate(&source).unwrap().statistics.verifier_calls > 0);
    }
}

#[test]
fn nothing_copied_stands_that_is_forbidden() {
    for seed in 0..20 {
        let source = Source::new(Numbers(seed).tokens(8, 37)).with_guess([5, 6, 7, 8, 9]);
        let settings = Settings::default().with_max_new_tokens(8).with_processor(Suppress(vec![7]));
        // One that lets every draft stand.
        let generator = Generator::new((Guess, model(seed)), Bild::new(0.0, f32::INFINITY).unwrap()).unwrap();
        let output = generator.with_settings(settings).generate(&source).unwrap();
        assert!(output.tokens.starts_with(&[5, 6]) && !output.tokens.contains(&7), "{output:?}");
    }
}

#[test]
fn a_guess_of_another_vocabulary_is_refused() {
    let generator = Generator::new((Guess, model(1)), Lossless::default()).unwrap();
    let error = generator.generate(Source::new([5, 1]).with_guess([3, 99])).unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("at position 1 of the guess"), "{error}");
}

/// Random drafts of several kinds, in any order, and pairs that draft by themselves.
#[test]
fn drafts_one_after_the_other_are_lossless() {
    let lookup = NgramLookup::default();
    let (mut by_all, mut by_lookup) = (0, 0);
    for seed in 0..30 {
        let (big, little) = (model(seed), model(seed + 1000));
        let mut numbers = Numbers(seed);
        let source = Source::new(numbers.tokens(10, 37)).with_guess(numbers.tokens(6, 37));
        let settings = Settings::default().with_max_new_tokens(40).with_end_tokens([]);
        let expected = greedy(&big, &source, &settings);
        let run = |pair: BoxedPair| {
            let policy = Lossless::default().with_fallback(0.0).unwrap();
            let generator = Generator::new(pair, policy).unwrap().with_settings(settings.clone());
            let output = generator.generate(&source).unwrap();
            assert_eq!(output.tokens, expected, "{seed}");
            output.statistics.judged
        };
        by_lookup += run((lookup, big.clone()).boxed());
        by_all += run((lookup.or(little.clone()), big.clone()).boxed());
        run((little.clone().or(lookup), big.clone()).boxed());
        run((Guess.or(lookup).or(little.clone()), big.clone()).boxed());
        run(Guess.or(lookup.or((little, big.clone()))).boxed());
        run(lookup.or(EarlyExit::new(big.clone(), 2).unwrap()).boxed());
        run(lookup.or(SharedEncoder::of_layers(big, &[0, 3]).unwrap()).boxed());
    }
    assert!(by_all > by_lookup + 1000, "the model drafts where nothing is found: {by_all} and {by_lookup}");
}

#[test]
fn every_drafter_of_several_must_speak_the_tokens_of_the_verifier() {
    let (big, other) = (model(1), random_model(json!({ "vocab_size": 38 }), 1));
    assert!((big.clone().or(big.clone()), big.clone()).check().is_ok());
    for pair in [
        (big.clone().or(other.clone()), big.clone()).boxed(),
        (other.clone().or(big.clone()), big.clone()).boxed(),
        (NgramLookup::default().or(other.clone()), big.clone()).boxed(),
        other.clone().or((big.clone(), big.clone())).boxed(),
        NgramLookup::default().or((other, big.clone())).boxed(),
    ] {
        assert!(pair.check().unwrap_err().to_string().contains("vocabulary size"));
    }
}
