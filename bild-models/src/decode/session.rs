use std::{fmt, mem, sync::Arc};

use bild_core::{DraftSession, Pass, Result, Row, SessionLimit, Source, Token, VerifierSession, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Decoder, Part, check_memory, check_pass, embed, lost, run};
use crate::nn::reduce;

/// One generation's state of a model: what the decoder made of the source, once, and a self-attention cache laid out once for
/// the limit. Rolling back sets a length.
pub struct Session<D: Decoder> {
    decoder: Arc<D>,
    source: Source,
    state: State<D::State>,
    length: usize,
    limit: SessionLimit,
}

enum State<S> {
    /// The source is not read yet.
    Unread,
    Ready(S),
    /// A pass has it, or has panicked with it.
    Away,
}

/// Of which of its new tokens a pass returns rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Last,
    All,
}

impl<D: Decoder> Session<D> {
    /// Nothing is read before the first pass: a policy may never ask for one.
    pub(crate) fn begin(decoder: &Arc<D>, source: &Source, limit: &SessionLimit) -> Result<Self> {
        decoder.check()?;
        let (decoder, source, limit) = (decoder.clone(), source.clone(), limit.clone());
        Ok(Self { decoder, source, state: State::Unread, length: 0, limit })
    }

    /// How many tokens it has taken in, the decoder's start token included.
    pub fn length(&self) -> usize {
        self.length
    }

    fn read_source(&mut self) -> Result<()> {
        if let State::Unread = self.state {
            check_memory(&*self.decoder, self.source.tokens().len(), self.limit.tokens)?;
            let state = self.limit.reading(|| self.decoder.begin(&self.source, &self.limit))?;
            self.state = State::Ready(state);
        }
        Ok(())
    }

    /// Takes new tokens into one or more sessions of one model in one pass, and returns their rows.
    pub(super) fn pass(passes: &mut [(&mut Self, &[Token])], of: Of, want: Want) -> Result<Vec<Vec<Row>>> {
        let mut counts = Vec::with_capacity(passes.len());
        for (session, new) in &mut *passes {
            session.read_source()?;
            check_pass("a pass of a session", session.length, new.len(), session.limit.tokens)?;
            counts.push(new.len());
        }
        let mut embedded = Vec::with_capacity(passes.len());
        for (session, new) in &*passes {
            embedded.push(embed(&*session.decoder, new, session.length)?);
        }
        let mut states = Vec::with_capacity(passes.len());
        for (session, _) in &mut *passes {
            let State::Ready(state) = mem::replace(&mut session.state, State::Away) else { return Err(lost()) };
            states.push((state, session.length));
        }
        let next: Vec<Option<Token>> = match of {
            Of::Last => vec![None; passes.len()],
            Of::All => passes.iter().flat_map(|(_, new)| new[1..].iter().copied().map(Some).chain([None])).collect(),
        };
        let Some((first, _)) = passes.first() else { return Ok(Vec::new()) };
        let (rows, counted) = (counts.iter().sum(), counts.clone());
        let (states, found) = run(&first.decoder, rows, move |decoder| {
            let mut parts: Vec<_> =
                states.iter_mut().zip(&counts).map(|((state, at), &rows)| Part { state, at: *at, rows }).collect();
            let hidden = decoder.forward(joined(embedded), &mut parts, 0..decoder.layers());
            let hidden = if of == Of::Last { last_rows(hidden, &counts) } else { hidden };
            (states, reduce::rows(decoder.logits(hidden), want, &next))
        });
        for ((session, _), (state, _)) in passes.iter_mut().zip(states) {
            session.state = State::Ready(state);
        }
        let mut found = found?.into_iter();
        for ((session, _), rows) in passes.iter_mut().zip(&counted) {
            session.length += rows;
        }
        let each = |&rows| found.by_ref().take(if of == Of::Last { 1 } else { rows }).collect();
        Ok(counted.iter().map(each).collect())
    }

    fn alone(&mut self, pass: &Pass<'_>, of: Of) -> Result<Vec<Row>> {
        self.length = self.length.min(pass.keep);
        Ok(Self::pass(&mut [(self, pass.new)], of, pass.want)?.pop().unwrap_or_default())
    }
}

/// Rows below one another.
fn joined<B: Backend>(mut parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

/// The last row of each part.
fn last_rows<B: Backend>(rows: Tensor<B, 2>, counts: &[usize]) -> Tensor<B, 2> {
    let ends = counts.iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    });
    joined(ends.map(|end| rows.clone().narrow(0, end - 1, 1)).collect())
}

impl<D: Decoder> DraftSession for Session<D> {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Vec<Row>> {
        self.alone(pass, Of::Last)
    }
}

impl<D: Decoder> VerifierSession for Session<D> {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Vec<Row>> {
        self.alone(pass, Of::All)
    }
}

impl<D: Decoder> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("length", &self.length)
            .field("limit", &self.limit.tokens)
            .finish_non_exhaustive()
    }
}
