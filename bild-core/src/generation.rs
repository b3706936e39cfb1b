use std::{sync::Arc, time::Instant};

use tracing::trace_span;

use crate::{
    Context, Draft, Drafted, Error, Event, Finish, LogitsProcessor, Output, Pair, PairSession, Policy, PolicyState,
    Prefix, Result, Role, Row, SessionLimit, Settings, Source, Statistics, Then, Token, Vocabulary, Want, Wants,
    limit::Interrupt,
};

/// One generation under way: the decode loop of the paper (Algorithm 1), as an iterator of [`Event`]s.
///
/// Each step is one pass of one model. The iterator ends after [`Event::Finished`] or after an error;
/// [`finish`](Self::finish) runs it to the end and returns the [`Output`].
pub struct Generation<S> {
    /// Nothing if the generation ended before its source was read.
    session: Option<S>,
    policy: Box<dyn PolicyState>,
    wants: Wants,
    source: Source,
    truncated: bool,
    seed: u64,
    vocabulary: Vocabulary,
    limits: Limits,
    processors: Vec<Arc<dyn LogitsProcessor>>,
    /// The start token, then every generated token; the last `drafts.len()` wait for the verifier.
    tokens: Vec<Token>,
    drafts: Vec<Drafted>,
    /// How many of `tokens` each model has taken in.
    draft_seen: usize,
    verifier_seen: usize,
    speaker: Role,
    /// One entry for each committed token.
    log_probs: Vec<f32>,
    writers: Vec<Role>,
    statistics: Statistics,
    finish: Option<Finish>,
    failed: bool,
    trace: bool,
    /// Whether anyone wants the events: the output or the one who iterates.
    keep_events: bool,
    events: Vec<Event>,
    /// How many of `events` the iterator has returned.
    returned: usize,
}

/// Borrows the fields that it shows and no others, so that the policy can be asked at the same time.
macro_rules! context {
    ($generation:ident) => {
        Context {
            source: &$generation.source,
            tokens: &$generation.tokens[1..],
            drafts: &$generation.drafts,
            statistics: &$generation.statistics,
            seed: $generation.seed,
        }
    };
}

struct Limits {
    max_new_tokens: usize,
    end: Vec<Token>,
    stop: Vec<Token>,
    interrupt: Interrupt,
}

impl<S: PairSession> Generation<S> {
    /// With settings that were looked at.
    pub(crate) fn begin<P: Pair<Session = S>>(
        pair: &P,
        policy: &dyn Policy,
        source: &Source,
        settings: &Settings,
    ) -> Result<Self> {
        let begun = Instant::now();
        let vocabulary = pair.vocabulary().clone();
        let end = settings.end_tokens.as_ref().unwrap_or(&vocabulary.end).clone();
        let read = source.limited(settings, &vocabulary.end)?;
        let interrupt = Interrupt { begun, deadline: settings.deadline, cancel: settings.cancel.clone() };
        let limit = SessionLimit::of(settings, interrupt.clone());
        let begin = || limit.check().and_then(|()| pair.begin(&read, &limit));
        let (session, interrupted) = match trace_span!("encode", tokens = read.tokens().len()).in_scope(begin) {
            Ok(session) => (Some(session), None),
            Err(Error::Interrupted(finish)) => (None, Some(finish)),
            Err(error) => return Err(error),
        };
        let policy_state = policy.begin(settings.seed);
        let mut generation = Self {
            speaker: policy_state.first(),
            session,
            policy: policy_state,
            wants: policy.wants(),
            truncated: read.tokens().len() < source.tokens().len(),
            source: read,
            seed: settings.seed,
            processors: settings.processors.clone(),
            limits: Limits {
                max_new_tokens: settings.max_new_tokens,
                end,
                stop: settings.stop_tokens.clone(),
                interrupt,
            },
            tokens: vec![vocabulary.start],
            vocabulary,
            drafts: Vec::new(),
            draft_seen: 0,
            verifier_seen: 0,
            log_probs: Vec::new(),
            writers: Vec::new(),
            statistics: Statistics::default(),
            finish: None,
            failed: false,
            trace: settings.trace,
            keep_events: true,
            events: Vec::new(),
            returned: 0,
        };
        generation.statistics.encode_time = begun.elapsed();
        if let Some(finish) = interrupted {
            generation.end(finish);
        }
        Ok(generation)
    }

