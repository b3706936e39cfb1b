//! What holds for every generation: streaming, interruption, limits on the source, errors that are sentences.

mod toy;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bild_core::{
    CancelToken, Context, DraftModel, Drafted, Error, Event, Finish, Generator, Model, NoDraft, Overflow, Pair, Pieces,
    Policy, PolicyState, Request, Result, Row, SessionLimit, Settings, Source, Start, Then, Token, Verdict,
    VerifierModel, Vocabulary,
};
use bild_policies::{Bild, HighCrossEntropy, Lossless, LowProbability};
use toy::{END, Toy, ToySession, blend, decode, random, scripted};

fn pair(seed: u64) -> (Toy, Toy) {
    let calls = Arc::default();
    let big = random(seed, 6.0);
    (Toy::new(&calls, blend(big.clone(), random(seed + 99, 6.0), 0.4)), Toy::new(&calls, big))
}

fn source() -> Source {
    Source::new([2, 1])
}

#[test]
fn a_stream_commits_exactly_the_output_in_order() {
    for seed in 0..200 {
        let generator = Generator::new(pair(seed), Bild::new(0.3, 1.0).unwrap()).unwrap();
        let output = generator.generate(source()).unwrap();
        assert!(output.events.is_empty(), "events are kept on request only");
        let mut tentative: Vec<Token> = Vec::new();
        let mut committed = Vec::new();
        let events: Vec<Event> = generator.stream(source()).unwrap().map(Result::unwrap).collect();
        for event in &events {
            match *event {
                Event::Drafted { at, token, .. } => {
                    assert_eq!(at, tentative.len());
                    tentative.push(token);
                }
                Event::Rollback { at, dropped } => {
                    assert_eq!(at + dropped, tentative.len());
                    tentative.truncate(at);
                }
                Event::Committed { at, token, .. } => {
                    assert_eq!(at, committed.len());
                    committed.push(token);
                    tentative.truncate(tentative.len().max(at));
                    if at == tentative.len() {
                        tentative.push(token);
                    }
                    assert_eq!(tentative[at], token, "what was drafted and not rolled back is what is committed");
                }
                _ => {}
            }
        }
        assert_eq!(committed, output.tokens);
        assert_eq!(events.last(), Some(&Event::Finished { finish: output.finish }));
        let traced = generator
            .stream(Request::new(source()).with_settings(Settings::default().with_trace(true)))
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(traced.events, events);
    }
}

#[test]
fn a_stream_can_be_finished_half_way() {
    let generator = Generator::new(pair(3), Lossless::default()).unwrap();
    let expected = generator.generate(source()).unwrap();
    let mut stream = generator.stream(source()).unwrap();
    stream.next().unwrap().unwrap();
    let output = stream.finish().unwrap();
    assert_eq!(output.tokens, expected.tokens);
    assert!(output.events.is_empty());
}

#[test]
fn cancelling_ends_between_steps_and_leaves_drafts_out() {
    let cancel = CancelToken::default();
    let endless = scripted(&[(2, 0.9); 100]);
    let calls = Arc::default();
    let generator = Generator::new((Toy::new(&calls, endless.clone()), Toy::new(&calls, endless)), Bild::default())
        .unwrap()
        .with_settings(Settings::default().with_cancel(cancel.clone()));
    let mut stream = generator.stream(source()).unwrap();
    for event in &mut stream {
        if matches!(event.unwrap(), Event::Drafted { at: 12, .. }) {
            cancel.cancel();
        }
    }
    let output = stream.finish().unwrap();
    assert_eq!(output.finish, Finish::Cancelled);
    assert_eq!(output.tokens.len(), 11, "ten drafts and the verifier's token stand, two drafts were pending");
    assert_eq!(output.tokens.len(), output.log_probs.len());
    assert!(generator.generate(source()).unwrap().tokens.is_empty(), "a cancelled token stays cancelled");
}

#[test]
fn a_deadline_ends_a_generation_that_would_not_end() {
    let slow = Arc::new(|_: &[Token]| {
        std::thread::sleep(Duration::from_millis(2));
        toy::peaked(2, 0.9)
    });
    let settings = Settings::default().with_max_new_tokens(10_000).with_deadline(Duration::from_millis(40));
    let begun = Instant::now();
    let (output, _) = decode(slow.clone(), slow, Lossless::default(), settings).unwrap();
    assert_eq!(output.finish, Finish::Deadline);
    assert!(!output.tokens.is_empty() && begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn one_model_alone_is_the_same_loop() {
    let calls = Arc::default();
    let big = scripted(&[(2, 0.9), (3, 0.2)]);
    let generator = Generator::new((NoDraft, Toy::new(&calls, big)), Lossless::default()).unwrap();
    let output = generator.generate(source()).unwrap();
    assert_eq!(output.tokens, [2, 3, END]);
    assert_eq!((output.statistics.draft_steps, output.statistics.verifier_calls), (0, 3));
    assert_eq!(output.statistics.block_efficiency(), Some(1.0));
    assert_eq!(output.statistics.acceptance_rate(), None);
}

#[test]
fn threads_share_one_generator() {
    let generator = Generator::new(pair(5), Bild::default()).unwrap();
    let expected = generator.generate(source()).unwrap().tokens;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(generator.generate(source()).unwrap().tokens, expected));
        }
    });
}

