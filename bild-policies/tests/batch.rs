//! Many generations at once: each ends as it would alone, whatever becomes of the others.

mod memory;
mod moody;
mod toy;

use std::{
    collections::BTreeMap,
    iter, mem,
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock},
};

use bild_core::{
    Batch, CancelToken, Context, Draft, Drafted, Error, Generator, Model, NoDraft, Output, Pair, PairSession, Pass,
    Policy, PolicyState, Request, Result, Role, Row, Rows, SessionLimit, Settings, Source, Start, Token, Verdict,
    VerifierModel, VerifierSession, Vocabulary,
};
use bild_policies::Lossless;
use memory::{Held, Memory};
use moody::{Random, alone, cancelled, cancels, check_from_outside, content, from_outside, generator, request};
use toy::{END, Toy, ToySession, blend, random};

#[test]
fn each_ends_as_it_would_alone_whatever_the_others_do() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let count = 1 + random.below(24) as usize;
        let requests: Vec<_> = (0..count).map(|number| request(number, &mut random)).collect();
        let alone = alone(seed, &requests);

        // They arrive at any time.
        let tokens = cancels(count);
        let together = generator(seed, &tokens, 16);
        let mut batch = Batch::new(together.pair());
        let (mut found, mut begun) = (vec![None; count], 0);
        while begun < count || !batch.is_empty() {
            for _ in 0..random.below(4).min((count - begun) as u64) {
                let generation = together.prepare(cancelled(begun, &requests, &tokens), 0).unwrap();
                batch.add(generation, begun);
                begun += 1;
            }
            batch.step(|_, _| Ok(()));
            for (number, output) in batch.take_ended() {
                assert!(found[number].replace(content(output)).is_none(), "{number} ended twice");
            }
        }
        let found: Vec<_> = found.into_iter().map(|content| content.expect("each ends")).collect();
        assert_eq!(found, alone, "seed {seed}");

        // And all at once, by the generator: in threads of one place each, in some of two, and in one.
        let at_once = NonZeroUsize::new(1 + random.below(5) as usize).unwrap();
        for batch_size in [1, 2, 16] {
            let tokens = cancels(count);
            let many = generator(seed, &tokens, batch_size).with_at_once(at_once);
            let mut found = Vec::new();
            let requests = (0..count).map(|number| cancelled(number, &requests, &tokens));
            many.generate_many(requests, |_, output| found.push(content(output)));
            assert_eq!(found, alone, "seed {seed}, {batch_size} together");
        }
    }
}

/// A request that is made once all have been given: as many as have a place then run together.
struct OnceGiven<'a>(Request, &'a OnceLock<()>);

impl From<OnceGiven<'_>> for Request {
    fn from(OnceGiven(request, given): OnceGiven<'_>) -> Self {
        given.wait();
        request
    }
}

/// Such requests, of which there may be no more than are taken ahead of the results.
fn once_given(requests: Vec<Request>, given: &OnceLock<()>) -> impl Iterator<Item = OnceGiven<'_>> + Send {
    let end = iter::from_fn(move || {
        let _ = given.set(());
        None
    });
    requests.into_iter().map(move |request| OnceGiven(request, given)).chain(end)
}

/// Outside, time passes and somebody cancels whatever pass is being made.
#[test]
fn what_ends_some_from_outside_leaves_the_others_as_they_are() {
    for batch_size in [1, 16] {
        let generator = Generator::new(toys(batch_size), Lossless::default()).unwrap();
        let generator = generator.with_at_once(NonZeroUsize::new(4).unwrap());

        let cancel = CancelToken::default();
        let mut batch = Batch::new(generator.pair());
        for (number, request) in from_outside(&cancel).into_iter().enumerate() {
            batch.add(generator.prepare(request, 0).unwrap(), number);
        }
        let mut found = BTreeMap::new();
        while !batch.is_empty() {
            batch.step(|_, _| Ok(()));
            for (number, output) in batch.take_ended() {
                cancel.cancel();
                found.insert(number, output.unwrap());
            }
        }
        check_from_outside(&found.into_values().collect::<Vec<_>>(), &generator);

        let cancel = CancelToken::default();
        let (given, mut found) = (OnceLock::new(), Vec::new());
        generator.generate_many(once_given(from_outside(&cancel).into(), &given), |_, output| {
            cancel.cancel();
            found.push(output.unwrap());
        });
        check_from_outside(&found, &generator);
    }
}