    /// One pass of the model whose turn it is.
    fn step(&mut self) -> Result<()> {
        let pass = match self.limits.interrupt.interrupted() {
            Some(finish) => Err(Error::Interrupted(finish)),
            None if self.speaker == Role::Draft => self.draft(),
            None => self.verify(),
        };
        match pass {
            Err(Error::Interrupted(finish)) => {
                self.end(finish);
                Ok(())
            }
            pass => pass,
        }
    }

    fn session(&mut self) -> &mut S {
        self.session.as_mut().expect("without a session a generation has ended")
    }

    /// The draft model proposes one token; the policy keeps it or falls back.
    fn draft(&mut self) -> Result<()> {
        let at = self.generated();
        if self.draft_seen == 0 {
            let begun = Instant::now();
            trace_span!("encode").in_scope(|| self.session().prepare())?;
            self.statistics.encode_time += begun.elapsed();
        }
        let begun = Instant::now();
        let row =
            trace_span!("draft", at).in_scope(|| self.propose()).map_err(|error| error.during(Role::Draft, at))?;
        self.statistics.draft_time += begun.elapsed();
        self.draft_seen = self.tokens.len();
        let Some(row) = row else {
            self.speaker = Role::Verifier;
            return Ok(());
        };
        self.statistics.draft_steps += 1;

        let context = context!(self);
        let (token, last) = match self.policy.drafted(&context, &row) {
            Draft::Keep(token) => (token, false),
            Draft::KeepLast(token) => (token, true),
            Draft::FallBack => {
                self.speaker = Role::Verifier;
                self.statistics.fallbacks += 1;
                self.emit(Event::Fallback { at, token: row.argmax, log_prob: row.log_prob(row.argmax) });
                return Ok(());
            }
        };
        self.vocabulary.check(token, || format!("that the policy chose as a draft at position {at} of the output"))?;
        self.emit(Event::Drafted { at, token, log_prob: row.log_prob(token) });
        self.tokens.push(token);
        self.drafts.push(Drafted { token, row });
        match self.limits.reached(token, self.generated()) {
            Some(finish) if !self.policy.verify_before_end() => {
                self.commit_drafts(self.drafts.len());
                self.end(finish);
            }
            None if !last => {}
            _ => self.speaker = Role::Verifier,
        }
        Ok(())
    }

    /// The verifier scores all drafts in one pass; the policy lets some stand and says what comes next.
    fn verify(&mut self) -> Result<()> {
        let drafts = self.drafts.len();
        let at = self.generated() - drafts;
        let begun = Instant::now();
        let rows = trace_span!("verify", at, drafts)
            .in_scope(|| self.score())
            .map_err(|error| error.during(Role::Verifier, at))?;
        self.statistics.verifier_time += begun.elapsed();
        self.statistics.verifier_calls += 1;
        self.verifier_seen = self.tokens.len();

        let verdict = self.policy.verified(&context!(self), &self.drafts, &rows);
        let (accepted, next) = (verdict.accepted, verdict.next);
        if accepted > drafts {
            return Err(Error::Verdict { accepted, drafts });
        }
        let place = || format!("that the policy chose at position {} of the output", at + accepted);
        self.vocabulary.check(next, place)?;
        self.statistics.judged += drafts;
        self.statistics.accepted += accepted;
        self.emit(Event::Verified { at, drafts, accepted });
        self.commit_drafts(accepted);
        if accepted < drafts {
            self.roll_back(drafts - accepted);
        } else if let Some(finish) = self.drafts.last().and_then(|d| self.limits.reached(d.token, self.generated())) {
            self.end(finish); // on a verified draft: nothing comes after it
            return Ok(());
        }
        self.drafts.clear();

        self.tokens.push(next);
        self.commit(next, Role::Verifier, rows[accepted].log_prob(next));
        self.statistics.verifier_tokens += 1;
        self.speaker = if verdict.then == Then::Draft { Role::Draft } else { Role::Verifier };
        match self.limits.reached(next, self.generated()) {
            Some(Finish::EndOfSequence | Finish::StopToken)
                if verdict.then == Then::VerifyPastEnd && self.generated() < self.limits.max_new_tokens => {}
            Some(finish) => self.end(finish),
            None => {}
        }
        Ok(())
    }

