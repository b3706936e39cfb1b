use std::{
    cell::OnceCell,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bild_core::{Error, Result, SessionLimit, Source};

use super::{Decoder, check_memory};
use crate::nn::ShortHead;

/// Sources are read together up to so many tokens: enough for products at the speed of arithmetic.
const MOST_TOKENS: usize = 256;

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

    /// Refuses the session of another decoder.
    pub(super) fn check_decoder(&self, decoder: &Arc<D>) -> Result<()> {
        if Arc::ptr_eq(decoder, &self.decoder) {
            return Ok(());
        }
        Err(Error::model("a model was given the session of another"))
    }

    /// Reads the sources of several sessions of one decoder, as far as that is not done yet.
    pub(super) fn read_all<'a>(sessions: impl ExactSizeIterator<Item = &'a mut Self>) -> Vec<Result<()>>
    where
        D: 'a,
    {
        let mut encoded: Vec<_> = (0..sessions.len()).map(|_| None).collect();
        Self::read_sources(&mut sessions.zip(&mut encoded).collect::<Vec<_>>())
    }

    /// Reads the sources of several sessions of one decoder, as far as that is not done yet, with what others of the same encoder
    /// made of them, or leaving that for others.
    pub(super) fn read_sources(sessions: &mut [(&mut Self, &mut Option<D::Encoded>)]) -> Vec<Result<()>> {
        let mut found: Vec<Result<()>> = sessions.iter().map(|_| Ok(())).collect();
        let (mut unread, mut needed) = (Vec::new(), 0);
        for (i, (session, _)) in sessions.iter().enumerate() {
            if let State::Unread = session.state {
                // Nothing is taken before all are looked at: each must fit beside those before it.
                found[i] =
                    check_memory(&*session.decoder, session.source.tokens().len(), session.limit.tokens, &mut needed);
                unread.extend(found[i].is_ok().then_some(i));
            }
        }
        let mut unread = &unread[..];
        while !unread.is_empty() {
            let length = |&i: &usize| sessions[i].0.source.tokens().len();
            let mut tokens = 0;
            let fits = |i: &&usize| {
                tokens += length(i);
                tokens <= MOST_TOKENS
            };
            let (group, others) = unread.split_at(unread.iter().take_while(fits).count().max(1));
            let lengths: Vec<_> = group.iter().map(length).collect();
            let begun = Instant::now();
            tracing::trace_span!("encode").in_scope(|| Self::read_group(sessions, group, &mut found));
            let took = begun.elapsed().as_secs_f64() / lengths.iter().sum::<usize>().max(1) as f64;
            for (&i, length) in group.iter().zip(lengths) {
                sessions[i].0.limit.add_reading_time(Duration::from_secs_f64(took * length as f64));
            }
            unread = others;
        }
        found
    }

    /// Reads some of the sources in one pass.
    fn read_group(sessions: &mut [(&mut Self, &mut Option<D::Encoded>)], group: &[usize], found: &mut [Result<()>]) {
        let Some(&first) = group.first() else { return };
        let decoder = sessions[first].0.decoder.clone();
        let new: Vec<_> = group.iter().copied().filter(|&i| sessions[i].1.is_none()).collect();
        if !new.is_empty() {
            let sources: Vec<_> = new.iter().map(|&i| (&sessions[i].0.source, &sessions[i].0.limit)).collect();
            for (i, encoded) in new.into_iter().zip(decoder.encode(&sources)) {
                found[i] = encoded.map(|encoded| *sessions[i].1 = Some(encoded));
            }
        }
        let encoded = group.iter().filter_map(|&i| Some((i, sessions[i].1.clone()?)));
        let (chosen, encoded): (Vec<_>, Vec<_>) =
            encoded.map(|(i, encoded)| (i, (encoded, &sessions[i].0.limit))).unzip();
        for (i, state) in chosen.into_iter().zip(decoder.begin(encoded)) {
            found[i] = state.map(|state| sessions[i].0.state = State::Ready(state));
        }
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
