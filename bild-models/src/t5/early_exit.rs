use std::sync::Arc;

use bild_core::{Error, Pair, PairSession, Result, Row, Source, Token, Vocabulary, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{T5, Weights, reduce, stack::DecoderState};
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

    fn begin(&self, source: &Source, limit: usize) -> Result<EarlyExitSession<B>> {
        self.model.check_decodes()?;
        let weights = self.model.weights.clone();
        let state = weights.begin(source, limit)?;
        let (hidden, layers) = (Vec::new(), self.layers);
        Ok(EarlyExitSession { weights, state, layers, hidden, drafted: 0, scored: 0, limit })
    }
}

/// One generation's state of an [`EarlyExit`].
pub struct EarlyExitSession<B: Backend> {
    weights: Arc<Weights<B>>,
    state: DecoderState<B>,
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
        if new.is_empty() || first + new.len() > self.limit {
            let found = format!("{} new tokens after {first}", new.len());
            let expected = "at least one, and no more in all than the session was begun for";
            return Err(Error::Setting { name: "a pass of an early-exit session", found, expected });
        }
        let at = self.hidden.len();
        let new = &new[(at - first).min(new.len())..];
        if new.is_empty() {
            return Ok(());
        }
        let weights = &*self.weights;
        let embedded = weights.embed(new, |i| format!("at position {} of the output", at + i))?;
        let (state, layers) = (&mut self.state, self.layers);
        let hidden = weights.run(new.len(), || weights.decoder.forward_layers(state, embedded, at, 0..layers));
        self.hidden.extend((0..new.len()).map(|row| hidden.clone().narrow(0, row, 1)));
        Ok(())
    }
}

impl<B: Backend> PairSession for EarlyExitSession<B> {
    fn propose(&mut self, new: &[Token], want: Want) -> Result<Option<Row>> {
        self.take_in(new, self.drafted)?;
        self.drafted += new.len();
        let (weights, last) = (&*self.weights, self.hidden[self.drafted - 1].clone());
        let rows = weights.run(1, || reduce::rows(weights.logits(weights.decoder.normed(last)), want, &[]))?;
        Ok(rows.into_iter().next())
    }

    fn score(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>> {
        let first = self.scored;
        self.take_in(new, first)?;
        self.scored += new.len();
        let (weights, state) = (&*self.weights, &mut self.state);
        let rest = self.layers..weights.config.decoder_layers;
        let hidden = Tensor::cat(self.hidden[first..self.scored].to_vec(), 0);
        weights.run(new.len(), || {
            let hidden = weights.decoder.forward_layers(state, hidden, first, rest);
            reduce::rows(weights.logits(weights.decoder.normed(hidden)), want, &new[1..])
        })
    }

    fn truncate(&mut self, length: usize) {
        self.hidden.truncate(length);
        self.drafted = self.drafted.min(length);
        self.scored = self.scored.min(length);
    }
}
