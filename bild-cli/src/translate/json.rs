//! One object a source, for programs.

use serde_json::{Value, json};

use super::Translation;

pub(crate) fn object(line: &str, translation: &Translation) -> Value {
    let (_, output) = &translation.parts[0]; // a line is one source here
    json!({
        "source": line,
        "source_tokens": output.source_tokens,
        "truncated": output.truncated,
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
