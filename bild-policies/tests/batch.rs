//! Many generations at once: each ends as it would alone, whatever becomes of the others.

mod moody;
mod toy;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bild_core::{
    Batch, Error, Generator, Model, NoDraft, Pair, PairSession, Pass, Result, Role, Rows, SessionLimit, Settings,
    Source, VerifierModel, VerifierSession, Vocabulary,
};
use bild_policies::Lossless;
use moody::{Random, alone, cancelled, cancels, content, generator, request};
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
        let together = generator(seed, &tokens);
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

        // And all at once, by the generator.
        let tokens = cancels(count);
        let at_once = NonZeroUsize::new(1 + random.below(5) as usize).unwrap();
        let many = generator(seed, &tokens).with_at_once(at_once);
        let mut found = Vec::new();
        let requests = (0..count).map(|number| cancelled(number, &requests, &tokens));
        many.generate_many(requests, |_, output| found.push(content(output)));
        assert_eq!(found, alone, "seed {seed}");
    }
}

/// Counts how many sessions come together, for each role.
struct Counting {
    pair: (Toy, Toy),
    passes: Mutex<Vec<(Role, usize)>>,
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
        self.passes.lock().unwrap().push((passes[0].1.role, passes.len()));
        self.pair.pass_all(passes)
    }

    fn batch_size(&self) -> usize {
        16
    }
}

fn toys() -> (Toy, Toy) {
    let big = random(7, 6.0);
    let little = blend(big.clone(), random(106, 6.0), 0.4);
    (Toy::new(&Arc::default(), little), Toy::new(&Arc::default(), big))
}

#[test]
fn places_are_filled_at_once_and_passes_of_one_role_come_together() {
    let pair = Counting { pair: toys(), passes: Mutex::default() };
    let settings = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
    let policy = Lossless::default().with_max_draft(NonZeroUsize::new(3));
    let generator = Generator::new(&*Box::leak(Box::new(pair)), policy).unwrap().with_settings(settings);
    let generator = generator.with_at_once(NonZeroUsize::new(16).unwrap());
    let mut written = 0;
    generator.generate_many((0..64).map(|i| Source::new([i])), |_, output| written += output.unwrap().tokens.len());
    assert_eq!(written, 64 * 24);
    let passes = generator.pair().passes.lock().unwrap();
    for role in [Role::Draft, Role::Verifier] {
        let of_role: Vec<_> = passes.iter().filter(|(of, _)| *of == role).map(|(_, count)| *count).collect();
        assert_eq!(of_role.iter().max(), Some(&16), "all places are taken");
        let mean = of_role.iter().sum::<usize>() as f64 / of_role.len() as f64;
        assert!(mean > 8.0, "{role:?}: {mean} sessions a pass");
    }
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
    held: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct SmallSession {
    inner: ToySession,
    room: usize,
    held: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    holds: bool,
}

impl Drop for SmallSession {
    fn drop(&mut self) {
        self.held.fetch_sub(usize::from(self.holds), Ordering::SeqCst);
    }
}

impl Model for Small {
    type Session = SmallSession;

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<SmallSession> {
        let (held, most) = (self.held.clone(), self.most.clone());
        Ok(SmallSession { inner: self.toy.begin(source, limit)?, room: self.room, held, most, holds: false })
    }

    fn bytes_for(&self, source: usize, _tokens: usize) -> u64 {
        self.bytes * source as u64
    }
}

impl VerifierModel for Small {
    fn vocabulary(&self) -> &Vocabulary {
        self.toy.vocabulary()
    }
}

impl VerifierSession for SmallSession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        if !self.holds {
            if self.held.load(Ordering::SeqCst) >= self.room {
                return Err(Error::Memory { needed: 1, reason: "it is full".into() });
            }
            self.holds = true;
            self.most.fetch_max(1 + self.held.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        }
        self.inner.score(pass)
    }
}

fn small(room: usize, bytes: u64) -> Small {
    let (held, most) = Default::default();
    Small { toy: Toy::new(&Arc::default(), random(3, 6.0)), room, bytes, held, most }
}

#[test]
fn one_that_does_not_fit_beside_the_others_waits() {
    for room in [0, 1, 3] {
        let generator = Generator::new((NoDraft, small(room, 0)), Lossless::default()).unwrap();
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
        let most = generator.pair().1.most.load(Ordering::SeqCst);
        assert_eq!(most, room);
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
    for at_once in [1, 4] {
        let generator = Generator::new((NoDraft, small(99, 10)), Lossless::default()).unwrap().with_max_bytes(25);
        let generator = generator.with_at_once(NonZeroUsize::new(at_once).unwrap());
        // One of three tokens could never fit.
        let sources = (0..20).map(|i| Source::new(vec![2; if i == 5 { 3 } else { 1 + i % 2 }]));
        let mut errors = Vec::new();
        generator.generate_many(sources, |i, output| errors.extend(output.err().map(|error| (i, error.to_string()))));
        assert!(errors.len() == 1 && errors[0].0 == 5 && errors[0].1.contains("memory"), "{errors:?}");
        assert!(generator.pair().1.most.load(Ordering::SeqCst) <= 2);
        assert_eq!(generator.pair().1.held.load(Ordering::SeqCst), 0);
    }
}
