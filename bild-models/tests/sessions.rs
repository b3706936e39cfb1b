//! A session's cache: what it gives is what a computation without one gives, whatever was taken in and taken back
//! before; and a model value serves any number of sessions at once.

mod common;

use bild_core::{
    DraftSession, Error, Generator, Policy, SessionLimit, Source, Token, VerifierModel, VerifierSession, Want,
};
use bild_models::{T5, T5Session};
use bild_policies::{Bild, Lossless};
use burn::tensor::backend::Backend;
use burn_flex::Flex;
use burn_ndarray::NdArray;
use common::{Numbers, fixture, load, load_on, random_model};
use proptest::prelude::*;
use serde_json::json;

fn begin<B: Backend>(model: &T5<B>, source: &Source, limit: usize) -> T5Session<B> {
    VerifierModel::begin(model, source, &SessionLimit::new(limit)).unwrap()
}

/// The logits after each of `new`.
fn logits<B: Backend>(session: &mut T5Session<B>, new: &[Token]) -> Vec<Vec<f32>> {
    let rows = session.score(new, Want::default().logits()).unwrap();
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
                session.score(&new, Want::default()).unwrap();
                tokens.extend(new);
            }
            Step::Truncate(length) => {
                VerifierSession::truncate(&mut session, length);
                tokens.truncate(length);
            }
        }
        assert_eq!(session.length(), tokens.len());
    }
    let warm = logits(&mut session, &story.last);

    let mut single = begin(&model, &source, limit);
    for token in &tokens {
        single.score(&[*token], Want::default()).unwrap();
    }
    let one_by_one = story.last.iter().flat_map(|token| logits(&mut single, &[*token])).collect();

    let whole = [&tokens[..], &story.last].concat();
    let uncached = logits(&mut begin(&model, &source, limit), &whole).split_off(tokens.len());
    [warm, one_by_one, uncached]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_warm_cache_equals_single_passes_and_no_cache(story in story()) {
        let [warm, one_by_one, uncached] = three_ways::<Flex>(story);
        prop_assert!(same_bits(&warm, &one_by_one) && same_bits(&warm, &uncached));
    }
}

/// What holds on flex bit for bit holds on every other backend up to rounding.
macro_rules! other_backends {
    ($($(#[$feature:meta])* $name:ident: $backend:ty;)*) => {$(
        $(#[$feature])*
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

                #[test]
                fn a_warm_cache_nearly_equals_single_passes_and_no_cache(story in story()) {
                    let [warm, one_by_one, uncached] = three_ways::<$backend>(story);
                    prop_assert!(close(&warm, &one_by_one) && close(&warm, &uncached));
                }
            }

            #[test]
            fn a_pair_decodes_as_on_flex() {
                decodes_as_on_flex::<$backend>();
            }
        }
    )*};
}

other_backends! {
    ndarray: NdArray;
    #[cfg(feature = "tch")]
    tch: burn_tch::LibTorch;
    #[cfg(feature = "wgpu")]
    wgpu: bild_models::Wgpu;
    #[cfg(feature = "cuda")]
    cuda: bild_models::Cuda;
}

/// The tokens and events of both policies. None of these generations has a near-tie.
fn decodes_as_on_flex<B: Backend>() {
    fn outputs<B: Backend>(policy: impl Policy + 'static) -> Vec<(Vec<Token>, Vec<bild_core::Event>)> {
        let pair = (load_on::<B>(&fixture("t5-v1_0")), load_on::<B>(&fixture("t5-f16")));
        let settings = bild_core::Settings::default().max_new_tokens(30).trace(true);
        let generator = Generator::new(pair, policy).unwrap().with_settings(settings);
        let source = |seed: u64| Source::new(Numbers(seed).tokens(5 + seed as usize, 503));
        let what_happened = |event: &bild_core::Event| {
            matches!(event, bild_core::Event::Rollback { .. } | bild_core::Event::Verified { .. })
        };
        (0..8)
            .map(|seed| generator.generate(&source(seed)).unwrap())
            .map(|output| (output.tokens, output.events.into_iter().filter(what_happened).collect()))
            .collect()
    }
    let bild = || Bild::new(0.1, 3.0).unwrap();
    assert_eq!(outputs::<B>(bild()), outputs::<Flex>(bild()));
    assert_eq!(outputs::<B>(Lossless::default()), outputs::<Flex>(Lossless::default()));
}

