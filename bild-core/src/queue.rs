use std::{
    collections::VecDeque,
    fmt, mem,
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Event, Generation, Generator, Output, Pair, Request, Response, Result,
    budget::{LOOK, Lease},
    caught,
    driver::Driver,
    generator::places,
    response::Reply,
};

/// How many requests may wait in a [`Queue`], and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The most requests that wait for their turn; 1024 by default. Those under way do not count.
    pub max_waiting: NonZeroUsize,
    /// How long a request may wait for its turn before it fails with [`Error::QueueTimeout`]; in seconds in JSON. By default any time.
    #[serde(with = "crate::seconds::optional")]
    pub max_wait: Option<Duration>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { max_waiting: NonZeroUsize::new(1024).expect("it is not 0"), max_wait: None }
    }
}

impl QueueOptions {
    /// Sets the most requests that wait.
    pub fn with_max_waiting(mut self, requests: NonZeroUsize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Sets how long a request may wait.
    pub fn with_max_wait(mut self, time: Duration) -> Self {
        self.max_wait = Some(time);
        self
    }
}

/// Takes requests from any thread or async task, and generates for many of them at once in threads of its own: for services.
///
/// Made by [`Generator::queue`]. A clone is another handle of the same queue. A request joins those under way as soon as there is a place
/// ([`Generator::with_at_once`]) and memory ([`Generator::with_max_bytes`]) for it, in the order of arrival; till then it waits. Its
/// deadline counts from its arrival. What it writes is what [`Generator::generate`] writes for it.
///
/// Once the queue is [closed](Self::close), or its last handle is dropped, it takes no more, and its threads end when they are done with
/// what it has taken.
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
/// use bild::{Lossless, decode::{Event, Generator, NoDraft, QueueOptions}};
///
/// let counter = Counter(Vocabulary::new(10, 0, [9])); // counts from 1 to 9
/// let queue = Generator::new((NoDraft, counter), Lossless::default())?.queue(QueueOptions::default());
/// let mut response = queue.send(Source::new([1]))?;
/// while let Some(event) = response.recv() {
///     if let Event::Committed { token, .. } = event {
///         print!("{token} ");
///     }
/// }
/// assert_eq!(response.output()?.tokens.len(), 9);
/// queue.shutdown();
/// assert!(queue.send(Source::new([1])).is_err());
/// # Ok::<(), bild::Error>(())
/// ```
pub struct Queue<R, I, O> {
    prepare: Arc<Prepare<R, I, O>>,
    handle: Arc<Handle>,
}

/// Makes of a request what waits for its turn, and what its caller holds.
type Prepare<R, I, O> = dyn Fn(R) -> Result<(Waiting, Response<I, O>)> + Send + Sync;

/// What the handles of a queue share. The last one closes it.
struct Handle {
    shared: Arc<Shared>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
}

/// What the handles and the drivers share.
struct Shared {
    options: QueueOptions,
    state: Mutex<State>,
    /// One waits more, or none will any more.
    arrived: Condvar,
    /// One waits less, or none may any more.
    left: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    running: usize,
    closed: bool,
}

/// A request that has not begun.
struct Waiting {
    since: Instant,
    /// Whether it may wait for as long as it takes.
    patient: bool,
    generation: Generation,
    job: Box<dyn Job>,
}

/// Who is told of a generation.
trait Job: Send {
    fn moved(&mut self, generation: &mut Generation) -> Result<()>;
    fn ended(self: Box<Self>, output: Result<Output>);
}

/// A job that makes items and an output of it for a response; `F` holds how.
struct Replying<T, I, O, M, F> {
    tag: T,
    reply: Reply<I, O>,
    moved: Arc<M>,
    finish: Arc<F>,
}

impl<T, I, O, M, F> Job for Replying<T, I, O, M, F>
where
    T: Send,
    I: Send,
    O: Send,
    M: Fn(&mut T, &mut Generation, &mut dyn FnMut(I)) -> Result<()> + Send + Sync,
    F: Fn(T, Output) -> Result<O> + Send + Sync,
{
    fn moved(&mut self, generation: &mut Generation) -> Result<()> {
        let Self { tag, reply, moved, .. } = self;
        moved(tag, generation, &mut |item| reply.item(item))
    }

    fn ended(self: Box<Self>, output: Result<Output>) {
        let Self { tag, reply, finish, .. } = *self;
        reply.end(caught(|| finish(tag, output?)));
    }
}

impl<P: Pair + 'static> Generator<P> {
    /// Begins to take requests in threads of its own; the responses hold the events of each.
    pub fn queue(self, options: QueueOptions) -> Queue<Request, Event, Output> {
        let moved = |_: &mut (), generation: &mut Generation, each: &mut dyn FnMut(Event)| {
            while let Some(event) = generation.next_event() {
                each(event);
            }
            Ok(())
        };
        self.queue_jobs(options, |request| Ok((request, ())), moved, |(), output| Ok(output))
    }

