//! A session's cache: what it gives is what a computation without one gives, whatever was taken in and taken back before.

use bild_core::{Event, Generator, Model, Pass, Policy, SessionLimit, Settings, Source, Token, VerifierSession, Want};
use bild_models::{T5, T5Session};
use bild_policies::{Bild, Lossless};
use burn::tensor::backend::Backend;
use burn_flex::Flex;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::common::{Numbers, fixture, load_on};

on_every_backend! {
    a_warm_cache_is_single_passes_and_no_cache;
    a_pair_decodes_as_on_flex;
}

fn begin<B: Backend>(model: &T5<B>, source: &Source, limit: usize) -> T5Session<B> {
    model.begin(source, &SessionLimit::new(limit)).unwrap()
}

/// The logits after each of `new`.
fn logits<B: Backend>(session: &mut T5Session<B>, keep: usize, new: &[Token]) -> Vec<Vec<f32>> {
    let rows = session.score(&Pass::verify(keep, new, Want::default().with_logits())).unwrap();
    rows.into_iter().map(|row| row.logits.unwrap().to_vec()).collect()
}

/// On flex a row does not depend on what else is in the pass, so equal means equal.
fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits =
        |rows: &[Vec<f32>]| rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect::<Vec<Vec<_>>>();
    bits(a) == bits(b)
}

fn close(found: &[Vec<f32>], expected: &[Vec<f32>]) -> bool {
    let close = |(found, expected): (&Vec<f32>, &Vec<f32>)| {
        let magnitude = expected.iter().fold(1.0f32, |max, x| max.max(x.abs()));
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * magnitude)
    };
    found.len() == expected.len() && found.iter().zip(expected).all(close)
}

/// What happens to a session, at random: tokens are taken in, in one pass, or all but some are taken back; and then the
/// last tokens come.
#[derive(Clone, Debug)]
struct Story {
    variant: usize,
    source: Vec<Token>,
    steps: Vec<Step>,
    last: Vec<Token>,
}

#[derive(Clone, Debug)]
enum Step {
    Pass(Vec<Token>),
    Truncate(usize),
}

fn story() -> impl Strategy<Value = Story> {
    let tokens = |most| prop::collection::vec(0..503u32, 1..most);
    let step = prop_oneof![3 => tokens(8).prop_map(Step::Pass), 1 => (0..20usize).prop_map(Step::Truncate)];
    let parts = (0..4usize, tokens(30), prop::collection::vec(step, 1..10), tokens(8));
    parts.prop_map(|(variant, source, steps, last)| Story { variant, source, steps, last })
}

/// The logits after the last tokens: in one pass on the warm cache, in passes of one token, and in one pass over
/// everything without a cache.
fn three_ways<B: Backend>(story: Story) -> [Vec<Vec<f32>>; 3] {
    let model = load_on::<B>(&fixture(["t5-v1_0", "t5-v1_1", "t5-buckets", "t5-f16"][story.variant]));
    let source = Source::new(story.source);
    let limit = 100;
    let (mut session, mut tokens) = (begin(&model, &source, limit), Vec::new());
    for step in story.steps {
        match step {
            Step::Pass(new) => {
                session.score(&Pass::verify(tokens.len(), &new, Want::default())).unwrap();
                tokens.extend(new);
                assert_eq!(session.length(), tokens.len());
            }
            Step::Truncate(length) => tokens.truncate(length),
        }
    }
    let warm = logits(&mut session, tokens.len(), &story.last);

    let mut single = begin(&model, &source, limit);
    for (keep, token) in tokens.iter().enumerate() {
        single.score(&Pass::verify(keep, &[*token], Want::default())).unwrap();
    }
    let last = story.last.iter().enumerate();
    let one_by_one = last.flat_map(|(i, token)| logits(&mut single, tokens.len() + i, &[*token])).collect();

    let whole = [&tokens[..], &story.last].concat();
    let uncached = logits(&mut begin(&model, &source, limit), 0, &whole).split_off(tokens.len());
    [warm, one_by_one, uncached]
}

/// Bit for bit on flex, up to rounding elsewhere.
fn a_warm_cache_is_single_passes_and_no_cache<B: Backend>() {
    let is_flex = B::name(&Default::default()) == "flex";
    let equal = if is_flex { same_bits } else { close };
    let mut runner = TestRunner::new(Config { cases: if is_flex { 40 } else { 12 }, ..Config::default() });
    let holds = runner.run(&story(), |story| {
        let [warm, one_by_one, uncached] = three_ways::<B>(story);
        prop_assert!(equal(&warm, &one_by_one) && equal(&warm, &uncached));
        Ok(())
    });
    holds.unwrap();
}

/// The tokens and events of both policies. None of these generations has a near-tie.
fn a_pair_decodes_as_on_flex<B: Backend>() {
    fn outputs<B: Backend>(policy: impl Policy + 'static) -> Vec<(Vec<Token>, Vec<Event>)> {
        let pair = (load_on::<B>(&fixture("t5-v1_0")), load_on::<B>(&fixture("t5-f16")));
        let settings = Settings::default().with_max_new_tokens(30).with_trace(true);
        let generator = Generator::new(pair, policy).unwrap().with_settings(settings);
        let source = |seed: u64| Source::new(Numbers(seed).tokens(5 + seed as usize, 503));
        let what_happened = |event: &Event| matches!(event, Event::Rollback { .. } | Event::Verified { .. });
        (0..8)
            .map(|seed| generator.generate(source(seed)).unwrap())
            .map(|output| (output.tokens, output.events.into_iter().filter(what_happened).collect()))
            .collect()
    }
    let bild = || Bild::new(0.1, 3.0).unwrap();
    assert_eq!(outputs::<B>(bild()), outputs::<Flex>(bild()));
    assert_eq!(outputs::<B>(Lossless::default()), outputs::<Flex>(Lossless::default()));
}
