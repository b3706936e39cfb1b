//! A generation as a state: driven by hand, two at once, by a draft model that proposes several tokens a pass; requests of one
//! generator that differ.

mod toy;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use bild_core::{
    BoxedPair, CancelToken, Context, Draft, DraftSession, Error, Event, Finish, Generation, Generator, Model, Output,
    Pair, PairSession, Pass, Policy, PolicyState, Request, Result, Role, Row, Rows, SessionLimit, Settings, Source,
    Start, VerifierModel, VerifierSession, Vocabulary,
};
use bild_policies::{BigAlone, Bild, Lossless, Sampling, Variant};
use toy::{END, START, Toy, ToySession, VOCABULARY, blend, random, scripted};

fn pair(seed: u64) -> (Toy, Toy) {
    let big = random(seed, 6.0);
    (Toy::new(&Arc::default(), blend(big.clone(), random(seed + 99, 6.0), 0.4)), Toy::new(&Arc::default(), big))
}

fn source() -> Source {
    Source::new([2, 1])
}

fn settings() -> Settings {
    Settings::default().with_max_new_tokens(20).with_trace(true)
}

fn policies() -> [Box<dyn Policy>; 4] {
    let few = NonZeroUsize::new(5);
    [
        Box::new(Bild::new(0.3, 1.0).unwrap()),
        Box::new(Bild::new(0.2, 1.5).unwrap().with_variant(Variant::Released)),
        Box::new(Lossless::default().with_max_draft(few)),
        Box::new(Sampling::new(1.0).unwrap().with_max_draft(few)),
    ]
}

/// What an output says beside its times.
fn content(output: &Output) -> (&[u32], &[Role], Finish, &[Event], usize) {
    let Output { tokens, writers, finish, events, statistics, .. } = output;
    (tokens, writers, *finish, events, statistics.verifier_calls)
}

#[test]
fn a_generation_driven_by_hand_is_a_generation() {
    for seed in 0..50 {
        for policy in policies() {
            let (pair, policy) = (pair(seed), Arc::new(policy));
            let vocabulary = Pair::vocabulary(&pair).clone();
            let mut generation = Generation::new(&policy, &vocabulary, &source(), &settings()).unwrap();
            let mut session = Pair::begin(&pair, generation.source(), generation.limit()).unwrap();
            while let Some(pass) = generation.pass() {
                let rows = session.pass(&pass);
                generation.take(rows).unwrap();
            }
            let by_hand = generation.into_output().unwrap();
            let expected = Generator::new(pair, policy).unwrap().with_settings(settings()).generate(source()).unwrap();
            assert_eq!(content(&by_hand), content(&expected));
        }
    }
}

/// Two generations whose passes alternate on sessions of the same models write what each alone writes.
#[test]
fn generations_do_not_know_of_each_other() {
    let pair = pair(7);
    let policy = Bild::new(0.3, 1.0).unwrap();
    let vocabulary = Pair::vocabulary(&pair);
    let alone = Generator::new(&pair, policy.clone()).unwrap().with_settings(settings());
    let sources = [Source::new([2, 1]), Source::new([3, 4, 1])];
    let mut generations = sources.each_ref().map(|source| {
        let generation = Generation::new(&policy, vocabulary, source, &settings()).unwrap();
        let session = Pair::begin(&pair, generation.source(), generation.limit()).unwrap();
        (generation, session)
    });
    let mut passes = 1;
    while passes > 0 {
        passes = 0;
        for (generation, session) in &mut generations {
            if let Some(pass) = generation.pass() {
                let rows = session.pass(&pass);
                generation.take(rows).unwrap();
                passes += 1;
            }
        }
    }
    for (source, (generation, _)) in sources.iter().zip(generations) {
        let output = generation.into_output().unwrap();
        assert_eq!(content(&output), content(&alone.generate(source).unwrap()));
    }
}

/// A pair whose draft model goes on from its own most likely tokens, as far as it is asked to.
struct Several {
    pair: (Toy, Toy),
    most: usize,
    /// How many rows its draft passes returned.
    rows: Arc<Mutex<Vec<usize>>>,
}

struct SeveralSession {
    sessions: (ToySession, ToySession),
    rows: Arc<Mutex<Vec<usize>>>,
}

impl Pair for Several {
    type Session = SeveralSession;

    fn vocabulary(&self) -> &Vocabulary {
        self.pair.1.vocabulary()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<SeveralSession> {
        let sessions = (self.pair.0.begin(source, limit)?, self.pair.1.begin(source, limit)?);
        Ok(SeveralSession { sessions, rows: self.rows.clone() })
    }

    fn most_drafts(&self) -> usize {
        self.most
    }
}

impl PairSession for SeveralSession {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        let (draft, verifier) = &mut self.sessions;
        if pass.role == Role::Verifier {
            return verifier.score(pass);
        }
        let mut rows = draft.propose(pass)?.to_vec();
        let mut length = pass.keep + pass.new.len();
        while rows.len() < pass.most {
            let own = rows[rows.len() - 1].argmax;
            rows.extend(draft.propose(&Pass::draft(length, &[own], pass.want))?);
            length += 1;
        }
        self.rows.lock().unwrap().push(rows.len());
        Ok(rows.into())
    }
}

