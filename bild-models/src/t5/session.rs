use std::sync::Arc;

use bild_core::{DraftSession, Error, Result, Row, SessionLimit, Source, Token, VerifierSession, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Weights, reduce, stack::DecoderState};

/// One generation's state of a [`T5`](crate::T5): the keys and values of the source, computed once, and a self-attention
/// cache laid out once for the limit. Rolling back sets a length.
pub struct T5Session<B: Backend> {
    weights: Arc<Weights<B>>,
    source: Source,
    state: State<B>,
    length: usize,
    limit: SessionLimit,
}

enum State<B: Backend> {
    /// The source is not read yet.
    Unread,
    Ready(DecoderState<B>),
    /// A pass has it, or has panicked with it.
    Away,
}

impl<B: Backend> T5Session<B> {
    pub(super) fn new(weights: Arc<Weights<B>>, source: Source, limit: SessionLimit) -> Self {
        Self { weights, source, state: State::Unread, length: 0, limit }
    }

    /// How many tokens it has taken in, the decoder's start token included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes in new tokens in one pass and returns the rows that `reduce` makes of their hidden states, `[tokens, d_model]`.
    fn pass(
        &mut self,
        new: &[Token],
        reduce: impl FnOnce(&Weights<B>, Tensor<B, 2>, &[Token]) -> Result<Vec<Row>> + Send + 'static,
    ) -> Result<Vec<Row>> {
        self.prepare()?;
        check_pass("a pass of a T5 session", self.length, new.len(), self.limit.tokens)?;
        let first = self.length;
        let embedded = self.weights.embed(new, |at| format!("at position {} of the output", first + at))?;
        let State::Ready(mut state) = std::mem::replace(&mut self.state, State::Away) else { return Err(lost()) };
        let new = new.to_vec();
        let length = first + new.len();
        let (state, rows) = self.weights.run(new.len(), move |weights| {
            let hidden = weights.decoder.forward(&mut state, embedded, first);
            let rows = reduce(weights, hidden, &new);
            (state, rows)
        });
        self.state = State::Ready(state);
        let rows = rows?;
        self.length = length;
        Ok(rows)
    }

    fn cut(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Refuses a pass of no tokens, and one beyond the limit of a session.
pub(super) fn check_pass(name: &'static str, before: usize, new: usize, limit: usize) -> Result<()> {
    if new > 0 && before + new <= limit {
        return Ok(());
    }
    let found = format!("{new} new tokens after {before}");
    Err(Error::Setting { name, found, expected: "at least one, and no more in all than the session was begun for" })
}

/// What a session says after a pass of it has panicked.
pub(super) fn lost() -> Error {
    Error::model("a pass of this session panicked before: it cannot go on")
}

impl<B: Backend> DraftSession for T5Session<B> {
    fn prepare(&mut self) -> Result<()> {
        if let State::Unread = self.state {
            self.weights.check_memory(self.source.tokens().len(), self.limit.tokens)?;
            self.state = State::Ready(self.weights.begin(&self.source, &self.limit)?);
        }
        Ok(())
    }

    fn propose(&mut self, new: &[Token], want: Want) -> Result<Option<Row>> {
        let mut rows = self.pass(new, move |weights, hidden, new| {
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
        self.pass(new, move |weights, hidden, new| reduce::rows(weights.logits(hidden), want, &new[1..]))
    }

    fn truncate(&mut self, length: usize) {
        self.cut(length);
    }
}
