//! What is answered where a request fails: a status, and a sentence in JSON.

use std::time::Duration;

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    sentence: String,
}

impl Failure {
    /// Of a request that makes no sense.
    pub(super) fn bad(sentence: impl ToString) -> Self {
        Self { status: StatusCode::BAD_REQUEST, sentence: sentence.to_string() }
    }

    pub(super) fn too_long(sentence: impl ToString) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, sentence: sentence.to_string() }
    }

    /// Of a body that does not come.
    pub(super) fn too_slow(time: Duration) -> Self {
        let sentence = format!("the request did not come whole within {} s", time.as_secs_f64());
        Self { status: StatusCode::REQUEST_TIMEOUT, sentence }
    }

    pub(super) fn not_found() -> Self {
        let sentence = "there is nothing here: POST /generate, GET /, GET /health and GET /metrics are".into();
        Self { status: StatusCode::NOT_FOUND, sentence }
    }

    /// Of a body that cannot be read, or is too long.
    pub(super) fn unreadable(error: &BytesRejection) -> Self {
        let status = error.status();
        let sentence = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the request is longer than {} bytes", super::MOST_BYTES)
        } else {
            error.body_text()
        };
        Self { status, sentence }
    }

    /// What is sent of it.
    pub(super) fn object(&self) -> Value {
        json!({ "error": self.sentence })
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, sentence: error.to_string() }
    }
}

impl From<bild::Error> for Failure {
    fn from(error: bild::Error) -> Self {
        use bild::Error::{
            EmptySource, Forbidden, Memory, QueueClosed, QueueFull, QueueTimeout, Setting, SourceTooLong,
            TokenOutOfRange,
        };
        let status = match error {
            EmptySource | Forbidden { .. } | Setting { .. } | TokenOutOfRange { .. } => StatusCode::BAD_REQUEST,
            SourceTooLong { .. } | Memory { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            QueueFull { .. } | QueueTimeout { .. } | QueueClosed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, sentence: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.object())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, const { axum::http::HeaderValue::from_static("1") });
        }
        response
    }
}