/// As many drafts as it is told, and a guess that panics.
#[derive(Clone)]
struct Guesses;

impl Policy for Guesses {
    fn begin(&self, _: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(Self)
    }
}

impl PolicyState for Guesses {
    fn expected_drafts(&self, _: &Context<'_>) -> usize {
        panic!("it cannot be guessed")
    }
}

#[test]
fn a_guess_that_panics_is_one_draft() {
    let rows = Arc::default();
    let several = Several { pair: pair(3), most: 4, rows: Arc::clone(&rows) };
    let guessed = Generator::new(several, Guesses).unwrap().with_settings(settings()).generate(source()).unwrap();
    assert!(rows.lock().unwrap().iter().all(|&rows| rows == 1));
    let alone = Generator::new(pair(3), Lossless::without_limit()).unwrap().with_settings(settings());
    assert_eq!(guessed.tokens, alone.generate(source()).unwrap().tokens);
}

#[test]
fn several_drafts_a_pass_are_what_one_at_a_time_are() {
    let mut of_several = [0; 4];
    for seed in 0..50 {
        for (i, policy) in policies().into_iter().enumerate() {
            let policy = Arc::new(policy);
            let one = Generator::new(pair(seed), policy.clone()).unwrap().with_settings(settings());
            let one = one.generate(source()).unwrap();
            for most in [2, 3, 7] {
                let rows = Arc::default();
                let several = Several { pair: pair(seed), most, rows: Arc::clone(&rows) };
                let several = Generator::new(several, policy.clone()).unwrap().with_settings(settings());
                let several = several.generate(source()).unwrap();
                assert_eq!(content(&several), content(&one), "pair {seed}, policy {i}, {most} drafts a pass");
                assert!(several.statistics.draft_steps <= one.statistics.draft_steps);
                let rows = rows.lock().unwrap();
                assert!(rows.iter().all(|&rows| rows <= most));
                of_several[i] += rows.iter().filter(|&&rows| rows > 1).count();
            }
        }
    }
    assert!(of_several.iter().all(|&passes| passes > 50), "{of_several:?}");
    let agreed = Toy::new(&Arc::default(), scripted(&[(2, 0.9), (3, 0.9), (4, 0.9), (5, 0.9)]));
    let other = Toy::new(&Arc::default(), scripted(&[(2, 0.9), (3, 0.9), (4, 0.9), (5, 0.9)]));
    let several = Several { pair: (agreed, other), most: 5, rows: Arc::default() };
    let output = Generator::new(several, Lossless::without_limit()).unwrap().generate(source()).unwrap();
    assert_eq!((output.tokens.len(), output.statistics.draft_steps, output.statistics.verifier_calls), (5, 1, 1));
}

#[test]
fn more_drafts_than_were_asked_for_are_an_error() {
    let vocabulary = Vocabulary::new(VOCABULARY, START, [END]);
    let mut generation = Generation::new(&Lossless::default(), &vocabulary, &source(), &settings()).unwrap();
    assert_eq!(generation.pass().unwrap(), Pass::draft(0, &[START], Default::default()));
    let found = generation.take(Ok(vec![Row::new(2, 0.5); 2].into())).unwrap_err();
    assert!(found.to_string().contains("draft model returned 2 rows, expected at most 1"), "{found}");
    assert!(generation.pass().is_none(), "it has failed");
    assert!(matches!(generation.into_output(), Err(Error::AlreadyFailed)));
}

/// Neither model begins to read a source that its policy does not need it for.
#[test]
fn a_model_that_is_not_asked_reads_nothing() {
    struct Unread(Vocabulary);
    impl Model for Unread {
        type Session = Self;
        fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<Self> {
            Ok(Self(self.0.clone()))
        }
    }
    impl VerifierModel for Unread {
        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }
    }
    impl VerifierSession for Unread {
        fn score(&mut self, _pass: &Pass<'_>) -> Result<Rows> {
            Err(Error::model("it was asked"))
        }
    }
    #[derive(Clone)]
    struct Trusting;
    impl Policy for Trusting {
        fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
            Box::new(Trusting)
        }
    }
    impl PolicyState for Trusting {
        fn drafted(&mut self, _at: &Context<'_>, row: &Row) -> Draft {
            Draft::Keep(row.argmax)
        }
        fn verify_before_end(&self) -> bool {
            false
        }
    }
    let draft = Toy::new(&Arc::default(), scripted(&[(3, 0.9), (4, 0.9)]));
    let unread = Unread(draft.vocabulary().clone());
    let generator = Generator::new((draft, unread), Trusting).unwrap();
    assert_eq!(generator.generate(source()).unwrap().tokens, [3, 4, END]);
    let asked = generator.generate(Request::new(source()).with_policy(Lossless::default())).unwrap_err();
    assert_eq!(asked.to_string(), "it was asked");
}

