//! What others hand over, looked at before it is used: rows of a model of one's own, tokens of policies, processors and
//! settings, settings from a request. Each is an error that says who did it; nothing panics.

mod toy;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bild_core::{
    CancelToken, Context, Draft, DraftModel, DraftSession, Drafted, Error, Finish, Generator, LogitsProcessor, Model,
    NoDraft, Overflow, Pair, PairSession, Pass, Policy, PolicyState, Prefix, Request, Result, Row, Rows, SessionLimit,
    Settings, Source, Start, Then, Token, Verdict, VerifierModel, VerifierSession, Vocabulary, Want,
};
use bild_policies::{
    Atypical, Bild, FallbackRule, HighDivergence, Lossless, LowRank, RandomFallback, RollbackRule, Sampling,
    SmallMargin,
};
use toy::{END, START, Toy, VOCABULARY, random, scripted};

/// A model that returns the same row whatever it is asked.
#[derive(Clone)]
struct Foreign(Row, Vocabulary);

impl Foreign {
    fn new(row: Row) -> Self {
        Self(row, Vocabulary::new(VOCABULARY, START, [END]))
    }
}

impl Model for Foreign {
    type Session = Self;
    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<Self> {
        Ok(self.clone())
    }
}

impl DraftModel for Foreign {}

impl VerifierModel for Foreign {
    fn vocabulary(&self) -> &Vocabulary {
        &self.1
    }
}

impl DraftSession for Foreign {
    fn propose(&mut self, _pass: &Pass<'_>) -> Result<Rows> {
        Ok(self.0.clone().into())
    }
}

impl VerifierSession for Foreign {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        Ok(vec![self.0.clone(); pass.new.len()].into())
    }
}

fn toy() -> Toy {
    Toy::new(&Arc::default(), random(1, 6.0))
}

/// Rows that no distribution has, with what is said of each.
fn broken_rows() -> Vec<(Row, &'static str)> {
    let row = |argmax, probability| Row::new(argmax, probability);
    let mut short = Row::from_logits(&[0.0, 1.0], Want::default().with_logits(), None).unwrap();
    short.argmax = 7; // within the vocabulary, beyond its own logits
    let mut nan = Row::from_logits(&[0.0; VOCABULARY], Want::default().with_logits(), None).unwrap();
    nan.logits = Some([0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0].into());
    let mut entropy = row(1, 0.5);
    entropy.entropy = Some(f32::NAN);
    vec![
        (row(99, 0.5), "its most likely token is 99, of a vocabulary of 8"),
        (row(1, 5.0), "the probability of its most likely token is 5"),
        (row(1, -0.1), "is -0.1"),
        (row(1, f32::NAN), "is NaN"),
        (short, "it has 2 logits, of a vocabulary of 8"),
        (entropy, "entropy"),
        (nan, "its logits hold NaN"),
    ]
}

#[test]
fn rows_of_a_foreign_model_are_looked_at() {
    for (row, says) in broken_rows() {
        let drafts = Generator::new((Foreign::new(row.clone()), toy()), Lossless::default()).unwrap();
        let found = drafts.generate(Source::new([2])).unwrap_err().to_string();
        assert!(found.contains("the draft model returned a row") && found.contains(says), "{found}");
        let verifies = Generator::new((NoDraft, Foreign::new(row)), Lossless::default()).unwrap();
        let found = verifies.generate(Source::new([2])).unwrap_err().to_string();
        assert!(found.contains("the verifier model returned a row") && found.contains(says), "{found}");
    }
}

#[test]
fn rules_do_not_index_what_they_are_handed() {
    for (row, _) in broken_rows() {
        let draft = Drafted::new(99, row.clone());
        let _ = LowRank::new(3).unwrap().refuses(&draft, &row);
        let _ = HighDivergence::new(1.0).unwrap().refuses(&draft, &row);
        let _ = Atypical::new(0.1, 0.1).unwrap().refuses(&draft, &row);
    }
}

/// Says one token that does not exist, as a draft or as the verifier's.
#[derive(Clone)]
struct Beyond {
    drafts: bool,
}

impl Policy for Beyond {
    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

impl PolicyState for Beyond {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        let mut beyond = row.clone();
        (beyond.argmax, beyond.logits) = (99, Some([0.0].into()));
        assert!(SmallMargin::new(0.5).unwrap().falls_back(at, &beyond));
        if self.drafts { Draft::KeepLast(99) } else { Draft::FallBack }
    }
    fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], _rows: &[Row]) -> Verdict {
        Verdict { accepted: drafts.len(), next: 77, then: Then::Draft }
    }
}

