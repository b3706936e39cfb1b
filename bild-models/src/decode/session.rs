use std::{fmt, sync::Arc};

use bild_core::{DraftSession, Pass, Result, Row, Rows, SessionLimit, Source, Token, VerifierSession, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Decoder, Part, check_pass, drafts, embed, following, in_output, late::Late, run};
use crate::nn::reduce;

/// One generation's state of a model: what the decoder made of the source, once, and a self-attention cache laid out once for
/// the limit. Rolling back sets a length.
pub struct Session<D: Decoder> {
    pub(super) late: Late<D>,
    length: usize,
}

/// Of which of its new tokens a pass returns rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Last,
    All,
}

impl<D: Decoder> Session<D> {
    pub(crate) fn begin(decoder: &Arc<D>, source: &Source, limit: &SessionLimit) -> Result<Self> {
        Ok(Self { late: Late::begin(decoder, source, limit)?, length: 0 })
    }

    /// How many tokens it has taken in, the decoder's start token included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes new tokens into one or more sessions of one model in one pass, and returns their rows.
    pub(super) fn pass(passes: &mut [(&mut Self, &[Token])], of: Of, want: Want) -> Result<Vec<Vec<Row>>> {
        let mut counts = Vec::with_capacity(passes.len());
        for (session, new) in &mut *passes {
            session.late.read_source()?;
            check_pass("a pass of a session", session.length, new.len(), session.late.limit.tokens)?;
            counts.push(new.len());
        }
        let mut embedded = Vec::with_capacity(passes.len());
        for (session, new) in &*passes {
            embedded.push(embed(&*session.late.decoder, new, in_output(session.length))?);
        }
        let mut states = Vec::with_capacity(passes.len());
        for (session, _) in &mut *passes {
            states.push((session.late.take()?, session.length));
        }
        let (mut next, mut short) = (Vec::new(), Vec::new());
        match of {
            Of::Last => short.extend(passes.iter().map(|(session, _)| session.late.short_head())),
            Of::All => next.extend(passes.iter().flat_map(|(_, new)| following(new))),
        }
        let Some((first, _)) = passes.first() else { return Ok(Vec::new()) };
        let (rows, counted) = (counts.iter().sum(), counts.clone());
        let (states, found) = run(&first.late.decoder, rows, move |decoder| {
            let mut parts: Vec<_> =
                states.iter_mut().zip(&counts).map(|((state, at), &rows)| Part { state, at: *at, rows }).collect();
            let hidden = decoder.forward(joined(embedded), &mut parts, 0..decoder.layers());
            let found = match of {
                Of::Last => drafts(decoder, decoder.norm(last_rows(hidden, &counts)), &short, want),
                Of::All => reduce::rows(decoder.logits(hidden), want, &next),
            };
            (states, found)
        });
        for ((session, _), (state, _)) in passes.iter_mut().zip(states) {
            session.late.put_back(state);
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
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.alone(pass, Of::Last).map(Rows::from)
    }
}

impl<D: Decoder> VerifierSession for Session<D> {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.alone(pass, Of::All).map(Rows::from)
    }
}

impl<D: Decoder> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("length", &self.length)
            .field("limit", &self.late.limit.tokens)
            .finish_non_exhaustive()
    }
}