/// The error of one decoding with these settings and this source, as its user reads it.
fn error(settings: Settings, source: &[Token]) -> String {
    let generator = Generator::new(pair(1), Bild::default()).unwrap().with_settings(settings);
    generator.generate(Source::new(source)).unwrap_err().to_string()
}

#[test]
fn bad_input_is_a_sentence() {
    let settings = Settings::default();
    assert!(error(settings.clone(), &[]).contains("source is empty"));
    assert!(error(settings.clone().with_max_new_tokens(0), &[2]).contains("max_new_tokens is 0"));
    assert!(error(settings.clone().with_max_new_tokens(usize::MAX), &[2]).contains("at most 65536"));
    let long = error(settings.clone().with_max_source_tokens(3, Overflow::Error), &[2; 4]);
    assert!(long.contains("4 tokens") && long.contains("limit is 3"), "{long}");
    assert!(error(settings.with_max_source_tokens(0, Overflow::Truncate), &[2]).contains("max_source_tokens is 0"));
}

#[test]
fn a_truncated_source_keeps_its_end() {
    struct Mirror(Vocabulary, Arc<std::sync::Mutex<Vec<Token>>>);
    impl VerifierModel for Mirror {
        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }
    }
    impl Model for Mirror {
        type Session = ToySession;
        fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<ToySession> {
            *self.1.lock().unwrap() = source.tokens().to_vec();
            Toy::new(&Arc::default(), scripted(&[])).begin(source, limit)
        }
    }
    let seen = Arc::default();
    let vocabulary = Vocabulary::new(toy::VOCABULARY, 0, [END]);
    let settings = Settings::default().with_max_source_tokens(3, Overflow::Truncate);
    let generator = Generator::new((NoDraft, Mirror(vocabulary, Arc::clone(&seen))), Lossless::default())
        .unwrap()
        .with_settings(settings);
    for (source, expected) in
        [(&[4, 5, 6, 7, END][..], [4, 5, END]), (&[4, 5, 6, 7], [4, 5, 6]), (&[4, 5, END], [4, 5, END])]
    {
        generator.generate(Source::new(source)).unwrap();
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}

#[test]
fn broken_logits_name_the_model_and_the_place() {
    let broken = Arc::new(|generated: &[Token]| {
        let mut logits = toy::peaked(2, 0.9);
        logits[3] = if generated.len() == 2 { f32::NAN } else { logits[3] };
        logits
    });
    let fine = scripted(&[(2, 0.9); 9]);
    let found = decode(broken.clone(), fine.clone(), Lossless::default(), Settings::default()).unwrap_err();
    assert!(matches!(found, Error::NotFiniteAt { role: bild_core::Role::Draft, at: 2 }), "{found}");
    let found = decode(fine, broken, Lossless::default(), Settings::default()).unwrap_err();
    assert!(found.to_string().contains("verifier model gave logits that hold NaN"), "{found}");
}

#[test]
fn a_failed_stream_ends_and_says_so() {
    let broken = Arc::new(|_: &[Token]| vec![f32::NAN; toy::VOCABULARY]);
    let calls = Arc::default();
    let pair = (Toy::new(&calls, broken.clone()), Toy::new(&calls, broken));
    let mut stream = Generator::new(pair, Lossless::default()).unwrap().stream(source()).unwrap();
    assert!(stream.next().unwrap().is_err());
    assert!(stream.next().is_none());
    assert!(matches!(stream.finish(), Err(Error::AlreadyFailed)));
}

#[test]
fn a_verdict_that_cannot_be_carried_out_is_an_error() {
    #[derive(Clone)]
    struct Greedy;
    impl Policy for Greedy {
        fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
            Box::new(Greedy)
        }
    }
    impl PolicyState for Greedy {
        fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], _rows: &[Row]) -> Verdict {
            Verdict { accepted: drafts.len() + 1, next: 2, then: Then::Draft }
        }
    }
    let fine = scripted(&[(2, 0.9)]);
    let found = decode(fine.clone(), fine, Greedy, Settings::default()).unwrap_err();
    assert!(matches!(found, Error::Verdict { accepted: 3, drafts: 2 }), "{found}");
}

