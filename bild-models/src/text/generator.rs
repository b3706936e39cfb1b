use std::{fmt, mem, num::NonZeroUsize, sync::Arc};

use bild_core::{
    Error, Event, EventStream, Generation, Generator, Order, Output, Pair, PairSession, Policy, Queue, QueueOptions,
    Request, Result, Settings, Source,
};
use serde::{Deserialize, Serialize};

use super::{TextRequest, Tokenizer, partial_text::PartialText, stops::Stops};

/// Goes from text to text: a pair of models, the policy that steers them, and their tokenizer.
///
/// ```no_run
/// use bild::{Bild, Checkpoint, Flex, T5, TextGenerator};
///
/// let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
/// let device = Default::default();
/// let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
/// let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::default())?;
/// println!("{}", generator.generate("Ich habe heute leider keine Zeit.")?.text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TextGenerator<P> {
    generator: Generator<P>,
    texts: Texts,
}

/// What makes tokens of texts.
#[derive(Clone)]
struct Texts {
    tokenizer: Tokenizer,
    prefix: Arc<str>,
    stops: Stops,
}

/// A [`Queue`] of texts, whose responses are pieces of text: whole characters, of committed tokens only. All pieces together are the
/// text of the output.
pub type TextQueue = Queue<TextRequest<'static>, String, TextOutput>;

/// What was written, as text and as tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TextOutput {
    /// The text of the committed tokens, special ones left out; up to the first stop string, if there is one in it.
    pub text: String,
    /// The tokens, and how they came about.
    pub output: Output,
}

impl<P: Pair> TextGenerator<P> {
    /// Puts a tokenizer, a pair and a policy together, with the default [`Settings`] and no prefix.
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`] if the two models do not speak the same tokens.
    pub fn new(tokenizer: Tokenizer, pair: P, policy: impl Policy + 'static) -> Result<Self> {
        let texts = Texts { tokenizer, prefix: "".into(), stops: Stops::default() };
        Ok(Self { generator: Generator::new(pair, policy)?, texts })
    }

    /// Replaces the policy.
    pub fn with_policy(mut self, policy: impl Policy + 'static) -> Self {
        self.generator = self.generator.with_policy(policy);
        self
    }

    /// Replaces the settings of requests that bring none of their own.
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.generator = self.generator.with_settings(settings);
        self
    }

    /// Refuses a generation that would take more than so many bytes, as [`Generator::with_max_bytes`] does.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.generator = self.generator.with_max_bytes(bytes);
        self
    }

    /// Puts this before every text, as in `"translate English to German: "`.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.texts.prefix = prefix.into();
        self
    }

    /// Ends a generation where one of these strings is written; the text ends before it. They are looked for in the text of
    /// committed tokens, which the output holds up to the one that completed the string
    /// ([`Finish::Stopped`](bild_core::Finish::Stopped)).
    pub fn with_stop_strings<S: Into<String>>(mut self, strings: impl IntoIterator<Item = S>) -> Self {
        self.texts.stops = Stops::new(strings.into_iter().map(Into::into));
        self
    }

    /// Sets how many generations there are at once of many, as [`Generator::with_at_once`] does.
    pub fn with_at_once(mut self, generations: NonZeroUsize) -> Self {
        self.generator = self.generator.with_at_once(generations);
        self
    }

    /// The generator behind it, which takes and gives tokens.
    pub fn generator(&self) -> &Generator<P> {
        &self.generator
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.texts.tokenizer
    }

    /// The source of a text: the generator's prefix and the text as tokens.
    ///
    /// # Errors
    ///
    /// [`Error::EmptySource`] if there is nothing but white space in `text`; an error of the tokenizer.
    pub fn source(&self, text: &str) -> Result<Source> {
        self.texts.source(&self.texts.prefix, text)
    }

    /// Generates to the end, from a text or from a [`TextRequest`].
    ///
    /// # Errors
    ///
    /// If the text is empty or too long, a setting makes no sense, or a model, the policy or the tokenizer fails.
    pub fn generate<'t>(&self, request: impl Into<TextRequest<'t>>) -> Result<TextOutput> {
        self.stream(request)?.finish()
    }

    /// Generates for many texts or requests, and hands each result to `each` with its number, in the order in which they came. One
    /// that fails does not stop the others. As [`Generator::generate_many`].
    pub fn generate_many<'t, R: Into<TextRequest<'t>> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        each: impl FnMut(usize, Result<TextOutput>),
    ) {
        self.generate_all(requests, Order::Given, each);
    }

    /// As [`generate_many`](Self::generate_many), but hands over each result as soon as it is there, whatever order that is. As
    /// [`Generator::generate_many_unordered`].
    pub fn generate_many_unordered<'t, R: Into<TextRequest<'t>> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        each: impl FnMut(usize, Result<TextOutput>),
    ) {
        self.generate_all(requests, Order::Done, each);
    }

    fn generate_all<'t, R: Into<TextRequest<'t>> + Send>(
        &self,
        requests: impl IntoIterator<Item = R, IntoIter: Send>,
        order: Order,
        each: impl FnMut(usize, Result<TextOutput>),
    ) {
        self.generator.generate_jobs(
            requests,
            order,
            |request: R, _| self.texts.request(request.into()),
            |text: &mut Text, generation| {
                if text.stops.is_empty() {
                    generation.without_events();
                    return Ok(());
                }
                text.follow(generation, |_, _| {})
            },
            Text::output,
            each,
        );
    }

    /// Begins to take texts and [`TextRequest`]s from any thread or async task, for many of which it generates at once in threads of
    /// its own: for services.
    ///
    /// ```no_run
    /// # use bild::{Flex, T5, TextGenerator};
    /// use bild::{TextRequest, decode::QueueOptions};
    ///
    /// # fn serve(generator: TextGenerator<(T5<Flex>, T5<Flex>)>) -> bild::decode::Result<()> {
    /// let queue = generator.queue(QueueOptions::default());
    /// let mut response = queue.send(TextRequest::new("Ich habe heute leider keine Zeit."))?;
    /// while let Some(piece) = response.recv() {
    ///     print!("{piece}");
    /// }
    /// println!("\n{}", response.output()?.output.statistics);
    /// # Ok(())
    /// # }
    /// ```
    pub fn queue(self, options: QueueOptions) -> TextQueue
    where
        P: 'static,
    {
        self.queue_of(options, |_, text| (!text.is_empty()).then_some(text))
    }

