use std::{
    fmt,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{
    Error, EventStream, Generation, Output, Pair, Policy, Request, Result, Settings, Source,
    budget::{Budget, LOOK},
    driver::Driver,
    error::megabytes,
    many::{Desk, Order, by_threads},
    settings::MOST_TOKENS,
};

/// A pair of models with the policy that steers them: begins generations.
///
/// Any number of generations may run at once, on any threads; each owns its state.
#[derive(Clone)]
pub struct Generator<P> {
    pair: P,
    policy: Arc<dyn Policy>,
    settings: Settings,
    max_bytes: u64,
    at_once: Option<NonZeroUsize>,
}

impl<P: Pair> Generator<P> {
    /// Puts a pair and a policy together, with the default [`Settings`].
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`](crate::Error::PairMismatch) if the two models do not speak the same tokens.
    pub fn new(pair: P, policy: impl Policy + 'static) -> Result<Self> {
        pair.check()?;
        Ok(Self { pair, policy: Arc::new(policy), settings: Settings::default(), max_bytes: u64::MAX, at_once: None })
    }

    /// Replaces the policy.
    pub fn with_policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Replaces the settings of requests that bring none of their own.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Refuses a generation that would take more than so many bytes by [`bytes_for`](Self::bytes_for), before it begins: for a
    /// service whose sources and settings come from others. [Of many](Self::generate_many), one that would not fit beside the others
    /// waits. Without it, what a model finds free is the limit.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how many generations there are at once [of many](Self::generate_many). It changes how long they take, and nothing that
    /// they write. By default there are as many as cores, or, where the pair computes the passes of several together, 64 for each pass that
    /// it computes [at a time](Pair::passes_at_once), of eight such at most.
    pub fn with_at_once(mut self, generations: NonZeroUsize) -> Self {
        self.at_once = Some(generations);
        self
    }

    /// How many generations there are at once of many.
    pub fn at_once(&self) -> usize {
        self.at_once_by(2 * ENOUGH, self.pair.passes_at_once().clamp(1, 8))
    }

    /// The same of a queue, to which few come at a time as a rule.
    pub(crate) fn at_once_in_queue(&self) -> usize {
        self.at_once_by(ENOUGH, cores().div_ceil(8))
    }

    fn at_once_by(&self, in_a_pass: usize, passes: usize) -> usize {
        self.at_once.map_or_else(
            || match self.pair.batch_size() {
                0 | 1 => cores(),
                most => most.min(in_a_pass) * passes,
            },
            usize::from,
        )
    }

    /// About how many bytes a generation from `source` takes: the caches of both models for as many tokens as `settings`
    /// allow, and what reading the source needs meanwhile. The weights are not counted.
    pub fn bytes_for(&self, source: &Source, settings: &Settings) -> u64 {
        let read = source.tokens().len().min(settings.max_source_tokens).min(MOST_TOKENS);
        self.pair.bytes_for(read, settings.max_new_tokens.min(MOST_TOKENS) + 1)
    }

    /// The settings in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pair.
    pub fn pair(&self) -> &P {
        &self.pair
    }

    /// Generates to the end.
    ///
    /// # Errors
    ///
    /// If the source is empty or too long, a setting makes no sense, or a model or the policy fails.
    pub fn generate(&self, request: impl Into<Request>) -> Result<Output> {
        self.stream(request)?.finish()
    }

    /// Generates for many requests, and hands each result to `each` with its number: in the order of the requests, on this thread,
    /// as soon as it and all before it are there. One that fails does not stop the others; one that panics fails with
    /// [`Error::Panicked`]. Each has a seed of its own: its own one, or that of the settings plus its number.
    ///
    /// Where the pair computes the passes of several generations [together](Pair::batch_size), so many are made as a
    /// [`Batch`](crate::Batch); else each generation has a thread of its own. How many there are at once is
    /// [`with_at_once`](Self::with_at_once). Requests are taken as they are needed, on a thread of their own, so neither they nor the
    /// results need memory for all of them, and results come while the next request is waited for.
    pub fn generate_many<R: Into<Request> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        each: impl FnMut(usize, Result<Output>),
    ) {
        self.generate_all(requests, Order::Given, each);
    }

    /// As [`generate_many`](Self::generate_many), but hands over each result as soon as it is there, whatever order that is: none waits
    /// for a longer one before it.
    pub fn generate_many_unordered<R: Into<Request> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        each: impl FnMut(usize, Result<Output>),
    ) {
        self.generate_all(requests, Order::Done, each);
    }

    fn generate_all<R: Into<Request> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        order: Order,
        each: impl FnMut(usize, Result<Output>),
    ) {
        let begin = |request: R, _| Ok((request.into(), ()));
        let moved = |_: &mut (), generation: &mut Generation| {
            generation.without_events();
            Ok(())
        };
        self.generate_jobs(requests, order, begin, moved, |(), output| Ok(output), each);
    }

    /// As [`generate_many`](Self::generate_many), for what makes its requests of something else and its results of outputs: `begin`
    /// is given an item with its number, `moved` what it made beside the request, after every pass, and `finish` that with the output.
    #[doc(hidden)]
    pub fn generate_jobs<I: Send, T, O: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: Send>,
        order: Order,
        begin: impl Fn(I, usize) -> Result<(Request, T)> + Sync,
        moved: impl Fn(&mut T, &mut Generation) -> Result<()> + Sync,
        finish: impl Fn(T, Output) -> Result<O> + Sync,
        each: impl FnMut(usize, Result<O>),
    ) {
        let at_once = self.at_once();
        let drivers = self.drivers(at_once);
        let budget = self.budget();
        let prepare = |item, number| {
            let (request, tag) = begin(item, number)?;
            Ok((self.prepare(request, number)?, tag))
        };
        let drive = |desk: &Desk<I, Result<O>>| {
            let mut driver = Driver::new(&self.pair);
            let most = places(at_once, drivers, desk.thread);
            let prepared = |wait| {
                loop {
                    let (number, item) = desk.take(wait)?;
                    match caught(|| prepare(item, number)) {
                        Ok((generation, tag)) => return Some((generation, (number, tag))),
                        Err(error) => desk.give(number, Err(error)),
                    }
                }
            };
            // One that there is no memory for yet.
            let mut held = None;
            // Few are shared out evenly, but never so few that a pass waits for the weights.
            while driver.fill(most.min(desk.share().max(ENOUGH)), |wait| {
                let (mut generation, tag) = held.take().or_else(|| prepared(wait))?;
                loop {
                    let patience = if wait { LOOK } else { Duration::ZERO };
                    if let Some(lease) = budget.lease(&self.pair, &mut generation, patience) {
                        return Some((generation, tag, lease));
                    }
                    if !wait {
                        held = Some((generation, tag));
                        return None;
                    }
                }
            }) {
                driver.step(
                    |(_, tag), generation| moved(tag, generation),
                    |(number, tag), output| desk.give(number, caught(|| finish(tag, output?))),
                );
            }
        };
        by_threads(items, drivers, places(at_once, drivers, 0), order, drive, each);
    }

    /// How many threads drive so many generations at once, of which there are always enough: where each has `ENOUGH`, one for each pass
    /// that is computed at a time, because a thread that has a pass of its own waits for no other.
    fn drivers(&self, at_once: usize) -> usize {
        self.fewest_drivers(at_once).max(self.pair.passes_at_once().min(at_once / ENOUGH))
    }

    /// As many as it takes.
    pub(crate) fn fewest_drivers(&self, at_once: usize) -> usize {
        at_once.div_ceil(self.pair.batch_size().max(1))
    }

    /// What generations at once may take together.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.max_bytes)
    }

    /// Begins a generation whose events are taken one by one.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate), as far as it shows before the first step.
    pub fn stream(&self, request: impl Into<Request>) -> Result<EventStream<P::Session>> {
        self.begin(request, 0)
    }

    /// Begins the request with this number of those given at once.
    #[doc(hidden)]
    pub fn begin(&self, request: impl Into<Request>, number: usize) -> Result<EventStream<P::Session>> {
        EventStream::begin(&self.pair, self.prepare(request, number)?)
    }

    /// The generation of the request with this number of those given at once, for a [`Batch`](crate::Batch) of this generator's
    /// [pair](Self::pair).
    ///
    /// # Errors
    ///
    /// If the source is empty or too long, or a setting makes no sense.
    pub fn prepare(&self, request: impl Into<Request>, number: usize) -> Result<Generation> {
        let request = request.into();
        let settings = request.settings(&self.settings, number);
        let policy = request.policy.as_ref().unwrap_or(&self.policy);
        let generation = Generation::new(policy, self.pair.vocabulary(), &request.source, &settings)?;
        let needed = self.bytes_for(&request.source, &settings);
        if needed > self.max_bytes {
            let limit = megabytes(self.max_bytes);
            let reason = format!("this generator allows {limit}; a shorter source or fewer new tokens take less");
            return Err(Error::Memory { needed, reason });
        }
        Ok(generation.with_most_drafts(self.pair.most_drafts()))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Generations whose passes, made together, take about as long by arithmetic as by reading the weights.
pub(crate) const ENOUGH: usize = 32;

/// How many generations the driver numbered `i` has at once, of so many in all.
pub(crate) fn places(at_once: usize, drivers: usize, i: usize) -> usize {
    at_once / drivers + usize::from(i < at_once % drivers)
}

impl<P> fmt::Debug for Generator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Makes an error of a panic, for what generates in many threads.
///
/// # Errors
///
/// What `work` fails with, or [`Error::Panicked`].
#[doc(hidden)]
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::Panicked(text.unwrap_or_else(|| "no message".into())))
    })
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn drivers_have_as_many_places_as_there_are() {
        for at_once in 1..40 {
            for drivers in 1..=at_once {
                let all: Vec<_> = (0..drivers).map(|i| places(at_once, drivers, i)).collect();
                assert_eq!(all.iter().sum::<usize>(), at_once);
                assert!(all.is_sorted_by(|a, b| a >= b) && all[0] <= all[drivers - 1] + 1, "{all:?}");
            }
        }
    }
}
