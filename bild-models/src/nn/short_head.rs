use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bild_core::{Result, Row, Token};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::{
    Projection,
    reduce::{self, Asked, Reduced},
};
use crate::Threads;

/// The rows of a head that some tokens have.
pub struct ShortHead<B: Backend> {
    /// Ascending.
    tokens: Vec<Token>,
    /// The same on the device, once they are needed there.
    on_device: OnceLock<Tensor<B, 1, Int>>,
    vocabulary: usize,
    rows: Projection<B>,
}

impl<B: Backend> ShortHead<B> {
    /// Those of `tokens`, ascending, from the head of a vocabulary of so many.
    pub(crate) fn of(head: &Projection<B>, tokens: Vec<Token>, vocabulary: usize, device: &B::Device) -> Arc<Self> {
        let rows = head.select(&tokens, device);
        Arc::new(Self { tokens, on_device: OnceLock::new(), vocabulary, rows })
    }

    /// `[rows, in]` to `[rows, tokens]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.rows.forward_fine(x)
    }

    /// Reduces its logits on their device.
    pub(crate) fn reduce_on_device(&self, logits: Tensor<B, 2>, asked: &[Asked]) -> Reduced<B> {
        let device = logits.device();
        let mut reduced = Reduced::of(logits, asked);
        let tokens = self.on_device.get_or_init(|| {
            let tokens: Vec<i32> = self.tokens.iter().map(|&token| token as i32).collect();
            Tensor::from_data(TensorData::new(tokens, [self.tokens.len()]), &device)
        });
        let rows = asked.len();
        reduced.argmax = tokens.clone().select(0, reduced.argmax.reshape([rows])).reshape([rows, 1]);
        reduced
    }

    /// Reduces its logits: the other tokens have no probability.
    pub(crate) fn reduce(&self, logits: Tensor<B, 2>, asked: &[Asked], threads: &Threads) -> Vec<Result<Row>> {
        let in_full = |mut row: Row| {
            row.argmax = self.tokens[row.argmax as usize];
            row.logits = row.logits.take().map(|some| {
                let mut all = vec![f32::NEG_INFINITY; self.vocabulary];
                self.tokens.iter().zip(&*some).for_each(|(&token, &logit)| all[token as usize] = logit);
                all.into()
            });
            row
        };
        reduce::rows(logits, asked, threads).into_iter().map(|row| row.map(in_full)).collect()
    }
}

impl<B: Backend> fmt::Debug for ShortHead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortHead").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
