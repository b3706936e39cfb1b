//! The T5 family: an encoder that reads the source once and a decoder with a cache that can be taken back.
//!
//! One sequence at a time, so hidden states are `[tokens, d_model]` without a batch dimension.

mod attention;
mod cache;
mod early_exit;
mod feed_forward;
mod loader;
mod norm;
mod position;
mod projection;
mod reduce;
mod self_test;
mod session;
mod stack;

use std::sync::Arc;

use bild_core::{DraftModel, DraftSession, Error, Result, SessionLimit, Source, Token, VerifierModel, Vocabulary};
use burn::tensor::{Tensor, backend::Backend};

use crate::{Checkpoint, Head, LoadError, LoadOptions, T5Config, Threads, memory};
use cache::Cache;
pub use early_exit::{EarlyExit, EarlyExitSession};
use loader::Loader;
use projection::Projection;
pub use session::T5Session;
use stack::{DecoderStack, DecoderState, EncoderStack};

/// A T5 on a Burn backend: T5 1.0, T5 1.1 and FLAN-T5, UL2, mT5.
///
/// The weights are immutable and shared: cloning is cheap, and any number of generations run at once on one value. It
/// drafts ([`DraftModel`]) and verifies ([`VerifierModel`]) alike.
#[derive(Clone)]
pub struct T5<B: Backend> {
    weights: Arc<Weights<B>>,
    vocabulary: Vocabulary,
}

pub(crate) struct Weights<B: Backend> {
    config: T5Config,
    device: B::Device,
    threads: Threads,
    /// `[vocab, d_model]`
    embedding: Projection<B>,
    encoder: EncoderStack<B>,
    decoder: DecoderStack<B>,
    /// `[vocab, d_model]`, unless it is the embedding.
    head: Option<Projection<B>>,
}

impl<B: Backend> T5<B> {
    /// Reads the weights of a checkpoint onto a device, as f32 whatever they are stored as, to compute with the default
    /// [`Threads`](crate::Threads).
    ///
    /// # Errors
    ///
    /// If a tensor is missing, has another shape than the configuration says, or holds NaN or ∞: the sentence names the
    /// file and the tensor. If the model lies in this process's memory and is larger than what is free. On
    /// CUDA, if the driver, a GPU, the run-time compiler or its headers are missing. If the backend's floats are shorter than
    /// f32, or it turns out to compute wrongly ([`LoadOptions::self_test`]).
    pub fn load(checkpoint: &Checkpoint, device: &B::Device) -> Result<Self, LoadError> {
        Self::load_with(checkpoint, device, &LoadOptions::default())
    }

    /// As [`load`](Self::load), in another precision or with other threads.
    ///
    /// ```no_run
    /// use bild_models::{Checkpoint, LoadOptions, Precision, T5};
    /// use burn_flex::Flex;
    ///
    /// let options = LoadOptions::default().precision(Precision::Int8);
    /// let model = T5::<Flex>::load_with(&Checkpoint::open("flan-t5-large")?, &Default::default(), &options)?;
    /// # Ok::<(), bild_models::LoadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(checkpoint: &Checkpoint, device: &B::Device, options: &LoadOptions) -> Result<Self, LoadError> {
        #[cfg(feature = "cuda")]
        crate::cuda::check::<B>()?;
        self_test::check_floats::<B>(device)?;
        let config = checkpoint.config().clone();
        let span = tracing::info_span!("load", layers = config.encoder_layers + config.decoder_layers);
        let _entered = span.enter();
        let loader = Loader::new(checkpoint, device, options);
        loader.check_layers(&config)?;
        loader.check_memory(&config)?;
        let shape = [config.vocab_size, config.d_model];
        let (embedding, head) = loader.embedding_and_head(config.head);
        let embedding = || Projection::load(&loader, &[embedding.into()], shape);
        let head = || head.map(|name| Projection::load(&loader, &[name.into()], shape)).transpose();
        let (encoder, decoder) = (|| EncoderStack::load(&loader, &config), || DecoderStack::load(&loader, &config));
        let (first, second) =
            loader.both(|| Ok((embedding()?, encoder()?)), || Ok::<_, LoadError>((head()?, decoder()?)));
        let ((embedding, encoder), (head, decoder)) = (first?, second?);
        let vocabulary = Vocabulary {
            size: config.vocab_size,
            start: config.start,
            end: config.end.clone(),
            pieces: checkpoint.pieces(),
        };
        let weights = Weights {
            embedding,
            encoder,
            decoder,
            head,
            device: device.clone(),
            threads: options.threads.clone(),
            config,
        };
        let weights = Arc::new(weights);
        if options.self_test && !is_flex::<B>() {
            weights.self_test()?;
        }
        Ok(Self { weights, vocabulary })
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.weights.config
    }

    /// The encoder's hidden states of a source, `[tokens, d_model]`, after its final norm.
    ///
    /// # Errors
    ///
    /// [`Error::EmptySource`], or [`Error::TokenOutOfRange`] if a token is not one of the vocabulary.
    pub fn encode(&self, source: &Source) -> Result<Tensor<B, 2>> {
        self.weights.encode(source, &SessionLimit::new(0))
    }

    /// Why it cannot decode, if it cannot.
    fn check_decodes(&self) -> Result<()> {
        if self.weights.head.is_some() || self.weights.config.head != Head::Own {
            return Ok(());
        }
        Err(Error::model(
            "this T5 cannot decode: its config.json says that its head is not the embedding \
             (`tie_word_embeddings` is false), and there is no lm_head.weight in its files",
        ))
    }
}

