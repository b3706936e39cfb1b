use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    Context, Draft, Drafted, Error, Event, Finish, Output, Pair, Pass, Policy, PolicyState, Result, Role, Row, Rows,
    SessionLimit, Settings, Source, Start, Statistics, Then, Token, Verdict, Vocabulary, Wants, caught,
    limit::Interrupt, reader::RowReader, record::Record,
};

/// One generation under way: the decode loop of the paper (Algorithm 1), as a state without a model in it.
///
/// It says which [`pass`](Self::pass) it waits for and [`take`](Self::take)s the rows that a model made of it, until there is
/// none. Whoever drives it may have the passes made one at a time ([`EventStream`](crate::EventStream), which is what a
/// [`Generator`](crate::Generator) returns), those of many generations together, or elsewhere.
///
/// ```
/// use bild::{Settings, decode::{Generation, Result, Row, Source, Start, Vocabulary}};
/// # use bild::decode::{Policy, PolicyState};
/// # struct Lossless;
/// # struct State;
/// # impl PolicyState for State {}
/// # impl Policy for Lossless {
/// #     fn begin(&self, _: &Start<'_>) -> Box<dyn PolicyState> { Box::new(State) }
/// # }
///
/// let vocabulary = Vocabulary::new(10, 0, [9]);
/// let mut generation = Generation::new(&Lossless, &vocabulary, &Source::new([1]), &Settings::default())?;
/// while let Some(pass) = generation.pass() {
///     // Both models count upwards, to the 9 that ends.
///     let rows = pass.new.iter().map(|&token| Row::new((token + 1).min(9), 1.0)).collect::<Vec<_>>();
///     let rows = if pass.role == bild::decode::Role::Draft { rows[rows.len() - 1..].to_vec() } else { rows };
///     generation.take(Ok(rows.into()))?;
/// }
/// assert_eq!(generation.into_output()?.tokens, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
/// # Ok::<(), bild::Error>(())
/// ```
pub struct Generation {
    policy: Box<dyn PolicyState>,
    wants: Wants,
    /// What the rows of both models are read by; it holds the source.
    reader: RowReader,
    truncated: bool,
    seed: u64,
    stop: Vec<Token>,
    limit: SessionLimit,
    /// The most drafts that a pass can return, and how many the one that is waited for may.
    most_drafts: usize,
    asked_drafts: usize,
    /// The start token, then every generated token; the last `drafts.len()` wait for the verifier.
    tokens: Vec<Token>,
    drafts: Vec<Drafted>,
    /// How many of `tokens` each model has taken in.
    draft_seen: usize,
    verifier_seen: usize,
    /// The model whose pass is waited for.
    speaker: Role,
    /// For how many generations the last pass was made, and how many tokens it took in for them.
    batch: [usize; 2],
    /// The same of the pass that is being made, if it is shared.
    shared: Option<[usize; 2]>,
    pub(crate) record: Record,
    failed: bool,
}

/// Borrows the fields that it shows and no others, so that the policy can be asked at the same time.
macro_rules! context {
    ($generation:ident) => {
        Context {
            source: &$generation.reader.source,
            tokens: &$generation.tokens[1..],
            drafts: &$generation.drafts,
            statistics: &$generation.record.statistics,
            seed: $generation.seed,
            batch_size: $generation.batch[0],
            batch_rows: $generation.batch[1],
        }
    };
}

impl Generation {
    /// A generation from `source` for models that speak `vocabulary`.
    ///
    /// # Errors
    ///
    /// If the source is empty or too long, or a setting makes no sense.
    pub fn new(policy: &impl Policy, vocabulary: &Vocabulary, source: &Source, settings: &Settings) -> Result<Self> {
        settings.check(vocabulary)?;
        let begun = Instant::now();
        let interrupt = Interrupt { begun, deadline: settings.deadline, cancel: settings.cancel.clone() };
        let read = source.limited(settings, &vocabulary.end)?;
        for (at, &token) in read.guess().iter().enumerate() {
            vocabulary.check(token, || format!("at position {at} of the guess"))?;
        }
        let max_new_tokens = settings.max_new_tokens;
        let policy_state = policy.begin(&Start { source: &read, seed: settings.seed, max_new_tokens });
        Ok(Self {
            speaker: policy_state.first(),
            policy: policy_state,
            wants: policy.wants(),
            truncated: read.tokens().len() < source.tokens().len(),
            seed: settings.seed,
            stop: settings.stop_tokens.clone(),
            limit: SessionLimit::of(max_new_tokens, interrupt),
            most_drafts: 1,
            asked_drafts: 1,
            tokens: vec![vocabulary.start],
            reader: RowReader {
                source: read,
                vocabulary: vocabulary.clone(),
                processors: settings.processors.clone(),
                end: settings.end_tokens.as_ref().unwrap_or(&vocabulary.end).clone(),
                max_new_tokens,
            },
            drafts: Vec::new(),
            draft_seen: 0,
            verifier_seen: 0,
            batch: [1, 0],
            shared: None,
            record: Record::new(begun, settings.trace),
            failed: false,
        })
    }

