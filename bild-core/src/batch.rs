use std::{
    fmt,
    time::{Duration, Instant},
};

use tracing::trace_span;

use crate::{Error, Generation, Output, Pair, Pass, Result, Role, Rows, caught};

/// Drives many generations with one pair, whose passes are made together: one reading of the weights for all of them.
///
/// Each writes what it would write alone, if its models give a session the same rows whatever the others are
/// ([`VerifierModel::score_all`](crate::VerifierModel::score_all)). It has its own policy, settings, seed and deadline; one that
/// fails, or whose policy, processor or session panics, takes nobody along: a panic within what a model computes for all fails those of
/// that pass. They may begin at any time, so a place that becomes free is filled at once.
///
/// [`Generator::generate_many`](crate::Generator::generate_many) is made of it. `T` is what the caller knows each generation by.
///
/// ```
/// # use bild::decode::{Model, Pass, Result, Row, Rows, SessionLimit, Source, Token, VerifierModel, VerifierSession, Vocabulary};
/// # struct Counter(Vocabulary);
/// # struct CounterSession;
/// # impl Model for Counter {
/// #     type Session = CounterSession;
/// #     fn begin(&self, _: &Source, _: &SessionLimit) -> Result<CounterSession> { Ok(CounterSession) }
/// # }
/// # impl VerifierModel for Counter {
/// #     fn vocabulary(&self) -> &Vocabulary { &self.0 }
/// # }
/// # impl VerifierSession for CounterSession {
/// #     fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
/// #         Ok(pass.new.iter().map(|&token| Row::new((token + 1).min(9), 1.0)).collect())
/// #     }
/// # }
/// use bild::{Lossless, decode::{Batch, Generator, NoDraft}};
///
/// let counter = Counter(Vocabulary::new(10, 0, [9])); // counts from 1 to 9
/// let generator = Generator::new((NoDraft, counter), Lossless::default())?;
/// let mut batch = Batch::new(generator.pair());
/// for name in ["one", "another"] {
///     batch.add(generator.prepare(Source::new([1]), 0)?, name);
/// }
/// let mut written = Vec::new();
/// while !batch.is_empty() {
///     batch.step(|_name, _generation| Ok(()));
///     written.extend(batch.take_ended().map(|(name, output)| (name, output.unwrap().tokens.len())));
/// }
/// assert_eq!(written, [("one", 9), ("another", 9)]);
/// # Ok::<(), bild::Error>(())
/// ```
pub struct Batch<P: Pair, T> {
    pair: P,
    running: Vec<Running<P::Session, T>>,
    ended: Vec<(T, Result<Output>)>,
    /// Whether some wait for the draft model since the verifier's last pass.
    drafts_wait: bool,
}

struct Running<S, T> {
    tag: T,
    generation: Generation,
    /// Nothing if it was interrupted before it had one.
    session: Option<S>,
    /// It is given no pass until another has ended, because there is no memory for it beside the others.
    waits: bool,
    /// Why it has failed, if it has.
    error: Option<Error>,
}

impl<P: Pair, T> Batch<P, T> {
    /// One without generations yet.
    pub fn new(pair: P) -> Self {
        Self { pair, running: Vec::new(), ended: Vec::new(), drafts_wait: false }
    }

