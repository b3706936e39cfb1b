//! Every policy: its file format, its definition, and what it promises.

mod toy;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::Duration,
};

use bild_core::{
    Context, Draft, Drafted, Error, Generator, LogitsProcessor, NoDraft, Policy, PolicyState, Prefix, Role, Row,
    SessionLimit, Settings, Source, Start, Token, Verdict, Want,
};
use bild_policies::{
    AdaptiveLength, AnyFallback, AnyPolicy, AnyRollback, Atypical, BigAlone, Bild, CostAware, Deferral, FallbackRule,
    GenerationConfig, HighCrossEntropy, HighDivergence, HighEntropy, LittleAlone, Lossless, LowAcceptance,
    LowAccumulated, LowProbability, LowRank, LowVerifierProbability, Prices, RandomFallback, RollbackRule, Sampling,
    SmallMargin, TargetRollback, Variant, processors,
};
use serde_json::json;
use toy::{Call, END, Logits, Toy, VOCABULARY, blend, decode, random, scripted};

/// Every policy and every rule, by JSON.
const FILES: [&str; 20] = [
    r#"{"policy":"bild","variant":"paper","fallback":{"probability":0.5},"rollback":{"cross_entropy":2.0},"max_draft":10}"#,
    r#"{"policy":"bild","variant":"released","fallback":{"entropy":1.5},"rollback":{"cross_entropy":"inf"},"max_draft":null}"#,
    r#"{"policy":"bild","variant":"paper","first":"verifier","fallback":{"margin":0.25},"rollback":{"rank":3},"max_draft":4}"#,
    r#"{"policy":"bild","variant":"paper","first":"draft","fallback":{"accumulated":0.125},"rollback":{"probability":0.125},"max_draft":4}"#,
    r#"{"policy":"bild","variant":"paper","fallback":{"random":0.25},"rollback":{"divergence":1.5},"max_draft":10}"#,
    r#"{"policy":"bild","variant":"paper","fallback":{"probability":0.0},"rollback":{"typical":{"epsilon":0.25,"delta":0.5}},"max_draft":5}"#,
    r#"{"policy":"lossless","fallback":0.5,"max_draft":10}"#,
    r#"{"policy":"lossless","fallback":null,"max_draft":null}"#,
    r#"{"policy":"sampling","temperature":0.75,"top_k":50,"top_p":0.875,"lenience":1.0,"fallback":0.5,"max_draft":5}"#,
    r#"{"policy":"sampling","temperature":0.0,"top_k":null,"top_p":1.0,"lenience":0.5,"fallback":null,"max_draft":null}"#,
    r#"{"policy":"big"}"#,
    r#"{"policy":"little"}"#,
    r#"{"policy":"adaptive_length","of":{"policy":"lossless","fallback":null,"max_draft":20},"start":5}"#,
    r#"{"policy":"cost_aware","of":{"policy":"lossless","fallback":null,"max_draft":null}}"#,
    r#"{"policy":"cost_aware","of":{"policy":"sampling","temperature":1.0,"top_k":null,"top_p":1.0,"lenience":1.0,"fallback":null,"max_draft":null}}"#,
    r#"{"policy":"adaptive_length","of":{"policy":"bild","variant":"released","fallback":{"entropy":1.0},"rollback":{"rank":2},"max_draft":8},"start":3}"#,
    r#"{"policy":"cost_aware","of":{"policy":"big"},"prices":{"draft":0.25,"verify":1.0,"verify_draft":0.125}}"#,
    r#"{"policy":"cost_aware","of":{"policy":"adaptive_length","of":{"policy":"big"},"start":1}}"#,
    r#"{"policy":"target_rollback","of":{"variant":"paper","fallback":0.5,"rollback":{"cross_entropy":2.0},"max_draft":10},"rate":0.25,"step":0.125}"#,
    r#"{"policy":"target_rollback","of":{"variant":"released","fallback":0.5,"rollback":{"rank":1},"max_draft":10},"rate":0.0,"step":1.0}"#,
];

#[test]
fn every_policy_round_trips_through_json_and_decodes() {
    for json in FILES {
        let policy: AnyPolicy = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        let big = random(3, 6.0);
        let (output, _) = decode(random(4, 6.0), big, policy, Settings::default().with_max_new_tokens(12)).unwrap();
        assert!(!output.tokens.is_empty(), "{json}");
    }
}

