//! What a service counts, for Prometheus.

use std::{sync::Arc, time::Instant};

use bild::{
    Output,
    decode::{Role, Statistics},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::failure::Failure;

type Labels = [(&'static str, &'static str); 1];

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    counts: Arc<Counts>,
    waiting: Gauge,
    running: Gauge,
}

#[derive(Debug)]
struct Counts {
    requests: Family<Labels, Counter>,
    tokens: Family<Labels, Counter>,
    passes: Family<Labels, Counter>,
    judged: Counter,
    accepted: Counter,
    first_text: Histogram,
    whole: Histogram,
}

/// The upper ends of what times are counted in, in seconds.
const TIMES: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        let times = || Histogram::new(TIMES);
        let (requests, tokens, passes, judged, accepted) = Default::default();
        let counts = Counts { requests, tokens, passes, judged, accepted, first_text: times(), whole: times() };
        let (waiting, running) = <(Gauge, Gauge)>::default();
        let mut registry = Registry::with_prefix("bild");
        let Counts { requests, tokens, passes, judged, accepted, first_text, whole } = &counts;
        registry.register("requests", "Requests by what became of them", requests.clone());
        // What a source that is cancelled had done is said by nobody.
        registry.register("tokens", "Tokens of sources that ended, by the model that wrote them", tokens.clone());
        registry.register("passes", "Passes for sources that ended, by the model that made them", passes.clone());
        registry.register("drafts_judged", "Drafts of sources that ended that the verifier judged", judged.clone());
        registry.register("drafts_accepted", "Drafts of sources that ended that stood", accepted.clone());
        let mut time = |name: &str, help: &str, times: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, times.clone());
        };
        time("first_text", "Time to the first piece of text", first_text);
        time("request", "Time to the end of the answer", whole);
        registry.register("waiting", "Sources that wait for their turn", waiting.clone());
        registry.register("running", "Sources under way", running.clone());
        Self { registry, counts: Arc::new(counts), waiting, running }
    }
}

impl Metrics {
    /// All of it, as Prometheus reads it.
    pub(super) fn text(&self, waiting: usize, running: usize) -> String {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes all there is");
        text
    }

    pub(super) fn begin(&self) -> Begun {
        Begun { counts: Arc::clone(&self.counts), at: Instant::now(), has_text: false, counted: 0, ended: false }
    }
}

/// A request whose end is to be counted. If it is dropped before, the client has left.
pub(super) struct Begun {
    counts: Arc<Counts>,
    at: Instant,
    has_text: bool,
    /// Outputs whose statistics are in the counts.
    counted: usize,
    ended: bool,
}

impl Begun {
    /// It was not taken.
    pub(super) fn refused(mut self) {
        self.end("refused");
    }

    /// A piece of text came.
    pub(super) fn text(&mut self, text: &str) {
        if !self.has_text && !text.is_empty() {
            self.has_text = true;
            self.counts.first_text.observe(self.at.elapsed().as_secs_f64());
        }
    }

    /// Counts the outputs that were not counted before: also of an answer that nobody waits for to the end.
    pub(super) fn outputs<'o>(&mut self, outputs: impl Iterator<Item = &'o Output>) {
        for output in outputs.skip(self.counted) {
            self.counted += 1;
            let Statistics { verifier_tokens, draft_steps, verifier_calls, judged, accepted, .. } = output.statistics;
            let drafted = output.writers.iter().filter(|&&by| by == Role::Draft).count();
            for (family, draft, verifier) in
                [(&self.counts.tokens, drafted, verifier_tokens), (&self.counts.passes, draft_steps, verifier_calls)]
            {
                family.get_or_create(&[("model", "draft")]).inc_by(draft as u64);
                family.get_or_create(&[("model", "verifier")]).inc_by(verifier as u64);
            }
            self.counts.judged.inc_by(judged as u64);
            self.counts.accepted.inc_by(accepted as u64);
        }
    }

    pub(super) fn ended<T>(&mut self, end: &Result<T, Failure>) {
        self.counts.whole.observe(self.at.elapsed().as_secs_f64());
        self.end(if end.is_ok() { "done" } else { "failed" });
    }

    fn end(&mut self, result: &'static str) {
        self.ended = true;
        self.counts.requests.get_or_create(&[("result", result)]).inc();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.ended {
            self.end("left");
        }
    }
}
