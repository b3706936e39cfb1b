use std::{fmt, sync::Arc};

use bild_core::{Result, Row, Token, Want};
use burn::tensor::{Tensor, backend::Backend};

use super::{Projection, reduce};
use crate::Threads;

/// The rows of a head that some tokens have.
pub struct ShortHead<B: Backend> {
    /// Ascending.
    tokens: Vec<Token>,
    vocabulary: usize,
    rows: Projection<B>,
}

impl<B: Backend> ShortHead<B> {
    /// Those of `tokens`, ascending, from the head of a vocabulary of so many.
    pub(crate) fn of(head: &Projection<B>, tokens: Vec<Token>, vocabulary: usize, device: &B::Device) -> Arc<Self> {
        let rows = head.select(&tokens, device);
        Arc::new(Self { tokens, vocabulary, rows })
    }

    /// `[rows, in]` to `[rows, tokens]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.rows.forward(x)
    }

    /// Reduces its logits: the other tokens have no probability.
    pub(crate) fn reduce(&self, logits: Tensor<B, 2>, want: Want, threads: &Threads) -> Vec<Result<Row>> {
        let asked = vec![(want, None); logits.dims()[0]];
        let in_full = |mut row: Row| {
            row.argmax = self.tokens[row.argmax as usize];
            row.logits = row.logits.take().map(|some| {
                let mut all = vec![f32::NEG_INFINITY; self.vocabulary];
                self.tokens.iter().zip(&*some).for_each(|(&token, &logit)| all[token as usize] = logit);
                all.into()
            });
            row
        };
        reduce::rows(logits, &asked, threads).into_iter().map(|row| row.map(in_full)).collect()
    }
}

impl<B: Backend> fmt::Debug for ShortHead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortHead").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
