//! Every branch of the semantics with models whose words are written down: what is called, with which tokens, and what
//! comes out. No reference implementation stands between the text and these numbers.

mod toy;

use std::num::NonZeroUsize;

use bild_core::{Event, Finish, Output, Role, Settings, Token};
use bild_policies::{Bild, Lossless, Variant};
use toy::{
    Call::{self, Propose, Score},
    END, START, decode, peaked, scripted,
};

const SURE: f32 = 0.9;

/// A script that is sure of each token.
fn sure(tokens: &[Token]) -> Vec<(Token, f32)> {
    tokens.iter().map(|&token| (token, SURE)).collect()
}

fn bild(variant: Variant, max_draft: usize) -> Bild {
    Bild::new(0.5, 1.0).unwrap().with_variant(variant).with_max_draft(NonZeroUsize::new(max_draft))
}

fn lossless(max_draft: usize) -> Lossless {
    Lossless { fallback: None, max_draft: NonZeroUsize::new(max_draft) }
}

fn events(output: &Output) -> Vec<(char, usize, usize)> {
    let short = |event: &Event| match *event {
        Event::Fallback { at, .. } => Some(('f', at, 0)),
        Event::Rollback { at, dropped } => Some(('r', at, dropped)),
        _ => None,
    };
    output.events.iter().filter_map(short).collect()
}

fn limit(tokens: usize) -> Settings {
    Settings::default().with_max_new_tokens(tokens)
}

#[test]
fn drafted_end_of_sequence_ends_unverified() {
    let (output, calls) =
        decode(scripted(&sure(&[2, 3])), scripted(&sure(&[7, 7, 7])), bild(Variant::Paper, 10), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, 3, END]);
    assert_eq!(output.finish, Finish::EndOfSequence);
    assert_eq!(calls, [Propose(vec![START]), Propose(vec![2]), Propose(vec![3])]);
    assert_eq!(output.writers, [Role::Draft; 3]);
    assert_eq!(output.statistics.verifier_calls, 0);
    assert!(output.log_probs.iter().all(|p| (p - SURE.ln()).abs() < 1e-5));
}

#[test]
fn an_unsure_end_of_sequence_falls_back_like_any_token() {
    let draft = scripted(&[(2, SURE), (END, 0.3)]);
    let (output, calls) = decode(draft, scripted(&sure(&[2, 4, END])), bild(Variant::Paper, 10), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, 4, END]);
    assert_eq!(calls, [Propose(vec![START]), Propose(vec![2]), Score(vec![START, 2]), Propose(vec![4])]);
    assert_eq!(events(&output), [('f', 1, 0)]);
    assert_eq!(output.writers, [Role::Draft, Role::Verifier, Role::Draft]);
}

#[test]
fn the_limit_inside_a_draft_ends_unverified() {
    let (output, calls) =
        decode(scripted(&sure(&[2, 3, 4, 5])), scripted(&[]), bild(Variant::Paper, 10), limit(2)).unwrap();
    assert_eq!(output.tokens, [2, 3]);
    assert_eq!(output.finish, Finish::MaxNewTokens);
    assert_eq!(calls, [Propose(vec![START]), Propose(vec![2])]);
}

#[test]
fn the_limit_comes_before_a_full_draft() {
    let (output, calls) =
        decode(scripted(&sure(&[2, 3])), scripted(&sure(&[7, 7])), bild(Variant::Paper, 2), limit(2)).unwrap();
    assert_eq!((output.tokens, calls.len()), (vec![2, 3], 2));
}

#[test]
fn a_full_draft_is_verified_without_an_event_and_the_draft_catches_up() {
    let script = sure(&[2, 3, 4, 5, 6, 7]);
    let (output, calls) = decode(scripted(&script), scripted(&script), bild(Variant::Paper, 2), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, 3, 4, 5, 6, 7, END]);
    assert_eq!(
        calls,
        [
            Propose(vec![START]),
            Propose(vec![2]),
            Score(vec![START, 2, 3]), // writes 4
            Propose(vec![3, 4]),      // two tokens after a full draft
            Propose(vec![5]),
            Score(vec![4, 5, 6]), // writes 7
            Propose(vec![6, 7]),
        ]
    );
    assert_eq!(events(&output), []);
    let (s, by_verifier) = (&output.statistics, [false, false, true, false, false, true, false]);
    assert_eq!(output.writers.iter().map(|&w| w == Role::Verifier).collect::<Vec<_>>(), by_verifier);
    assert_eq!((s.judged, s.accepted, s.verifier_tokens, s.draft_steps), (4, 4, 2, 5));
    assert_eq!(s.block_efficiency(), Some(3.5));
}

