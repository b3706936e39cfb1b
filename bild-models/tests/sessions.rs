//! Sessions on flex: a model value serves any number of them at once, and rows are independent bit for bit. (The cache is tested on
//! every backend, in `backends`.)

mod common;

use bild_core::{DraftSession, Error, Generator, Model, Pass, SessionLimit, Source, VerifierSession, Want};
use bild_models::{T5, T5Session};
use bild_policies::{Bild, Lossless};
use common::{Numbers, TestBackend, fixture, load, random_model};
use serde_json::json;

fn begin(model: &T5<TestBackend>, source: &Source, limit: usize) -> T5Session<TestBackend> {
    model.begin(source, &SessionLimit::new(limit)).unwrap()
}

/// On flex a row does not depend on what else is in the pass, so equal means equal.
fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits =
        |rows: &[Vec<f32>]| rows.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect::<Vec<Vec<_>>>();
    bits(a) == bits(b)
}

#[test]
fn a_draft_step_is_the_last_row_of_a_pass() {
    let model = load(&fixture("t5-v1_1"));
    let source = Source::new([7, 8, 1]);
    let (mut a, mut b) = (begin(&model, &source, 9), begin(&model, &source, 9));
    for new in [&[0][..], &[5, 6], &[9]] {
        let want = Want::default().with_entropy().with_logits();
        let proposed = a.propose(&Pass::draft(a.length(), new, want)).unwrap().last().unwrap().clone();
        let scored = b.score(&Pass::verify(b.length(), new, want)).unwrap().last().unwrap().clone();
        assert_eq!(proposed.argmax, scored.argmax);
        assert!(same_bits(&[proposed.logits.unwrap().to_vec()], &[scored.logits.unwrap().to_vec()]));
    }
}

#[test]
fn a_session_holds_what_it_was_begun_for_and_no_more() {
    let model = load(&fixture("t5-v1_0"));
    let mut session = begin(&model, &Source::new([3, 1]), 4);
    let score = |session: &mut T5Session<_>, keep, new| session.score(&Pass::verify(keep, new, Want::default()));
    score(&mut session, 0, &[0, 5, 6, 7]).unwrap();
    let full = score(&mut session, 4, &[8]).unwrap_err().to_string();
    assert!(full.contains("1 new tokens after 4"), "{full}");
    assert_eq!(session.length(), 4);
    assert!(score(&mut session, 9, &[8]).is_err(), "there are no more to keep");
    score(&mut session, 3, &[8]).unwrap();
    assert!(score(&mut session, 4, &[]).is_err());
}

#[test]
fn tokens_outside_the_vocabulary_are_errors() {
    let model = load(&fixture("t5-v1_0"));
    let found = model.encode(&Source::new([3, 503])).unwrap_err().to_string();
    assert!(found.contains("token 503 at position 1 of the source") && found.contains("503 tokens"), "{found}");
    let found = begin(&model, &Source::new([3]), 9)
        .score(&Pass::verify(0, &[0, 7, 600], Want::default()))
        .unwrap_err()
        .to_string();
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
        let settings = bild_core::Settings::default().with_max_new_tokens(24);
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