    /// Asks a draft model that can do more for up to `most` drafts a pass, in place of one, as far as the policy
    /// [expects](PolicyState::expected_drafts) to keep them.
    pub fn with_most_drafts(mut self, most: usize) -> Self {
        self.most_drafts = most.max(1);
        self
    }

    /// What its models are to read: the source, cut where the settings cut it.
    pub fn source(&self) -> &Source {
        &self.reader.source
    }

    /// How far the sessions of its models may go.
    pub fn limit(&self) -> &SessionLimit {
        &self.limit
    }

    /// The pass it waits for; nothing once it has ended or failed. Looks at the deadline and at the cancel token first.
    #[inline]
    pub fn pass(&mut self) -> Option<Pass<'_>> {
        if self.record.finish.is_some() || self.failed {
            return None;
        }
        if let Some(finish) = self.limit.interrupted() {
            self.record.end(finish);
            return None;
        }
        let (seen, want) = match self.speaker {
            Role::Draft => (self.draft_seen, self.wants.draft),
            Role::Verifier => (self.verifier_seen, self.wants.verifier),
        };
        let want = self.reader.asked(want);
        self.asked_drafts = match self.speaker {
            Role::Draft if self.most_drafts > 1 => {
                // It is a guess; one that panics must not take along those that share the pass.
                let expected = caught(|| Ok(self.policy.expected_drafts(&context!(self))));
                // Nor is a session asked for more tokens than it is to hold.
                let room = self.reader.max_new_tokens.saturating_sub(self.generated()).max(1);
                expected.unwrap_or(1).clamp(1, self.most_drafts.min(room))
            }
            _ => 1,
        };
        Some(Pass { role: self.speaker, keep: seen, new: &self.tokens[seen..], most: self.asked_drafts, want })
    }

    /// Takes the rows of the pass it waits for, or the error that came instead: from the draft model none to
    /// [`Pass::most`], from the verifier one for each new token. The policy is asked, and another pass waits.
    ///
    /// [`Error::Interrupted`] ends the generation with what there is.
    ///
    /// # Errors
    ///
    /// The error that was given, or that the rows or what the policy decided cannot be; then the generation has failed.
    #[inline]
    pub fn take(&mut self, rows: Result<Rows>) -> Result<()> {
        let (role, emitted) = (self.speaker, self.record.events.len());
        let seen = if role == Role::Draft { self.draft_seen } else { self.verifier_seen };
        self.batch = self.shared.take().unwrap_or([1, self.tokens.len() - seen]);
        let taken = match (role, rows) {
            (Role::Draft, Ok(rows)) => self.draft(rows),
            (Role::Verifier, Ok(rows)) => self.verify(rows),
            (_, Err(error)) => Err(error),
        };
        match taken {
            Err(Error::Interrupted(finish)) => {
                self.record.end(finish);
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                self.record.events.truncate(emitted); // nothing comes after an error
                let unverified = if role == Role::Draft { 0 } else { self.drafts.len() };
                Err(error.during(role, self.generated() - unverified))
            }
            taken => taken,
        }
    }

    /// The draft model proposes tokens; the policy keeps each, or falls back.
    fn draft(&mut self, rows: Rows) -> Result<()> {
        let (before, proposed) = (self.tokens.len(), rows.len());
        if proposed > self.asked_drafts {
            return Err(Error::Rows { role: Role::Draft, expected: self.asked_drafts, found: proposed });
        }
        self.draft_seen = before;
        if proposed == 0 {
            self.speaker = Role::Verifier;
            return Ok(());
        }
        self.record.statistics.draft_steps += 1;
        for row in rows {
            let own = row.argmax;
            self.draft_one(row)?;
            if self.tokens.len() == before || self.tokens.last() != Some(&own) {
                break; // the rows after it follow a token that was not kept
            }
            self.draft_seen = (before + proposed - 1).min(self.tokens.len());
            if self.speaker == Role::Verifier || self.record.finish.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The policy keeps one token or falls back.
    fn draft_one(&mut self, mut row: Row) -> Result<()> {
        let at = self.generated();
        match self.reader.read(&mut row, Role::Draft, &self.tokens, self.tokens.len(), self.wants.draft) {
            // What the draft model can say is forbidden here; the verifier may know more tokens.
            Err(Error::Forbidden { .. }) => {
                self.speaker = Role::Verifier;
                return Ok(());
            }
            read => read?,
        }
        let (token, last) = match self.policy.drafted(&context!(self), &row) {
            Draft::Keep(token) => (token, false),
            Draft::KeepLast(token) => (token, true),
            Draft::FallBack => {
                self.speaker = Role::Verifier;
                self.record.statistics.fallbacks += 1;
                self.record.emit(Event::Fallback { at, token: row.argmax, log_prob: row.log_prob(row.argmax) });
                return Ok(());
            }
        };
        let place = || format!("that the policy chose as a draft at position {at} of the output");
        self.reader.vocabulary.check(token, place)?;
        self.record.emit(Event::Drafted { at, token, log_prob: row.log_prob(token) });
        self.tokens.push(token);
        self.drafts.push(Drafted { token, row });
        match self.reached(token) {
            // No model has proposed what was copied.
            Some(finish) if !self.policy.verify_before_end() && !self.drafts.iter().any(|draft| draft.row.copied) => {
                self.commit_drafts(self.drafts.len());
                self.record.end(finish);
            }
            None if !last => {}
            _ => self.speaker = Role::Verifier,
        }
        Ok(())
    }

    /// The verifier scored all drafts in one pass; the policy lets some stand and says what comes next.
    fn verify(&mut self, rows: Rows) -> Result<()> {
        let (seen, found) = (self.verifier_seen, rows.len());
        let expected = self.tokens.len() - seen;
        if found != expected {
            return Err(Error::Rows { role: Role::Verifier, expected, found });
        }
        let ending = self.drafts.last().and_then(|draft| self.reached(draft.token));
        let (rows, dead_end) =
            self.reader.read_all(rows, &self.tokens, seen + 1, self.wants.verifier, ending.is_some())?;
        let drafts = self.drafts.len();
        let possible = rows.len() - 1; // without those after which nothing can come
        let at = self.generated() - drafts;
        self.record.statistics.verifier_calls += 1;
        self.verifier_seen = self.tokens.len();

        let Verdict { accepted, next, then } = self.policy.verified(&context!(self), &self.drafts[..possible], &rows);
        if accepted > possible {
            return Err(Error::Verdict { accepted, drafts: possible });
        }
        if let Some(error) = dead_end
            && accepted == possible
        {
            return Err(error);
        }
        let place = || format!("that the policy chose at position {} of the output", at + accepted);
        self.reader.vocabulary.check(next, place)?;
        self.record.statistics.judged += drafts;
        self.record.statistics.accepted += accepted;
        self.record.emit(Event::Verified { at, drafts, accepted });
        self.commit_drafts(accepted);
        if accepted < drafts {
            self.roll_back(drafts - accepted);
        } else if let Some(finish) = ending {
            self.record.end(finish); // on a verified draft: nothing comes after it
            return Ok(());
        }
        self.drafts.clear();

        self.tokens.push(next);
        self.record.commit(next, Role::Verifier, rows[accepted].log_prob(next));
        self.record.statistics.verifier_tokens += 1;
        self.speaker = if then == Then::Draft { Role::Draft } else { Role::Verifier };
        match self.reached(next) {
            Some(Finish::EndOfSequence | Finish::StopToken)
                if then == Then::VerifyPastEnd && self.generated() < self.reader.max_new_tokens => {}
            Some(finish) => _ = self.record.end(finish),
            None => {}
        }
        Ok(())
    }

    /// Takes back the last `dropped` drafts: neither model has seen more than what stands, as its next pass will say.
    fn roll_back(&mut self, dropped: usize) {
        let length = self.tokens.len() - dropped;
        self.tokens.truncate(length);
        self.draft_seen = self.draft_seen.min(length);
        self.verifier_seen = self.verifier_seen.min(length);
        self.record.statistics.rollbacks += 1;
        self.record.statistics.rolled_back += dropped;
        self.record.emit(Event::Rollback { at: length - 1, dropped });
    }

    /// Makes the first `count` drafts final; they stay in `drafts`.
    fn commit_drafts(&mut self, count: usize) {
        for i in 0..count {
            let Drafted { token, ref row } = self.drafts[i];
            let log_prob = row.log_prob(token);
            self.record.commit(token, Role::Draft, log_prob);
        }
    }

    /// Why the generation ends on `token`, the last there is.
    fn reached(&self, token: Token) -> Option<Finish> {
        if self.reader.end.contains(&token) {
            Some(Finish::EndOfSequence)
        } else if self.stop.contains(&token) {
            Some(Finish::StopToken)
        } else {
            (self.generated() >= self.reader.max_new_tokens).then_some(Finish::MaxNewTokens)
        }
    }

    /// How many tokens there are, drafts included.
    fn generated(&self) -> usize {
        self.tokens.len() - 1
    }

    /// The first event that was not taken yet, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        self.record.next_event()
    }

    /// Says that nobody takes events any more, so that only those are kept that the output is to hold.
    pub fn without_events(&mut self) {
        self.record.keep_events = self.record.trace;
    }

    /// Counts the time of a pass, for the statistics: what of it went into reading the source
    /// ([`SessionLimit::reading`]) is counted as encoding.
    #[inline]
    pub fn add_time(&mut self, role: Role, took: Duration) {
        let reading = self.limit.take_reading_time();
        self.add_times(role, reading, took);
    }

    /// Begins its session, and counts the time; nothing if it was interrupted meanwhile, which ends it.
    pub(crate) fn begin<P: Pair>(&mut self, pair: &P) -> Result<Option<P::Session>> {
        let begun = Instant::now();
        let session = match pair.begin(self.source(), &self.limit) {
            Ok(session) => Some(session),
            Err(error) => {
                self.take(Err(error))?;
                None
            }
        };
        self.limit.take_reading_time(); // is within
        self.record.statistics.encode_time += begun.elapsed();
        Ok(session)
    }

    /// As [`add_time`](Self::add_time), for its share of the time of a pass that was made for several generations over so many tokens in all.
    pub(crate) fn add_share(&mut self, role: Role, reading: Duration, took: Duration, batch: [usize; 2]) {
        self.shared = Some(batch);
        self.add_times(role, reading, took);
    }

    #[inline]
    fn add_times(&mut self, role: Role, reading: Duration, took: Duration) {
        let Statistics { encode_time, draft_time, verifier_time, .. } = &mut self.record.statistics;
        let time = if role == Role::Draft { draft_time } else { verifier_time };
        if reading.is_zero() {
            *time += took;
        } else {
            *encode_time += reading;
            *time += took.saturating_sub(reading);
        }
    }

    /// Ends the generation after the first `tokens` committed tokens, with [`Finish::Stopped`]; those after them are left out.
    pub fn stop_after(&mut self, tokens: usize) {
        self.record.stop_after(tokens);
    }

    /// Ends it now, if it has not ended or failed.
    pub(crate) fn end(&mut self) {
        if self.record.finish.is_none() && !self.failed {
            self.record.end(Finish::Stopped);
        }
    }

    /// What was written. One that has not ended is stopped first: what is committed is its output.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyFailed`] if it has failed.
    pub fn into_output(mut self) -> Result<Output> {
        if self.failed {
            return Err(Error::AlreadyFailed);
        }
        let finish = self.record.finish.unwrap_or_else(|| self.record.end(Finish::Stopped));
        let Record { log_probs, writers, statistics, events, trace, .. } = self.record;
        self.tokens.truncate(1 + log_probs.len());
        self.tokens.remove(0);
        Ok(Output {
            tokens: self.tokens,
            log_probs,
            writers,
            finish,
            source_tokens: self.reader.source.tokens().len(),
            truncated: self.truncated,
            statistics,
            events: if trace { events } else { Vec::new() },
        })
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, drafts, speaker, record, .. } = self;
        f.debug_struct("Generation")
            .field("tokens", tokens)
            .field("drafts", &drafts.len())
            .field("waits_for", speaker)
            .field("finish", &record.finish)
            .field("statistics", &record.statistics)
            .finish_non_exhaustive()
    }
}