    /// As [`queue`](Self::queue), for what makes its requests of something else: `begin` makes one and what goes with it, `moved` is
    /// given that after every pass, with whom to give items to, and `finish` that with the output.
    #[doc(hidden)]
    pub fn queue_jobs<R, T: Send + 'static, I: Send + 'static, O: Send + 'static>(
        self,
        options: QueueOptions,
        begin: impl Fn(R) -> Result<(Request, T)> + Send + Sync + 'static,
        moved: impl Fn(&mut T, &mut Generation, &mut dyn FnMut(I)) -> Result<()> + Send + Sync + 'static,
        finish: impl Fn(T, Output) -> Result<O> + Send + Sync + 'static,
    ) -> Queue<R, I, O> {
        let (state, arrived, left) = Default::default();
        let shared = Arc::new(Shared { options, state, arrived, left });
        let generator = Arc::new(self);
        let budget = Arc::new(generator.budget());
        let at_once = generator.at_once_in_queue();
        let drivers = generator.fewest_drivers(at_once);
        let drivers = (0..drivers).map(|i| {
            let places = places(at_once, drivers, i);
            let (generator, budget, shared) = (Arc::clone(&generator), Arc::clone(&budget), Arc::clone(&shared));
            thread::spawn(move || {
                let mut driver = Driver::new(generator.pair());
                let lease = |generation: &mut Generation| budget.lease(generator.pair(), generation, Duration::ZERO);
                while driver.fill(places, |wait| shared.next(wait, lease)) {
                    driver.step(|job, generation| job.moved(generation), |job, output| shared.ended(job, output));
                    shared.sweep();
                }
            })
        });
        let handle = Arc::new(Handle { drivers: Mutex::new(drivers.collect()), shared });
        let (moved, finish) = (Arc::new(moved), Arc::new(finish));
        let prepare = Arc::new(move |request| {
            let (request, tag) = begin(request)?;
            let patient = request.patient;
            let cancel = request.cancel(generator.settings()).map_or_else(Default::default, |token| token.child());
            let generation = generator.prepare(request.with_cancel(cancel.clone()), 0)?;
            let (reply, response) = Reply::new(cancel.drop_guard());
            let job = Box::new(Replying { tag, reply, moved: Arc::clone(&moved), finish: Arc::clone(&finish) });
            Ok((Waiting { since: Instant::now(), patient, generation, job }, response))
        });
        Queue { prepare, handle }
    }
}

impl<R, I, O> Queue<R, I, O> {
    /// Gives a request. Where as many wait as may, the thread waits for one to leave.
    ///
    /// # Errors
    ///
    /// As [`Generator::generate`], as far as it shows before the first step; [`Error::QueueClosed`].
    pub fn send(&self, request: impl Into<R>) -> Result<Response<I, O>> {
        self.give(request.into(), true)
    }

    /// Gives a request, for an async task or where it is better refused than late: never waits.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`Error::QueueFull`] where as many wait as may.
    pub fn try_send(&self, request: impl Into<R>) -> Result<Response<I, O>> {
        self.give(request.into(), false)
    }