    /// How many generations are under way, or have ended and were not taken.
    pub fn len(&self) -> usize {
        self.running.len() + self.ended.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a generation, as [`Generator::prepare`](crate::Generator::prepare) makes it. If its session cannot begin, that is how
    /// it ends.
    pub fn add(&mut self, mut generation: Generation, tag: T) {
        match caught(|| generation.begin(&self.pair)) {
            Ok(session) => self.running.push(Running { tag, generation, session, waits: false, error: None }),
            Err(error) => self.ended.push((tag, Err(error))),
        }
    }

    /// The generations that have ended since this was asked last, with what they wrote.
    pub fn take_ended(&mut self) -> impl Iterator<Item = (T, Result<Output>)> {
        std::mem::take(&mut self.ended).into_iter()
    }

    /// Has one pass made for all generations that wait for one of the same model. Each that has moved on or ended is then shown,
    /// to take its [events](Generation::next_event) or to [stop it](Generation::stop_after); an error that `moved` returns is how it
    /// ends.
    pub fn step(&mut self, mut moved: impl FnMut(&mut T, &mut Generation) -> Result<()>) {
        if let Some(role) = self.next_role() {
            let Self { pair, running, .. } = self;
            let (mut chosen, mut passes) = (Vec::new(), Vec::new());
            for (i, Running { generation, session, waits, .. }) in running.iter_mut().enumerate() {
                if let Some(pass) = generation.pass().filter(|pass| !*waits && pass.role == role)
                    && let Some(session) = session
                {
                    chosen.push(i);
                    passes.push((session, pass));
                }
            }
            let rows = passes.iter().map(|(_, pass)| pass.new.len()).sum();
            let batch = [passes.len(), rows];
            let begun = Instant::now();
            // One that has just been cancelled waits for none.
            let found = if passes.is_empty() { vec![] } else { make(pair, role, &mut passes) };
            drop(passes);
            let (readings, share) = shares(begun.elapsed(), chosen.iter().map(|&i| &running[i].generation));
            let alone = running.iter().filter(|running| !running.waits).count() == 1;
            for ((i, rows), reading) in chosen.into_iter().zip(found).zip(readings) {
                let Running { tag, generation, waits, error, .. } = &mut running[i];
                generation.add_share(role, reading, reading + share, batch);
                if matches!(rows, Err(Error::Memory { .. })) && !alone {
                    *waits = true;
                    continue;
                }
                let taken = caught(|| {
                    generation.take(rows)?;
                    moved(tag, generation)
                });
                *error = taken.err();
            }
        }
        self.sort_out(moved);
    }

    /// Whose turn it is: the draft model's as long as many wait for it, so that the verifier, which costs most for the first row,
    /// finds many drafts to score; and once for few, after each pass of the verifier.
    fn next_role(&mut self) -> Option<Role> {
        let mut waiting = [0; 2];
        for Running { generation, waits, .. } in &mut self.running {
            if let Some(pass) = generation.pass().filter(|_| !*waits) {
                waiting[usize::from(pass.role == Role::Verifier)] += 1;
            }
        }
        let [drafts, verifications] = waiting;
        let role = if drafts > 0 && (MANY * drafts > verifications || self.drafts_wait) {
            Role::Draft
        } else if verifications > 0 {
            Role::Verifier
        } else {
            return None;
        };
        self.drafts_wait = role == Role::Verifier && drafts > 0;
        Some(role)
    }

    /// Puts those that have ended with the others.
    fn sort_out(&mut self, mut moved: impl FnMut(&mut T, &mut Generation) -> Result<()>) {
        let mut i = 0;
        while let Some(Running { tag, generation, error, .. }) = self.running.get_mut(i) {
            if error.is_none() && generation.pass().is_some() {
                i += 1;
                continue;
            }
            if error.is_none() {
                // It may have been interrupted since.
                *error = caught(|| moved(tag, generation)).err();
            }
            let Running { tag, generation, error, .. } = self.running.remove(i);
            self.ended.push((tag, error.map_or_else(|| generation.into_output(), Err)));
            // What it held is free.
            self.running.iter_mut().for_each(|running| running.waits = false);
        }
        if self.running.iter().all(|running| running.waits)
            && let Some(first) = self.running.first_mut()
        {
            first.waits = false;
        }
    }
}

/// One that waits for the draft model to so many that wait for the verifier is many.
const MANY: usize = 4;

/// Has passes made by a pair, which may fail in any way.
fn make<P: Pair>(pair: &P, role: Role, passes: &mut [(&mut P::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
    let count = passes.len();
    let span = match role {
        Role::Draft => trace_span!("draft", sessions = count),
        Role::Verifier => trace_span!("verify", sessions = count),
    };
    let problem = match span.in_scope(|| caught(|| Ok(pair.pass_all(passes)))) {
        Ok(found) if found.len() == count => return found,
        Ok(found) => format!("the pair returned {} results of {count} passes", found.len()),
        Err(error) => error.to_string(),
    };
    (0..count).map(|_| Err(Error::model(problem.clone()))).collect()
}

/// How much of the time of a pass each spent on reading its source, and an even share of the rest.
fn shares<'g>(took: Duration, generations: impl ExactSizeIterator<Item = &'g Generation>) -> (Vec<Duration>, Duration) {
    let count = generations.len() as u32;
    let readings: Vec<_> = generations.map(|generation| generation.limit().take_reading_time()).collect();
    let share = took.saturating_sub(readings.iter().sum()) / count.max(1);
    (readings, share)
}

impl<P: Pair, T> fmt::Debug for Batch<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
