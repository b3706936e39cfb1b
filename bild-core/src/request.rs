use std::{fmt, sync::Arc};

use crate::{CancelToken, Policy, Settings, Source};

/// A source with what is to be different from the [`Generator`](crate::Generator) for this one generation. A source alone is
/// one too.
///
/// ```
/// use bild::{CancelToken, Settings, decode::{Request, Source}};
///
/// let client = CancelToken::default();
/// let request = Request::new(Source::new([7, 8, 1])).with_seed(3).with_cancel(client.child());
/// let short = request.clone().with_settings(Settings::default().with_max_new_tokens(16));
/// # let _ = short;
/// ```
#[derive(Clone)]
pub struct Request {
    pub(crate) source: Source,
    pub(crate) settings: Option<Settings>,
    pub(crate) policy: Option<Arc<dyn Policy>>,
    pub(crate) seed: Option<u64>,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) patient: bool,
}

impl Request {
    /// A request for what the generator makes of this source.
    pub fn new(source: Source) -> Self {
        Self { source, settings: None, policy: None, seed: None, cancel: None, patient: false }
    }

    /// Replaces the source.
    pub fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Sets all settings, in place of the generator's.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Sets the policy, in place of the generator's. An `Arc` of one that learns goes on learning.
    pub fn with_policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Sets the seed, in place of that of the settings.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the token that ends it from outside, in place of that of the settings.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// Lets it wait in a [`Queue`](crate::Queue) for longer than [`QueueOptions::max_wait`](crate::QueueOptions::max_wait): as a further part
    /// of a text, which waits for those before it.
    pub fn without_max_wait(mut self) -> Self {
        self.patient = true;
        self
    }

    /// The settings that hold, where `settings` are the generator's and `number` counts the requests given to it at once.
    pub(crate) fn settings(&self, settings: &Settings, number: usize) -> Settings {
        let mut settings = self.settings.as_ref().unwrap_or(settings).clone();
        settings.seed = self.seed.unwrap_or_else(|| settings.seed.wrapping_add(number as u64));
        settings.cancel = self.cancel(&settings).cloned();
        settings
    }

    /// The token that ends it from outside, where `settings` are what it goes by if it has none of its own.
    pub(crate) fn cancel<'s>(&'s self, settings: &'s Settings) -> Option<&'s CancelToken> {
        self.cancel.as_ref().or(self.settings.as_ref().unwrap_or(settings).cancel.as_ref())
    }
}

impl From<Source> for Request {
    fn from(source: Source) -> Self {
        Self::new(source)
    }
}

impl From<&Source> for Request {
    fn from(source: &Source) -> Self {
        Self::new(source.clone())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("source", &self.source)
            .field("settings", &self.settings)
            .field("policy", &self.policy.is_some())
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
