//! Generations at once write what each writes alone, to the last bit of every log-probability: in every precision, with any number
//! of threads, among neighbours of all kinds.

mod common;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bild_core::{
    Batch, BoxedPair, Context, DraftModel, Drafted, Error, Generator, NoDraft, Output, Pair, Pass, Policy, PolicyState,
    Request, Result, Role, Row, SessionLimit, Settings, Source, Start, Then, Token, Verdict, Want,
};
use bild_models::{Checkpoint, EarlyExit, LoadOptions, NgramLookup, Precision, SharedEncoder, T5, Threads};
use bild_policies::{BigAlone, Bild, Lossless, Sampling, processors::NoRepeatNgram};
use burn_flex::Flex;
use common::{Numbers, config, write_checkpoint};
use serde_json::json;

const VOCABULARY: usize = 400;

fn model(seed: u64, width: usize, options: &LoadOptions) -> T5<Flex> {
    let directory = tempfile::tempdir().unwrap();
    // Large enough for passes over several sessions to be shared between threads.
    let shape = json!({
        "vocab_size": VOCABULARY, "d_model": width, "d_kv": 16, "num_heads": 4, "d_ff": 2 * width,
        "num_layers": 2, "num_decoder_layers": 2,
    });
    write_checkpoint(directory.path(), &config(shape), seed, |_| {});
    T5::load_with(&Checkpoint::open(directory.path()).unwrap(), &Default::default(), options).unwrap()
}

