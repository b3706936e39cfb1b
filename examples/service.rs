//! A service: text in by JSON, pieces of text out as server-sent events.
//!
//! cargo run --release --example service
//! curl -N localhost:3000/translate -d '{"text": "Ich habe heute leider keine Zeit.", "policy": {"policy": "lossless"}}'

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{Sse, sse::Event},
    routing::post,
};
use bild::{Bild, CancelToken, Checkpoint, Flex, Settings, T5, TextGenerator, TextRequest, policies::AnyPolicy};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking};

type Pair = (T5<Flex>, T5<Flex>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    text: String,
    policy: Option<AnyPolicy>,
    #[serde(default)]
    settings: Settings,
}

pub fn load() -> Result<TextGenerator<Pair>, Box<dyn std::error::Error>> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models/de-en");
    let (big, little) = (Checkpoint::open(format!("{models}/big"))?, Checkpoint::open(format!("{models}/little"))?);
    let device = Default::default();
    let pair = (T5::load(&little, &device)?, T5::load(&big, &device)?);
    // No request takes more than this, whatever its settings say.
    Ok(TextGenerator::new(big.tokenizer()?, pair, Bild::default())?.with_max_bytes(256 << 20))
}

pub fn router(generator: TextGenerator<Pair>) -> Router {
    Router::new().route("/translate", post(translate)).with_state(Arc::new(generator))
}

/// Generates in a thread of its own. When the client leaves, the stream is dropped, and with it the guard that cancels.
async fn translate(
    State(generator): State<Arc<TextGenerator<Pair>>>,
    body: String,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, String> {
    let body: Body = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let cancel = CancelToken::default();
    let guard = cancel.clone().drop_guard();
    let (send, receive) = mpsc::channel(16);
    spawn_blocking(move || {
        let deadline = body.settings.deadline.unwrap_or(Duration::from_secs(30));
        let request = TextRequest::new(&body.text).with_settings(body.settings.with_deadline(deadline));
        let request = request.with_cancel(cancel);
        let request = body.policy.into_iter().fold(request, TextRequest::with_policy);
        let generated = generator.stream(request).and_then(|mut stream| {
            for piece in stream.by_ref() {
                let _ = send.blocking_send(Event::default().event("text").json_data(piece?)); // a client that left is cancelled
            }
            stream.finish()
        });
        let last = match generated {
            Ok(output) => Event::default().event("done").json_data(output),
            Err(error) => Event::default().event("error").json_data(error.to_string()),
        };
        let _ = send.blocking_send(last);
    });
    let events = stream::unfold((receive, guard), |(mut receive, guard)| async {
        receive.recv().await.map(|event| (event, (receive, guard)))
    });
    Ok(Sse::new(events))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, router(load()?)).await?)
}
