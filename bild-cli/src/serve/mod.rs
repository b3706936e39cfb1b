//! A service over HTTP: text in, text and statistics out, as JSON or as server-sent events.

mod answer;
mod body;
mod failure;
mod metrics;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse, Response, Sse},
    routing::{get, post},
};
use bild::{
    Settings, TextGenerator, TextOutput, TextRequest,
    decode::{Event, Queue, QueueOptions},
    models::Tokenizer,
    policies::AnyPolicy,
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use self::{answer::Answer, body::Body, failure::Failure, metrics::Metrics};
use crate::{
    Error,
    files::Files,
    options::{self, MOST_TOKENS, PairArgs, PolicyArgs, SourceArgs, TextArgs, language, number, whole},
    pair::Loaded,
    policy::{Needs, needs},
    streams::{Stdout, say},
};

/// Serve texts over HTTP, many at once.
///
/// POST /generate takes {"text": "…"} and answers with the text and statistics; with "stream": true it sends pieces of text as
/// server-sent events. GET / is a page to try it on, GET /health says whether it is up, GET /metrics is for Prometheus.
///
/// It listens on this machine alone unless --listen says otherwise, and knows neither users nor encryption: put what does before it.
///
/// Ctrl-C, or SIGTERM, ends it: what it has taken is finished first, within --time-limit.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: String,
    #[command(flatten)]
    pair: PairArgs,
    /// What decodes where a request does not say
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// The language of the texts, which tells sentences from abbreviations [default: de for the default pair, else en]
    #[arg(long, value_name = "CODE", value_parser = language)]
    language: Option<String>,
    /// A text is one source, however many sentences it holds
    #[arg(long)]
    whole: bool,
    /// The most tokens to write for a source, whatever a request or the checkpoint says; a larger --max-new-tokens raises it
    #[arg(long, value_name = "N", default_value = "1024", value_parser = whole(1..=MOST_TOKENS))]
    most_new_tokens: usize,
    /// How many sources are decoded together [default: what suits the machine]
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    batch: Option<usize>,
    /// How many sources may wait for their turn; more are refused
    #[arg(long, value_name = "N", default_value = "256", value_parser = whole(1..=1_000_000))]
    max_waiting: usize,
    /// How long one may wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = number(0.0, 1e6))]
    max_wait: f64,
    /// How long a request may take in all, in seconds; what is written by then is its answer
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = number(0.0, 1e6))]
    time_limit: f64,
    /// The memory that all generations may take together, in MB [default: what is free]
    #[arg(long, value_name = "MB", value_parser = whole(1..=100_000_000))]
    max_memory: Option<usize>,
}

/// The most bytes of a request.
const MOST_BYTES: usize = 1 << 20;

/// How long it may take to come, the time limit between these.
const READING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// What the last answers have beyond their time limit to end and to be sent.
const GRACE: Duration = Duration::from_secs(5);

/// An event of a generation with the text that can be given out then.
struct Step {
    event: Event,
    text: String,
}

/// What requests are answered from.
struct Service {
    queue: Queue<TextRequest<'static>, Step, TextOutput>,
    loaded: Loaded,
    tokenizer: Tokenizer,
    settings: Settings,
    /// How long a body may take to come.
    reading: Duration,
    most_new_tokens: usize,
    /// More sources than that can never wait together.
    most_sources: usize,
    /// Nothing where a text is one source.
    language: Option<String>,
    /// The policies that requests call by name, so that those which learn go on learning.
    policies: HashMap<&'static str, Arc<AnyPolicy>>,
    metrics: Metrics,
    page: String,
}

/// The policies that a request may call by name.
const NAMES: [&str; 6] = ["cost_aware", "lossless", "bild", "adaptive_length", "big", "little"];

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let mut files = Files::default();
    files.reads("--policy-file", args.policy.file()).reads_pair(&args.pair)?.check()?;
    if args.whole && args.language.is_some() {
        options::warn(["--language has no effect: a text is one source".into()]);
    }
    let runtime = Runtime::new()?;
    // Before the models are loaded: a place that is taken is said at once.
    let listener = runtime
        .block_on(TcpListener::bind(&args.listen))
        .map_err(|error| format!("--listen: cannot listen at {}: {error}", args.listen))?;
    let service = Arc::new(Service::new(args)?);
    out.line(format_args!("http://{}", listener.local_addr()?))?;
    let patience = service.reading + Duration::from_secs_f64(args.time_limit) + GRACE;
    runtime.block_on(async {
        let stopped = async {
            signal().await;
            say("finishing what was taken; once more ends at once");
            tokio::spawn(async {
                signal().await;
                std::process::exit(130);
            });
        };
        // A client that neither sends nor takes would keep it for ever.
        let late = async {
            signal().await;
            sleep(patience).await;
        };
        let served = axum::serve(listener, router(Arc::clone(&service))).with_graceful_shutdown(stopped);
        tokio::select! {
            ended = served.into_future() => ended,
            () = late => {
                say("warning: some clients are not waited for any longer");
                Ok(())
            }
        }
    })?;
    service.queue.shutdown();
    Ok(true)
}

