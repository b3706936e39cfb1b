use std::time::Instant;

use crate::{Event, Finish, Role, Statistics, Token};

/// What a generation has committed, and what happened on the way.
pub(crate) struct Record {
    begun: Instant,
    /// One entry for each committed token.
    pub(crate) log_probs: Vec<f32>,
    pub(crate) writers: Vec<Role>,
    pub(crate) statistics: Statistics,
    pub(crate) finish: Option<Finish>,
    /// Whether the output is to hold the events.
    pub(crate) trace: bool,
    /// Whether anyone wants them: the output or the one who takes them.
    pub(crate) keep_events: bool,
    pub(crate) events: Vec<Event>,
    /// How many of `events` were taken.
    taken: usize,
}

impl Record {
    pub(crate) fn new(begun: Instant, trace: bool) -> Self {
        Self {
            begun,
            log_probs: Vec::new(),
            writers: Vec::new(),
            statistics: Statistics::default(),
            finish: None,
            trace,
            keep_events: true,
            events: Vec::new(),
            taken: 0,
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if self.keep_events {
            self.events.push(event);
        }
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let event = self.events.get(self.taken)?.clone();
        self.taken += 1;
        Some(event)
    }

    pub(crate) fn commit(&mut self, token: Token, by: Role, log_prob: f32) {
        let at = self.log_probs.len();
        self.statistics.tokens += 1;
        self.log_probs.push(log_prob);
        self.writers.push(by);
        self.emit(Event::Committed { at, token, by, log_prob });
    }

    pub(crate) fn end(&mut self, finish: Finish) -> Finish {
        self.finish = Some(finish);
        self.statistics.tokens = self.log_probs.len();
        self.statistics.total_time = self.begun.elapsed();
        self.emit(Event::Finished { finish });
        finish
    }

    /// Ends it after the first `tokens` committed tokens, as if the others had not been.
    pub(crate) fn stop_after(&mut self, tokens: usize) {
        self.log_probs.truncate(tokens);
        self.writers.truncate(tokens);
        self.statistics.verifier_tokens = self.writers.iter().filter(|&&by| by == Role::Verifier).count();
        let later = |event: &Event| match event {
            Event::Committed { at, .. } => *at >= tokens,
            event => matches!(event, Event::Finished { .. }),
        };
        self.events.retain(|event| !later(event));
        self.taken = self.taken.min(self.events.len());
        self.end(Finish::Stopped);
    }
}