/// The role of a pass, for how many generations it was made, and how many tokens it took in for them.
type Noted = (Role, [usize; 2]);

/// Notes the passes.
struct Counting {
    pair: (Toy, Toy),
    passes: Mutex<Vec<Noted>>,
}

impl Counting {
    fn take(&self) -> Vec<Noted> {
        mem::take(&mut *self.passes.lock().unwrap())
    }
}

impl Pair for Counting {
    type Session = (ToySession, ToySession);

    fn vocabulary(&self) -> &Vocabulary {
        Pair::vocabulary(&self.pair)
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Pair::begin(&self.pair, source, limit)
    }

    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        let rows = passes.iter().map(|(_, pass)| pass.new.len()).sum();
        self.passes.lock().unwrap().push((passes[0].1.role, [passes.len(), rows]));
        self.pair.pass_all(passes)
    }

    fn batch_size(&self) -> usize {
        self.pair.batch_size()
    }
}

fn toys(batch_size: usize) -> (Toy, Toy) {
    let big = random(7, 6.0);
    let little = blend(big.clone(), random(106, 6.0), 0.4);
    (Toy::new(&Arc::default(), little), Toy::new(&Arc::default(), big).with_batch_size(batch_size))
}

#[test]
fn places_are_filled_at_once_and_passes_of_one_role_come_together() {
    let pair = Counting { pair: toys(16), passes: Mutex::default() };
    let settings = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
    let policy = Lossless::default().with_max_draft(NonZeroUsize::new(3));
    let generator = Generator::new(pair, policy).unwrap().with_settings(settings);
    let generator = generator.with_at_once(NonZeroUsize::new(16).unwrap());
    let mut written = 0;
    generator.generate_many((0..64).map(|i| Source::new([i])), |_, output| written += output.unwrap().tokens.len());
    assert_eq!(written, 64 * 24);
    let passes = generator.pair().take();
    for role in [Role::Draft, Role::Verifier] {
        let of_role = counts(&passes, role);
        assert_eq!(of_role.iter().max(), Some(&16), "all places are taken");
        let mean = of_role.iter().sum::<usize>() as f64 / of_role.len() as f64;
        assert!(mean > 8.0, "{role:?}: {mean} sessions a pass");
    }
}

/// For how many generations the passes of one role were made.
fn counts(passes: &[Noted], role: Role) -> Vec<usize> {
    passes.iter().filter(|(of, _)| *of == role).map(|(_, [count, _])| *count).collect()
}

/// Keeps two drafts at a time, and notes what it is told of the pass just made.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Noted>>>);

impl Noting {
    fn note(&self, role: Role, at: &Context<'_>) {
        self.0.lock().unwrap().push((role, [at.batch_size, at.batch_rows]));
    }

