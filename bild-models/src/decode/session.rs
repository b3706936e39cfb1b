use std::{fmt, sync::Arc};

use bild_core::{DraftSession, Pass, Result, Row, Rows, SessionLimit, Source, Token, VerifierSession};
use burn::tensor::{Tensor, backend::Backend};

use super::{Decoder, Drafting, Part, asked, check_pass, check_tokens, draft, for_each_ok, in_output, late::Late, run};
use crate::nn::{joined, reduce};

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
                // Of several drafts all but the last have been taken in.
                session.length += match (&rows, of) {
                    (Ok(rows), Of::Last) => pass.new.len() + rows.len().saturating_sub(1),
                    (Ok(_), Of::All) => pass.new.len(),
                    (Err(_), _) => 0,
                };
                rows
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
        let room = self.late.limit.tokens - self.length - pass.new.len();
        let drafting = Drafting::new(short, pass, room);
        Ok(Ready { state: self.late.take()?, at: self.length, new: pass.new.to_vec(), drafting })
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
    /// What is wanted of its rows, of drafts or others.
    drafting: Drafting<D::Backend>,
}

/// A pass: the state and the rows of each part.
fn compute<D: Decoder>(decoder: &D, mut ready: Vec<Ready<D>>, of: Of) -> Vec<(D::State, Result<Rows>)> {
    let found = match of {
        Of::Last => propose(decoder, &mut ready),
        Of::All => score(decoder, &mut ready),
    };
    ready.into_iter().zip(found).map(|(ready, rows)| (ready.state, rows.into_iter().collect())).collect()
}

fn score<D: Decoder>(decoder: &D, ready: &mut [Ready<D>]) -> Vec<Vec<Result<Row>>> {
    let hidden = through_layers(decoder, ready);
    let asked: Vec<_> = ready.iter().flat_map(|ready| asked(&ready.new, ready.drafting.want)).collect();
    let mut found = reduce::rows(decoder.logits(hidden), &asked, decoder.threads()).into_iter();
    ready.iter().map(|ready| found.by_ref().take(ready.new.len()).collect()).collect()
}

fn propose<D: Decoder>(decoder: &D, ready: &mut [Ready<D>]) -> Vec<Vec<Result<Row>>> {
    let counts: Vec<_> = ready.iter().map(|ready| ready.new.len()).collect();
    let drafting: Vec<_> = ready.iter().map(|ready| ready.drafting.clone()).collect();
    let normed = decoder.norm(last_rows(through_layers(decoder, ready), &counts));
    draft(decoder, normed, &drafting, |before, chosen, last| {
        let parts = ready.iter_mut().enumerate().filter(|(i, _)| chosen.contains(i));
        let parts =
            parts.map(|(_, Ready { state, at, new, .. })| Part { state, at: *at + new.len() + before - 1, rows: 1 });
        decoder.norm(decoder.forward(
            decoder.embed_on_device(last),
            &mut parts.collect::<Vec<_>>(),
            0..decoder.layers(),
        ))
    })
}

/// What all layers make of the new tokens.
fn through_layers<D: Decoder>(decoder: &D, ready: &mut [Ready<D>]) -> Tensor<D::Backend, 2> {
    let tokens: Vec<Token> = ready.iter().flat_map(|ready| &ready.new).copied().collect();
    let parts = ready.iter_mut().map(|Ready { state, at, new, .. }| Part { state, at: *at, rows: new.len() });
    decoder.forward(decoder.embed(&tokens), &mut parts.collect::<Vec<_>>(), 0..decoder.layers())
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