#[test]
fn the_time_of_reading_is_that_of_encoding() {
    struct Slow(Toy);
    struct SlowSession(Option<SessionLimit>, ToySession);
    impl Model for Slow {
        type Session = SlowSession;
        fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<SlowSession> {
            Ok(SlowSession(Some(limit.clone()), self.0.begin(source, limit)?))
        }
    }
    impl VerifierModel for Slow {
        fn vocabulary(&self) -> &Vocabulary {
            self.0.vocabulary()
        }
    }
    impl VerifierSession for SlowSession {
        fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
            if let Some(limit) = self.0.take() {
                limit.reading(|| std::thread::sleep(std::time::Duration::from_millis(30)));
            }
            self.1.score(pass)
        }
    }
    let (draft, verifier) = pair(1);
    let generator = Generator::new((draft, Slow(verifier)), Lossless::default()).unwrap();
    let statistics = generator.generate(source()).unwrap().statistics;
    assert!(statistics.encode_time.as_millis() >= 30 && statistics.verifier_time.as_millis() < 30, "{statistics:?}");
}

#[test]
fn requests_of_one_generator_differ_and_leave_it_as_it_is() {
    let pair: BoxedPair = pair(3).boxed();
    let generator = Generator::new(pair.clone(), Sampling::new(1.0).unwrap()).unwrap().with_settings(settings());
    let of = |seed: u64| {
        let generator = Generator::new(pair.clone(), Sampling::new(1.0).unwrap()).unwrap();
        generator.with_settings(settings().with_seed(seed)).generate(source()).unwrap().tokens
    };
    let tokens = |request: Request| generator.generate(request).unwrap().tokens;
    assert_ne!(of(0), of(5), "or the seed has no effect");
    assert_eq!(tokens(Request::new(source()).with_seed(5)), of(5));
    assert_eq!(tokens(Request::new(source()).with_settings(settings().with_seed(5))), of(5));
    assert_eq!(tokens(Request::new(source()).with_settings(settings().with_max_new_tokens(3))).len(), 3);
    let big = Generator::new(pair.clone(), BigAlone {}).unwrap().with_settings(settings());
    assert_eq!(tokens(Request::new(source()).with_policy(BigAlone {})), big.generate(source()).unwrap().tokens);
    assert_eq!(tokens(source().into()), of(0), "the generator is what it was");

    let cancel = CancelToken::default();
    cancel.cancel();
    let output = generator.generate(Request::new(source()).with_cancel(cancel.child())).unwrap();
    assert_eq!((output.finish, output.tokens.len()), (Finish::Cancelled, 0));

    let mut seeds = Vec::new();
    let requests = [source().into(), Request::new(source()).with_seed(5), source().into()];
    generator.generate_many(requests, |_, output| seeds.push(output.unwrap().tokens));
    assert_eq!(seeds, [of(0), of(5), of(2)]);
}

#[test]
fn a_stream_can_end_with_what_there_is() {
    let generator = Generator::new(pair(7), Lossless::default()).unwrap().with_settings(settings());
    let whole = generator.generate(source()).unwrap();
    for taken in 0..10 {
        let mut stream = generator.stream(source()).unwrap();
        for _ in 0..taken {
            stream.next();
        }
        let output = stream.stop().unwrap();
        assert!(whole.tokens.starts_with(&output.tokens));
        assert_eq!(output.tokens.len(), output.log_probs.len());
        assert!(output.finish == Finish::Stopped || output.tokens == whole.tokens);
    }
    let mut stream = generator.stream(source()).unwrap();
    assert!(stream.by_ref().all(|event| event.is_ok()));
    assert_eq!(stream.stop().unwrap().finish, whole.finish, "it had ended before");
}

#[test]
fn an_output_is_read_back_from_json() {
    let outputs = (0..50).map(|seed| {
        let generator = Generator::new(pair(seed), Bild::new(0.3, 1.0).unwrap()).unwrap();
        generator.with_settings(settings()).generate(source()).unwrap()
    });
    let output = { outputs }.find(|output| output.statistics.rollbacks > 0).expect("some pair disagrees");
    let json = serde_json::to_value(&output).unwrap();
    let read: Output = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read.tokens, output.tokens);
    assert_eq!(read.statistics.verifier_calls, output.statistics.verifier_calls);
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
}
