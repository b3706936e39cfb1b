use std::fmt;

use bild_core::{
    DraftSession, Pair, PairSession, Pass, Result, Role, Rows, SessionLimit, Source, VerifierSession, Vocabulary,
};

use super::{Decoder, DecoderModel, Session};

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
        match pass.role {
            Role::Draft => {
                draft.late.read_source_with(encoded)?;
                draft.propose(pass)
            }
            Role::Verifier => {
                verifier.late.read_source_with(encoded)?;
                verifier.score(pass)
            }
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
