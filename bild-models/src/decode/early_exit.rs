use std::{fmt, sync::Arc};

use bild_core::{Error, Pair, PairSession, Pass, Result, Role, Row, Rows, SessionLimit, Source, Token, Vocabulary};
use burn::tensor::Tensor;

use super::{
    BATCH_SIZE, Decoder, DecoderModel, Drafting, Part, asked, check_pass, check_tokens, draft, for_each_ok, in_output,
    late::Late, most_drafts, passes_at_once, run,
};
use crate::{
    LoadError,
    nn::{Exit, joined, reduce},
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

    fn most_drafts(&self) -> usize {
        most_drafts(&**self.model.decoder())
    }

    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        EarlyExitSession::pass_all(self.model.decoder(), passes)
    }

    fn batch_size(&self) -> usize {
        BATCH_SIZE
    }

    fn passes_at_once(&self) -> usize {
        passes_at_once(&**self.model.decoder())
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
    /// Has passes of sessions of one decoder made together, all of one role.
    fn pass_all(decoder: &Arc<D>, passes: &mut [(&mut Self, Pass<'_>)]) -> Vec<Result<Rows>> {
        let Some((first, pass)) = passes.first() else { return Vec::new() };
        let (role, layers, exit) = (pass.role, first.layers, first.exit.clone());
        let read = Late::read_all(passes.iter_mut().map(|(session, _)| &mut session.late));
        let ready = read.into_iter().zip(&mut *passes);
        let ready = ready.map(|(read, (session, pass))| read.and_then(|()| session.ready(decoder, pass))).collect();
        for_each_ok(ready, |mut ready: Vec<Ready<D>>, chosen| {
            let count =
                |ready: &Ready<D>| if role == Role::Draft { ready.fresh().len().max(1) } else { ready.new.len() };
            let rows = ready.iter().map(count).sum();
            let (ready, found) = run(decoder, rows, move |decoder| {
                through_first(decoder, &mut ready, layers);
                let found = match role {
                    Role::Draft => propose(decoder, &mut ready, layers, exit.as_deref()),
                    Role::Verifier => verify(decoder, &mut ready, layers),
                };
                (ready, found)
            });
            let done = ready.into_iter().zip(found).zip(chosen).map(|((ready, rows), &i)| {
                let session = &mut *passes[i].0;
                let Ready { state, keep, at, new, rows: hidden, .. } = ready;
                session.late.put_back(state);
                let rows: Rows = rows.into_iter().collect::<Result<_>>()?;
                // Of several drafts all but the last have been taken in.
                let own = if role == Role::Draft { rows.len().saturating_sub(1) } else { 0 };
                let tokens = new.into_iter().chain(rows.iter().take(own).map(|row| row.argmax));
                session.hidden.extend(tokens.zip(hidden).skip(at - keep));
                Ok(rows)
            });
            done.collect()
        })
    }

    /// What its part in a pass needs, of which the tokens that went through the first layers before are known; what followed others is
    /// forgotten. The source must have been read.
    fn ready(&mut self, decoder: &Arc<D>, pass: &Pass<'_>) -> Result<Ready<D>> {
        self.late.check_decoder(decoder)?;
        let Pass { keep, new, .. } = *pass;
        check_pass("a pass of an early-exit session", keep, new.len(), self.late.limit.tokens)?;
        let Some(known) = self.hidden.get(keep..) else {
            let problem = format!("{keep} tokens are to be kept of the {} of an early-exit session", self.hidden.len());
            return Err(Error::model(problem));
        };
        let known = known.iter().zip(new).take_while(|((known, _), token)| known == *token);
        let rows: Vec<_> = known.map(|((_, row), _)| row.clone()).collect();
        let at = keep + rows.len();
        check_tokens(&**decoder, &new[rows.len()..], in_output(at))?;
        self.hidden.truncate(at);
        let short = if pass.role == Role::Draft { self.late.short_head() } else { None };
        let drafting = Drafting::new(short, pass, self.late.limit.tokens - keep - new.len());
        Ok(Ready { state: self.late.take()?, keep, at, new: new.to_vec(), rows, drafting })
    }
}

/// The part of one session in a pass.
struct Ready<D: Decoder> {
    state: D::State,
    /// The position of the first new token, and of the first that has not been through the first layers.
    keep: usize,
    at: usize,
    new: Vec<Token>,
    /// What the first layers made of the new tokens: of those before `at`, then of all, and of drafts.
    rows: Vec<Tensor<D::Backend, 2>>,
    /// What is wanted of its rows, of drafts or others.
    drafting: Drafting<D::Backend>,
}

impl<D: Decoder> Ready<D> {
    fn fresh(&self) -> &[Token] {
        &self.new[self.at - self.keep..]
    }
}

/// Takes the tokens through the first layers that have not been there.
fn through_first<D: Decoder>(decoder: &D, ready: &mut [Ready<D>], layers: usize) {
    let tokens: Vec<Token> = ready.iter().flat_map(Ready::fresh).copied().collect();
    if tokens.is_empty() {
        return;
    }
    let mut parts = Vec::new();
    for ready in ready.iter_mut() {
        let rows = ready.fresh().len();
        if rows > 0 {
            parts.push(Part { state: &mut ready.state, at: ready.at, rows });
        }
    }
    let hidden = decoder.forward(decoder.embed(&tokens), &mut parts, 0..layers);
    let mut row = 0;
    for ready in ready {
        for _ in ready.at - ready.keep..ready.new.len() {
            ready.rows.push(hidden.clone().narrow(0, row, 1));
            row += 1;
        }
    }
}

/// The drafts of each, the first from its last row.
fn propose<D: Decoder>(
    decoder: &D,
    ready: &mut [Ready<D>],
    layers: usize,
    exit: Option<&Exit<D::Backend>>,
) -> Vec<Vec<Result<Row>>> {
    let norm = |rows| match exit {
        Some(exit) => exit.forward(rows),
        None => decoder.norm(rows),
    };
    let last = joined(ready.iter().filter_map(|ready| ready.rows.last().cloned()).collect());
    let drafting: Vec<_> = ready.iter().map(|ready| ready.drafting.clone()).collect();
    draft(decoder, norm(last), &drafting, |before, chosen, last| {
        let mut going_on: Vec<_> = ready.iter_mut().enumerate().filter(|(i, _)| chosen.contains(i)).collect();
        let parts = going_on.iter_mut().map(|(_, ready)| {
            let at = ready.keep + ready.new.len() + before - 1;
            Part { state: &mut ready.state, at, rows: 1 }
        });
        let rows = decoder.forward(decoder.embed_on_device(last), &mut parts.collect::<Vec<_>>(), 0..layers);
        for (place, (_, ready)) in going_on.into_iter().enumerate() {
            ready.rows.push(rows.clone().narrow(0, place, 1));
        }
        norm(rows)
    })
}

/// The rows of each, which go on through the other layers.
fn verify<D: Decoder>(decoder: &D, ready: &mut [Ready<D>], layers: usize) -> Vec<Vec<Result<Row>>> {
    let rows = joined(ready.iter().flat_map(|ready| &ready.rows).cloned().collect());
    let asked: Vec<_> = ready.iter().flat_map(|ready| asked(&ready.new, ready.drafting.want)).collect();
    let parts = ready.iter_mut().map(|ready| Part { state: &mut ready.state, at: ready.keep, rows: ready.new.len() });
    let hidden = decoder.forward(rows, &mut parts.collect::<Vec<_>>(), layers..decoder.layers());
    let mut found = reduce::rows(decoder.logits(hidden), &asked, decoder.threads()).into_iter();
    ready.iter().map(|ready| found.by_ref().take(ready.new.len()).collect()).collect()
}

impl<D: Decoder> PairSession for EarlyExitSession<D> {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        let decoder = self.late.decoder.clone();
        Self::pass_all(&decoder, &mut [(self, *pass)]).pop().unwrap_or_else(|| Ok(Rows::default()))
    }
}

impl<D: Decoder> fmt::Debug for EarlyExitSession<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyExitSession").field("length", &self.hidden.len()).finish_non_exhaustive()
    }
}