#[test]
fn pairs_that_do_not_fit_are_refused_by_name() {
    struct Named(Vocabulary);
    impl DraftModel for Named {
        fn speaks(&self) -> Option<&Vocabulary> {
            Some(&self.0)
        }
    }
    impl Model for Named {
        type Session = NoDraft;
        fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<NoDraft> {
            Ok(NoDraft)
        }
    }
    let pieces = |fifth: &'static str| {
        let piece = move |token| if token == 5 { fifth.to_owned() } else { format!("p{token}") };
        Pieces::new(fifth.len() as u64, move |token| Some(piece(token)))
    };
    let plain = |size, start, end: &[Token]| Vocabulary::new(size, start, end);
    let named = |fifth| plain(toy::VOCABULARY, 0, &[END]).with_pieces(pieces(fifth));
    let refused = |draft: Vocabulary| {
        let (_, mut verifier) = pair(0);
        verifier.set_pieces(Some(pieces("Tom")));
        (Named(draft), verifier).check().map_err(|error| error.to_string())
    };
    assert!(refused(named("Tom")).is_ok());
    assert!(refused(plain(toy::VOCABULARY, 0, &[END])).is_ok());
    for (other, what) in [
        (plain(9, 0, &[END]), "vocabulary size of the draft model is 9, of the verifier 8"),
        (plain(toy::VOCABULARY, 1, &[END]), "start token of the draft model is 1"),
        (plain(toy::VOCABULARY, 0, &[END, 3]), "end-of-sequence tokens of the draft model is [1, 3]"),
        (named("Anna"), "token 5, the first that differs, of the draft model is \"Anna\""),
    ] {
        let sentence = refused(other).unwrap_err();
        assert!(sentence.contains(what), "{sentence}");
    }
}

#[test]
fn thresholds_are_checked_wherever_they_come_from() {
    for bad in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        assert!(LowProbability::new(bad).unwrap_err().to_string().contains("fallback threshold"));
    }
    for bad in [-0.1, f32::NAN, f32::NEG_INFINITY] {
        assert!(HighCrossEntropy::new(bad).unwrap_err().to_string().contains("rollback threshold"));
    }
    let parse = |json: &str| serde_json::from_str::<Bild>(json).map_err(|error| error.to_string());
    assert_eq!(parse(r#"{"fallback":0.5,"rollback":2.0}"#).unwrap(), Bild::default());
    assert_eq!(parse("{}").unwrap(), Bild::default());
    assert_eq!(parse(r#"{"fallback":0.5,"rollback":"inf","max_draft":null}"#).unwrap().rollback.alpha(), f32::INFINITY);
    for (json, what) in [
        (r#"{"fallback":1.5,"rollback":2}"#, "fallback threshold is 1.5"),
        (r#"{"fallback":0.5,"rollback":-2}"#, "rollback threshold is -2"),
        (r#"{"fallback":0.5,"rollback":"nan"}"#, "a number of nats, \"inf\", or a rule by name"),
        (r#"{"fallback":0.5,"rollback":2,"max_draft":0}"#, "nonzero"),
        (r#"{"fallback":0.5,"rollback":2,"rolback":2}"#, "unknown field `rolback`"),
        (r#"{"fallback":0.5,"rollback":2,"variant":"papier"}"#, "unknown variant `papier`"),
    ] {
        let sentence = parse(json).unwrap_err();
        assert!(sentence.contains(what), "{json}: {sentence}");
    }
    for policy in [Bild::default(), Bild::new(0.0, f32::INFINITY).unwrap().with_max_draft(None)] {
        assert_eq!(parse(&serde_json::to_string(&policy).unwrap()).unwrap(), policy);
    }
    for policy in [Lossless::default(), Lossless { fallback: None, max_draft: None }] {
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Lossless>(&json).unwrap(), policy);
    }
    let settings = Settings::default().with_deadline(Duration::from_millis(1500)).with_stop_tokens([4]);
    let json = serde_json::to_string(&settings).unwrap();
    let back: Settings = serde_json::from_str(&json).unwrap();
    assert_eq!((back.deadline, back.stop_tokens), (Some(Duration::from_millis(1500)), vec![4]));
    for (json, says) in [
        (r#"{"deadline":-1}"#, "found -1, expected a number of seconds, at least 0"),
        (r#"{"max_new_tokens":-1}"#, "found -1, expected a whole number, at least 0"),
        (r#"{"stop_tokens":4}"#, "found 4, expected a list"),
        (r#"{"trace":"yes"}"#, "found \"yes\", expected true or false"),
        ("3", "found 3, expected an object"),
    ] {
        let found = serde_json::from_str::<Settings>(json).unwrap_err().to_string();
        assert!(found.starts_with(says), "{json}: {found}");
    }
}

#[test]
fn policies_are_object_safe() {
    let policies: Vec<Box<dyn Policy>> = vec![Box::new(Bild::default()), Box::new(Lossless::default())];
    for policy in policies {
        Generator::new(pair(2), policy).unwrap().generate(source()).unwrap();
    }
}