/// The refused draft, at `i` of three: it and those after it go, the verifier's token takes its place.
fn refusal_at(i: usize) -> (Output, Vec<Call>) {
    let draft = sure(&[2, 3, 4, 5, 6]);
    let mut verifier = draft.clone();
    verifier[i].0 = 7;
    decode(scripted(&draft), scripted(&verifier), bild(Variant::Paper, 3), limit(20)).unwrap()
}

#[test]
fn refusals_at_the_first_middle_and_last_draft() {
    for (i, tokens) in [(0, [7, 3, 4, 5]), (1, [2, 7, 4, 5]), (2, [2, 3, 7, 5])] {
        let (output, calls) = refusal_at(i);
        assert_eq!(output.tokens[..4], tokens);
        assert_eq!(events(&output)[0], ('r', i, 3 - i));
        assert_eq!(calls[3], Score(vec![START, 2, 3, 4]));
        assert_eq!(calls[4], Propose(vec![7]), "the draft model had seen what stands, and not what it proposed last");
    }
}

#[test]
fn after_a_refusal_nothing_more_is_appended() {
    let (output, calls) = refusal_at(0);
    // 7 replaced 2; the draft model goes on from there, and the next verification begins with 7.
    assert_eq!(calls[4..8], [Propose(vec![7]), Propose(vec![3]), Propose(vec![4]), Score(vec![7, 3, 4, 5])]);
    assert_eq!(output.tokens, [7, 3, 4, 5, 6, END]);
}

#[test]
fn a_correction_that_is_end_of_sequence_ends_the_paper_variant() {
    let (output, calls) =
        decode(scripted(&sure(&[2, 3, 4])), scripted(&sure(&[2, END])), bild(Variant::Paper, 3), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, END]);
    assert_eq!(output.finish, Finish::EndOfSequence);
    assert_eq!(events(&output), [('r', 1, 2)]);
    assert_eq!(calls.len(), 4);
}

#[test]
fn the_paper_variant_replaces_a_refused_draft_by_the_same_token() {
    let verifier = scripted(&[(2, 0.3), (3, SURE), (4, SURE)]); // −ln 0.3 = 1.2 > 1: refused, yet the most likely
    let (output, _) = decode(scripted(&sure(&[2, 3, 4])), verifier, bild(Variant::Paper, 2), limit(20)).unwrap();
    assert_eq!(events(&output)[0], ('r', 0, 2));
    assert_eq!(output.tokens, [2, 3, 4, END]);
    assert_eq!(output.writers[0], Role::Verifier);
}

#[test]
fn the_released_variant_lets_the_same_token_stand_and_looks_no_further() {
    let verifier = scripted(&[(5, SURE), (2, 0.3), (6, SURE), (4, SURE)]);
    let draft = scripted(&sure(&[7, 2, 3, 7]));
    let (output, calls) = decode(draft, verifier, bild(Variant::Released, 2), limit(20)).unwrap();
    // The verifier speaks first (5); draft 2 is refused but its argmax; draft 3 would be refused but is not examined.
    assert_eq!(calls[..4], [Score(vec![START]), Propose(vec![START, 5]), Propose(vec![2]), Score(vec![5, 2, 3])]);
    assert_eq!(output.tokens[..4], [5, 2, 3, 4]);
    assert_eq!(events(&output), []);
}

#[test]
fn the_released_variant_makes_one_more_pass_after_a_rollback() {
    let verifier = scripted(&sure(&[5, 2, END, 6]));
    let draft = scripted(&sure(&[7, 2, 3, 7, 4]));
    let (output, calls) = decode(draft, verifier, bild(Variant::Released, 2), limit(20)).unwrap();
    // Draft 3 becomes end-of-sequence, which is not looked at; one more pass writes 6; then the draft model resumes.
    assert_eq!(calls[3..], [Score(vec![5, 2, 3]), Score(vec![END]), Propose(vec![END, 6]), Propose(vec![4])]);
    assert_eq!(events(&output), [('r', 2, 1)]);
    assert_eq!(output.tokens, [5, 2, END, 6, 4, END]);
}

#[test]
fn end_of_sequence_after_the_extra_pass_ends_the_released_variant() {
    let verifier = scripted(&sure(&[5, 6, END]));
    let (output, calls) = decode(scripted(&sure(&[7, 2, 3])), verifier, bild(Variant::Released, 1), limit(20)).unwrap();
    assert_eq!(output.tokens, [5, 6, END]);
    assert_eq!(calls.len(), 4);
    assert_eq!(output.finish, Finish::EndOfSequence);
}

#[test]
fn the_released_variant_can_end_with_its_first_word() {
    let (output, calls) = decode(scripted(&sure(&[2])), scripted(&[]), bild(Variant::Released, 2), limit(20)).unwrap();
    assert_eq!((output.tokens, calls), (vec![END], vec![Score(vec![START])]));
}

