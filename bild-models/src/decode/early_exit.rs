use std::{fmt, ops::Range, sync::Arc};

use bild_core::{Error, Pair, PairSession, Pass, Result, Role, Rows, SessionLimit, Source, Token, Vocabulary};
use burn::tensor::Tensor;

use super::{Decoder, DecoderModel, Part, asked, check_pass, check_tokens, drafts, in_output, late::Late, run};
use crate::{
    LoadError,
    nn::{Exit, reduce},
};

/// A model that drafts with its own first decoder layers, the final norm and the head, and verifies with all of them: a
/// [`Pair`] by itself, with one encoder, one set of weights and one cache (section 4.4.2 of the Big Little Decoder paper,
/// where the model is trained for it).
///
/// What the first layers computed for a draft is not computed again: the verifier goes on from there, so a draft step costs
/// those layers and the head, and a verification the other layers and the head.
///
/// The final norm and the head expect what comes out of the last layer, so few drafts of a model stand that was not trained for an
/// early exit. One that was trained for it afterwards, with the rest as it was, is loaded by [`load`](Self::load).
///
/// ```no_run
/// use bild::{Checkpoint, Flex, Lossless, T5, decode::Generator, models::EarlyExit};
///
/// let model = T5::<Flex>::load(&Checkpoint::open("models/de-en/big")?, &Default::default())?;
/// let generator = Generator::new(EarlyExit::new(model, 2)?, Lossless::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EarlyExit<M: DecoderModel> {
    model: M,
    layers: usize,
    /// What stands between those layers and the head, if that is not the final norm.
    exit: Option<Arc<ExitOf<M::Decoder>>>,
}

type ExitOf<D> = Exit<<D as Decoder>::Backend>;

impl<M: DecoderModel> EarlyExit<M> {
    /// Drafts with the first `layers` decoder layers of `model`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the model does not have more decoder layers than that, or `layers` is 0.
    pub fn new(model: M, layers: usize) -> Result<Self, LoadError> {
        let all = model.decoder().layers();
        if (1..all).contains(&layers) {
            Ok(Self { model, layers, exit: None })
        } else {
            Err(LoadError::EarlyExit { layers, all })
        }
    }

    /// With something else than the final norm between the layers and the head.
    pub(crate) fn with_exit(mut self, exit: ExitOf<M::Decoder>) -> Self {
        self.exit = Some(Arc::new(exit));
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// How many of its decoder layers draft.
    pub fn layers(&self) -> usize {
        self.layers
    }
}

impl<M: DecoderModel> Pair for EarlyExit<M> {
    type Session = EarlyExitSession<M::Decoder>;

    fn vocabulary(&self) -> &Vocabulary {
        self.model.decoder().vocabulary()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        let late = Late::begin(self.model.decoder(), source, limit)?;
        Ok(EarlyExitSession { late, layers: self.layers, exit: self.exit.clone(), hidden: Vec::new() })
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        // What the first layers made of each token is kept too, which is less than the cache of one of them.
        let decoder = self.model.decoder();
        decoder.bytes_for(source, tokens).saturating_add(decoder.bytes_for(0, tokens) / decoder.layers() as u64)
    }
}

// Deriving it would ask for a decoder that can be cloned.
impl<M: DecoderModel + Clone> Clone for EarlyExit<M> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), layers: self.layers, exit: self.exit.clone() }
    }
}

impl<M: DecoderModel> fmt::Debug for EarlyExit<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyExit").field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// One generation's state of an [`EarlyExit`].
pub struct EarlyExitSession<D: Decoder> {
    late: Late<D>,
    layers: usize,
    exit: Option<Arc<ExitOf<D>>>,
    /// Each token that went through the first layers, and what they made of it, `[1, width]`: where the others go on.
    hidden: Vec<(Token, Tensor<D::Backend, 2>)>,
}

impl<D: Decoder> EarlyExitSession<D> {
    /// Takes `new`, of which the first stands at position `at`, through the first layers, as far as the same tokens have not been
    /// there, and forgets what followed others. Returns what `then` makes of the rows, if there were any.
    fn take_in<R: Send + 'static>(
        &mut self,
        new: &[Token],
        at: usize,
        then: impl FnOnce(&D, &Tensor<D::Backend, 2>) -> R + Send + 'static,
    ) -> Result<Option<R>> {
        check_pass("a pass of an early-exit session", at, new.len(), self.late.limit.tokens)?;
        let Some(known) = self.hidden.get(at..) else {
            let problem = format!("{at} tokens are to be kept of the {} of an early-exit session", self.hidden.len());
            return Err(Error::model(problem));
        };
        let known = known.iter().zip(new).take_while(|((known, _), token)| known == *token).count();
        self.hidden.truncate(at + known);
        let (at, new) = (at + known, &new[known..]);
        if new.is_empty() {
            return Ok(None);
        }
        check_tokens(&*self.late.decoder, new, in_output(at))?;
        let embedded = self.late.decoder.embed(new);
        let (hidden, result) = self.through(embedded, at, 0..self.layers, |decoder, hidden| {
            let result = then(decoder, &hidden);
            (hidden, result)
        })?;
        self.hidden.extend(new.iter().enumerate().map(|(row, &token)| (token, hidden.clone().narrow(0, row, 1))));
        Ok(Some(result))
    }

    /// One pass over rows, of which the first stands at position `at`, through some of the layers.
    fn through<R: Send + 'static>(
        &mut self,
        rows: Tensor<D::Backend, 2>,
        at: usize,
        layers: Range<usize>,
        then: impl FnOnce(&D, Tensor<D::Backend, 2>) -> R + Send + 'static,
    ) -> Result<R> {
        let mut state = self.late.take()?;
        let count = rows.dims()[0];
        let (state, result) = run(&self.late.decoder, count, move |decoder| {
            let part = Part { state: &mut state, at, rows: count };
            let rows = decoder.forward(rows, &mut [part], layers);
            let result = then(decoder, rows);
            (state, result)
        });
        self.late.put_back(state);
        Ok(result)
    }
}

impl<D: Decoder> PairSession for EarlyExitSession<D> {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.late.read_source()?;
        let Pass { keep, new, want, .. } = *pass;
        let end = keep + new.len();
        if pass.role == Role::Draft {
            let (exit, short) = (self.exit.clone(), [self.late.short_head()]);
            let of_last = move |decoder: &D, rows: &Tensor<D::Backend, 2>| {
                let last = rows.clone().narrow(0, rows.dims()[0] - 1, 1);
                let normed = match exit {
                    Some(exit) => exit.forward(last),
                    None => decoder.norm(last),
                };
                drafts(decoder, normed, &short, &[want]).into_iter().collect::<Result<Vec<_>>>()
            };
            if let Some(rows) = self.take_in(new, keep, of_last.clone())? {
                return rows.map(Rows::from);
            }
            let last = self.hidden[end - 1].1.clone();
            return run(&self.late.decoder, 1, move |decoder| of_last(decoder, &last)).map(Rows::from);
        }
        self.take_in(new, keep, |_, _| ())?;
        let rows = self.hidden[keep..end].iter().map(|(_, row)| row.clone()).collect();
        let asked: Vec<_> = asked(new, want).collect();
        let rest = self.layers..self.late.decoder.layers();
        let reduced = move |decoder: &D, rows| reduce::rows(decoder.logits(rows), &asked, decoder.threads());
        self.through(Tensor::cat(rows, 0), keep, rest, reduced)?.into_iter().collect()
    }
}

impl<D: Decoder> fmt::Debug for EarlyExitSession<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyExitSession").field("length", &self.hidden.len()).finish_non_exhaustive()
    }
}
