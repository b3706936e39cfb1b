//! The T5 family: an encoder that reads the source once, and a decoder.

mod config;
mod early_exit;
pub(crate) mod names;
mod shared_encoder;
mod stack;
mod stored;

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use bild_core::{
    Error, MOST_TOKENS, Model, Pass, Result, SessionLimit, Settings, Source, Token, VerifierSession, Vocabulary, Want,
};
use burn::tensor::{Int, Tensor, backend::Backend};

use crate::{
    Checkpoint, Digest, LoadError, LoadOptions, Precision, Shortlist, Threads,
    backend::is_flex,
    checkpoint::Tensors,
    decode::{self, Decoder, Part, Session, drafts_and_verifies},
    nn::{self, Cache, Loader, Projection, ShortHead, held, joined},
};
pub use config::{Head, T5Config};
use stack::{DecoderStack, DecoderState, Encoded, EncoderStack};
pub use stored::T5Tensors;

/// The names that the embedding goes by.
const EMBEDDINGS: [&str; 3] = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

const HEAD: &str = "lm_head.weight";

/// One generation's state of a [`T5`].
pub type T5Session<B> = Session<T5Weights<B>>;

/// A T5 on a Burn backend: T5 1.0, T5 1.1 and FLAN-T5, UL2, mT5.
///
/// The weights are immutable and shared: cloning is cheap, and any number of generations run at once on one value. It
/// drafts ([`DraftModel`](bild_core::DraftModel)) and verifies ([`VerifierModel`](bild_core::VerifierModel)) alike.
#[derive(Clone)]
pub struct T5<B: Backend> {
    weights: Arc<T5Weights<B>>,
}

/// The weights of a [`T5`].
pub struct T5Weights<B: Backend> {
    config: T5Config,
    vocabulary: Vocabulary,
    warnings: Vec<String>,
    device: B::Device,
    threads: Threads,
    /// Of the checkpoint that all but the decoder is of.
    digest: Digest,
    /// `[vocab, d_model]`
    embedding: Arc<Projection<B>>,
    encoder: Arc<EncoderStack<B>>,
    decoder: DecoderStack<B>,
    /// `[vocab, d_model]`, unless it is the embedding.
    head: Option<Arc<Projection<B>>>,
    /// The tokens it drafts with, if not with all.
    shortlist: Option<Arc<Shortlist>>,
}

impl<B: Backend> T5Weights<B> {
    fn head_matrix(&self) -> &Projection<B> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

impl<B: Backend> fmt::Debug for T5Weights<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("T5Weights").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<B: Backend> T5<B> {
    /// Reads the weights of a checkpoint onto a device, as f32 whatever they are stored as, to compute with the default
    /// [`Threads`](crate::Threads).
    ///
    /// # Errors
    ///
    /// If a tensor is missing, has another shape than the configuration says, or holds NaN or ∞, or the embedding is stored by
    /// several names with different values: the sentence names the file and the tensor. If the model lies in this process's
    /// memory and is larger than what is free. On CUDA, if the driver, a GPU, the run-time compiler or its headers are missing.
    /// If the backend's floats are shorter than f32, or it turns out to compute wrongly ([`LoadOptions::with_self_test`]).
    pub fn load(checkpoint: &Checkpoint, device: &B::Device) -> Result<Self, LoadError> {
        Self::load_with(checkpoint, device, &LoadOptions::default())
    }