#[test]
fn lossless_verifies_a_drafted_end_of_sequence() {
    let (output, calls) = decode(scripted(&sure(&[2, 3])), scripted(&sure(&[2, 3])), lossless(10), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, 3, END]);
    assert_eq!(calls.last(), Some(&Score(vec![START, 2, 3, END])));
    assert_eq!(output.statistics.verifier_tokens, 0);

    // … and corrects one that comes too early.
    let (output, _) = decode(scripted(&sure(&[2])), scripted(&sure(&[2, 3])), lossless(10), limit(20)).unwrap();
    assert_eq!(output.tokens, [2, 3, END]);
    assert_eq!(events(&output), [('r', 1, 1)]);
}

#[test]
fn lossless_verifies_at_the_limit_and_appends_nothing_past_it() {
    let script = sure(&[2, 3, 4, 5]);
    let (output, calls) = decode(scripted(&script), scripted(&script), lossless(10), limit(3)).unwrap();
    assert_eq!(output.tokens, [2, 3, 4]);
    assert_eq!(output.finish, Finish::MaxNewTokens);
    assert_eq!(calls.last(), Some(&Score(vec![START, 2, 3, 4])));

    let (output, _) = decode(scripted(&sure(&[2, 3, 7])), scripted(&script), lossless(10), limit(3)).unwrap();
    assert_eq!(output.tokens, [2, 3, 4], "the last draft was corrected in its place");
}

#[test]
fn stop_tokens_end_like_end_of_sequence() {
    let script = sure(&[2, 3, 4]);
    let settings = limit(20).with_stop_tokens([3]);
    let (output, _) = decode(scripted(&script), scripted(&script), bild(Variant::Paper, 10), settings.clone()).unwrap();
    assert_eq!((&output.tokens[..], output.finish), (&[2, 3][..], Finish::StopToken));
    assert_eq!(output.statistics.verifier_calls, 0);
    let (output, _) = decode(scripted(&script), scripted(&script), lossless(10), settings).unwrap();
    assert_eq!((&output.tokens[..], output.finish), (&[2, 3][..], Finish::StopToken));
    assert_eq!(output.statistics.verifier_calls, 1);
}

#[test]
fn several_end_tokens_and_none() {
    let script = sure(&[2, 3, END, 4]);
    let settings = limit(20).with_end_tokens([3, 6]);
    let (output, _) = decode(scripted(&script), scripted(&script), bild(Variant::Paper, 10), settings).unwrap();
    assert_eq!((&output.tokens[..], output.finish), (&[2, 3][..], Finish::EndOfSequence));
    let settings = limit(6).with_end_tokens([]);
    let (output, _) = decode(scripted(&script), scripted(&script), lossless(2), settings).unwrap();
    assert_eq!((&output.tokens[..], output.finish), (&[2, 3, END, 4, END, END][..], Finish::MaxNewTokens));
}

#[test]
fn thresholds_are_strict() {
    // Two equal tokens share all probability: p = 1/2 exactly, −ln p = ln 2.
    let half = |a: usize, b: usize| {
        std::sync::Arc::new(move |_: &[Token]| {
            let mut logits = vec![f32::NEG_INFINITY; toy::VOCABULARY];
            (logits[a], logits[b]) = (0.0, 0.0);
            logits
        })
    };
    let policy = |fallback, rollback| Bild::new(fallback, rollback).unwrap().with_max_draft(NonZeroUsize::new(1));
    let (output, _) = decode(half(3, 4), half(3, 4), policy(0.5, f32::INFINITY), limit(2)).unwrap();
    assert_eq!(output.statistics.fallbacks, 0);
    let (output, _) = decode(half(3, 4), half(3, 4), policy(0.500_001, f32::INFINITY), limit(2)).unwrap();
    assert_eq!(output.statistics.fallbacks, 2);
    let ln_2 = std::f32::consts::LN_2;
    let (output, _) = decode(half(3, 4), half(2, 3), policy(0.0, ln_2), limit(2)).unwrap();
    assert_eq!(output.statistics.rollbacks, 0);
    let (output, _) = decode(half(3, 4), half(2, 3), policy(0.0, ln_2 - 1e-6), limit(2)).unwrap();
    assert_eq!((output.statistics.rollbacks, output.tokens[0]), (1, 2));
}

#[test]
fn probabilities_are_of_the_model_that_wrote_the_token() {
    let draft = scripted(&[(2, 0.8), (3, 0.2)]);
    let verifier = scripted(&[(2, 0.6), (4, 0.7), (END, 0.5)]);
    let (output, _) = decode(draft, verifier, bild(Variant::Paper, 10), limit(2)).unwrap();
    assert_eq!(output.tokens, [2, 4]);
    assert!((output.log_probs[0] - 0.8f32.ln()).abs() < 1e-5 && (output.log_probs[1] - 0.7f32.ln()).abs() < 1e-5);
    assert_eq!(peaked(2, 0.8).len(), toy::VOCABULARY);
}
