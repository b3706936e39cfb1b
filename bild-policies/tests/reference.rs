//! The decode loop against the semantics written down once more, without sessions, caches or events that stream: random
//! models, both variants and the lossless policy, every call compared.

mod toy;

use bild_core::{Event, Finish, Row, Settings, Token, Want};
use bild_policies::{Bild, Lossless, Variant};
use std::num::NonZeroUsize;
use toy::{Call, END, START, blend, decode, mix, random};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Paper,
    Released,
    Lossless,
}

struct Case<'a> {
    draft: &'a dyn Fn(&[Token]) -> Vec<f32>,
    verifier: &'a dyn Fn(&[Token]) -> Vec<f32>,
    kind: Kind,
    fallback: f32,
    rollback: f32,
    max_draft: Option<usize>,
    max_new_tokens: usize,
}

#[derive(Debug, Default, PartialEq)]
struct Expected {
    tokens: Vec<Token>,
    calls: Vec<Call>,
    /// (position, None) of a fallback, (position, dropped) of a rollback.
    events: Vec<(usize, Option<usize>)>,
}

impl Case<'_> {
    fn expected(&self) -> Expected {
        let mut e = Expected::default();
        let (mut draft_seen, mut verifier_seen) = (0, 0); // of START followed by the tokens
        let with_start = |tokens: &[Token]| [&[START], tokens].concat();
        let mut k = 0;
        let mut verifier_speaks = self.kind == Kind::Released;
        loop {
            loop {
                if verifier_speaks {
                    break;
                }
                let row = Row::from_logits(&(self.draft)(&e.tokens), Want::default(), None).unwrap();
                e.calls.push(Call::Propose(with_start(&e.tokens)[draft_seen..].to_vec()));
                draft_seen = e.tokens.len() + 1;
                if row.probability < self.fallback {
                    e.events.push((e.tokens.len(), None));
                    break;
                }
                e.tokens.push(row.argmax);
                k += 1;
                if row.argmax == END || e.tokens.len() == self.max_new_tokens {
                    if self.kind != Kind::Lossless {
                        return e;
                    }
                    break;
                }
                if Some(k) == self.max_draft {
                    break;
                }
            }
            verifier_speaks = false;
            e.calls.push(Call::Score(with_start(&e.tokens)[verifier_seen..].to_vec()));
            verifier_seen = e.tokens.len() + 1;
            let first = e.tokens.len() - k;
            let row = |i: usize| (self.verifier)(&e.tokens[..first + i]);
            let best = |i: usize| Row::from_logits(&row(i), Want::default(), None).unwrap().argmax;
            let refused = (0..k).find(|&i| match self.kind {
                Kind::Lossless => e.tokens[first + i] != best(i),
                _ => {
                    let want = Want::default().with_cross_entropy();
                    let row = Row::from_logits(&row(i), want, Some(e.tokens[first + i])).unwrap();
                    row.cross_entropy.unwrap() > self.rollback
                }
            });
            match refused {
                Some(i) if self.kind != Kind::Released || e.tokens[first + i] != best(i) => {
                    let token = best(i);
                    e.events.push((first + i, Some(k - i)));
                    e.tokens.truncate(first + i);
                    e.tokens.push(token);
                    draft_seen = draft_seen.min(first + i + 1);
                    verifier_seen = verifier_seen.min(first + i + 1);
                    k = 0;
                    if self.kind == Kind::Released && e.tokens.len() < self.max_new_tokens {
                        verifier_speaks = true;
                        continue;
                    }
                }
                _ => {
                    let ended = k > 0 && (e.tokens.last() == Some(&END) || e.tokens.len() == self.max_new_tokens);
                    if ended {
                        return e;
                    }
                    let token = best(k);
                    e.tokens.push(token);
                    k = 0;
                }
            }
            if e.tokens.last() == Some(&END) || e.tokens.len() == self.max_new_tokens {
                return e;
            }
        }
    }
}