    /// The draft model's row after the last token, if it proposes one.
    fn propose(&mut self) -> Result<Option<Row>> {
        let want = self.wants.draft;
        let (asked, seen) = (self.asked(want), self.draft_seen);
        let session = self.session.as_mut().expect("it has not ended");
        let Some(row) = session.propose(&self.tokens[seen..], asked)? else { return Ok(None) };
        self.sound(&row, Role::Draft, self.tokens.len())?;
        // A draft without a distribution is what it is; the verifier's row decides.
        if row.logits.is_some() {
            self.processed(row, Role::Draft, self.tokens.len(), want).map(Some)
        } else {
            Ok(Some(row))
        }
    }

    /// The verifier's rows: after the last committed token, and after each draft.
    fn score(&mut self) -> Result<Vec<Row>> {
        let (want, seen) = (self.wants.verifier, self.verifier_seen);
        let asked = self.asked(want);
        let session = self.session.as_mut().expect("it has not ended");
        let rows = session.score(&self.tokens[seen..], asked)?;
        let expected = self.tokens.len() - seen;
        if rows.len() != expected {
            return Err(Error::Rows { expected, found: rows.len() });
        }
        let processed = |(i, row)| {
            self.sound(&row, Role::Verifier, seen + 1 + i)?;
            self.processed(row, Role::Verifier, seen + 1 + i, want)
        };
        rows.into_iter().enumerate().map(processed).collect()
    }

    /// Refuses a row that no distribution has; `before` of the tokens stand before what it predicts.
    fn sound(&self, row: &Row, role: Role, before: usize) -> Result<()> {
        let problem = row.problem(self.vocabulary.size);
        problem.map_or(Ok(()), |problem| Err(Error::Row { role, at: before - 1, problem }))
    }

    /// What a model is asked for, so that a policy gets what it wants.
    fn asked(&self, want: Want) -> Want {
        if self.processors.is_empty() { want } else { want.logits() }
    }