    /// As [`queue`](Self::queue), for responses of what `item` makes of each event and the text that can be given out with it, as one
    /// that shows drafts before they are verified.
    pub fn queue_of<I: Send + 'static>(
        self,
        options: QueueOptions,
        item: impl Fn(Event, String) -> Option<I> + Send + Sync + 'static,
    ) -> Queue<TextRequest<'static>, I, TextOutput>
    where
        P: 'static,
    {
        let Self { generator, texts } = self;
        generator.queue_jobs(
            options,
            move |request| texts.request(request),
            move |text: &mut Text, generation, each| {
                text.follow(generation, |event, text| item(event, text).into_iter().for_each(&mut *each))
            },
            Text::output,
        )
    }

    /// Begins a generation whose text is taken piece by piece.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate), as far as it shows before the first step.
    pub fn stream<'t>(&self, request: impl Into<TextRequest<'t>>) -> Result<TextStream<P::Session>> {
        self.begin(request.into(), 0)
    }

    fn begin(&self, request: TextRequest<'_>, number: usize) -> Result<TextStream<P::Session>> {
        let (request, text) = self.texts.request(request)?;
        Ok(TextStream { events: self.generator.begin(request, number)?, text })
    }
}

impl Texts {
    fn source(&self, prefix: &str, text: &str) -> Result<Source> {
        if text.trim().is_empty() {
            return Err(Error::EmptySource);
        }
        let tokens = if prefix.is_empty() {
            self.tokenizer.encode(text)?
        } else {
            self.tokenizer.encode(&format!("{prefix}{text}"))?
        };
        Ok(Source::new(tokens))
    }

    /// The request for tokens that a request for text is, and what makes text of them.
    fn request(&self, request: TextRequest<'_>) -> Result<(Request, Text)> {
        let source = self.source(request.prefix.as_ref().unwrap_or(&self.prefix), &request.text)?;
        let source = match &request.guess {
            Some(guess) if !guess.trim().is_empty() => source.with_guess(self.tokenizer.encode(guess)?),
            _ => source,
        };
        let (tokens, stops) =
            (PartialText::new(self.tokenizer.clone()), request.stops.unwrap_or_else(|| self.stops.clone()));
        Ok((request.request.with_source(source), Text { tokens, stops, given: String::new(), stopped: None }))
    }
}