    fn take(&self) -> Vec<Noted> {
        mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Policy for Noting {
    fn begin(&self, _: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

impl PolicyState for Noting {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        self.note(Role::Draft, at);
        if at.drafts.is_empty() { Draft::Keep(row.argmax) } else { Draft::KeepLast(row.argmax) }
    }

    fn verified(&mut self, at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        self.note(Role::Verifier, at);
        Verdict::first_refused(drafts, rows, |draft, row| draft.token != row.argmax)
    }
}

#[test]
fn a_policy_is_told_for_how_many_a_pass_was_made() {
    let (policy, pair) = (Noting::default(), Counting { pair: toys(4), passes: Mutex::default() });
    let generator = Generator::new(pair, policy.clone()).unwrap();
    let generator = generator.with_at_once(NonZeroUsize::new(4).unwrap());
    let request = |most| {
        let settings = Settings::default().with_max_new_tokens(most).with_end_tokens([]);
        Request::new(Source::new([2])).with_settings(settings)
    };
    // What the pair was given is what each of them is told.
    let told = || {
        let each = |pass: Noted| iter::repeat_n(pass, pass.1[0]);
        generator.pair().take().into_iter().flat_map(each).collect::<Vec<_>>()
    };
    let in_a_batch = |requests: &[Request]| {
        let mut batch = Batch::new(generator.pair());
        for request in requests {
            batch.add(generator.prepare(request.clone(), 0).unwrap(), ());
        }
        while !batch.is_empty() {
            batch.step(|(), _| Ok(()));
            batch.take_ended().for_each(|((), output)| assert!(output.is_ok()));
        }
        let noted = policy.take();
        assert_eq!(noted, told());
        noted
    };

    // The longest goes on alone.
    let requests = Vec::from([4, 8, 12, 24].map(request));
    let noted = in_a_batch(&requests);
    for role in [Role::Draft, Role::Verifier] {
        let counts = counts(&noted, role);
        assert_eq!((counts.first(), counts.last()), (Some(&4), Some(&1)), "{role:?}");
    }
    // What is verified has a draft at least.
    let least = |role: Role, count: usize| if role == Role::Draft { count } else { 2 * count };
    assert!(noted.iter().all(|&(role, [count, rows])| rows >= least(role, count)), "{noted:?}");

    let given = OnceLock::new();
    generator.generate_many(once_given(requests, &given), |_, output| assert!(output.is_ok()));
    assert_eq!(told(), noted);
    assert_eq!(policy.take(), noted);

    let alone = in_a_batch(&[request(24)]);
    assert!(alone.iter().all(|(_, [count, _])| *count == 1), "{alone:?}");
    generator.generate(request(24)).unwrap();
    assert_eq!(policy.take(), alone, "without a batch");
}

/// Returns fewer results than there are passes, or panics for all.
struct Broken(bool);

impl Pair for Broken {
    type Session = Nothing;

    fn vocabulary(&self) -> &Vocabulary {
        static VOCABULARY: std::sync::LazyLock<Vocabulary> = std::sync::LazyLock::new(|| Vocabulary::new(8, 0, [END]));
        &VOCABULARY
    }

    fn begin(&self, _: &Source, _: &SessionLimit) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn pass_all(&self, _: &mut [(&mut Nothing, Pass<'_>)]) -> Vec<Result<Rows>> {
        assert!(!self.0, "for all");
        Vec::new()
    }
}

struct Nothing;

impl PairSession for Nothing {
    fn pass(&mut self, _: &Pass<'_>) -> Result<Rows> {
        Ok(Rows::default())
    }
}

#[test]
fn a_pair_that_breaks_its_promise_is_an_error_of_each() {
    for (panics, expected) in [(false, "returned 0 results of 3 passes"), (true, "the generation panicked: for all")] {
        let generator = Generator::new(Broken(panics), Lossless::default()).unwrap();
        let mut batch = Batch::new(generator.pair());
        for i in 0..3 {
            batch.add(generator.prepare(Source::new([2]), i).unwrap(), i);
        }
        batch.step(|_, _| Ok(()));
        let ended: Vec<_> = batch.take_ended().map(|(i, output)| (i, output.unwrap_err().to_string())).collect();
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|(_, error)| error.contains(expected)), "{ended:?}");
    }
}

/// A model with room for so many sessions at once: it says so when they are to begin, or in the first pass.
struct Small {
    toy: Toy,
    room: usize,
    bytes: u64,
    memory: Memory,
}

struct SmallSession {
    inner: ToySession,
    source: Source,
    room: usize,
    memory: Memory,
    held: Option<Held>,
}

impl Model for Small {
    type Session = SmallSession;

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<SmallSession> {
        let (inner, memory) = (self.toy.begin(source, limit)?, self.memory.clone());
        Ok(SmallSession { inner, source: source.clone(), room: self.room, memory, held: None })
    }

    fn bytes_for(&self, source: usize, _tokens: usize) -> u64 {
        self.bytes * source as u64
    }

    fn batch_size(&self) -> usize {
        self.toy.batch_size()
    }
}

impl VerifierModel for Small {
    fn vocabulary(&self) -> &Vocabulary {
        self.toy.vocabulary()
    }
}

impl VerifierSession for SmallSession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        if self.held.is_none() {
            if self.memory.used().now[0] >= self.room {
                return Err(Error::Memory { needed: 1, reason: "it is full".into() });
            }
            self.held = Some(self.memory.hold(&self.source));
        }
        self.inner.score(pass)
    }
}

fn small(room: usize, bytes: u64, batch_size: usize) -> Small {
    let toy = Toy::new(&Arc::default(), random(3, 6.0)).with_batch_size(batch_size);
    Small { toy, room, bytes, memory: Memory::default() }
}

#[test]
fn one_that_does_not_fit_beside_the_others_waits() {
    for room in [0, 1, 3] {
        let generator = Generator::new((NoDraft, small(room, 0, 1)), Lossless::default()).unwrap();
        let mut batch = Batch::new(generator.pair());
        for i in 0..10 {
            batch.add(generator.prepare(Source::new([2]), i).unwrap(), i);
        }
        let mut ended = Vec::new();
        while !batch.is_empty() {
            batch.step(|_, _| Ok(()));
            ended.extend(batch.take_ended());
        }
        assert_eq!(ended.len(), 10);
        assert_eq!(generator.pair().1.memory.used().most[0], room);
        for (_, output) in ended {
            match output {
                Ok(output) => assert_eq!(output.tokens.len(), output.statistics.verifier_calls),
                Err(error) => assert!(room == 0 && error.to_string().contains("it is full"), "{error}"),
            }
        }
    }
}

#[test]
fn a_limit_in_bytes_holds_for_all_together() {
    for (at_once, batch_size) in [(1, 1), (4, 1), (4, 4), (5, 2)] {
        let generator = Generator::new((NoDraft, small(99, 10, batch_size)), Lossless::default()).unwrap();
        let generator = generator.with_max_bytes(25).with_at_once(NonZeroUsize::new(at_once).unwrap());
        // One of three tokens could never fit.
        let sources = (0..20).map(|i| Source::new(vec![2; if i == 5 { 3 } else { 1 + i % 2 }]));
        let mut errors = Vec::new();
        generator.generate_many(sources, |i, output| errors.extend(output.err().map(|error| (i, error.to_string()))));
        assert!(errors.len() == 1 && errors[0].0 == 5 && errors[0].1.contains("memory"), "{errors:?}");
        let used = generator.pair().1.memory.used();
        assert!(used.most[1] <= 2, "{} tokens at once", used.most[1]);
        assert_eq!(used.now, [0, 0]);
    }
}

#[test]
fn one_that_waits_for_memory_is_not_overtaken_in_its_driver() {
    let settings = Settings::default().with_max_new_tokens(5).with_end_tokens([]);
    let generator = Generator::new((NoDraft, small(99, 10, 4)), Lossless::default()).unwrap().with_settings(settings);
    let generator = generator.with_max_bytes(25).with_at_once(NonZeroUsize::new(4).unwrap());
    // Beside the first there is no room for the second, but for the third.
    let length = |number: Token| if number % 4 == 1 { 2 } else { 1 };
    let requests = (0..12).map(|number| Request::new(Source::new(vec![number; length(number)]))).collect();
    let (given, mut found) = (OnceLock::new(), Vec::new());
    let each = |number, output: Result<Output>| found.push((number, output.unwrap().tokens.len()));
    generator.generate_many(once_given(requests, &given), each);
    assert_eq!(found, (0..12).map(|number| (number, 5)).collect::<Vec<_>>());
    let used = generator.pair().1.memory.used();
    assert_eq!(used.order, (0..12).collect::<Vec<_>>());
    assert_eq!((used.most, used.now), ([2, 2], [0, 0]), "two of one token share it");
}