    fn give(&self, request: R, wait: bool) -> Result<Response<I, O>> {
        let shared = &*self.handle.shared;
        drop(shared.room(wait)?); // before anything is done for it
        // Of a place that became free one sender is told: where it has no use for it, the next one is.
        let prepared = caught(|| (self.prepare)(request)).inspect_err(|_| shared.left.notify_one());
        let (waiting, response) = prepared?;
        shared.room(wait)?.waiting.push_back(waiting);
        shared.arrived.notify_one();
        Ok(response)
    }

    /// How many requests wait for their turn.
    pub fn waiting(&self) -> usize {
        self.handle.shared.lock().waiting.len()
    }

    /// How many generations are under way.
    pub fn running(&self) -> usize {
        self.handle.shared.lock().running
    }

    /// Takes no more requests. Those it has taken are done.
    pub fn close(&self) {
        self.handle.shared.close();
    }

    /// Takes no more requests, and waits until those it has taken are done.
    pub fn shutdown(&self) {
        self.close();
        // Whoever comes meanwhile waits for the lock.
        let mut drivers = self.handle.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        for driver in mem::take(&mut *drivers) {
            let _ = driver.join(); // a panic was said, and their responses have it as an error
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state where one more may wait.
    fn room(&self, wait: bool) -> Result<MutexGuard<'_, State>> {
        let limit = self.options.max_waiting.get();
        let mut state = self.lock();
        if state.waiting.len() >= limit {
            drop(state);
            self.sweep();
            state = self.lock();
        }
        loop {
            if state.closed {
                return Err(Error::QueueClosed);
            }
            if state.waiting.len() < limit {
                return Ok(state);
            }
            if !wait {
                return Err(Error::QueueFull { limit });
            }
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next one that waits, once there is memory for it: none overtakes it. Nothing if there is none now and the driver need not `wait`,
    /// or if there will be none.
    fn next<'a>(
        &self,
        wait: bool,
        lease: impl Fn(&mut Generation) -> Option<Lease<'a>>,
    ) -> Option<(Generation, Box<dyn Job>, Lease<'a>)> {
        let mut state = self.lock();
        loop {
            if let Some(first) = state.waiting.front_mut() {
                if let Some(lease) = lease(&mut first.generation) {
                    let Waiting { generation, job, .. } = state.waiting.pop_front()?;
                    state.running += 1;
                    self.left.notify_one();
                    return Some((generation, job, lease));
                }
                if !wait {
                    return None;
                }
                drop(state);
                thread::sleep(LOOK);
                self.sweep();
                state = self.lock();
            } else if !wait || state.closed {
                return None;
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn ended(&self, job: Box<dyn Job>, output: Result<Output>) {
        self.lock().running -= 1;
        job.ended(output);
    }

    /// Ends those whose time is up, or whose response was dropped, while they wait.
    fn sweep(&self) {
        let max_wait = self.options.max_wait.unwrap_or(Duration::MAX);
        let (mut over, mut i) = (Vec::new(), 0);
        let mut state = self.lock();
        while let Some(waiting) = state.waiting.get_mut(i) {
            let (waited, interrupted) = (waiting.since.elapsed(), waiting.generation.pass().is_none());
            if interrupted || waited > max_wait && !waiting.patient {
                let ended = state.waiting.remove(i);
                over.extend(ended.map(|ended| (ended, (!interrupted).then_some(Error::QueueTimeout { waited }))));
            } else {
                i += 1;
            }
        }
        drop(state);
        for (Waiting { mut generation, mut job, .. }, error) in over {
            self.left.notify_one();
            let output = error.map_or_else(
                || {
                    caught(|| job.moved(&mut generation))?;
                    generation.into_output()
                },
                Err,
            );
            job.ended(output);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.left.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<R, I, O> Clone for Queue<R, I, O> {
    fn clone(&self) -> Self {
        Self { prepare: Arc::clone(&self.prepare), handle: Arc::clone(&self.handle) }
    }
}

impl<R, I, O> fmt::Debug for Queue<R, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.waiting())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}
