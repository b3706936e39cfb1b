use std::{mem, sync::Arc};

use bild_core::{Error, Result, SessionLimit, Source};

use super::{Decoder, check_memory};

/// What a session has of its decoder: the state is made when the first pass asks for it, because a policy may never do so.
pub(super) struct Late<D: Decoder> {
    pub(super) decoder: Arc<D>,
    pub(super) limit: SessionLimit,
    source: Source,
    state: State<D::State>,
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
        Ok(Self { decoder: decoder.clone(), limit: limit.clone(), source: source.clone(), state: State::Unread })
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
