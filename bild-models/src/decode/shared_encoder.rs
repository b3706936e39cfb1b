use std::fmt;

use bild_core::{
    DraftSession, Pair, PairSession, Pass, Result, Role, Rows, SessionLimit, Source, VerifierSession, Vocabulary,
};

use super::{BATCH_SIZE, Decoder, DecoderModel, Session, for_each_ok, late::Late, most_drafts, passes_at_once};

/// A model and a draft decoder that reads the states of the model's own encoder: a [`Pair`] by itself. A few decoder layers are all
/// that it adds; embedding, encoder and head are the big model's, and a source is encoded once.
///
/// Each of the two has its cache, so what was drafted is computed again where the big model verifies it: by all of its layers, of
/// which the draft decoder's need not be any. [`EarlyExit`](crate::EarlyExit) drafts with the big model's first layers as they are.
///
/// ```no_run
/// use bild::{Checkpoint, Flex, Lossless, T5, decode::Generator, models::SharedEncoder};
///
/// let big = T5::<Flex>::load(&Checkpoint::open("flan-t5-large")?, &Default::default())?;
/// let pair = SharedEncoder::load(big, &Checkpoint::open("flan-t5-large-draft")?)?;
/// let generator = Generator::new(pair, Lossless::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SharedEncoder<M> {
    big: M,
    draft: M,
}

impl<M: DecoderModel> SharedEncoder<M> {
    /// Of two models that have one encoder.
    pub(crate) fn of(big: M, draft: M) -> Self {
        Self { big, draft }
    }

    /// The big model.
    pub fn big(&self) -> &M {
        &self.big
    }

    /// What drafts, as a model of its own: the draft decoder with the embedding, the encoder and the head of the big model.
    pub fn draft(&self) -> &M {
        &self.draft
    }

    /// How many decoder layers draft.
    pub fn layers(&self) -> usize {
        self.draft.decoder().layers()
    }
}

impl<M: DecoderModel> Pair for SharedEncoder<M> {
    type Session = SharedEncoderSession<M::Decoder>;

    fn vocabulary(&self) -> &Vocabulary {
        self.big.decoder().vocabulary()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        let draft = Session::begin(self.draft.decoder(), source, limit)?;
        let verifier = Session::begin(self.big.decoder(), source, limit)?;
        Ok(SharedEncoderSession { encoded: None, draft, verifier })
    }

    fn most_drafts(&self) -> usize {
        most_drafts(&**self.draft.decoder())
    }

    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        let drafts = passes.first().is_some_and(|(_, pass)| pass.role == Role::Draft);
        let unread = passes.iter_mut().map(|(session, _)| {
            let SharedEncoderSession { encoded, draft, verifier } = &mut **session;
            (if drafts { &mut draft.late } else { &mut verifier.late }, encoded)
        });
        let read = Late::read_sources(&mut unread.collect::<Vec<_>>());
        let ready = read.into_iter().zip(passes).map(|(read, pass)| read.map(|()| pass)).collect();
        for_each_ok(ready, |ready, _| {
            let passes = ready
                .into_iter()
                .map(|(session, pass)| (if drafts { &mut session.draft } else { &mut session.verifier }, *pass));
            let passes = &mut passes.collect::<Vec<_>>();
            if drafts {
                Session::propose_all(self.draft.decoder(), passes)
            } else {
                Session::score_all(self.big.decoder(), passes)
            }
        })
    }

    fn batch_size(&self) -> usize {
        BATCH_SIZE
    }

    fn passes_at_once(&self) -> usize {
        passes_at_once(&**self.big.decoder())
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        // Most of it is caches, of which the draft decoder has as much a layer; the encoder is there once.
        let big = self.big.decoder();
        let bytes = big.bytes_for(source, tokens);
        bytes.saturating_add((bytes / big.layers() as u64).saturating_mul(self.layers() as u64))
    }
}

impl<M: DecoderModel> fmt::Debug for SharedEncoder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEncoder").field("layers", &self.layers()).finish_non_exhaustive()
    }
}

/// One generation's state of a [`SharedEncoder`].
pub struct SharedEncoderSession<D: Decoder> {
    /// What the encoder made of the source, once one of the two has asked for it.
    encoded: Option<D::Encoded>,
    draft: Session<D>,
    verifier: Session<D>,
}

impl<D: Decoder> PairSession for SharedEncoderSession<D> {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        let Self { encoded, draft, verifier } = self;
        let session = if pass.role == Role::Draft { draft } else { verifier };
        Late::read_sources(&mut [(&mut session.late, encoded)]).pop().unwrap_or(Ok(()))?;
        match pass.role {
            Role::Draft => session.propose(pass),
            Role::Verifier => session.score(pass),
        }
    }
}

impl<D: Decoder> fmt::Debug for SharedEncoderSession<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEncoderSession")
            .field("draft", &self.draft)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}
