use std::sync::Arc;

use crate::{Generation, Output, Pair, Policy, Result, Settings, Source};

/// A pair of models with the policy that steers them: begins generations.
///
/// Any number of generations may run at once, on any threads; each owns its state.
#[derive(Clone)]
pub struct Generator<P> {
    pair: P,
    policy: Arc<dyn Policy>,
    settings: Settings,
}

impl<P: Pair> Generator<P> {
    /// Puts a pair and a policy together, with the default [`Settings`].
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`](crate::Error::PairMismatch) if the two models do not speak the same tokens.
    pub fn new(pair: P, policy: impl Policy + 'static) -> Result<Self> {
        pair.check()?;
        Ok(Self { pair, policy: Arc::new(policy), settings: Settings::default() })
    }

    /// Replaces the settings that [`generate`](Self::generate) and [`stream`](Self::stream) use.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
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
    pub fn generate(&self, source: &Source) -> Result<Output> {
        Generation::begin(&self.pair, &*self.policy, source, &self.settings)?.finish()
    }

    /// Begins a generation whose events are taken one by one.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate), as far as it shows before the first step.
    pub fn stream(&self, source: &Source) -> Result<Generation<P::Session>> {
        self.begin(source, &self.settings)
    }

    /// Begins a generation with other settings than the generator's.
    ///
    /// # Errors
    ///
    /// As [`stream`](Self::stream).
    pub fn begin(&self, source: &Source, settings: &Settings) -> Result<Generation<P::Session>> {
        Generation::begin(&self.pair, &*self.policy, source, settings)
    }
}