#[test]
fn what_is_unknown_or_out_of_range_is_refused() {
    for json in FILES {
        let unknown = json.replacen('{', "{\"depth\":1,", 1);
        assert!(serde_json::from_str::<AnyPolicy>(&unknown).is_err(), "{unknown}");
    }
    for (json, says) in [
        (r#"{"policy":"bild","fallback":{"probability":1.5},"rollback":{"rank":1}}"#, "1.5, expected a probability"),
        (r#"{"policy":"bild","fallback":{"entropy":-1},"rollback":{"rank":1}}"#, "at least 0"),
        (
            r#"{"policy":"bild","fallback":{"entropy":1},"rollback":{"rank":0}}"#,
            "found 0, expected a whole number, at least 1",
        ),
        (r#"{"policy":"bild","fallback":{"luck":1},"rollback":{"rank":1}}"#, "unknown variant `luck`"),
        (r#"{"policy":"bild","fallback":{"entropy":1},"rollback":{"typical":{"epsilon":2,"delta":0}}}"#, "is 2"),
        (r#"{"policy":"sampling","temperature":-1}"#, "the temperature is -1"),
        (r#"{"policy":"sampling","top_p":0}"#, "top_p is 0"),
        (r#"{"policy":"sampling","lenience":1.5}"#, "lenience is 1.5"),
        (
            r#"{"policy":"adaptive_length","of":{"policy":"big"},"start":0}"#,
            "found 0, expected a whole number, at least 1",
        ),
        (r#"{"policy":"target_rollback","of":{"fallback":0.5,"rollback":{"rank":1}},"rate":2}"#, "rate is 2"),
        (
            r#"{"policy":"cost_aware","of":{"policy":"big"},"prices":{"draft":0,"verify":-1,"verify_draft":0}}"#,
            "-1, expected a number from 0 to 1e12",
        ),
        (r#"{"policy":"beam"}"#, "unknown variant `beam`"),
        (r#"{"policy":"bild","fallback":true}"#, "found true, expected a probability, or a rule by name"),
        (r#"{"policy":"bild","rollback":[2]}"#, "found a list, expected a number of nats, \"inf\", or a rule by name"),
        (r#"{"policy":"bild","rollback":{"rank":2.5}}"#, "found 2.5, expected a whole number, at least 1"),
        (r#"{"policy":"bild","fallback":"inf"}"#, "the fallback threshold is inf"),
        (
            r#"{"policy":"lossless","fallback":{"entropy":1}}"#,
            "the fallback is Entropy(HighEntropy(1.0)), expected a prob",
        ),
        (r#"{"policy":"lossless","max_draft":"ten"}"#, "found \"ten\", expected a whole number, at least 1"),
        (r#"{"policy":"sampling","temperature":null}"#, "found null, expected a number"),
        (r#"{"policy":3}"#, "expected a name"),
        (r#""bild""#, "found \"bild\", expected an object"),
        (r#"{"policy":"target_rollback","rate":0.5}"#, "`of` of the policy `target_rollback` is missing"),
        (r#"{"policy":"target_rollback","of":{}}"#, "`rate` of the policy `target_rollback` is missing"),
        (r#"{"policy":"bild","rollback":{"typical":{"epsilon":0.5}}}"#, "`delta` of the rule `typical` is missing"),
        (r#"{"policy":"cost_aware","prices":{"draft":1}}"#, "`verify` of the `prices` of the policy `cost_aware`"),
    ] {
        let found = serde_json::from_str::<AnyPolicy>(json).unwrap_err().to_string();
        assert!(found.contains(says), "{json}: {found}");
    }
}

/// What a file leaves out is as the constructors have it, and a rule may be written in any of its forms wherever it stands.
#[test]
fn the_least_that_names_a_policy() {
    let without_limit = || Box::new(AnyPolicy::Lossless(Lossless::without_limit()));
    let bild = || Bild::with_rules(AnyFallback::default(), AnyRollback::default());
    let target = |rate| TargetRollback::new(Bild::with_rules(LowProbability::default(), AnyRollback::default()), rate);
    for (json, policy) in [
        (r#"{"policy":"bild"}"#, AnyPolicy::Bild(bild())),
        (r#"{"policy":"lossless"}"#, AnyPolicy::Lossless(Lossless::default())),
        (r#"{"policy":"sampling"}"#, AnyPolicy::Sampling(Sampling::default())),
        (r#"{"policy":"big"}"#, AnyPolicy::Big(BigAlone::default())),
        (r#"{"policy":"little"}"#, AnyPolicy::Little(LittleAlone::default())),
        (r#"{"policy":"adaptive_length"}"#, AnyPolicy::AdaptiveLength(AdaptiveLength::new(without_limit()))),
        (r#"{"policy":"cost_aware"}"#, AnyPolicy::CostAware(CostAware::new(without_limit()))),
        (r#"{"policy":"target_rollback","of":{},"rate":0.5}"#, AnyPolicy::TargetRollback(target(0.5).unwrap())),
        (r#"{"policy":"bild","fallback":0.5,"rollback":2}"#, AnyPolicy::Bild(bild())),
        (r#"{"policy":"bild","fallback":{"probability":0.5},"rollback":{"cross_entropy":2}}"#, AnyPolicy::Bild(bild())),
        (r#"{"policy":"lossless","fallback":{"probability":0.2}}"#, AnyPolicy::Lossless(Lossless::default())),
        (
            r#"{"policy":"sampling","fallback":{"probability":1}}"#,
            AnyPolicy::Sampling(Sampling::default().with_fallback(1.0).unwrap()),
        ),
    ] {
        let found: AnyPolicy = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(found, policy, "{json}");
        let written = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<AnyPolicy>(&written).unwrap(), found, "{written}");
    }
    // The policy by its own type, and the paper's rules in a policy that has no other.
    let json = r#"{"fallback":{"probability":0.5},"rollback":{"cross_entropy":"inf"}}"#;
    assert_eq!(serde_json::from_str::<Bild>(json).unwrap(), Bild::new(0.5, f32::INFINITY).unwrap());
    let all: AnyPolicy = serde_json::from_str(r#"{"policy":"bild","rollback":"inf"}"#).unwrap();
    assert!(serde_json::to_string(&all).unwrap().contains(r#""rollback":{"cross_entropy":"inf"}"#));
}

/// A verifier's row of these probabilities, as a rule wants it, with the draft it is to judge.
fn row(p: &[f32], want: Want, next: Token) -> Row {
    let logits: Vec<f32> = p.iter().map(|p| p.ln()).collect();
    Row::from_logits(&logits, want, Some(next)).unwrap()
}

/// Which positions of a script of probabilities fall back by a rule, the rest being kept.
fn fallbacks(rule: impl FallbackRule + Clone + 'static, script: &[(Token, f32)]) -> Vec<usize> {
    let policy = Bild::with_rules(rule, HighCrossEntropy::new(f32::INFINITY).unwrap()).with_max_draft(None);
    let settings = Settings::default().with_max_new_tokens(script.len());
    let (output, _) = decode(scripted(script), scripted(script), policy, settings).unwrap();
    let at = |event: &bild_core::Event| match event {
        bild_core::Event::Fallback { at, .. } => Some(*at),
        _ => None,
    };
    output.events.iter().filter_map(at).collect()
}

#[test]
fn fallback_rules_are_their_definitions() {
    // Entropies of these, over 8 tokens: 0.520, 1.666, 0.520, 0.520, 2.055.
    let script = [(2, 0.9), (3, 0.5), (4, 0.9), (5, 0.9), (6, 0.2)];
    assert_eq!(fallbacks(LowProbability::new(0.6).unwrap(), &script), [1, 4]);
    assert_eq!(fallbacks(HighEntropy::new(1.7).unwrap(), &script), [4]);
    assert_eq!(fallbacks(HighEntropy::new(0.6).unwrap(), &script), [1, 4]);
    // 1 − √(0.2 · H): 0.677, 0.423, 0.677, 0.677, 0.359.
    assert_eq!(fallbacks(LowAcceptance::new(0.42).unwrap(), &script), [4]);
    assert_eq!(fallbacks(LowAcceptance::new(0.5).unwrap(), &script), [1, 4]);
    // The second best has what is left, over 7: margins of 0.886, 0.429 and 0.086.
    assert_eq!(fallbacks(SmallMargin::new(0.43).unwrap(), &script), [1, 4]);
    assert_eq!(fallbacks(SmallMargin::new(0.42).unwrap(), &script), [4]);
    // Of the draft so far: 0.9, 0.45, 0.405, 0.36, 0.07.
    assert_eq!(fallbacks(LowAccumulated::new(0.4).unwrap(), &script), [3, 4]);
    let often = [(2, 0.9); 2000];
    let some = fallbacks(RandomFallback::new(0.3).unwrap(), &often);
    assert!((500..700).contains(&some.len()), "{}", some.len());
    assert_eq!(some, fallbacks(RandomFallback::new(0.3).unwrap(), &often), "the seed decides");
}

#[test]
fn rollback_rules_are_their_definitions() {
    let p = [0.1, 0.4, 0.3, 0.2];
    let refused = |rule: &dyn RollbackRule, q: &[f32]| -> Vec<Token> {
        let judged = |token: &Token| {
            let draft = Drafted::new(*token, row(q, rule.want_of_draft(), *token));
            rule.refuses(&draft, &row(&p, rule.want(), *token))
        };
        (0..4).filter(judged).collect()
    };
    let flat = [0.25; 4];
    assert_eq!(refused(&HighCrossEntropy::new(1.3).unwrap(), &flat), [0, 3]);
    assert_eq!(refused(&LowVerifierProbability::new(0.25).unwrap(), &flat), [0, 3]);
    assert_eq!(refused(&LowRank::new(1).unwrap(), &flat), [0, 2, 3]);
    assert_eq!(refused(&LowRank::new(3).unwrap(), &flat), [0]);
    // KL(flat ‖ p) = Σ 0.25 ln(0.25 / p) = 0.122, whatever the token.
    assert_eq!(refused(&HighDivergence::new(0.121).unwrap(), &flat), [0, 1, 2, 3]);
    assert!(refused(&HighDivergence::new(0.123).unwrap(), &flat).is_empty());
    // 1.8e-35 and 8e-40 of a token that neither means differ by next to nothing.
    let of = |other: f32| Row::from_logits(&[0.0, other], HighDivergence::new(0.0).unwrap().want(), Some(0)).unwrap();
    assert!(!HighDivergence::new(1e-30).unwrap().refuses(&Drafted::new(0, of(-80.0)), &of(-90.0)));
    assert!(HighDivergence::new(1e30).unwrap().refuses(&Drafted::new(0, of(-80.0)), &of(f32::NEG_INFINITY)));
    // Their best have 0.25 and 0.4, and they share 0.8.
    assert_eq!(refused(&Deferral::new(0.7).unwrap(), &flat), [0, 2, 3]);
    assert!(refused(&Deferral::new(0.8).unwrap(), &flat).is_empty());
    assert!(refused(&Deferral::new(0.0).unwrap(), &[0.5, 0.2, 0.2, 0.1]).is_empty(), "the draft model is surer");
    let certain = |token| Drafted::new(token, Row::certain(token));
    let verifier = row(&p, Deferral::new(9.0).unwrap().want(), 0);
    assert!(Deferral::new(9.0).unwrap().refuses(&certain(0), &verifier), "a look-up is sure of anything");
    assert!(!Deferral::new(0.0).unwrap().refuses(&certain(1), &verifier));
    // e^−H of p is 0.278.
    assert_eq!(refused(&Atypical::new(1.0, 0.5).unwrap(), &flat), [0]);
    assert_eq!(refused(&Atypical::new(1.0, 1.0).unwrap(), &flat), [0, 3]);
    assert!(refused(&Atypical::new(0.09, 1.0).unwrap(), &flat).is_empty());
}

#[test]
fn one_model_alone_never_asks_the_other() {
    for seed in 0..50 {
        let (draft, big) = (random(seed + 99, 6.0), random(seed, 6.0));
        let settings = Settings::default().with_max_new_tokens(20);
        let greedy = |model: &Logits| {
            let alone = (NoDraft, Toy::new(&Arc::default(), model.clone()));
            let generator = Generator::new(alone, Lossless::default()).unwrap().with_settings(settings.clone());
            generator.generate(Source::new([2, 1])).unwrap().tokens
        };
        let (output, calls) = decode(draft.clone(), big.clone(), BigAlone {}, settings.clone()).unwrap();
        assert_eq!(output.tokens, greedy(&big));
        assert!(calls.iter().all(|call| matches!(call, Call::Score(_))));
        let (output, calls) = decode(draft.clone(), big.clone(), LittleAlone {}, settings.clone()).unwrap();
        assert_eq!(output.tokens, greedy(&draft));
        assert!(calls.iter().all(|call| matches!(call, Call::Propose(_))));
    }
}

#[test]
fn who_speaks_first_can_be_chosen() {
    let first = |policy: Bild| {
        let script = scripted(&[(2, 0.9), (3, 0.9)]);
        let (_, calls) = decode(script.clone(), script, policy, Settings::default()).unwrap();
        matches!(calls[0], Call::Score(_))
    };
    assert!(first(Bild::default().with_first(Role::Verifier)));
    assert!(!first(Bild::default()));
    assert!(first(Bild::default().with_variant(Variant::Released)));
    assert!(!first(Bild::default().with_variant(Variant::Released).with_first(Role::Draft)));
}

/// The drafts of each verifier pass.
fn lengths(calls: &[Call]) -> Vec<usize> {
    calls.iter().filter_map(|call| if let Call::Score(new) = call { Some(new.len() - 1) } else { None }).collect()
}

#[test]
fn the_adaptive_length_grows_and_shrinks() {
    let agree = scripted(&[(2, 0.9); 40]);
    let policy =
        || AdaptiveLength::new(Lossless::default().with_max_draft(None)).with_start(NonZeroUsize::new(3).unwrap());
    let settings = Settings::default().with_max_new_tokens(24);
    let (_, calls) = decode(agree.clone(), agree.clone(), policy(), settings.clone()).unwrap();
    assert_eq!(lengths(&calls), [3, 5, 7, 6], "the last is cut by the limit");
    let (_, calls) = decode(scripted(&[(3, 0.9); 40]), agree, policy(), settings).unwrap();
    assert_eq!(lengths(&calls)[..5], [3, 2, 1, 1, 1]);
}

#[test]
fn whatever_ends_a_draft_early_stays_lossless() {
    let policies: [fn() -> Box<dyn Policy>; 4] = [
        || Box::new(AdaptiveLength::new(Lossless::default())),
        || Box::new(CostAware::new(Lossless::default().with_max_draft(None))),
        || Box::new(CostAware::new(AdaptiveLength::new(Sampling::new(0.0).unwrap()))),
        || Box::new(AnyPolicy::Lossless(Lossless { fallback: None, max_draft: None })),
    ];
    for seed in 0..100 {
        let (big, settings) = (random(seed, 6.0), Settings::default().with_max_new_tokens(40));
        let draft = blend(big.clone(), random(seed + 99, 6.0), 0.3);
        let (greedy, _) = decode(draft.clone(), big.clone(), BigAlone {}, settings.clone()).unwrap();
        for policy in policies {
            let (output, _) = decode(draft.clone(), big.clone(), policy(), settings.clone()).unwrap();
            assert_eq!(output.tokens, greedy.tokens);
        }
    }
}

#[test]
fn the_threshold_follows_the_rollback_rate() {
    // Every draft is refused: the threshold rises until nothing is drafted any more.
    let policy = TargetRollback::new(Bild::new(0.0, 1.0).unwrap().with_max_draft(NonZeroUsize::new(2)), 0.1).unwrap();
    let settings = Settings::default().with_max_new_tokens(60);
    let (output, _) =
        decode(scripted(&[(3, 0.6); 60]), scripted(&[(2, 0.9); 60]), policy.clone(), settings.clone()).unwrap();
    assert!((6..9).contains(&output.statistics.rollbacks), "{}", output.statistics.rollbacks);
    // None is: it falls, until what is less sure is kept too.
    let mixed: Vec<(Token, f32)> = (0..60).map(|i| (2, if i % 2 == 0 { 0.9 } else { 0.6 })).collect();
    let start = Bild::new(0.7, 9.0).unwrap();
    let fallbacks = |policy: Box<dyn Policy>| {
        decode(scripted(&mixed), scripted(&mixed), policy, settings.clone()).unwrap().0.statistics.fallbacks
    };
    let moved = fallbacks(Box::new(TargetRollback::new(start.clone(), 0.5).unwrap()));
    assert_eq!((fallbacks(Box::new(start)), moved), (30, 2));
}

#[test]
fn rules_go_by_name_in_programs_too() {
    let policy = Bild::with_rules(
        AnyFallback::Entropy(HighEntropy::new(1.0).unwrap()),
        AnyRollback::Rank(LowRank::new(2).unwrap()),
    );
    let wants = policy.wants();
    assert!(wants.draft.entropy && wants.verifier.logits && !wants.draft.logits);
}

fn greedy_with(settings: &Settings, big: Logits) -> Vec<Token> {
    let alone = (NoDraft, Toy::new(&Arc::default(), big));
    let generator = Generator::new(alone, Lossless::default()).unwrap().with_settings(settings.clone());
    generator.generate(Source::new([2, 1])).unwrap().tokens
}

#[test]
fn lossless_stays_lossless_with_processors() {
    for seed in 0..200 {
        let big = random(seed, 6.0);
        let draft = blend(big.clone(), random(seed + 99, 6.0), 0.3);
        let settings = Settings::default()
            .with_max_new_tokens(16)
            .with_processor(processors::RepetitionPenalty::new(1.7).unwrap())
            .with_processor(processors::NoRepeatNgram::new(2).unwrap())
            .with_processor(processors::MinLength(6))
            .with_processor(processors::ForcedFirst(4))
            .with_processor(processors::BadWords(vec![vec![3], vec![5, 6]]));
        let greedy = greedy_with(&settings, big.clone());
        for policy in [Lossless::default(), Lossless { fallback: None, max_draft: NonZeroUsize::new(3) }] {
            let (output, _) = decode(draft.clone(), big.clone(), policy, settings.clone()).unwrap();
            assert_eq!(output.tokens, greedy);
        }
        assert_eq!(greedy[0], 4);
        assert!(greedy.len() > 6 || greedy.len() == 16, "{greedy:?}");
        assert!(!greedy.contains(&3) && !greedy.windows(2).any(|pair| pair == [5, 6]));
        let mut pairs: Vec<_> = greedy.windows(2).collect();
        pairs.sort();
        assert!(pairs.windows(2).all(|two| two[0] != two[1]), "{greedy:?}");
        assert_ne!(greedy, greedy_with(&Settings::default().with_max_new_tokens(16), big), "it changes something");
    }
}

/// Nothing may come after a 3 but at the end, and nothing forbids the 3.
#[derive(Debug)]
struct DeadEnd;

impl LogitsProcessor for DeadEnd {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        if prefix.tokens.last() == Some(&3) {
            logits.fill(f32::NEG_INFINITY);
        }
    }
}

#[test]
fn a_draft_that_leads_nowhere_fails_only_who_would_go_there() {
    let (mut fine, mut dead) = (0, 0);
    for seed in 0..300 {
        let big = random(seed, 6.0);
        let draft = blend(big.clone(), random(seed + 99, 6.0), 0.3);
        let settings = Settings::default().with_max_new_tokens(12).with_processor(DeadEnd);
        let alone = (NoDraft, Toy::new(&Arc::default(), big.clone()));
        let generator = Generator::new(alone, Lossless::default()).unwrap().with_settings(settings.clone());
        let alone = generator.generate(Source::new([2, 1]));
        let policy = Lossless { fallback: None, max_draft: NonZeroUsize::new(5) };
        match (alone, decode(draft, big, policy, settings)) {
            (Ok(alone), Ok((output, _))) => {
                assert_eq!(output.tokens, alone.tokens, "{seed}");
                fine += 1;
            }
            (Err(Error::Forbidden { at: alone }), Err(Error::Forbidden { at })) => {
                assert_eq!(at, alone, "{seed}");
                dead += 1;
            }
            (alone, found) => panic!("{seed}: {alone:?} and {found:?}"),
        }
    }
    assert!(fine > 20 && dead > 20, "{fine} {dead}");
}

/// Where a sequence ends nothing is written, so no processor is asked what may be: as with the verifier alone.
#[test]
fn nothing_need_be_allowed_after_the_last_draft() {
    #[derive(Debug)]
    struct NothingAfterTheEnd;
    impl LogitsProcessor for NothingAfterTheEnd {
        fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
            assert!(prefix.tokens.len() < prefix.limit, "there is no room");
            if prefix.tokens.last() == Some(&END) {
                logits.fill(f32::NEG_INFINITY);
            }
        }
    }
    for max_new_tokens in [2, 12] {
        let same = scripted(&[(2, 0.9), (3, 0.9)]);
        let policy = Lossless { fallback: None, max_draft: NonZeroUsize::new(10) };
        let settings = Settings::default().with_max_new_tokens(max_new_tokens).with_processor(NothingAfterTheEnd);
        let (output, _) = decode(same.clone(), same, policy, settings).unwrap();
        assert_eq!(output.tokens, [2, 3, END][..max_new_tokens.min(3)]);
        assert_eq!(output.statistics.verifier_calls, 1);
    }
}

#[test]
fn processors_are_their_definitions() {
    let source = Source::new([2, 1, 2, 4]);
    let processed_from = |start: Token, processor: &dyn LogitsProcessor, tokens: &[Token]| -> Vec<f32> {
        let mut logits: Vec<f32> = (0..VOCABULARY).map(|i| i as f32 - 3.0).collect();
        let mut prefix = Prefix::new(&source, tokens, &[END]);
        (prefix.start, prefix.limit) = (start, 4);
        processor.process(&prefix, &mut logits);
        logits
    };
    let processed = |processor: &dyn LogitsProcessor, tokens: &[Token]| processed_from(6, processor, tokens);
    let no = f32::NEG_INFINITY;
    // The start token counts as one that was written.
    let penalty = processors::RepetitionPenalty::new(2.0).unwrap();
    assert_eq!(processed(&penalty, &[5, 0, 5]), [-6.0, -2.0, -1.0, 0.0, 1.0, 1.0, 1.5, 4.0]);
    assert_eq!(processed_from(0, &penalty, &[]), [-6.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
    let bonus = processors::SourceBonus::new(2.0).unwrap();
    assert_eq!(processed(&bonus, &[5]), [-3.0, -1.0, -0.5, 0.0, 2.0, 2.0, 3.0, 4.0]);
    let ngram = processors::NoRepeatNgram::new(2).unwrap();
    assert_eq!(processed(&ngram, &[2, 3, 2, 5, 2]), [-3.0, -2.0, -1.0, no, 1.0, no, 3.0, 4.0]);
    assert_eq!(processed_from(2, &ngram, &[7, 2])[7], no);
    assert_eq!(processed(&processors::NoRepeatNgram::new(1).unwrap(), &[2])[2..7], [no, 0.0, 1.0, 2.0, no]);
    let of_source = processors::NoSourceNgram::new(2).unwrap();
    assert_eq!(processed(&of_source, &[2]), [-3.0, no, -1.0, 0.0, no, 2.0, 3.0, 4.0]);
    assert_eq!(processed_from(1, &of_source, &[])[2], no);
    assert_eq!(processed(&processors::NoSourceNgram::new(4).unwrap(), &[2]), processed(&ngram, &[]));
    assert_eq!(processed(&processors::MinLength(2), &[2])[END as usize], no);
    assert_eq!(processed(&processors::MinLength(2), &[2, 2])[END as usize], -2.0);
    assert_eq!(processed(&processors::ForcedFirst(3), &[])[2..5], [no, 0.0, no]);
    assert_eq!(processed(&processors::ForcedFirst(3), &[3])[2..5], [-1.0, 0.0, 1.0]);
    let last = processors::ForcedLast(vec![3, 4, 99]);
    assert_eq!(processed(&last, &[2, 2])[2..6], [-1.0, 0.0, 1.0, 2.0]);
    assert_eq!(processed(&last, &[2, 2, 2])[2..6], [no, 0.0, 0.0, no]);
    let suppress = processors::Suppress(vec![2, 99]);
    assert_eq!(processed(&suppress, &[5])[1..4], [-2.0, no, 0.0]);
    let at = processors::SuppressAt { at: 1, tokens: vec![2] };
    assert_eq!([0, 1, 2].map(|n| processed(&at, &vec![5; n])[2]), [-1.0, no, -1.0]);
    let decay = processors::LengthDecay { after: 1, factor: 2.0 };
    assert_eq!([1, 2, 3].map(|n| processed(&decay, &vec![5; n])[END as usize]), [-2.0, 0.0, 4.0]);
    let bias = processors::SequenceBias(vec![(vec![2], 0.5), (vec![4, 2], -8.0), (vec![], 9.0), (vec![99], 1.0)]);
    assert_eq!([3, 4].map(|token| processed(&bias, &[token])[2]), [-0.5, -8.5]);
    let bad = processors::BadWords(vec![vec![2], vec![4, 5], vec![], vec![99], vec![END], vec![6, 3]]);
    assert_eq!(processed(&bad, &[4])[1..6], [-2.0, no, 0.0, 1.0, no]);
    assert_eq!(processed(&bad, &[3])[5], 2.0);
    let from_start = processors::SequenceBias(vec![(vec![0, 2], -8.0), (vec![0, 4, 2], -8.0)]);
    assert_eq!([&[][..], &[4], &[3]].map(|tokens| processed_from(0, &from_start, tokens)[2]), [-9.0, -9.0, -1.0]);
}

#[test]
fn generation_settings_of_a_checkpoint() {
    let read = |json: serde_json::Value| serde_json::from_value::<GenerationConfig>(json).unwrap();
    let length = |json| read(json).settings(Settings::default()).unwrap().max_new_tokens;
    assert_eq!(length(json!({})), 128);
    assert_eq!(length(json!({"max_length": 9})), 8);
    assert_eq!(length(json!({"max_length": 20})), 20);
    assert_eq!(length(json!({"max_length": 20, "transformers_version": "5.23.0"})), 19);
    assert_eq!(length(json!({"max_length": 9, "max_new_tokens": 30})), 30);
    let first_bias = |json| {
        let settings = read(json).settings(Settings::default()).unwrap();
        let mut logits = [0.0; 9];
        let processor = &settings.processors[0];
        processor.process(&bild_core::Prefix::new(&Source::new([5]), &[], &[END]), &mut logits);
        [logits[7], logits[8]]
    };
    let biases = json!({"sequence_bias": [[[0, 7], -1.0], [[8], 1.0], [[8], 2.0]]});
    assert_eq!(first_bias(biases.clone()), [0.0, 2.0], "version 4 does not look at the start token");
    let mut of_5 = biases;
    of_5["transformers_version"] = "5.24.0".into();
    assert_eq!(first_bias(of_5), [-1.0, 2.0], "of equal sequences the last one holds");
    let settings = read(json!({"max_time": 1.5})).settings(Settings::default()).unwrap();
    assert_eq!(settings.deadline, Some(std::time::Duration::from_millis(1500)));
    let sampling = |json| read(json).sampling().unwrap().map(|policy| serde_json::to_value(policy).unwrap());
    assert_eq!(sampling(json!({"temperature": 0.5})), None);
    let found = sampling(json!({"do_sample": true, "temperature": 0.5})).unwrap();
    assert_eq!((&found["temperature"], &found["top_k"], &found["top_p"]), (&json!(0.5), &json!(50), &json!(1.0)));
    assert_eq!(sampling(json!({"do_sample": true, "top_k": null})).unwrap()["top_k"], json!(null));
    assert_eq!(sampling(json!({"do_sample": true, "top_k": 0})).unwrap()["top_k"], json!(null));
    assert!(sampling(json!({"do_sample": true, "top_p": 0})).unwrap()["top_p"].as_f64().unwrap() < 1e-30);
    assert_eq!(sampling(json!({"do_sample": false, "temperature": 0.0, "top_p": 0.0})), None);

    assert_eq!(read(json!({"stop_strings": "\n"})).stop_strings(), ["\n"]);
    assert_eq!(read(json!({"stop_strings": ["a", "b"]})).stop_strings(), ["a", "b"]);
    let quiet = json!({"typical_p": 0.5, "min_p": 0.1, "num_beams": 1, "length_penalty": 2.0, "guidance_scale": 1.0});
    assert!(read(quiet.clone()).warnings().is_empty());
    for (field, value) in [
        ("num_beams", json!(2)),
        ("num_return_sequences", json!(3)),
        ("penalty_alpha", json!(0.6)),
        ("force_words_ids", json!([[3]])),
        ("forced_decoder_ids", json!([[1, 5]])),
        ("min_length", json!(130)),
        ("min_new_tokens", json!(1_000_000_000_000u64)),
        ("constraints", json!([])),
        ("dola_layers", json!("high")),
        ("guidance_scale", json!(1.5)),
        ("watermarking_config", json!({"bias": 2.5})),
        ("token_healing", json!(true)),
    ] {
        let warnings = read(json!({ field: value })).warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("`{field}`")), "{warnings:?}");
    }
    let mut samples = quiet;
    samples["do_sample"] = json!(true);
    assert_eq!(read(samples).warnings().len(), 2);
}

/// A warning as in transformers, where more tokens are the least than are the most.
#[test]
fn a_least_length_above_the_most() {
    let warnings = |json| serde_json::from_value::<GenerationConfig>(json).unwrap().warnings();
    assert_eq!(
        warnings(json!({"min_new_tokens": 9, "max_new_tokens": 8})),
        ["`min_new_tokens` is 9, but at most 8 tokens are written if no other limit is set: no text ends by itself"]
    );
    assert!(warnings(json!({"min_length": 9, "max_length": 8}))[0].starts_with("`min_length` is 9, but at most 7"));
    for fine in [
        json!({"min_new_tokens": 8, "max_new_tokens": 8}),
        json!({"min_length": 8, "max_length": 8}),
        json!({"min_length": 12, "max_length": 20}),
        json!({"min_length": 50, "min_new_tokens": 2, "max_length": 20}),
    ] {
        assert!(warnings(fine.clone()).is_empty(), "{fine}");
    }
}

/// Every field that is read, on both sides of its limits; whether it would be used or not.
#[test]
fn generation_settings_are_in_their_ranges() {
    let read = |json| serde_json::from_value::<GenerationConfig>(json).map_err(|error| error.to_string());
    let whole = "a whole number, at least 0";
    let penalty = "a number from 0.001 to 1000";
    for (field, wrong, expected, right) in [
        ("max_length", json!([-1, 0, 1, 2.5, "20"]), "a whole number", json!([2, 20, 65_538, null])),
        ("max_new_tokens", json!([-1, 0, 1e30]), "a whole number", json!([1, 65_537, null])),
        ("min_length", json!([-1, 0.5]), whole, json!([0, 1, null])),
        ("min_new_tokens", json!([-1, "3"]), whole, json!([0, 100_000, null])),
        ("max_time", json!([-1, -1e-9, 1e13]), "a number of seconds from 0", json!([0, 0.5, 1e12, null])),
        ("stop_strings", json!([3, [3]]), "one or a list of them", json!(["a", ["a", "b"], null])),
        ("do_sample", json!([1, "true"]), "true or false", json!([false, null])),
        ("temperature", json!([-1, -0.5, 1e300]), "a number, at least 0", json!([0, 0.5, 30, null])),
        ("top_k", json!([-1, 0.5, "all"]), whole, json!([0, 50, null])),
        ("top_p", json!([-0.5, 1.5, 7]), "a probability in [0, 1]", json!([0, 0.5, 1, null])),
        (
            "sequence_bias",
            json!([[[[], 1.0]], [[[3], 1e300]], [[3, 1.0]], [[[-3], 1.0]], 3]),
            "a ",
            json!([[], [[[3], -1.0], [[3, 4], 0]], null]),
        ),
        ("encoder_repetition_penalty", json!([0, -2, 1e-300, 1001]), penalty, json!([0.001, 1, 1000, null])),
        ("repetition_penalty", json!([0, -2, 1e-300, 1001]), penalty, json!([0.001, 1, 1000, null])),
        ("no_repeat_ngram_size", json!([-1, 1.5]), whole, json!([0, 3, null])),
        ("encoder_no_repeat_ngram_size", json!([-1, 1.5]), whole, json!([0, 3, null])),
        ("bad_words_ids", json!([[[]], [[3], []], [[-1]], [3]]), "a ", json!([[], [[3]], [[3, 4]], null])),
        ("forced_bos_token_id", json!([-1, [3]]), whole, json!([0, 99_999, null])),
        ("forced_eos_token_id", json!([-1, [-1]]), "one or a list of them", json!([3, [3, 4], null])),
        (
            "exponential_decay_length_penalty",
            json!([[3, 0.0], [3, -1.5], [-3, 1.5], [3], [3, 1e300]]),
            "a ",
            json!([[0, 1.5], [3, 0.5], null]),
        ),
        ("suppress_tokens", json!([3, ["a"]]), "a ", json!([[], [-1, 3], null])),
        ("begin_suppress_tokens", json!([3, ["a"]]), "a ", json!([[], [-1, 3], null])),
        ("num_beams", json!([0, -1]), "a whole number, at least ", json!([1, 4, null])),
        ("num_return_sequences", json!([0, -1]), "a whole number, at least ", json!([1, 4, null])),
        ("penalty_alpha", json!([1e300, "a"]), "a number", json!([-1, 0.6, null])),
        ("guidance_scale", json!([1e300, "a"]), "a number", json!([-1, 1.5, null])),
        ("token_healing", json!([1]), "true or false", json!([false, true, null])),
        ("min_p", json!([-0.1, 1.1]), "a probability in [0, 1]", json!([0, 1, null])),
        ("top_h", json!([-0.1, 1.1]), "a number in [0, 1]", json!([0.4, 1, null])),
        ("typical_p", json!([-0.1, 1.1]), "a probability in [0, 1]", json!([0, 1, null])),
        ("epsilon_cutoff", json!([-0.1, 1.1]), "a probability in [0, 1]", json!([0, 1, null])),
        ("eta_cutoff", json!([-0.1, 1.1]), "a probability in [0, 1]", json!([0, 1, null])),
    ] {
        for wrong in wrong.as_array().unwrap() {
            let Err(found) = read(json!({ field: wrong })) else { panic!("{field} is {wrong}") };
            let found = bild_core::plain_words(found);
            assert!(found.rsplit("expected ").next().unwrap().starts_with(expected), "{field} is {wrong}: {found}");
        }
        for right in right.as_array().unwrap() {
            let found = read(json!({ field: right })).and_then(|config| {
                config.sampling().map_err(|error| error.to_string())?;
                config.settings(Settings::default()).map_err(|error| error.to_string())
            });
            assert!(found.is_ok(), "{field} is {right}: {found:?}");
        }
    }
    for (wrong, says) in [
        (
            json!({"do_sample": true, "temperature": 0}),
            "`temperature` is 0, expected a number above 0 where `do_sample`",
        ),
        (json!({"do_sample": true, "temperature": 1e-300}), "`temperature` is 0, expected a number above 0"),
        (
            json!({"forced_bos_token_id": 3, "suppress_tokens": [2, 3]}),
            "`forced_bos_token_id` is [3], expected a token",
        ),
        (
            json!({"forced_eos_token_id": [3, 2], "suppress_tokens": [2, 3]}),
            "`forced_eos_token_id` is [3, 2], expected",
        ),
    ] {
        let found = read(wrong).unwrap_err();
        assert!(found.starts_with(says), "{found}");
    }
    for fine in [
        json!({"max_length": 1, "max_new_tokens": 9}),
        json!({"forced_eos_token_id": [3, 4], "suppress_tokens": [3]}),
        json!({"early_stopping": "nonsense", "length_penalty": -1e9}),
    ] {
        assert!(read(fine.clone()).is_ok(), "{fine}");
    }
}

#[test]
fn what_forbids_everything_is_an_error() {
    let settings = Settings::default().with_processor(processors::Suppress((0..VOCABULARY as Token).collect()));
    let fine = scripted(&[(2, 0.9)]);
    let found = decode(fine.clone(), fine, Lossless::default(), settings).unwrap_err();
    assert!(matches!(found, Error::Forbidden { at: 0 }), "{found}");
}

#[test]
fn many_sources_keep_their_order_and_one_failure_loses_no_other() {
    struct Poisoned(Toy);
    impl bild_core::VerifierModel for Poisoned {
        fn vocabulary(&self) -> &bild_core::Vocabulary {
            self.0.vocabulary()
        }
    }
    impl bild_core::Model for Poisoned {
        type Session = toy::ToySession;
        fn begin(&self, source: &Source, limit: &SessionLimit) -> bild_core::Result<toy::ToySession> {
            match source.tokens()[0] {
                400 => Err(Error::model("poison")),
                500 => panic!("worse"),
                _ => self.0.begin(source, limit),
            }
        }
    }
    let model = Poisoned(Toy::new(&Arc::default(), random(1, 6.0)));
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
    let mut results = Vec::new();
    generator.generate_many((0..1000).map(|i| Source::new([i])), |i, result| {
        assert_eq!(i, results.len());
        results.push(result);
    });
    assert_eq!(results.len(), 1000);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 998);
    assert_eq!(results[400].as_ref().unwrap_err().to_string(), "poison");
    assert_eq!(results[500].as_ref().unwrap_err().to_string(), "the generation panicked: worse");
}

/// The unit of time that prices are in makes no difference.
#[test]
fn prices_have_no_unit() {
    let policy = |unit: f64| {
        let prices = Prices::new(0.2 * unit, unit, 0.01 * unit).unwrap();
        CostAware::default().with_prices(prices)
    };
    let passes = |unit| {
        let big = random(3, 6.0);
        let draft = blend(big.clone(), random(102, 6.0), 0.3);
        let settings = Settings::default().with_max_new_tokens(60).with_end_tokens([]);
        let (output, calls) = decode(draft, big, policy(unit), settings).unwrap();
        (output.tokens, calls)
    };
    let expected = passes(1.0);
    for unit in [1e-300, 1e-12, 1024.0, 1e11] {
        assert_eq!(passes(unit), expected, "{unit}");
    }
}

/// Generations that share what was learned do not wait for each other while the policy within thinks.
#[test]
fn what_is_learned_is_not_held_while_the_policy_decides() {
    /// Goes on once two are asked at the same time.
    struct Meets(Arc<Barrier>);
    impl Policy for Meets {
        fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
            Box::new(Self(self.0.clone()))
        }
    }
    impl PolicyState for Meets {
        fn drafted(&mut self, _at: &Context<'_>, row: &Row) -> Draft {
            self.0.wait();
            Draft::KeepLast(row.argmax)
        }
        fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
            Verdict::first_refused(drafts, rows, |_, _| false)
        }
    }
    let prices = Prices::new(0.1, 1.0, 0.01).unwrap(); // without them the second reads no source before it is known what that costs
    let policy = Arc::new(CostAware::new(Meets(Arc::new(Barrier::new(2)))).with_prices(prices));
    let (done, all) = mpsc::channel();
    for _ in 0..2 {
        let (policy, done) = (policy.clone(), done.clone());
        thread::spawn(move || {
            let same = scripted(&[(2, 0.9)]);
            let settings = Settings::default().with_max_new_tokens(1);
            done.send(decode(same.clone(), same, policy, settings).is_ok())
        });
    }
    for _ in 0..2 {
        assert!(all.recv_timeout(Duration::from_secs(60)).expect("neither waits for the other"));
    }
}
