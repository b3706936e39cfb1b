//! A short head: its logits are the head's own, what is lossless stays so, and a list that fits no model is refused.

mod common;

use std::{fs, num::NonZeroUsize};

use bild_core::{
    DraftSession, Generator, LogitsProcessor, Model, Pair, PairSession, Pass, Prefix, Request, SessionLimit, Settings,
    Source, Token, VerifierSession, Want,
};
use bild_models::{Checkpoint, EarlyExit, LoadError, LoadOptions, Precision, SharedEncoder, Shortlist, T5};
use bild_policies::{Lossless, Sampling};
use burn::tensor::backend::Backend;
use common::{Numbers, TestBackend, config, greedy, write_checkpoint};
use serde_json::json;

/// A T5 of random weights that drafts with these tokens, if any are given.
fn model_on<B: Backend>(seed: u64, list: Option<&Shortlist>, precision: Precision) -> T5<B> {
    let directory = tempfile::tempdir().unwrap();
    let config = config(json!({ "num_decoder_layers": 4, "tie_word_embeddings": seed.is_multiple_of(2) }));
    write_checkpoint(directory.path(), &config, seed, |_| {});
    let options = LoadOptions::default().with_precision(precision);
    let options = list.cloned().into_iter().fold(options, LoadOptions::with_shortlist);
    T5::load_with(&Checkpoint::open(directory.path()).unwrap(), &Default::default(), &options).unwrap()
}

fn model(seed: u64, list: Option<&Shortlist>) -> T5<TestBackend> {
    model_on(seed, list, Precision::F32)
}

/// A list of some tokens of 37, and of others beside a token of the source.
fn list(numbers: &mut Numbers) -> Shortlist {
    let [frequent, beside] = [5, 3].map(|most| {
        let count = 1 + numbers.below(most);
        numbers.tokens(count, 37)
    });
    Shortlist::new(frequent).with_beside(numbers.below(37) as Token, beside)
}

fn is_as_the_head<B: Backend>(precision: Precision, tolerance: f32) {
    for seed in 0..6 {
        let mut numbers = Numbers(seed);
        let list = list(&mut numbers).with_beside(9, [30, 31]);
        let model = model_on::<B>(seed, Some(&list), precision);
        let source = Source::new([4, 9, 1]);
        let mut expected = list.tokens(source.tokens());
        expected.push(1); // end-of-sequence, which is in every list
        expected.sort_unstable();
        expected.dedup();
        assert!([4, 9, 30, 31].iter().all(|token| expected.contains(token)));
        let mut session = model.begin(&source, &SessionLimit::new(8)).unwrap();
        let want = Want::default().with_logits().with_entropy();
        let all = session.score(&Pass::verify(0, &[0, 5], want)).unwrap()[1].clone();
        let short = session.propose(&Pass::draft(1, &[5], want)).unwrap()[0].clone();
        let (all, logits) = (all.logits.unwrap(), short.logits.clone().unwrap());
        assert_eq!(logits.len(), 37);
        for token in 0..37 {
            let (all, logit) = (all[token as usize], logits[token as usize]);
            match expected.contains(&token) {
                true => assert!((all - logit).abs() <= tolerance, "{token}: {all} {logit}"),
                false => assert_eq!(logit, f32::NEG_INFINITY),
            }
        }
        let best = expected.iter().copied().reduce(|a, b| if logits[b as usize] > logits[a as usize] { b } else { a });
        assert_eq!(Some(short.argmax), best);
        let sum: f32 =
            expected.iter().map(|&token| (logits[token as usize] - logits[short.argmax as usize]).exp()).sum();
        assert!((short.probability - 1.0 / sum).abs() < 1e-5, "it is taken over the list");
        assert!(short.entropy.unwrap() <= (expected.len() as f32).ln() + 1e-4);
        // Without logits a device reads back less.
        let row = session.propose(&Pass::draft(1, &[5], Want::default())).unwrap()[0].clone();
        assert_eq!(row.argmax, short.argmax);
    }
}

#[test]
fn logits_of_a_short_head_are_those_of_the_head() {
    is_as_the_head::<TestBackend>(Precision::F32, 0.0);
    is_as_the_head::<TestBackend>(Precision::Int8, 0.0);
    is_as_the_head::<TestBackend>(Precision::Int4, 0.0);
    is_as_the_head::<burn_ndarray::NdArray>(Precision::F32, 1e-4);
    is_as_the_head::<burn_ndarray::NdArray>(Precision::Int8, 1e-4);
}

#[derive(Debug)]
struct Never(Vec<Token>);

impl LogitsProcessor for Never {
    fn process(&self, _: &Prefix<'_>, logits: &mut [f32]) {
        self.0.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
    }
}