    /// As [`load`](Self::load), in another precision or with other threads.
    ///
    /// ```no_run
    /// use bild::{Checkpoint, Flex, LoadOptions, Precision, T5};
    ///
    /// let options = LoadOptions::default().with_precision(Precision::Int8);
    /// let model = T5::<Flex>::load_with(&Checkpoint::open("flan-t5-large")?, &Default::default(), &options)?;
    /// # Ok::<(), bild::LoadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(checkpoint: &Checkpoint, device: &B::Device, options: &LoadOptions) -> Result<Self, LoadError> {
        #[cfg(feature = "cuda")]
        crate::backend::cuda::check::<B>()?;
        decode::check_floats::<B>(device)?;
        options.precision.check::<B>(device)?;
        let config = T5Config::of(checkpoint)?;
        options.check_shortlist(config.vocab_size)?;
        let tensors = Tensors::of(checkpoint, names::family(config.gated))?;
        let warnings = warnings(checkpoint, &tensors);
        let span = tracing::info_span!("load", layers = config.encoder_layers + config.decoder_layers);
        let _entered = span.enter();
        check_layers(&tensors, &config)?;
        let (embedding, head) = embedding_and_head(&tensors, config.head);
        let is_unused = |name: &&str| {
            (EMBEDDINGS.contains(name) && *name != embedding) || (*name == HEAD && embedding != HEAD && head.is_none())
        };
        let used = tensors.read_names().filter(|name| !is_unused(name));
        let loader = Loader::new(&tensors, used, device, options)?;
        // Only now: it may read the embedding more than once, which is not to be done for one that memory does not hold.
        let digest = digest(&tensors, config.head)?;
        let shape = [config.vocab_size, config.d_model];
        let finer = loader.finer();
        let embedding = || Projection::load(&finer, &[embedding.into()], shape);
        let head = || head.map(|name| Projection::load(&finer, &[name.into()], shape)).transpose();
        let (encoder, decoder) = (|| EncoderStack::load(&finer, &config), || DecoderStack::load(&loader, &config));
        let (first, second) =
            loader.both(|| Ok((embedding()?, encoder()?)), || Ok::<_, LoadError>((head()?, decoder()?)));
        let ((embedding, encoder), (head, decoder)) = (first?, second?);
        let vocabulary = Vocabulary::new(config.vocab_size, config.start, config.end.clone());
        let vocabulary = match checkpoint.pieces() {
            Some(pieces) => vocabulary.with_pieces(pieces),
            None => vocabulary,
        };
        let weights = Arc::new(T5Weights {
            digest,
            config,
            vocabulary,
            warnings,
            device: device.clone(),
            threads: options.threads.clone(),
            embedding: Arc::new(embedding),
            encoder: Arc::new(encoder),
            decoder,
            head: head.map(Arc::new),
            shortlist: options.shortlist.clone(),
        });
        if options.self_test && !is_flex::<B>() {
            // What stands for the encoder's states does not matter; the embedding of a few tokens is there already.
            let probe = decode::probe(shape[0]);
            let encoded = Encoded { states: weights.embed_source(&probe), tokens: probe.len() };
            let limit = SessionLimit::new(probe.len());
            decode::self_test(&weights, options.precision, || {
                weights.begin(vec![(encoded.clone(), &limit)]).remove(0)
            })?;
        }
        Ok(Self { weights })
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.weights.config
    }