fn greedy(model: &dyn Fn(&[Token]) -> Vec<f32>, max_new_tokens: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    while tokens.len() < max_new_tokens && tokens.last() != Some(&END) {
        tokens.push(Row::from_logits(&model(&tokens), Want::default(), None).unwrap().argmax);
    }
    tokens
}

#[test]
fn every_call_and_event_is_as_the_semantics_say() {
    let mut seen = [0; 6]; // so that no branch goes untried unnoticed
    for seed in 0..6000u64 {
        let pick = |salt: u64, n: u64| mix(seed * 31 + salt) % n;
        let verifier = random(seed, 6.0);
        let draft = blend(verifier.clone(), random(seed + 1_000_000, 6.0), [0.1, 0.5, 2.0][pick(1, 3) as usize]);
        let kind = [Kind::Paper, Kind::Released, Kind::Lossless][pick(2, 3) as usize];
        let case = Case {
            draft: &*draft,
            verifier: &*verifier,
            kind,
            fallback: [0.0, 0.2, 0.4, 0.6, 0.9, 1.0][pick(3, 6) as usize],
            rollback: [0.0, 0.25, 1.0, 3.0, f32::INFINITY][pick(4, 5) as usize],
            max_draft: [Some(1), Some(2), Some(3), Some(10), None][pick(5, 5) as usize],
            max_new_tokens: 1 + pick(6, 24) as usize,
        };
        let expected = case.expected();

        let max_draft = case.max_draft.and_then(NonZeroUsize::new);
        let settings = Settings::default().with_max_new_tokens(case.max_new_tokens);
        let bild =
            |variant| Bild::new(case.fallback, case.rollback).unwrap().with_variant(variant).with_max_draft(max_draft);
        let (output, calls) = match kind {
            Kind::Paper => decode(draft.clone(), verifier.clone(), bild(Variant::Paper), settings),
            Kind::Released => decode(draft.clone(), verifier.clone(), bild(Variant::Released), settings),
            Kind::Lossless => {
                let policy = Lossless::default().with_max_draft(max_draft).with_fallback(case.fallback).unwrap();
                decode(draft.clone(), verifier.clone(), policy, settings)
            }
        }
        .unwrap();
        let events: Vec<_> = output
            .events
            .iter()
            .filter_map(|event| match *event {
                Event::Fallback { at, .. } => Some((at, None)),
                Event::Rollback { at, dropped } => Some((at, Some(dropped))),
                _ => None,
            })
            .collect();
        assert_eq!(Expected { tokens: output.tokens.clone(), calls, events }, expected, "seed {seed}");
        if kind == Kind::Lossless {
            assert_eq!(output.tokens, greedy(&*verifier, case.max_new_tokens), "seed {seed}");
        }

        let s = &output.statistics;
        let count = |f: fn(&Event) -> bool| output.events.iter().filter(|e| f(e)).count();
        assert_eq!(s.tokens, output.tokens.len());
        assert_eq!(s.draft_steps, expected.calls.iter().filter(|c| matches!(c, Call::Propose(_))).count());
        assert_eq!(s.verifier_calls, expected.calls.iter().filter(|c| matches!(c, Call::Score(_))).count());
        assert_eq!(s.fallbacks, count(|e| matches!(e, Event::Fallback { .. })));
        assert_eq!(s.rollbacks, count(|e| matches!(e, Event::Rollback { .. })));
        assert_eq!(s.judged, s.accepted + s.rolled_back);
        assert_eq!(output.finish == Finish::EndOfSequence, output.tokens.last() == Some(&END), "seed {seed}");
        seen[kind as usize] += 1;
        seen[3] += usize::from(s.rollbacks > 0);
        seen[4] += usize::from(output.finish == Finish::MaxNewTokens);
        seen[5] += usize::from(output.tokens[..s.tokens - 1].contains(&END)); // only a released correction can
    }
    assert!(seen.iter().all(|&n| n > 20), "too few of a kind: {seen:?}");
}