#[test]
fn tokens_of_a_policy_are_looked_at() {
    for (drafts, token) in [(true, 99), (false, 77)] {
        let generator = Generator::new((toy(), toy()), Beyond { drafts }).unwrap();
        let found = generator.generate(Source::new([2])).unwrap_err();
        assert!(matches!(found, Error::TokenOutOfRange { token: t, size: VOCABULARY, .. } if t == token), "{found}");
        assert!(found.to_string().contains("that the policy chose"), "{found}");
    }
}

#[test]
fn settings_have_bounds() {
    let refused = |settings: Settings| {
        let generator = Generator::new((NoDraft, toy()), Lossless::default()).unwrap().with_settings(settings);
        generator.generate(Source::new([2])).unwrap_err().to_string()
    };
    let default = Settings::default;
    let json = |text| serde_json::from_str::<Settings>(text).unwrap();
    for (settings, says) in [
        (default().with_max_new_tokens(0), "max_new_tokens is 0, expected at least 1 and at most 65536"),
        (json(r#"{"max_new_tokens":1000000}"#), "max_new_tokens is 1000000"),
        (default().with_max_source_tokens(0, Overflow::Truncate), "max_source_tokens is 0, expected"),
        (json(r#"{"max_source_tokens":18446744073709551615}"#), "max_source_tokens is 18446744073709551615"),
        (default().with_end_tokens([99]), "token 99 of the setting `end_tokens` is outside"),
        (default().with_stop_tokens([1, 8]), "token 8 of the setting `stop_tokens` is outside"),
    ] {
        let found = refused(settings);
        assert!(found.contains(says), "{found}");
    }
}

/// Makes what nothing can be read from, or names a token that does not exist.
#[derive(Debug)]
enum Bad {
    Nan,
    Infinity,
    Names(Token),
}

impl LogitsProcessor for Bad {
    fn process(&self, _prefix: &Prefix<'_>, logits: &mut [f32]) {
        match self {
            Self::Nan => logits[3] = f32::NAN,
            Self::Infinity => logits[3] = f32::INFINITY,
            Self::Names(_) => {}
        }
    }
    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        let Self::Names(token) = self else { return Ok(()) };
        vocabulary.check(*token, || "that Bad names".into())
    }
}

#[test]
fn errors_blame_who_did_it() {
    let found = |model: Toy, processor: Bad| {
        let settings = Settings::default().with_processor(processor);
        Generator::new((NoDraft, model), Lossless::default())
            .unwrap()
            .with_settings(settings)
            .generate(Source::new([2]))
    };
    for (bad, name) in [(Bad::Nan, "Nan"), (Bad::Infinity, "Infinity")] {
        let sentence = found(toy(), bad).unwrap_err().to_string();
        assert!(sentence.contains(&format!("the logits processor {name} made logits")), "{sentence}");
    }
    let broken = Toy::new(&Arc::default(), Arc::new(|_: &[Token]| vec![f32::NAN; VOCABULARY]));
    let sentence = found(broken, Bad::Nan).unwrap_err().to_string();
    assert!(sentence.contains("the verifier model gave logits that hold NaN"), "{sentence}");
    let sentence = found(toy(), Bad::Names(8)).unwrap_err().to_string();
    assert!(sentence.contains("token 8 that Bad names is outside the model's vocabulary of 8"), "{sentence}");
}

#[test]
fn each_of_many_sources_has_a_seed_of_its_own() {
    let generator = |seed| {
        let policy = Sampling::new(1.0).unwrap();
        let settings = Settings::default().with_max_new_tokens(24).with_seed(seed).with_end_tokens([]);
        Generator::new((NoDraft, toy()), policy).unwrap().with_settings(settings)
    };
    let many = |seed, at_once| {
        let mut written = Vec::new();
        let sources = (0..6).map(|_| Source::new([2, 3]));
        let generator = generator(seed).with_at_once(NonZeroUsize::new(at_once).unwrap());
        generator.generate_many(sources, |_, output| written.push(output.unwrap().tokens));
        written
    };
    let written = many(7, 1);
    assert_eq!(written, many(7, 3));
    for (i, tokens) in written.iter().enumerate() {
        assert_eq!(*tokens, generator(7 + i as u64).generate(Source::new([2, 3])).unwrap().tokens);
        assert!(!written[..i].contains(tokens), "two sources had the same luck");
    }
    // And so has each source by itself, with the same seed.
    let of = |source: Token| generator(7).generate(Source::new([source])).unwrap().tokens;
    assert_ne!(of(2), of(3));
    assert_eq!(of(2), of(2));
}

/// A pair that takes a while to read a source, and looks up in between.
struct Slow {
    toy: Toy,
    /// After how many looks someone cancels.
    cancel_after: usize,
    cancel: CancelToken,
    looks: Arc<AtomicUsize>,
}

impl Pair for Slow {
    type Session = Box<dyn PairSession>;
    fn vocabulary(&self) -> &Vocabulary {
        self.toy.vocabulary()
    }
    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        for look in 0..10 {
            if look == self.cancel_after {
                self.cancel.cancel();
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
            limit.check()?;
        }
        Ok(Box::new((NoDraft, toy()).begin(source, limit)?))
    }
}

#[test]
fn reading_a_source_ends_early_where_nobody_waits_for_it() {
    for cancel_after in [0, 3, 99] {
        let (cancel, looks) = (CancelToken::default(), Arc::new(AtomicUsize::new(0)));
        let pair = Slow { toy: toy(), cancel_after, cancel: cancel.clone(), looks: looks.clone() };
        let settings = Settings::default().with_cancel(cancel).with_trace(true).with_max_new_tokens(5);
        let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings);
        let output = generator.generate(Source::new([2])).unwrap();
        let looks = looks.load(Ordering::Relaxed);
        if cancel_after < 10 {
            assert_eq!((output.finish, looks), (Finish::Cancelled, cancel_after + 1));
            assert_eq!((output.tokens.len(), output.events.len()), (0, 1));
        } else {
            assert_ne!(output.finish, Finish::Cancelled);
        }
    }
    let late = Settings::default().with_deadline(std::time::Duration::ZERO);
    let generator = Generator::new((toy(), toy()), Bild::default()).unwrap().with_settings(late);
    let stream = generator.stream(Source::new([2])).unwrap();
    assert_eq!(stream.finish().unwrap().finish, Finish::Deadline);
    let events: Vec<_> = generator.stream(Source::new([2])).unwrap().collect();
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn the_output_says_what_was_read() {
    let settings = Settings::default().with_max_source_tokens(3, Overflow::Truncate).with_max_new_tokens(4);
    let generator = Generator::new((NoDraft, toy()), Lossless::default()).unwrap().with_settings(settings);
    let read = |tokens: &[Token]| {
        let output = generator.generate(Source::new(tokens)).unwrap();
        (output.source_tokens, output.truncated)
    };
    assert_eq!(read(&[2, 3, END]), (3, false));
    assert_eq!(read(&[2, 3, 4, 5, END]), (3, true));
}

#[test]
fn what_a_generation_takes_is_known_before_it_begins() {
    struct Large(Toy);
    impl VerifierModel for Large {
        fn vocabulary(&self) -> &Vocabulary {
            self.0.vocabulary()
        }
    }
    impl Model for Large {
        type Session = toy::ToySession;
        fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<toy::ToySession> {
            self.0.begin(source, limit)
        }
        fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
            1000 * source as u64 + 10 * tokens as u64
        }
    }
    let generator = Generator::new((NoDraft, Large(toy())), Lossless::default()).unwrap();
    let settings = Settings::default().with_max_new_tokens(9).with_max_source_tokens(3, Overflow::Truncate);
    let source = Source::new([2, 3, 4, 5]);
    assert_eq!(generator.bytes_for(&source, &settings), 3100, "of what is left when it is truncated");
    let limited = generator.with_max_bytes(3099);
    let found = limited.stream(Request::new(source.clone()).with_settings(settings.clone())).map(drop).unwrap_err();
    assert!(matches!(found, Error::Memory { needed: 3100, .. }), "{found}");
    let shorter = settings.clone().with_max_new_tokens(8);
    assert!(limited.stream(Request::new(source.clone()).with_settings(shorter)).is_ok());

    // Of a pair it is the sum of both, each of which alone would do, and it is asked before either begins.
    impl DraftModel for Large {}
    let calls = Arc::default();
    let large = || Large(Toy::new(&calls, scripted(&[])));
    for pair in [(large(), large()).boxed(), (Box::new(large()), Arc::new(large())).boxed()] {
        let generator = Generator::new(pair, Lossless::default()).unwrap();
        let request = || Request::new(source.clone()).with_settings(settings.clone());
        assert_eq!(generator.bytes_for(&source, &settings), 6200);
        let found = generator.clone().with_max_bytes(6199).generate(request()).map(drop).unwrap_err();
        assert!(matches!(found, Error::Memory { needed: 6200, .. }), "{found}");
        assert!(calls.lock().unwrap().is_empty());
        assert!(generator.with_max_bytes(6200).stream(request()).is_ok());
    }
}

#[test]
fn a_fallback_at_random_is_another_for_another_source() {
    let fallbacks = |source: Token| {
        let script: Vec<(Token, f32)> = (0..40).map(|_| (2, 0.9)).collect();
        let policy = Bild::with_rules(RandomFallback::new(0.5).unwrap(), LowRank::new(1).unwrap());
        let pair = (Toy::new(&Arc::default(), scripted(&script)), Toy::new(&Arc::default(), scripted(&script)));
        let settings = Settings::default().with_max_new_tokens(40);
        let generator = Generator::new(pair, policy).unwrap().with_settings(settings);
        generator.generate(Source::new([source])).unwrap().statistics.fallbacks
    };
    let counts: Vec<usize> = (2..8).map(fallbacks).collect();
    assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");
}

/// A verifier that does not look at what is wanted would let every draft stand.
#[test]
fn a_verifier_that_leaves_out_what_is_wanted_is_said() {
    let decoded = |policy: Arc<dyn Policy>, row: Row| {
        let generator = Generator::new((toy(), Foreign::new(row)), policy).unwrap();
        generator.generate(Source::new([2, 1])).map_err(|error| error.to_string())
    };
    let known = Row::new(2, 0.9);
    for (policy, missing) in
        [(Arc::new(Bild::default()) as Arc<dyn Policy>, "cross-entropy"), (Arc::new(Sampling::default()), "logits")]
    {
        let error = decoded(policy, known.clone()).unwrap_err();
        assert!(error.contains("verifier") && error.contains(missing) && error.contains("Pass::want"), "{error}");
    }
    assert!(decoded(Arc::new(Lossless::default()), known).is_ok());
}

/// Nothing comes after an error, not what happened in the same pass before it either.
#[test]
fn an_error_is_the_last_of_a_stream() {
    struct Second;
    impl Pair for Second {
        type Session = Self;
        fn vocabulary(&self) -> &Vocabulary {
            static WORDS: std::sync::LazyLock<Vocabulary> =
                std::sync::LazyLock::new(|| Vocabulary::new(VOCABULARY, START, [END]));
            &WORDS
        }
        fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<Self> {
            Ok(Self)
        }
        fn most_drafts(&self) -> usize {
            2
        }
    }
    impl PairSession for Second {
        fn pass(&mut self, _pass: &Pass<'_>) -> Result<Rows> {
            Ok(vec![Row::new(2, 0.9), Row::new(99, 0.9)].into())
        }
    }
    let generator = Generator::new(Second, Lossless::without_limit()).unwrap();
    let mut events = generator.stream(Source::new([2, 1])).unwrap();
    assert!(events.next().unwrap().is_err());
    assert!(events.next().is_none());
}

/// What a request says of time may be without end, and what a model says of a token nothing.
#[test]
fn what_is_written_as_json_can_be_read() {
    let settings = Settings::default().with_deadline(std::time::Duration::MAX);
    let read: Settings = serde_json::from_value(serde_json::to_value(&settings).unwrap()).unwrap();
    assert_eq!(read.deadline, Some(std::time::Duration::MAX));

    /// Drafts a token of which the row knows nothing.
    struct Another;
    impl Policy for Another {
        fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
            Box::new(Self)
        }
    }
    impl PolicyState for Another {
        fn drafted(&mut self, _at: &Context<'_>, row: &Row) -> Draft {
            Draft::KeepLast((row.argmax + 1) % VOCABULARY as Token)
        }
        fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
            Verdict { accepted: drafts.len(), next: rows[drafts.len()].argmax, then: Then::Draft }
        }
    }
    let settings = Settings::default().with_max_new_tokens(6).with_trace(true);
    let generator = Generator::new((toy(), toy()), Another).unwrap().with_settings(settings);
    let output = generator.generate(Source::new([2, 1])).unwrap();
    assert!(output.log_probs.iter().any(|log_prob| log_prob.is_nan()));
    let json = serde_json::to_string(&output).unwrap();
    let read: bild_core::Output = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert!(read.log_probs.iter().zip(&output.log_probs).all(|(a, b)| a.is_nan() == b.is_nan()));
}

/// A rule that is chosen at run time.
#[test]
fn a_rule_may_be_behind_a_pointer() {
    let decoded = |policy: Arc<dyn Policy>| {
        let generator = Generator::new((toy(), toy()), policy).unwrap();
        generator.generate(Source::new([2, 1])).unwrap().tokens
    };
    let (fallback, rollback): (Arc<dyn FallbackRule>, Arc<dyn RollbackRule>) =
        (Arc::new(SmallMargin::new(0.3).unwrap()), Arc::new(LowRank::new(2).unwrap()));
    let pointed = Bild::with_rules(fallback, rollback);
    let plain = Bild::with_rules(SmallMargin::new(0.3).unwrap(), LowRank::new(2).unwrap());
    assert_eq!(decoded(Arc::new(pointed)), decoded(Arc::new(plain)));
}