#[test]
fn a_draft_step_is_the_last_row_of_a_pass() {
    let model = load(&fixture("t5-v1_1"));
    let source = Source::new([7, 8, 1]);
    let (mut a, mut b) = (begin(&model, &source, 9), begin(&model, &source, 9));
    for new in [&[0][..], &[5, 6], &[9]] {
        let want = Want::default().entropy().logits();
        let proposed = a.propose(new, want).unwrap().unwrap();
        let scored = b.score(new, want).unwrap().pop().unwrap();
        assert_eq!(proposed.argmax, scored.argmax);
        assert!(same_bits(&[proposed.logits.unwrap().to_vec()], &[scored.logits.unwrap().to_vec()]));
    }
}

#[test]
fn a_session_holds_what_it_was_begun_for_and_no_more() {
    let model = load(&fixture("t5-v1_0"));
    let mut session = begin(&model, &Source::new([3, 1]), 4);
    session.score(&[0, 5, 6, 7], Want::default()).unwrap();
    let full = session.score(&[8], Want::default()).unwrap_err().to_string();
    assert!(full.contains("1 new tokens after 4"), "{full}");
    VerifierSession::truncate(&mut session, 9); // more than there are: nothing happens
    assert_eq!(session.length(), 4);
    VerifierSession::truncate(&mut session, 3);
    session.score(&[8], Want::default()).unwrap();
    assert!(session.score(&[], Want::default()).is_err());
}

#[test]
fn tokens_outside_the_vocabulary_are_errors() {
    let model = load(&fixture("t5-v1_0"));
    let found = model.encode(&Source::new([3, 503])).unwrap_err().to_string();
    assert!(found.contains("token 503 at position 1 of the source") && found.contains("503 tokens"), "{found}");
    let found = begin(&model, &Source::new([3]), 9).score(&[0, 7, 600], Want::default()).unwrap_err().to_string();
    assert!(found.contains("token 600 at position 2 of the output"), "{found}");
    assert!(matches!(model.encode(&Source::new([])), Err(Error::EmptySource)));
}

#[test]
fn eight_threads_share_one_pair() {
    let (little, big) = (load(&fixture("t5-v1_0")), load(&fixture("t5-f16")));
    let generator = Generator::new((little, big), Bild::new(0.1, 3.0).unwrap()).unwrap();
    let sources: Vec<_> = (0..24).map(|i| Source::new(Numbers(i).tokens(3 + i as usize, 503))).collect();
    let expected: Vec<_> = sources.iter().map(|source| generator.generate(source).unwrap().tokens).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (generator, sources, expected) = (&generator, &sources, &expected);
            scope.spawn(move || {
                for i in (0..sources.len()).map(|i| (i + 3 * thread) % sources.len()) {
                    assert_eq!(generator.generate(&sources[i]).unwrap().tokens, expected[i], "source {i}");
                }
            });
        }
    });
}

/// Random pairs agree on next to nothing, so this is mostly refusals; a big model that drafts for itself is all
/// acceptance. No near-tie is excused: rows are independent.
#[test]
fn lossless_equals_greedy_for_random_pairs() {
    for seed in 0..200u64 {
        let shape = |numbers: &mut Numbers| {
            json!({
                "d_model": 8 + 4 * numbers.below(4), "num_heads": 1 + numbers.below(3), "num_layers": 1 + numbers.below(2),
                "num_decoder_layers": 1 + numbers.below(3), "tie_word_embeddings": numbers.below(2) == 0,
                "feed_forward_proj": (["relu", "gated-gelu"][numbers.below(2)]),
            })
        };
        let mut numbers = Numbers(seed);
        let (big_shape, little_shape) = (shape(&mut numbers), shape(&mut numbers));
        let big = random_model(big_shape.clone(), seed);
        let little = if seed % 4 == 0 { big.clone() } else { random_model(little_shape, seed + 1000) };
        let source_length = 1 + numbers.below(12);
        let source = Source::new(numbers.tokens(source_length, 37));
        let settings = bild_core::Settings::default().max_new_tokens(24);
        let alone = Generator::new((bild_core::NoDraft, big.clone()), Lossless::default()).unwrap();
        let greedy = alone.with_settings(settings.clone()).generate(&source).unwrap().tokens;
        for max_draft in 1..=16 {
            let policy = Lossless { fallback: None, max_draft: std::num::NonZeroUsize::new(max_draft) };
            let generator = Generator::new((little.clone(), big.clone()), policy).unwrap();
            let generator = generator.with_settings(settings.clone());
            assert_eq!(generator.generate(&source).unwrap().tokens, greedy, "pair {seed}, drafts of {max_draft}");
        }
    }
}