impl<B: Backend> Weights<B> {
    /// Computes a pass over so many rows, on flex in the model's threads if it is large enough.
    fn run<R: Send + 'static>(self: &Arc<Self>, rows: usize, pass: impl FnOnce(&Self) -> R + Send + 'static) -> R {
        #[cfg(feature = "flex")]
        if crate::flex::is_flex::<B>() {
            let weights = self.clone();
            // A weight takes as long to read as to multiply eight times.
            return self.threads.run((rows + 8) * self.config.decoder_weights(), move || pass(&weights));
        }
        let _ = rows;
        pass(self)
    }

    /// As [`T5::encode`].
    fn encode(self: &Arc<Self>, source: &Source, limit: &SessionLimit) -> Result<Tensor<B, 2>> {
        if source.tokens().is_empty() {
            return Err(Error::EmptySource);
        }
        let embedded = self.embed(source.tokens(), |at| format!("at position {at} of the source"))?;
        let limit = limit.clone();
        self.run(source.tokens().len(), move |weights| {
            weights.encoder.forward(embedded, &weights.config, &weights.threads, &limit)
        })
    }

    /// The decoder's state for a source.
    fn begin(self: &Arc<Self>, source: &Source, limit: &SessionLimit) -> Result<DecoderState<B>> {
        let encoded = self.encode(source, limit)?;
        let limit = limit.clone();
        self.run(source.tokens().len(), move |weights| {
            weights.decoder.begin(encoded, &weights.config, &weights.threads, &limit)
        })
    }

    /// As [`VerifierModel::bytes_for`].
    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        let config = &self.config;
        let inner = (config.num_heads * config.d_kv) as f64;
        let cache = |rows| Cache::<B>::numbers(rows, config);
        let caches = config.decoder_layers as f64 * (cache(source) + cache(tokens)) + cache(source);
        let [source, tokens, heads] = [source, tokens, config.num_heads].map(|count| count as f64);
        // Hidden states, queries, keys and values, what is found, and the feed-forward layer.
        let rows = source * (3.0 * config.d_model as f64 + 4.0 * inner + 3.0 * config.d_ff as f64);
        // The kernels of flex never hold the scores of more than a few queries; elsewhere bias, scores and softmax are whole.
        let scores = if is_flex::<B>() { 0.0 } else { 4.0 * heads * source * source };
        // The logits of a verification of a usual draft, and a copy of them.
        let logits = 2.0 * tokens.min(16.0) * config.vocab_size as f64;
        let numbers = caches + rows + scores + 2.0 * heads * (source + tokens) + logits;
        (numbers * size_of::<f32>() as f64) as u64
    }

    /// Refuses a session that takes more memory than is free, where that is the memory of this process.
    fn check_memory(&self, source: usize, tokens: usize) -> Result<()> {
        /// Asking what is free takes longer than finding out about less.
        const WORTH_ASKING: u64 = 64 << 20;
        let needed = self.bytes_for(source, tokens);
        if needed < WORTH_ASKING || !memory::is_host::<B>(&self.device) {
            return Ok(());
        }
        let too_much = |free: u64| {
            let free = memory::gigabytes(free);
            let reason = format!("{free} are free; a shorter source or a smaller `max_new_tokens` takes less");
            Error::Memory { needed, reason }
        };
        memory::check(needed).map_err(too_much)
    }

    /// `[tokens, d_model]`; `place` says where the token at an index stood.
    fn embed(&self, tokens: &[Token], place: impl Fn(usize) -> String) -> Result<Tensor<B, 2>> {
        let size = self.config.vocab_size;
        if let Some(at) = tokens.iter().position(|&token| token as usize >= size) {
            return Err(Error::TokenOutOfRange { token: tokens[at], place: place(at), size });
        }
        Ok(self.embedding.rows(tokens, &self.device))
    }

    /// Logits `[tokens, vocab]` of the decoder's hidden states `[tokens, d_model]`.
    fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let _span = tracing::trace_span!("head").entered();
        let scaled =
            if self.config.scaled_head { hidden.mul_scalar((self.config.d_model as f32).powf(-0.5)) } else { hidden };
        self.head.as_ref().unwrap_or(&self.embedding).forward(scaled)
    }
}

/// Whether tensors of `B` are flex's, which have kernels of their own.
#[cfg_attr(not(feature = "flex"), allow(clippy::extra_unused_type_parameters))]
fn is_flex<B: Backend>() -> bool {
    #[cfg(feature = "flex")]
    return crate::flex::is_flex::<B>();
    #[cfg(not(feature = "flex"))]
    false
}

impl<B: Backend> DraftModel for T5<B> {
    type Session = T5Session<B>;

    fn vocabulary(&self) -> Option<&Vocabulary> {
        Some(&self.vocabulary)
    }

    /// The source is read before the first proposal, not now: a policy may never ask for one.
    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<T5Session<B>> {
        self.check_decodes()?;
        Ok(T5Session::new(self.weights.clone(), source.clone(), limit.clone()))
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.weights.bytes_for(source, tokens)
    }
}

impl<B: Backend> VerifierModel for T5<B> {
    type Session = T5Session<B>;

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<T5Session<B>> {
        let mut session = DraftModel::begin(self, source, limit)?;
        session.prepare()?;
        Ok(session)
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.weights.bytes_for(source, tokens)
    }
}
