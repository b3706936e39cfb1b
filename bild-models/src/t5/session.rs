use std::sync::Arc;

use bild_core::{DraftSession, Error, Result, Row, Source, Token, VerifierSession, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Weights, reduce, stack::DecoderState};

/// One generation's state of a [`T5`](crate::T5): the keys and values of the source, computed once, and a self-attention
/// cache laid out once for the limit. Rolling back sets a length.
pub struct T5Session<B: Backend> {
    weights: Arc<Weights<B>>,
    source: Source,
    /// Nothing before the source is read.
    state: Option<DecoderState<B>>,
    length: usize,
    limit: usize,
}

impl<B: Backend> T5Session<B> {
    pub(super) fn new(weights: Arc<Weights<B>>, source: Source, limit: usize) -> Self {
        Self { weights, source, state: None, length: 0, limit }
    }

    /// How many tokens it has taken in, the decoder's start token included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes in new tokens in one pass and returns the rows that `reduce` makes of their hidden states, `[tokens, d_model]`.
    fn pass(
        &mut self,
        new: &[Token],
        reduce: impl FnOnce(&Weights<B>, Tensor<B, 2>) -> Result<Vec<Row>> + Send,
    ) -> Result<Vec<Row>> {
        self.prepare()?;
        let length = self.length + new.len();
        if new.is_empty() || length > self.limit {
            let found = format!("{} new tokens after {}", new.len(), self.length);
            let expected = "at least one, and no more in all than the session was begun for";
            return Err(Error::Setting { name: "a pass of a T5 session", found, expected });
        }
        let first = self.length;
        let weights = &*self.weights;
        let state = self.state.as_mut().expect("the source was read");
        let embedded = weights.embed(new, |at| format!("at position {} of the output", first + at))?;
        let rows = weights.run(new.len(), || reduce(weights, weights.decoder.forward(state, embedded, first)))?;
        self.length = length;
        Ok(rows)
    }

    fn cut(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl<B: Backend> DraftSession for T5Session<B> {
    fn prepare(&mut self) -> Result<()> {
        if self.state.is_none() {
            self.state = Some(self.weights.begin(&self.source, self.limit)?);
        }
        Ok(())
    }

    fn propose(&mut self, new: &[Token], want: Want) -> Result<Option<Row>> {
        let mut rows = self.pass(new, |weights, hidden| {
            let last = hidden.narrow(0, new.len() - 1, 1);
            reduce::rows(weights.logits(last), want, &[])
        })?;
        Ok(rows.pop())
    }

    fn truncate(&mut self, length: usize) {
        self.cut(length);
    }
}

impl<B: Backend> VerifierSession for T5Session<B> {
    fn score(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>> {
        self.pass(new, |weights, hidden| reduce::rows(weights.logits(hidden), want, &new[1..]))
    }

    fn truncate(&mut self, length: usize) {
        self.cut(length);
    }
}