    /// Makes every shape once that a generation within these settings will meet, with passes of up to `most_rows` rows (one more than the
    /// longest draft), so that a backend which compiles or tunes for a shape does that now and not in the middle of one. On `Flex` there is
    /// nothing to do. An early exit, a draft decoder, a short list and passes of several sessions have shapes of their own, which a first
    /// generation makes.
    ///
    /// # Errors
    ///
    /// If a limit is 0 or above 65,536, or a pass fails.
    pub fn warm_up(&self, settings: &Settings, most_rows: usize) -> Result<()> {
        let limits = [("max_new_tokens", settings.max_new_tokens), ("max_source_tokens", settings.max_source_tokens)];
        for (name, found) in limits {
            if !(1..=MOST_TOKENS).contains(&found) {
                let expected = "a number of tokens from 1 to 65536";
                return Err(Error::Setting { name, found: found.to_string(), expected });
            }
        }
        if is_flex::<B>() {
            return Ok(());
        }
        let limit = SessionLimit::new(settings.max_new_tokens + 1);
        let step = held::<B>(1);
        let (sources, tokens) = (settings.max_source_tokens.div_ceil(step), limit.tokens.div_ceil(step));
        // The longest first: the tables of positions that they make serve the others.
        for i in (0..sources.max(tokens)).rev() {
            // One token less than a whole step is masked in part, as most are; what is masked nowhere needs no more.
            for masked in [1, 0] {
                let length = ((i.min(sources - 1) + 1) * step - masked).clamp(1, settings.max_source_tokens);
                let mut session = self.begin(&Source::new(vec![0; length]), &limit)?;
                let begin = i.min(tokens - 1) * step;
                // The cache is there, and holds numbers, whether or not they were written.
                session.skip(begin);
                for rows in 1..=most_rows.min(limit.tokens - begin) {
                    for want in [Want::default(), Want::default().with_entropy().with_cross_entropy()] {
                        VerifierSession::score(&mut session, &Pass::verify(begin, &vec![0; rows], want))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the checkpoint holds that has no effect, a sentence each, for whoever expects one: an adapter that is not merged into
    /// the weights, tensors that no T5 has, tokens outside the vocabulary. They are also traced.
    pub fn warnings(&self) -> &[String] {
        &self.weights.warnings
    }

    /// The encoder's hidden states of a source after its final norm: `[tokens, d_model]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::EmptySource`], or [`Error::TokenOutOfRange`] if a token is not one of the vocabulary.
    pub fn encode(&self, source: &Source) -> Result<Vec<f32>> {
        let Encoded { states, tokens } = self.weights.encode(&[(source, &SessionLimit::new(0))]).remove(0)?;
        nn::reduce::read(states.narrow(0, 0, tokens))
    }
}

impl<B: Backend> T5Weights<B> {
    /// What the encoder takes of a source: [`held`] rows, of which those after the tokens are masked.
    fn embed_source(&self, tokens: &[Token]) -> Tensor<B, 2> {
        let after = vec![0; held::<B>(tokens.len()) - tokens.len()];
        self.embed(&[tokens, &after].concat())
    }
}

impl<B: Backend> Decoder for T5Weights<B> {
    type Backend = B;
    type Encoded = Encoded<B>;
    type State = DecoderState<B>;

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn check(&self) -> Result<()> {
        if self.head.is_some() || self.config.head != Head::Own {
            return Ok(());
        }
        Err(Error::model(
            "this T5 cannot decode: its config.json says that its head is not the embedding \
             (`tie_word_embeddings` is false), and there is no lm_head.weight in its files",
        ))
    }

    fn layers(&self) -> usize {
        self.config.decoder_layers
    }

    /// Of the six matrices of attention (keys and values of the source are there), those of the feed-forward layers, and the head.
    fn weights(&self) -> usize {
        let config = &self.config;
        let feed_forward = if config.gated { 3 } else { 2 };
        let layer = 6 * config.num_heads * config.d_kv + feed_forward * config.d_ff;
        config.d_model * (config.decoder_layers * layer + config.vocab_size)
    }

    fn device(&self) -> &B::Device {
        &self.device
    }

    fn threads(&self) -> &Threads {
        &self.threads
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        let config = &self.config;
        let source = held::<B>(source);
        let inner = config.heads().all() as f64;
        let cache = |rows, precision| Cache::<B>::bytes(rows, config.heads(), precision);
        let [own, cross] = [tokens, source].map(|rows| cache(rows, self.decoder.precision));
        let caches = config.decoder_layers as f64 * (own + cross) + cache(source, Precision::F32);
        let [source, tokens, heads] = [source, tokens, config.num_heads].map(|count| count as f64);
        // Hidden states, queries, keys and values, what is found, and the feed-forward layer.
        let rows = source * (3.0 * config.d_model as f64 + 4.0 * inner + 3.0 * config.d_ff as f64);
        // The kernels of flex never hold the scores of more than a few queries; elsewhere bias, scores and softmax are whole.
        let scores = if is_flex::<B>() { 0.0 } else { 4.0 * heads * source * source };
        // The logits of a verification of a usual draft, and a copy of them.
        let logits = 2.0 * tokens.min(16.0) * config.vocab_size as f64;
        let numbers = rows + scores + 2.0 * heads * (source + tokens) + logits;
        (caches + numbers * size_of::<f32>() as f64) as u64
    }

    fn encode(self: &Arc<Self>, sources: &[(&Source, &SessionLimit)]) -> Vec<Result<Encoded<B>>> {
        let embedded = |(source, _): &(&Source, _)| match source.tokens() {
            [] => Err(Error::EmptySource),
            tokens => {
                decode::check_tokens(&**self, tokens, |at| format!("at position {at} of the source"))?;
                Ok(self.embed_source(tokens))
            }
        };
        decode::for_each_ok(sources.iter().map(embedded).collect(), |embedded, chosen| {
            let of = |&i: &usize| (sources[i].0.tokens().len(), sources[i].1.clone());
            let sources: Vec<_> = chosen.iter().map(of).collect();
            let embedded = joined(embedded);
            decode::run(self, embedded.dims()[0], move |weights| {
                let states = weights.encoder.forward(embedded, &weights.config, &weights.threads, &sources);
                let encoded = |(states, (tokens, _)): (Result<_>, &(usize, _))| {
                    states.map(|states| Encoded { states, tokens: *tokens })
                };
                states.into_iter().zip(&sources).map(encoded).collect()
            })
        })
    }

    fn begin(self: &Arc<Self>, encoded: Vec<(Encoded<B>, &SessionLimit)>) -> Vec<Result<DecoderState<B>>> {
        let sources: Vec<_> = encoded.into_iter().map(|(encoded, limit)| (encoded, limit.clone())).collect();
        let rows = sources.iter().map(|(encoded, _)| encoded.tokens).sum();
        decode::run(self, rows, move |weights| weights.decoder.begin(sources, &weights.config, &weights.threads))
    }

    fn embed(&self, tokens: &[Token]) -> Tensor<B, 2> {
        self.embedding.rows(tokens, &self.device)
    }

    fn embed_on_device(&self, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.embedding.rows_on_device(tokens)
    }

    fn forward(
        &self,
        rows: Tensor<B, 2>,
        parts: &mut [Part<'_, DecoderState<B>>],
        layers: Range<usize>,
    ) -> Tensor<B, 2> {
        self.decoder.forward(rows, parts, layers)
    }

    fn norm(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        self.decoder.norm.forward(rows)
    }

    fn short_head(&self, source: &Source) -> Option<Arc<ShortHead<B>>> {
        let mut tokens = self.shortlist.as_ref()?.tokens(source.tokens());
        tokens.extend(&self.vocabulary.end);
        tokens.sort_unstable();
        tokens.dedup();
        Some(ShortHead::of(self.head_matrix(), tokens, self.config.vocab_size, &self.device))
    }

    fn head(&self, rows: Tensor<B, 2>, short: Option<&ShortHead<B>>) -> Tensor<B, 2> {
        let _span = tracing::trace_span!("head").entered();
        let scaled =
            if self.config.scaled_head { rows.mul_scalar((self.config.d_model as f32).powf(-0.5)) } else { rows };
        match short {
            Some(short) => short.forward(scaled),
            None => self.head_matrix().forward_fine(scaled),
        }
    }
}

/// What has no effect, a sentence each.
fn warnings(checkpoint: &Checkpoint, tensors: &Tensors<'_>) -> Vec<String> {
    let warnings: Vec<String> = checkpoint.warnings().chain(tensors.warnings()).collect();
    for warning in &warnings {
        tracing::warn!(checkpoint = %checkpoint.directory().display(), "{warning}");
    }
    warnings
}

/// The tensor that is the embedding, and the one that is the head unless the embedding is.
fn embedding_and_head(tensors: &Tensors<'_>, head: Head) -> (&'static str, Option<&'static str>) {
    let stored = tensors.contains(HEAD);
    match EMBEDDINGS.into_iter().find(|name| tensors.contains(name)) {
        Some(embedding) => (embedding, Some(HEAD).filter(|_| stored && head != Head::Embedding)),
        // The two are one, stored by the other's name.
        None if stored && head != Head::Own => (HEAD, None),
        None => (EMBEDDINGS[0], None),
    }
}

/// Refuses an embedding that is stored by several names with different values: versions of transformers make other models of it.
fn check_embeddings(tensors: &Tensors<'_>, embedding: &str) -> Result<(), LoadError> {
    for name in EMBEDDINGS.into_iter().filter(|name| *name != embedding && tensors.contains(name)) {
        if !tensors.equal(embedding, name)? {
            return Err(LoadError::Tensor {
                path: tensors.path_of(name).into(),
                name: name.into(),
                problem: format!("differs from `{embedding}`, expected the same values: a T5 here has one embedding"),
            });
        }
    }
    Ok(())
}

/// The digest of the weights that a T5 has, by the names that they are stored by today: of those that stand for the embedding one
/// is read, and so is no leftover. A head with the embedding's values is left out, as transformers does when it saves the model.
fn digest(tensors: &Tensors<'_>, head: Head) -> Result<Digest, LoadError> {
    let (embedding, head) = embedding_and_head(tensors, head);
    check_embeddings(tensors, embedding)?;
    let head = match head {
        Some(head) if !tensors.equal(embedding, head)? => Some(head),
        _ => None,
    };
    let name = |name| match name {
        name if name == embedding => Some((EMBEDDINGS[0], name)),
        name if EMBEDDINGS.contains(&name) || (name == HEAD && head.is_none()) || names::is_leftover(name) => None,
        name => Some((name, name)),
    };
    Digest::of(tensors, &tensors.read_names().filter_map(name).collect::<BTreeMap<_, _>>())
}

impl Checkpoint {
    /// The digest of the weights of the T5 that it holds, which a [`SharedEncoder`](crate::SharedEncoder) or an aligned
    /// [`EarlyExit`](crate::EarlyExit) knows its big model by. It is the same however they are stored: in which files and format, in f32 or in the shorter floats that they have the
    /// values of, with what is there under two names once or twice.
    ///
    /// # Errors
    ///
    /// As [`T5::load`].
    pub fn digest(&self) -> Result<Digest, LoadError> {
        let config = T5Config::of(self)?;
        digest(&Tensors::of(self, names::family(config.gated))?, config.head)
    }
}

/// Refuses weights of more layers than the configuration has: read as they are, they would make another model.
fn check_layers(tensors: &Tensors<'_>, config: &T5Config) -> Result<(), LoadError> {
    for name in tensors.names() {
        for (stack, layers) in [("encoder", config.encoder_layers), ("decoder", config.decoder_layers)] {
            let block = name.strip_prefix(stack).and_then(|name| name.strip_prefix(".block."));
            let number = block.and_then(|block| block.split('.').next()?.parse::<usize>().ok());
            if number.is_some_and(|number| number >= layers) {
                return Err(LoadError::Tensor {
                    path: tensors.path_of(name).into(),
                    name: name.into(),
                    problem: format!("is of a layer that config.json does not have: its {stack} has {layers}"),
                });
            }
        }
    }
    Ok(())
}

drafts_and_verifies!(T5, T5Weights);

impl<B: Backend> fmt::Debug for T5<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("T5").field("config", self.config()).finish_non_exhaustive()
    }
}
