use std::{borrow::Cow, sync::Arc};

use bild_core::{CancelToken, Policy, Request, Settings, Source};

use super::stops::Stops;

/// A text with what is to be different from the [`TextGenerator`](crate::TextGenerator) for this one generation. A text alone is
/// one too.
///
/// ```no_run
/// use bild::{CancelToken, Flex, Lossless, Settings, T5, TextGenerator, TextRequest, decode::NoDraft};
///
/// # fn answer(generator: TextGenerator<(NoDraft, T5<Flex>)>) -> bild::decode::Result<()> {
/// let client = CancelToken::default();
/// let request = TextRequest::new("Ich habe heute leider keine Zeit.")
///     .with_policy(Lossless::default())
///     .with_settings(Settings::default().with_max_new_tokens(64))
///     .with_cancel(client.child());
/// println!("{}", generator.generate(request)?.text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TextRequest<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) prefix: Option<Arc<str>>,
    pub(crate) stops: Option<Stops>,
    pub(crate) guess: Option<Cow<'t, str>>,
    /// Its source is put in when the text is encoded.
    pub(crate) request: Request,
}

impl<'t> TextRequest<'t> {
    /// A request for what the generator makes of this text.
    pub fn new(text: impl Into<Cow<'t, str>>) -> Self {
        let request = Request::new(Source::new([]));
        Self { text: text.into(), prefix: None, stops: None, guess: None, request }
    }

    /// Replaces the text.
    pub fn with_text(mut self, text: impl Into<Cow<'t, str>>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets what stands before the text, in place of the generator's prefix.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Sets the stop strings, in place of the generator's.
    pub fn with_stop_strings<S: Into<String>>(mut self, strings: impl IntoIterator<Item = S>) -> Self {
        self.stops = Some(Stops::new(strings.into_iter().map(Into::into)));
        self
    }

    /// Says what will probably be written, for a [`Guess`](crate::Guess) to draft: as [`Source::with_guess`].
    pub fn with_guess(mut self, text: impl Into<Cow<'t, str>>) -> Self {
        self.guess = Some(text.into());
        self
    }

    /// As [`Request::with_settings`].
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.request = self.request.with_settings(settings);
        self
    }

    /// As [`Request::with_policy`].
    pub fn with_policy(mut self, policy: impl Policy + 'static) -> Self {
        self.request = self.request.with_policy(policy);
        self
    }

    /// As [`Request::with_seed`].
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.request = self.request.with_seed(seed);
        self
    }

    /// As [`Request::with_cancel`].
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.request = self.request.with_cancel(token);
        self
    }

    /// As [`Request::without_max_wait`].
    pub fn without_max_wait(mut self) -> Self {
        self.request = self.request.without_max_wait();
        self
    }
}

impl<'t, T: AsRef<str> + ?Sized> From<&'t T> for TextRequest<'t> {
    fn from(text: &'t T) -> Self {
        Self::new(text.as_ref())
    }
}

impl From<String> for TextRequest<'static> {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}