/// Waits for Ctrl-C or SIGTERM.
async fn signal() {
    #[cfg(unix)]
    if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

impl Service {
    fn new(args: &Args) -> Result<Self, Error> {
        let mut policy = args.policy.policy()?;
        // Requests may ask for any policy, so all that is named is loaded.
        let loads = if args.pair.drafts() { Needs::Both } else { Needs::Big };
        args.pair.warn(&args.policy, loads);
        if loads == Needs::Big && needs(&policy) != Needs::Big {
            policy = PairArgs::alone(&args.policy);
        }
        let loaded = args.pair.options().load(loads)?;
        let tokenizer = loaded.tokenizer()?.clone();
        let policy = loaded.decoded_by(&args.policy.of(&loaded, policy)?)?;
        options::warn(args.texts.warning(&policy));
        let limits = args.texts.limits(args.source.max_source_tokens, args.source.truncate);
        let time_limit = Duration::from_secs_f64(args.time_limit);
        let settings = loaded.settings(&limits)?.with_deadline(time_limit);
        // A request that names no number of tokens, or a checkpoint that names many, is bounded too.
        let most_new_tokens = args.most_new_tokens.max(limits.max_new_tokens.unwrap_or(0));
        let max_new_tokens = settings.max_new_tokens.min(most_new_tokens);
        let settings = settings.with_max_new_tokens(max_new_tokens);
        let mut generator = TextGenerator::new(tokenizer.clone(), loaded.pair.clone(), policy)?
            .with_settings(settings.clone())
            .with_prefix(&*args.texts.prefix);
        if let Some(batch) = args.batch.and_then(NonZeroUsize::new) {
            generator = generator.with_at_once(batch);
        }
        if let Some(megabytes) = args.max_memory {
            generator = generator.with_max_bytes(megabytes as u64 * 1_000_000);
        }
        let options = QueueOptions::default()
            .with_max_waiting(NonZeroUsize::new(args.max_waiting).unwrap_or(NonZeroUsize::MIN))
            .with_max_wait(Duration::from_secs_f64(args.max_wait));
        let named = |name: &'static str| {
            Some((name, Arc::new(body::policy(&loaded, &json!({ "policy": name }).to_string()).ok()?)))
        };
        let policies: HashMap<_, _> = NAMES.into_iter().filter_map(named).collect();
        let names: Vec<_> = NAMES.into_iter().filter(|name| policies.contains_key(name)).collect();
        let page = include_str!("page.html")
            .replace("/*STYLE*/", bild_eval::STYLE)
            .replace("\"POLICIES\"", &json!(names).to_string());
        Ok(Self {
            queue: generator.queue_of(options, |event, text| Some(Step { event, text })),
            loaded,
            tokenizer,
            settings,
            reading: time_limit.clamp(READING[0], READING[1]),
            most_sources: args.max_waiting,
            most_new_tokens,
            language: (!args.whole).then(|| args.pair.options().language(args.language.as_deref())),
            policies,
            metrics: Metrics::default(),
            page,
        })
    }
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(async |State(service): State<Arc<Service>>| Html(service.page.clone())))
        .route("/generate", post(generate))
        .route("/health", get(health))
        .route("/metrics", get(measured))
        .fallback(async || Failure::not_found())
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(service)
}

/// The body of a request, if it comes in time.
async fn read(service: &Service, request: Request) -> Result<Bytes, Failure> {
    match timeout(service.reading, Bytes::from_request(request, &())).await {
        Ok(body) => body.map_err(|error| Failure::unreadable(&error)),
        Err(_) => Err(Failure::too_slow(service.reading)),
    }
}

async fn generate(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Failure> {
    let body = read(&service, request).await;
    let begun = service.metrics.begin();
    let taken = match body {
        Ok(body) => {
            let service = Arc::clone(&service);
            // A long text takes a while to be made tokens of.
            spawn_blocking(move || -> Result<_, Failure> {
                let body = Body::parse(&body)?;
                Ok((Answer::begin(service, &body)?, body))
            })
            .await
            .unwrap_or_else(|error| Err(Failure::internal(&error)))
        }
        Err(failure) => Err(failure),
    };
    let (answer, body) = match taken {
        Ok(taken) => taken,
        Err(failure) => {
            begun.refused();
            return Err(failure);
        }
    };
    if body.stream {
        return Ok(Sse::new(answer.events(begun)).into_response());
    }
    answer.whole(begun).await.map(|object| Json(object).into_response())
}

async fn health(State(service): State<Arc<Service>>) -> impl IntoResponse {
    Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "waiting": service.queue.waiting(),
        "running": service.queue.running(),
    }))
}

async fn measured(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let text = service.metrics.text(service.queue.waiting(), service.queue.running());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
