use std::{cell::OnceCell, mem, sync::Arc};

use bild_core::{Error, Result, SessionLimit, Source};

use super::{Decoder, check_memory};
use crate::nn::ShortHead;

/// What a session has of its decoder: the state is made when the first pass asks for it, because a policy may never do so.
pub(super) struct Late<D: Decoder> {
    pub(super) decoder: Arc<D>,
    pub(super) limit: SessionLimit,
    source: Source,
    state: State<D::State>,
    /// What it drafts with, once it does.
    short: OnceCell<Option<Arc<ShortHead<D::Backend>>>>,
}

enum State<S> {
    /// The source is not read yet.
    Unread,
    Ready(S),
    /// A pass has it, or has panicked with it.
    Away,
}

impl<D: Decoder> Late<D> {
    pub(super) fn begin(decoder: &Arc<D>, source: &Source, limit: &SessionLimit) -> Result<Self> {
        decoder.check()?;
        let (decoder, limit, source) = (decoder.clone(), limit.clone(), source.clone());
        Ok(Self { decoder, limit, source, state: State::Unread, short: OnceCell::new() })
    }

    /// Reads the source, if that is not done yet.
    pub(super) fn read_source(&mut self) -> Result<()> {
        self.read_source_with(&mut None)
    }

    /// The same, with what another session of the same encoder made of the source, or leaving that for another.
    pub(super) fn read_source_with(&mut self, encoded: &mut Option<D::Encoded>) -> Result<()> {
        if let State::Unread = self.state {
            let Self { decoder, limit, source, .. } = self;
            check_memory(&**decoder, source.tokens().len(), limit.tokens)?;
            let read = || {
                let encoded = match encoded {
                    Some(encoded) => encoded,
                    None => encoded.insert(decoder.encode(source, limit)?),
                };
                decoder.begin(encoded.clone(), limit)
            };
            self.state = State::Ready(limit.reading(read)?);
        }
        Ok(())
    }

    /// The part of the head that drafts are made with, if it is not all of it. The source must have been read.
    pub(super) fn short_head(&self) -> Option<Arc<ShortHead<D::Backend>>> {
        self.short.get_or_init(|| self.decoder.short_head(&self.source)).clone()
    }

    /// The state, for a pass that puts it [`back`](Self::put_back).
    pub(super) fn take(&mut self) -> Result<D::State> {
        match mem::replace(&mut self.state, State::Away) {
            State::Ready(state) => Ok(state),
            _ => Err(Error::model("a pass of this session panicked before: it cannot go on")),
        }
    }

    pub(super) fn put_back(&mut self, state: D::State) {
        self.state = State::Ready(state);
    }
}