/// A processor may forbid all that a draft could be, and then the verifier goes on alone.
#[test]
fn whatever_drafts_with_a_short_head_stays_lossless() {
    let (mut drafts, mut accepted) = (0, 0);
    for seed in 0..30 {
        let mut numbers = Numbers(seed + 100);
        let list = list(&mut numbers);
        let plain = model(seed, None);
        let with_list = model(seed, Some(&list));
        let little = model(seed + 2, Some(&list));
        let pairs = [
            (little, plain.clone()).boxed(),
            (with_list.clone(), plain.clone()).boxed(),
            EarlyExit::new(with_list.clone(), 2).unwrap().boxed(),
            SharedEncoder::of_layers(with_list, &[0, 2]).unwrap().boxed(),
        ];
        let source = Source::new(numbers.tokens(6, 37));
        let forbidden = Never(list.tokens(source.tokens()).into_iter().chain([1]).collect());
        for settings in [Settings::default(), Settings::default().with_processor(forbidden)] {
            let settings = settings.with_max_new_tokens(24);
            let expected = greedy(&plain, &source, &settings);
            for pair in &pairs {
                let policy = Lossless::default().with_fallback(0.0).unwrap().with_max_draft(NonZeroUsize::new(4));
                let generator = Generator::new(pair.clone(), policy).unwrap().with_settings(settings.clone());
                let output = generator.generate(&source).unwrap();
                assert_eq!(output.tokens, expected, "{seed}");
                drafts += output.statistics.judged;
                accepted += output.statistics.accepted;
            }
        }
    }
    assert!(drafts > 1000 && accepted > 100 && accepted < drafts, "{accepted} of {drafts}");
}

/// The first token of a T5, sampled, against its exact distribution: chi-square.
#[test]
fn sampling_stays_exact() {
    let (list, source) = (Shortlist::new([3, 5, 8, 20]), Source::new([7, 8, 1]));
    let big = model(4, None);
    let want = Want::default().with_logits();
    let row = big.begin(&source, &SessionLimit::new(4)).unwrap().score(&Pass::verify(0, &[0], want)).unwrap();
    let temperature = 4.0; // spreads what random weights are too sure of
    let weights: Vec<f64> = row[0].logits.as_ref().unwrap().iter().map(|x| f64::from(x / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let policy = Sampling::new(temperature).unwrap().with_max_draft(NonZeroUsize::new(1));
    let generator = Generator::new((model(6, Some(&list)), big), policy).unwrap();
    let draws = 8000;
    let mut counts = vec![0.0; 37];
    for seed in 0..draws {
        let settings = Settings::default().with_max_new_tokens(1).with_end_tokens([]).with_seed(seed);
        let output = generator.generate(Request::new(source.clone()).with_settings(settings)).unwrap();
        counts[output.tokens[0] as usize] += 1.0;
    }
    let expected: Vec<f64> = weights.iter().map(|weight| weight / sum * draws as f64).collect();
    let (mut chi, mut cells, mut rest) = (0.0f64, 0.0f64, [0.0; 2]);
    for (count, expected) in counts.iter().zip(&expected) {
        if *expected < 10.0 {
            rest = [rest[0] + count, rest[1] + expected];
            continue;
        }
        chi += (count - expected).powi(2) / expected;
        cells += 1.0;
    }
    chi += (rest[0] - rest[1]).powi(2) / rest[1].max(1.0);
    assert!(cells > 8.0, "{expected:?}");
    // Four standard deviations above the mean of as many degrees of freedom.
    assert!(chi < cells + 4.0 * (2.0 * cells).sqrt(), "chi-square is {chi} in {cells} cells");
}

#[test]
fn a_list_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.json");
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        Shortlist::open(&path).unwrap_err().to_string()
    };
    for (text, expected) in [
        ("", "it is empty"),
        ("[1, 2]", "no short list"),
        (r#"{"frequent": [-1]}"#, "no short list"),
        (r#"{"frequent": [1], "besides": {}}"#, "unknown field `besides`"),
        (r#"{"frequent": []}"#, "its list of tokens is empty"),
    ] {
        let found = error(text);
        assert!(found.contains("list.json is broken") && found.contains(expected), "{text}: {found}");
    }
    assert!(matches!(Shortlist::open(directory.path().join("none")), Err(LoadError::Read { .. })));

    fs::write(&path, r#"{"frequent": [3, 3, 9, 3], "beside": {"5": [9, 7, 7]}}"#).unwrap();
    let found = Shortlist::open(&path).unwrap();
    assert_eq!(found, Shortlist::new([9, 3]).with_beside(5, [7, 9]), "named twice is named once");
    fs::write(&path, serde_json::to_string(&found).unwrap()).unwrap();
    assert_eq!(Shortlist::open(&path).unwrap(), found);
}

#[test]
fn a_list_for_another_vocabulary_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({})), 1, |_| {});
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    for list in
        [Shortlist::new([3, 37]), Shortlist::new([3]).with_beside(37, [4]), Shortlist::new([3]).with_beside(4, [37])]
    {
        let options = LoadOptions::default().with_shortlist(list);
        let error = T5::<TestBackend>::load_with(&checkpoint, &Default::default(), &options).unwrap_err().to_string();
        assert!(error.contains("names the token 37, of a vocabulary of 37"), "{error}");
    }
}

/// A list without end-of-sequence would never end a draft: it is there all the same.
#[test]
fn a_draft_can_end_whatever_the_list() {
    let model = model(2, Some(&Shortlist::new([5])));
    let mut session = model.begin(&Source::new([5]), &SessionLimit::new(4)).unwrap();
    let row = session.propose(&Pass::draft(0, &[0], Want::default().with_logits())).unwrap()[0].clone();
    let scored: Vec<usize> = (0..37).filter(|&token| row.logits.as_ref().unwrap()[token].is_finite()).collect();
    assert_eq!(scored, [1, 5]);
    let pair = EarlyExit::new(model, 1).unwrap();
    let mut session = pair.begin(&Source::new([5]), &SessionLimit::new(4)).unwrap();
    let row = session.pass(&Pass::draft(0, &[0], Want::default())).unwrap()[0].clone();
    assert!([1, 5].contains(&row.argmax));
}
