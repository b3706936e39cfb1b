//! A service: text in by JSON, pieces of text out as server-sent events, many at once.
//!
//! cargo run --release --features stream --example service
//! curl -N localhost:3000/translate -d '{"text": "Ich habe heute leider keine Zeit.", "policy": {"policy": "lossless"}}'

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{Sse, sse::Event},
    routing::post,
};
use bild::{
    Bild, Checkpoint, Error, Flex, Settings, T5, TextGenerator, TextRequest, decode::QueueOptions, models::TextQueue,
    policies::AnyPolicy,
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::task::spawn_blocking;

/// How long a request may take in all, whatever its settings say, and how long it may wait for its turn.
const MOST_TIME: Duration = Duration::from_secs(30);
const MOST_WAIT: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    text: String,
    policy: Option<AnyPolicy>,
    #[serde(default)]
    settings: Settings,
}

pub fn load() -> Result<TextQueue, Box<dyn std::error::Error>> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models/de-en");
    let (big, little) = (Checkpoint::open(format!("{models}/big"))?, Checkpoint::open(format!("{models}/little"))?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    // All requests under way take no more than this, whatever their settings say.
    let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::default())?.with_max_bytes(256 << 20);
    Ok(generator.queue(QueueOptions::default().with_max_wait(MOST_WAIT)))
}

pub fn router(queue: TextQueue) -> Router {
    Router::new().route("/translate", post(translate)).with_state(queue)
}

/// When the client leaves, the response is dropped, which cancels.
async fn translate(
    State(queue): State<TextQueue>,
    body: String,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, (StatusCode, String)> {
    let body: Body = serde_json::from_str(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let deadline = body.settings.deadline.unwrap_or(MOST_TIME).min(MOST_TIME);
    let request = TextRequest::new(body.text).with_settings(body.settings.with_deadline(deadline));
    let request = body.policy.into_iter().fold(request, TextRequest::with_policy);
    // A long text takes a while to be made tokens of.
    let sent = spawn_blocking(move || queue.try_send(request)).await;
    let sent = sent.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let response = sent.map_err(|error| match error {
        Error::QueueFull { .. } => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        error => (StatusCode::BAD_REQUEST, error.to_string()),
    })?;
    let events = stream::unfold(Some(response), |response| async {
        let mut response = response?;
        Some(match response.next().await {
            Some(piece) => (Event::default().event("text").json_data(piece), Some(response)),
            None => match response.await {
                Ok(output) => (Event::default().event("done").json_data(output), None),
                Err(error) => (Event::default().event("error").json_data(error.to_string()), None),
            },
        })
    });
    Ok(Sse::new(events))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, router(load()?)).await?)
}
