//! One object a source, for programs.

use bild::Settings;
use serde_json::{Value, json};

use crate::{Translation, support::trial::source_of};

pub(crate) fn object(line: &str, translation: &Translation, settings: &Settings) -> Value {
    let (source, output) = &translation.parts[0]; // a line is one source here
    let (source_tokens, truncated) = source_of(source, settings);
    json!({
        "source": line,
        "source_tokens": source_tokens,
        "truncated": truncated,
        "text": translation.text,
        "tokens": output.tokens,
        "finish": output.finish,
        "stats": output.statistics,
        "seconds": output.statistics.total_time.as_secs_f64(),
        "events": output.events,
    })
}

pub(crate) fn failure(source: &str, error: &dyn std::error::Error) -> Value {
    json!({ "source": source, "error": error.to_string() })
}
