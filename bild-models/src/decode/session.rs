use std::{fmt, sync::Arc};

use bild_core::{DraftSession, Pass, Result, Row, Rows, SessionLimit, Source, Token, VerifierSession, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Decoder, Part, asked, check_pass, check_tokens, drafts, for_each_ok, in_output, late::Late, run};
use crate::nn::{ShortHead, joined, reduce};

/// One generation's state of a model: what the decoder made of the source, once, and a self-attention cache laid out once for
/// the limit. Rolling back sets a length.
pub struct Session<D: Decoder> {
    pub(super) late: Late<D>,
    length: usize,
}

/// Of which of its new tokens a pass returns rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
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

    /// Goes on as if so many tokens had been taken in: what they were does not matter to whoever measures or warms up.
    pub(crate) fn skip(&mut self, tokens: usize) {
        self.length = tokens;
    }

    /// Takes new tokens into sessions of one decoder in one pass, and returns the rows of each.
    fn pass_all(decoder: &Arc<D>, passes: &mut [(&mut Self, Pass<'_>)], of: Of) -> Vec<Result<Rows>> {
        let read = Late::read_all(passes.iter_mut().map(|(session, _)| &mut session.late));
        let ready = read.into_iter().zip(&mut *passes);
        let ready = ready.map(|(read, (session, pass))| read.and_then(|()| session.ready(decoder, pass, of))).collect();
        for_each_ok(ready, |ready, chosen| {
            let rows = ready.iter().map(|ready: &Ready<D>| ready.new.len()).sum();
            let done = run(decoder, rows, move |decoder| compute(decoder, ready, of));
            let done = done.into_iter().zip(chosen).map(|((state, rows), &i)| {
                let (session, pass) = &mut passes[i];
                session.late.put_back(state);
                session.length += if rows.is_ok() { pass.new.len() } else { 0 };
                rows.map(Rows::from)
            });
            done.collect()
        })
    }

    /// What its part in a pass needs; the source must have been read.
    fn ready(&mut self, decoder: &Arc<D>, pass: &Pass<'_>, of: Of) -> Result<Ready<D>> {
        self.late.check_decoder(decoder)?;
        self.length = self.length.min(pass.keep);
        check_pass("a pass of a session", self.length, pass.new.len(), self.late.limit.tokens)?;
        check_tokens(&**decoder, pass.new, in_output(self.length))?;
        let short = if of == Of::Last { self.late.short_head() } else { None };
        Ok(Ready { state: self.late.take()?, at: self.length, new: pass.new.to_vec(), short, want: pass.want })
    }

    pub(crate) fn propose_all(decoder: &Arc<D>, passes: &mut [(&mut Self, Pass<'_>)]) -> Vec<Result<Rows>> {
        Self::pass_all(decoder, passes, Of::Last)
    }

    pub(crate) fn score_all(decoder: &Arc<D>, passes: &mut [(&mut Self, Pass<'_>)]) -> Vec<Result<Rows>> {
        Self::pass_all(decoder, passes, Of::All)
    }

    fn alone(&mut self, pass: &Pass<'_>, of: Of) -> Result<Rows> {
        let decoder = self.late.decoder.clone();
        Self::pass_all(&decoder, &mut [(self, *pass)], of).pop().unwrap_or_else(|| Ok(Rows::default()))
    }
}

/// The part of one session in a pass.
struct Ready<D: Decoder> {
    state: D::State,
    at: usize,
    new: Vec<Token>,
    /// What it drafts with, if not with the whole head.
    short: Option<Arc<ShortHead<D::Backend>>>,
    want: Want,
}

/// A pass: the state and the rows of each part.
fn compute<D: Decoder>(decoder: &D, mut ready: Vec<Ready<D>>, of: Of) -> Vec<(D::State, Result<Vec<Row>>)> {
    let counts: Vec<_> = ready.iter().map(|ready| ready.new.len()).collect();
    let tokens: Vec<Token> = ready.iter().flat_map(|ready| &ready.new).copied().collect();
    let parts = ready.iter_mut().zip(&counts);
    let mut parts: Vec<_> = parts.map(|(ready, &rows)| Part { state: &mut ready.state, at: ready.at, rows }).collect();
    let hidden = decoder.forward(decoder.embed(&tokens), &mut parts, 0..decoder.layers());
    let mut found = match of {
        Of::Last => {
            let (short, wants): (Vec<_>, Vec<_>) =
                ready.iter_mut().map(|ready| (ready.short.take(), ready.want)).unzip();
            drafts(decoder, decoder.norm(last_rows(hidden, &counts)), &short, &wants)
        }
        Of::All => {
            let asked: Vec<_> = ready.iter().flat_map(|ready| asked(&ready.new, ready.want)).collect();
            reduce::rows(decoder.logits(hidden), &asked, decoder.threads())
        }
    }
    .into_iter();
    let each = ready.into_iter().zip(counts).map(|(ready, count)| {
        let rows: Vec<_> = found.by_ref().take(if of == Of::Last { 1 } else { count }).collect();
        (ready.state, rows.into_iter().collect())
    });
    each.collect()
}

/// The last row of each part.
fn last_rows<B: Backend>(rows: Tensor<B, 2>, counts: &[usize]) -> Tensor<B, 2> {
    if counts.iter().all(|&count| count == 1) {
        return rows;
    }
    let ends = counts.iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    });
    joined(ends.map(|end| rows.clone().narrow(0, end - 1, 1)).collect())
}

impl<D: Decoder> DraftSession for Session<D> {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.alone(pass, Of::Last)
    }
}

impl<D: Decoder> VerifierSession for Session<D> {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.alone(pass, Of::All)
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