/// Pairs of all kinds of one big model.
fn pairs(options: &LoadOptions) -> [(&'static str, BoxedPair); 6] {
    let (big, little) = (model(1, 256, options), model(2, 48, options));
    [
        ("alone", (NoDraft, big.clone()).boxed()),
        ("a little model", (little.clone(), big.clone()).boxed()),
        ("look-up or a little model", (NgramLookup::default().or(little), big.clone()).boxed()),
        ("a draft decoder", SharedEncoder::of_layers(big.clone(), &[1]).unwrap().boxed()),
        (
            "look-up or a draft decoder",
            NgramLookup::default().or(SharedEncoder::of_layers(big.clone(), &[0]).unwrap()).boxed(),
        ),
        ("early exit", EarlyExit::new(big, 1).unwrap().boxed()),
    ]
}

/// Sources of 1 to 40 tokens, each with a policy and settings of its own.
fn requests(count: u64) -> Vec<Request> {
    let request = |i: u64| {
        let mut numbers = Numbers(i + 1);
        let length = 1 + numbers.below(40);
        let settings = Settings::default().with_max_new_tokens(1 + numbers.below(24)).with_end_tokens([]);
        let settings = if i % 7 == 3 { settings.with_processor(NoRepeatNgram::new(1).unwrap()) } else { settings };
        let request =
            Request::new(Source::new(numbers.tokens(length, VOCABULARY))).with_settings(settings).with_seed(i);
        match i % 5 {
            0 => request.with_policy(Bild::new(0.4, 1.0).unwrap()),
            1 => request.with_policy(Sampling::new(0.8).unwrap().with_max_draft(NonZeroUsize::new(4))),
            2 => request.with_policy(BigAlone {}),
            3 => request.with_policy(Lossless::default().with_max_draft(NonZeroUsize::new(3))),
            _ => request,
        }
    };
    (0..count).map(request).collect()
}

fn content(output: Result<Output>) -> (Vec<Token>, Vec<u32>, String) {
    let Output { tokens, log_probs, writers, finish, statistics, .. } = output.unwrap();
    let counts = (statistics.draft_steps, statistics.verifier_calls, statistics.accepted, statistics.fallbacks);
    (tokens, log_probs.iter().map(|x| x.to_bits()).collect(), format!("{writers:?} {finish:?} {counts:?}"))
}

#[test]
fn a_batch_writes_what_each_writes_alone() {
    let requests = requests(24);
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let options =
            |threads| LoadOptions::default().with_precision(precision).with_threads(Threads::new(threads).unwrap());
        let alone: Vec<Vec<_>> = pairs(&options(1))
            .into_iter()
            .map(|(_, pair)| {
                let generator = Generator::new(pair, Lossless::default()).unwrap();
                requests.iter().map(|request| content(generator.generate(request.clone()))).collect()
            })
            .collect();
        for threads in [1, 2, 3] {
            for ((name, pair), alone) in pairs(&options(threads)).into_iter().zip(&alone) {
                let generator = Generator::new(pair, Lossless::default()).unwrap();
                let generator = generator.with_at_once(NonZeroUsize::new(16).unwrap());
                let mut found = Vec::new();
                generator.generate_many(requests.clone(), |_, output| found.push(content(output)));
                assert!(found == *alone, "{name}, {precision:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn one_that_fails_in_a_pass_with_others_loses_none() {
    let options = LoadOptions::default();
    let (big, little) = (model(1, 256, &options), model(2, 48, &options));
    let mut requests = requests(12);
    for at in [2, 7] {
        requests[at] = requests[at].clone().with_source(Source::new([5, 4000]));
    }
    for pair in [
        (little, big.clone()).boxed(),
        (NoDraft, big.clone()).boxed(),
        SharedEncoder::of_layers(big, &[0]).unwrap().boxed(),
    ] {
        let generator = Generator::new(pair, Lossless::default()).unwrap();
        generator.generate_many(requests.clone(), |i, output| match output {
            Err(Error::TokenOutOfRange { token: 4000, place, .. }) if [2, 7].contains(&i) => {
                assert_eq!(place, "at position 1 of the source");
            }
            output => assert!(content(output) == content(generator.generate(requests[i].clone())), "request {i}"),
        });
    }
}

#[test]
fn a_session_of_another_model_is_refused() {
    let options = LoadOptions::default();
    let (one, other) = (model(1, 48, &options), model(1, 48, &options));
    let [one, other] = [one, other].map(|big| Generator::new((NoDraft, big), Lossless::default()).unwrap());
    let mut batch = Batch::new(one.pair());
    batch.add(one.prepare(Source::new([3, 1]), 0).unwrap(), ());
    batch.step(|(), _| Ok(()));
    assert_eq!(batch.take_ended().count(), 0);
    // A generation knows no model: one that another generator has prepared is begun by this pair.
    batch.add(other.prepare(Source::new([3, 1]), 0).unwrap(), ());
    while !batch.is_empty() {
        batch.step(|(), _| Ok(()));
        batch.take_ended().for_each(|(_, output)| drop(output.unwrap()));
    }
    let mut session = Pair::begin(other.pair(), &Source::new([3]), &SessionLimit::new(4)).unwrap();
    let pass = Pass::verify(0, &[0], Want::default());
    let found = one.pair().pass_all(&mut [(&mut session, pass)]).remove(0).unwrap_err().to_string();
    assert_eq!(found, "a model was given the session of another");
}

/// By default there are enough for a pass in each thread, whatever drafts, and each pass is of those of one driver.
#[test]
fn many_are_enough_for_a_pass_in_each_thread() {
    for (threads, at_once) in [(1, 64), (2, 128), (3, 192)] {
        let options = LoadOptions::default().with_threads(Threads::new(threads).unwrap());
        for (name, pair) in pairs(&options) {
            let generator = Generator::new(pair, Lossless::default()).unwrap();
            assert_eq!(generator.at_once(), at_once, "{name} in {threads} threads");
        }
        let settings = Settings::default().with_max_new_tokens(3);
        let (mut count, limit) = (0, threads * 32);
        let policy = Widest(Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&policy.0);
        let generator = Generator::new((NoDraft, model(1, 48, &options)), policy).unwrap().with_settings(settings);
        generator.generate_many((0..limit as u32).map(|i| Source::new([3 + i, 1])), |_, output| {
            output.unwrap();
            count += 1;
        });
        assert_eq!(count, limit);
        assert!((1..=32).contains(&seen.load(Ordering::Relaxed)), "{seen:?} in a pass of {limit}");
    }
}

/// Greedy, and keeps of how many a pass was at most.
#[derive(Clone, Debug)]
struct Widest(Arc<AtomicUsize>);

impl Policy for Widest {
    fn begin(&self, _: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

impl PolicyState for Widest {
    fn first(&self) -> Role {
        Role::Verifier
    }

    fn verified(&mut self, at: &Context<'_>, _: &[Drafted], rows: &[Row]) -> Verdict {
        self.0.fetch_max(at.batch_size, Ordering::Relaxed);
        Verdict { accepted: 0, next: rows[0].argmax, then: Then::Verify }
    }
}
