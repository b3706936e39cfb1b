use std::{ops::Range, sync::Arc};

use bild_core::{Pair, PairSession, Result, Row, SessionLimit, Source, Token, Vocabulary, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{
    T5, Weights, reduce,
    session::{check_pass, lost},
    stack::DecoderState,
};
use crate::LoadError;

/// A T5 that drafts with its own first decoder layers, the final norm and the head, and verifies with all of them: a
/// [`Pair`] by itself, with one encoder, one set of weights and one cache (section 4.4.2 of the Big Little Decoder paper,
/// where the model is trained for it).
///
/// What the first layers computed for a draft is not computed again: the verifier goes on from there, so a draft step costs
/// those layers and the head, and a verification the other layers and the head.
///
/// ```no_run
/// use bild_core::Generator;
/// use bild_models::{Checkpoint, EarlyExit, T5};
/// use bild_policies::Lossless;
/// use burn_flex::Flex;
///
/// let model = T5::<Flex>::load(&Checkpoint::open("models/de-en/big")?, &Default::default())?;
/// let generator = Generator::new(EarlyExit::new(model, 2)?, Lossless::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EarlyExit<B: Backend> {
    model: T5<B>,
    layers: usize,
}

impl<B: Backend> EarlyExit<B> {
    /// Drafts with the first `layers` decoder layers of `model`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the model does not have more decoder layers than that, or `layers` is 0.
    pub fn new(model: T5<B>, layers: usize) -> Result<Self, LoadError> {
        let all = model.config().decoder_layers;
        if (1..all).contains(&layers) { Ok(Self { model, layers }) } else { Err(LoadError::EarlyExit { layers, all }) }
    }

    /// The model.
    pub fn model(&self) -> &T5<B> {
        &self.model
    }

    /// How many of its decoder layers draft.
    pub fn layers(&self) -> usize {
        self.layers
    }
}

impl<B: Backend> Pair for EarlyExit<B> {
    type Session = EarlyExitSession<B>;

    fn vocabulary(&self) -> &Vocabulary {
        &self.model.vocabulary
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<EarlyExitSession<B>> {
        self.model.check_decodes()?;
        let weights = self.model.weights.clone();
        weights.check_memory(source.tokens().len(), limit.tokens)?;
        let state = Some(weights.begin(source, limit)?);
        let (hidden, layers) = (Vec::new(), self.layers);
        Ok(EarlyExitSession { weights, state, layers, hidden, drafted: 0, scored: 0, limit: limit.tokens })
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        // What the first layers made of each token is kept too.
        let hidden = tokens as f64 * (self.model.config().d_model * size_of::<f32>()) as f64;
        self.model.weights.bytes_for(source, tokens).saturating_add(hidden as u64)
    }
}

/// One generation's state of an [`EarlyExit`].
pub struct EarlyExitSession<B: Backend> {
    weights: Arc<Weights<B>>,
    /// Nothing while a pass has it, and after one has panicked with it.
    state: Option<DecoderState<B>>,
    layers: usize,
    /// What the first layers made of each token so far, `[1, d_model]` each: where the others go on.
    hidden: Vec<Tensor<B, 2>>,
    /// How many tokens each role was given.
    drafted: usize,
    scored: usize,
    limit: usize,
}

impl<B: Backend> EarlyExitSession<B> {
    /// Takes `new`, of which the first stands at position `first`, through the first layers, as far as they have not been there.
    fn take_in(&mut self, new: &[Token], first: usize) -> Result<()> {
        check_pass("a pass of an early-exit session", first, new.len(), self.limit)?;
        let at = self.hidden.len();
        let new = &new[(at - first).min(new.len())..];
        if new.is_empty() {
            return Ok(());
        }
        let embedded = self.weights.embed(new, |i| format!("at position {} of the output", at + i))?;
        let hidden = self.through(embedded, at, 0..self.layers, |_, hidden| hidden)?;
        self.hidden.extend((0..new.len()).map(|row| hidden.clone().narrow(0, row, 1)));
        Ok(())
    }

    /// One pass over hidden states, of which the first stands at position `at`, through some of the layers.
    fn through<R: Send + 'static>(
        &mut self,
        hidden: Tensor<B, 2>,
        at: usize,
        layers: Range<usize>,
        then: impl FnOnce(&Weights<B>, Tensor<B, 2>) -> R + Send + 'static,
    ) -> Result<R> {
        let mut state = self.state.take().ok_or_else(lost)?;
        let (state, result) = self.weights.run(hidden.dims()[0], move |weights| {
            let hidden = weights.decoder.forward_layers(&mut state, hidden, at, layers);
            let result = then(weights, hidden);
            (state, result)
        });
        self.state = Some(state);
        Ok(result)
    }
}

impl<B: Backend> PairSession for EarlyExitSession<B> {
    fn propose(&mut self, new: &[Token], want: Want) -> Result<Option<Row>> {
        self.take_in(new, self.drafted)?;
        let end = self.drafted + new.len();
        let last = self.hidden[end - 1].clone();
        let reduce = move |weights: &Weights<B>| reduce::rows(weights.logits(weights.decoder.normed(last)), want, &[]);
        let row = self.weights.run(1, reduce)?.pop();
        self.drafted = end;
        Ok(row)
    }

    fn score(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>> {
        let first = self.scored;
        self.take_in(new, first)?;
        let end = first + new.len();
        let rest = self.layers..self.weights.config.decoder_layers;
        let hidden = Tensor::cat(self.hidden[first..end].to_vec(), 0);
        let new = new.to_vec();
        let rows = self.through(hidden, first, rest, move |weights, hidden| {
            reduce::rows(weights.logits(weights.decoder.normed(hidden)), want, &new[1..])
        })??;
        self.scored = end;
        Ok(rows)
    }

    fn truncate(&mut self, length: usize) {
        self.hidden.truncate(length);
        self.drafted = self.drafted.min(length);
        self.scored = self.scored.min(length);
    }
}