impl<P> fmt::Debug for TextGenerator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextGenerator")
            .field("generator", &self.generator)
            .field("prefix", &self.texts.prefix)
            .finish_non_exhaustive()
    }
}

/// The text of a generation under way.
struct Text {
    tokens: PartialText,
    stops: Stops,
    /// All pieces so far, if there are stop strings.
    given: String,
    /// After how many tokens a stop string was complete.
    stopped: Option<usize>,
}

impl Text {
    /// Goes through what has happened in a generation, and hands each event to `each` with the text that can be given out then. At a
    /// stop string the generation ends.
    fn follow(&mut self, generation: &mut Generation, mut each: impl FnMut(Event, String)) -> Result<()> {
        let mut held = String::new();
        while let Some(event) = generation.next_event() {
            let mut piece = mem::take(&mut held);
            if self.stopped.is_none() {
                piece += &self.piece(&event)?;
                if let Some(tokens) = self.stopped {
                    generation.stop_after(tokens);
                    if let Event::Finished { .. } = event {
                        held = piece; // for the event that says so
                        continue;
                    }
                }
            }
            each(event, piece);
        }
        Ok(())
    }

    /// What can be given out after an event, and whether the text ends with it.
    fn piece(&mut self, event: &Event) -> Result<String> {
        let (piece, tokens) = match *event {
            Event::Committed { token, at, .. } => (self.tokens.push(token)?, Some(at + 1)),
            Event::Finished { .. } => (self.tokens.rest()?, None),
            _ => return Ok(String::new()),
        };
        if self.stops.is_empty() {
            return Ok(piece);
        }
        let (mut free, stops) = self.stops.push(&piece);
        if stops {
            self.stopped = tokens.or(Some(self.tokens.len()));
        } else if tokens.is_none() {
            free += &self.stops.rest();
        }
        self.given += &free;
        Ok(free)
    }

    /// The whole of it, beside the output that it is of.
    fn output(self, output: Output) -> Result<TextOutput> {
        let text = if self.stops.is_empty() { self.tokens.tokenizer().decode(&output.tokens)? } else { self.given };
        Ok(TextOutput { text, output })
    }
}

/// A generation under way as an iterator over pieces of its text: whole characters, of committed tokens only. All pieces
/// together are the text of the output.
pub struct TextStream<S> {
    events: EventStream<S>,
    text: Text,
}

impl<S: PairSession> TextStream<S> {
    /// Runs to the end and returns the whole text with its tokens.
    ///
    /// # Errors
    ///
    /// As [`EventStream::finish`].
    pub fn finish(mut self) -> Result<TextOutput> {
        if !self.text.stops.is_empty() {
            for piece in self.by_ref() {
                piece?;
            }
        }
        let output = match self.text.stopped {
            Some(tokens) => self.events.stop_after(tokens)?,
            None => self.events.finish()?,
        };
        self.text.output(output)
    }

    /// Ends the generation now and returns the text of what is committed, with [`Finish::Stopped`](bild_core::Finish::Stopped).
    ///
    /// # Errors
    ///
    /// As [`EventStream::stop`].
    pub fn stop(mut self) -> Result<TextOutput> {
        if !self.text.stops.is_empty() {
            // What is committed and was not given out may hold a stop string.
            self.events.end();
            for piece in self.by_ref() {
                piece?;
            }
        }
        let output = match self.text.stopped {
            Some(tokens) => self.events.stop_after(tokens)?,
            None => self.events.stop()?,
        };
        self.text.output(output)
    }
}

impl<S: PairSession> Iterator for TextStream<S> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        while self.text.stopped.is_none() {
            match self.events.next()?.and_then(|event| self.text.piece(&event)) {
                Ok(piece) if piece.is_empty() => {}
                piece => return Some(piece),
            }
        }
        None
    }
}

impl<S> fmt::Debug for TextStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextStream").field("events", &self.events).finish_non_exhaustive()
    }
}
