//! Recorded generations of the repository's big model and the little one before it was aligned: the same tokens and the same events. Those of the released variant were
//! checked against the program of the paper's authors when they were recorded.

use std::{num::NonZeroUsize, path::Path};

use bild::{
    Bild, Checkpoint, Flex, Settings, T5,
    decode::{Event, Generator, Source, Token},
    policies::Variant,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Trace {
    source_ids: Vec<Token>,
    variant: Variant,
    fallback: f32,
    rollback: f32,
    max_draft: NonZeroUsize,
    max_new_tokens: usize,
    tokens: Vec<Token>,
    events: Vec<Value>,
    /// How far the closest of its decisions was from falling the other way.
    margin: f64,
}

fn model(folder: &str) -> T5<Flex> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    T5::load(&Checkpoint::open(directory).unwrap(), &Default::default()).unwrap()
}

#[test]
fn every_trace_gives_the_same_tokens_and_events() {
    let traces: Vec<Trace> = serde_json::from_str(include_str!("fixtures/traces.json")).unwrap();
    assert_eq!(traces.len(), 200);
    let (little, big) = (model("tests/fixtures/little"), model("models/de-en/big"));
    for (i, trace) in traces.iter().enumerate() {
        let policy = Bild::new(trace.fallback, trace.rollback)
            .unwrap()
            .with_variant(trace.variant)
            .with_max_draft(trace.max_draft);
        let settings = Settings::default().with_max_new_tokens(trace.max_new_tokens).with_trace(true);
        let generator = Generator::new((little.clone(), big.clone()), policy).unwrap().with_settings(settings);
        let output = generator.generate(Source::new(trace.source_ids.clone())).unwrap();
        let recorded = |event: &&Event| matches!(event, Event::Fallback { .. } | Event::Rollback { .. });
        let events: Vec<Value> = output.events.iter().filter(recorded).map(|event| json!(event)).collect();
        assert_eq!(output.tokens, trace.tokens, "trace {i} (margin {})", trace.margin);
        assert_eq!(events, trace.events, "trace {i} (margin {})", trace.margin);
    }
}
