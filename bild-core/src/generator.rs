use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    Error, EventStream, Generation, Output, Pair, Policy, Request, Result, Settings, Source, error::megabytes,
    in_order, settings::MOST_TOKENS,
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
}

impl<P: Pair> Generator<P> {
    /// Puts a pair and a policy together, with the default [`Settings`].
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`](crate::Error::PairMismatch) if the two models do not speak the same tokens.
    pub fn new(pair: P, policy: impl Policy + 'static) -> Result<Self> {
        pair.check()?;
        Ok(Self { pair, policy: Arc::new(policy), settings: Settings::default(), max_bytes: u64::MAX })
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
    /// service whose sources and settings come from others. Without it, what a model finds free is the limit.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
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

    /// Generates for many requests, `at_once` of them at a time, and hands each result to `each` with its number: in the
    /// order of the requests, on this thread, as soon as it and all before it are there. One that fails does not stop the
    /// others; one that panics fails with [`Error::Panicked`]. Each has a seed of its own: its own one, or that of the settings
    /// plus its number.
    ///
    /// Requests are taken as they are needed, so neither they nor the results need memory for all of them. Models on a CPU
    /// share the cores between the generations.
    pub fn generate_many<R: Into<Request> + Send>(
        &self,
        requests: impl IntoIterator<Item = R>,
        at_once: usize,
        each: impl FnMut(usize, Result<Output>),
    ) {
        let generate = |(number, request): (usize, R)| caught(|| self.begin(&request.into(), number)?.finish());
        in_order(requests.into_iter().enumerate(), at_once, generate, each);
    }

    /// Begins a generation whose events are taken one by one.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate), as far as it shows before the first step.
    pub fn stream(&self, request: impl Into<Request>) -> Result<EventStream<P::Session>> {
        self.begin(&request.into(), 0)
    }

    /// Begins the request with this number of those given at once.
    #[doc(hidden)]
    pub fn begin(&self, request: &Request, number: usize) -> Result<EventStream<P::Session>> {
        let settings = request.settings(&self.settings, number);
        let policy = request.policy.as_ref().unwrap_or(&self.policy);
        let generation = Generation::new(policy, self.pair.vocabulary(), &request.source, &settings)?;
        let needed = self.bytes_for(&request.source, &settings);
        if needed > self.max_bytes {
            let limit = megabytes(self.max_bytes);
            let reason = format!("this generator allows {limit}; a shorter source or fewer new tokens take less");
            return Err(Error::Memory { needed, reason });
        }
        EventStream::begin(&self.pair, generation.with_most_drafts(self.pair.most_drafts()))
    }
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