    /// A row as it is after all processors; `before` of the tokens stand before what it predicts.
    fn processed(&self, row: Row, role: Role, before: usize, want: Want) -> Result<Row> {
        if self.processors.is_empty() {
            return Ok(row);
        }
        let given = row.logits.as_deref().ok_or(Error::NoLogits(role))?;
        let next = self.tokens.get(before).copied();
        let Limits { end, max_new_tokens: limit, .. } = &self.limits;
        let (start, tokens) = (self.tokens[0], &self.tokens[1..before]);
        let prefix = Prefix { source: &self.source, start, tokens, end, limit: *limit };
        let mut logits = given.to_vec();
        for processor in &self.processors {
            processor.process(&prefix, &mut logits);
        }
        let error = match Row::from_logits(&logits, want, next) {
            Err(error) => error,
            row => return row,
        };
        // Whose fault is it: the model's, or that of the first processor after which they are broken?
        Row::from_logits(given, Want::default(), None)?;
        let mut logits = given.to_vec();
        for processor in &self.processors {
            processor.process(&prefix, &mut logits);
            let broken = logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY);
            if broken {
                return Err(Error::Processor { processor: format!("{processor:?}"), at: before - 1 });
            }
        }
        let forbidden = logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
        Err(if forbidden { Error::Forbidden { at: before - 1 } } else { error })
    }

    /// Takes back the last `dropped` drafts: each model forgets what it has seen of them.
    fn roll_back(&mut self, dropped: usize) {
        let length = self.tokens.len() - dropped;
        self.tokens.truncate(length);
        self.session().truncate(length);
        self.draft_seen = self.draft_seen.min(length);
        self.verifier_seen = self.verifier_seen.min(length);
        self.statistics.rollbacks += 1;
        self.statistics.rolled_back += dropped;
        self.emit(Event::Rollback { at: length - 1, dropped });
    }

    /// Makes the first `count` drafts final; they stay in `drafts`.
    fn commit_drafts(&mut self, count: usize) {
        for i in 0..count {
            let Drafted { token, ref row } = self.drafts[i];
            let log_prob = row.log_prob(token);
            self.commit(token, Role::Draft, log_prob);
        }
    }

    fn commit(&mut self, token: Token, by: Role, log_prob: f32) {
        let at = self.log_probs.len();
        self.statistics.tokens += 1;
        self.log_probs.push(log_prob);
        self.writers.push(by);
        self.emit(Event::Committed { at, token, by, log_prob });
    }

    fn end(&mut self, finish: Finish) {
        self.finish = Some(finish);
        self.statistics.tokens = self.log_probs.len();
        self.statistics.total_time = self.limits.interrupt.begun.elapsed();
        self.emit(Event::Finished { finish });
    }

    fn emit(&mut self, event: Event) {
        if self.keep_events {
            self.events.push(event);
        }
    }

    /// Ends the generation after the first `tokens` committed tokens, for a reason of the caller's, and returns them as the
    /// output with [`Finish::Stopped`]. A verifier pass may have committed more than the caller has looked at; those are
    /// left out.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyFailed`] if the iterator has returned an error.
    pub fn stop_after(mut self, tokens: usize) -> Result<Output> {
        self.log_probs.truncate(tokens);
        self.writers.truncate(tokens);
        self.statistics.verifier_tokens = self.writers.iter().filter(|&&by| by == Role::Verifier).count();
        let later = |event: &Event| match event {
            Event::Committed { at, .. } => *at >= tokens,
            event => matches!(event, Event::Finished { .. }),
        };
        self.events.retain(|event| !later(event));
        self.end(Finish::Stopped);
        self.finish()
    }

    /// How many tokens there are, drafts included.
    fn generated(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Runs to the end and returns what was written; events that were not taken are passed over.
    ///
    /// # Errors
    ///
    /// If a model or the policy fails; [`Error::AlreadyFailed`] if the iterator has returned that error before.
    pub fn finish(mut self) -> Result<Output> {
        if self.failed {
            return Err(Error::AlreadyFailed);
        }
        self.keep_events = self.trace;
        let finish = loop {
            match self.finish {
                Some(finish) => break finish,
                None => self.step()?,
            }
        };
        if !self.trace {
            self.events.clear();
        }
        let (log_probs, writers) = (self.log_probs, self.writers);
        self.tokens.truncate(1 + log_probs.len());
        self.tokens.remove(0);
        Ok(Output {
            tokens: self.tokens,
            log_probs,
            writers,
            finish,
            source_tokens: self.source.tokens().len(),
            truncated: self.truncated,
            statistics: self.statistics,
            events: self.events,
        })
    }
}

impl<S: PairSession> Iterator for Generation<S> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        self.keep_events = true;
        loop {
            if let Some(event) = self.events.get(self.returned) {
                self.returned += 1;
                return Some(Ok(event.clone()));
            }
            if self.finish.is_some() || self.failed {
                return None;
            }
            if let Err(error) = self.step() {
                self.failed = true;
                return Some(Err(error));
            }
        }
    }
}

impl Limits {
    /// Why the generation ends on `token`, the last of `generated` tokens.
    fn reached(&self, token: Token, generated: usize) -> Option<Finish> {
        if self.end.contains(&token) {
            Some(Finish::EndOfSequence)
        } else if self.stop.contains(&token) {
            Some(Finish::StopToken)
        } else {
            (generated >= self.max_new_tokens).then_some(Finish::MaxNewTokens)
        }
    }
}
