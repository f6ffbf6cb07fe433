//! The admin API: health, metrics, status, episodes and dead letters, for operators and the programs that watch for them.
//!
//! It never stands on the request path, and nothing that it does can slow a proxied request: counters come from memory, reads of the
//! disk run on the blocking pool, a few at a time. Every error is an RFC 9457 `application/problem+json`.

pub mod api;
mod dead;
mod episodes;
pub(crate) mod export;
mod guard;
mod health;
pub(crate) mod import;
mod ingest;
mod metrics;
mod openmetrics;
mod problem;
mod readiness;
mod reads;
mod replay;
mod sinks;
mod status;

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, delete, get, post};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, OrderBy, Secret};
use crate::drain::{Drain, SinkStatus};
use crate::queue::{AppendError, Queue, SinkId};
use crate::server::Listener;
use crate::telemetry::metrics::Metrics;
use problem::Problem;
pub use readiness::Readiness;
use reads::Reads;

/// How long open connections may take to finish once `shutdown` has resolved.
const GRACE: Duration = Duration::from_secs(2);

/// What the admin API shows and steers.
pub struct State {
    /// The queue.
    pub queue: Queue,
    /// The sinks.
    pub drain: Arc<dyn Sinks>,
    /// What `/metrics` shows; also where a proxy's requests in flight and in line are read.
    pub metrics: Metrics,
    /// What `/readyz` says besides the state of the queue.
    pub readiness: Readiness,
    /// What is configured, as it is now.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// When the process started.
    pub started: Instant,
}

/// What is configured, as far as the admin API shows it or goes by it.
pub struct Settings {
    /// `[queue]`: its limits and its directory.
    pub limits: config::Queue,
    /// Where episodes can go: every configured sink, in the order of the file.
    pub sinks: Vec<(String, SinkId, OrderBy)>,
    /// The proxies that run, in the order of the file.
    pub proxies: Vec<ProxyFacts>,
    /// Required from every request but `/livez` and `/readyz`, where there is one.
    pub token: Option<Secret>,
}

/// A proxy as `status` shows it.
#[derive(Debug, Clone)]
pub struct ProxyFacts {
    /// Its name, which is also its `proxy` label in the metrics.
    pub name: String,
    /// Where clients connect.
    pub listen: String,
    /// Where requests go.
    pub upstream: String,
}

/// What the admin API asks of the drain.
pub trait Sinks: Send + Sync {
    /// One status per configured sink, in the order of the file.
    fn statuses(&self) -> Vec<SinkStatus>;

    /// Pauses a sink or lets it run again, also over restarts; `false` if there is no such sink.
    fn set_paused<'a>(&'a self, sink: &'a str, paused: bool) -> BoxFuture<'a, Result<bool, AppendError>>;
}

impl Sinks for Drain {
    fn statuses(&self) -> Vec<SinkStatus> {
        Drain::statuses(self)
    }

    fn set_paused<'a>(&'a self, sink: &'a str, paused: bool) -> BoxFuture<'a, Result<bool, AppendError>> {
        Box::pin(async move { if paused { self.pause(sink).await } else { self.resume(sink).await } })
    }
}

/// Serves the admin API until `shutdown` resolves, then lets open connections finish for a moment. Dropping the future closes the
/// listener and leaves open connections to themselves.
pub async fn serve(listener: Listener, state: State, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let router = router(state);
    let (stop, stopping) = tokio::sync::watch::channel(());
    let on_stop = {
        let mut stopping = stopping.clone();
        // The sender never sends: it goes away once `shutdown` resolves.
        async move { while stopping.changed().await.is_ok() {} }
    };
    let overtime = async move {
        shutdown.await;
        drop(stop);
        tokio::time::sleep(GRACE).await;
    };
    let serving = async move {
        match listener {
            Listener::Tcp(l) => axum::serve(l, router).with_graceful_shutdown(on_stop).await,
            // The file goes with the listener.
            Listener::Unix { listener: l, file: _file } => axum::serve(l, router).with_graceful_shutdown(on_stop).await,
        }
    };
    tokio::select! {
        served = serving => served,
        () = overtime => Ok(()),
    }
}

/// What the handlers share.
struct Inner {
    state: State,
    reads: Reads,
    /// What goes on behind an answer, as long as this API lives.
    tasks: Mutex<JoinSet<()>>,
}

type Shared = Arc<Inner>;

impl Inner {
    /// Goes on after the answer. It must not hold this, which ends it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn settings(&self) -> Arc<Settings> {
        self.state.settings.borrow().clone()
    }

    /// The names of all sinks that the queue or the drain knows: a sink that left the configuration may still have episodes.
    fn sink_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state.drain.statuses().into_iter().map(|s| s.name).collect();
        for sink in self.state.queue.stats().sinks {
            if !names.contains(&sink.name) {
                names.push(sink.name);
            }
        }
        names
    }
}

/// The routes with everything around them.
fn router(state: State) -> Router {
    let shared: Shared = Arc::new(Inner { state, reads: Reads::default(), tasks: Mutex::default() });
    replay::go_on(&shared);
    routes()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        // After the routes: it holds for those that exist when it is called.
        .method_not_allowed_fallback(|method: Method| async move { Problem::method_not_allowed(&method) })
        .fallback(|uri: axum::http::Uri| async move { Problem::not_found(format!("there is nothing at {}", uri.path())) })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

/// Every endpoint, once. `openapi.json` describes exactly these; a test compares them.
fn routes() -> Vec<(Method, &'static str, MethodRouter<Shared>)> {
    vec![
        (Method::GET, "/livez", get(health::livez)),
        (Method::GET, "/readyz", get(health::readyz)),
        (Method::GET, "/metrics", get(metrics::scrape)),
        (Method::GET, "/health/graphiti-queue", get(health::graphiti_queue)),
        (Method::GET, "/api/v1/status", get(status::status)),
        (Method::GET, "/api/v1/episodes", get(episodes::list)),
        (Method::POST, "/api/v1/episodes", post(ingest::ingest).layer(axum::extract::DefaultBodyLimit::max(ingest::MOST_BYTES))),
        (Method::GET, "/api/v1/episodes/{id}", get(episodes::show)),
        (Method::DELETE, "/api/v1/episodes/{id}", delete(episodes::remove)),
        (Method::GET, "/api/v1/export", get(export::export)),
        (Method::POST, "/api/v1/import", post(import::import)),
        (Method::POST, "/api/v1/dead/redrive", post(dead::redrive)),
        (Method::POST, "/api/v1/dead/purge", post(dead::purge)),
        (Method::POST, "/api/v1/sinks/{name}/pause", post(sinks::pause)),
        (Method::POST, "/api/v1/sinks/{name}/resume", post(sinks::resume)),
        (Method::POST, "/api/v1/sinks/{name}/purge", post(sinks::purge)),
        (Method::POST, "/api/v1/replay", post(replay::begin)),
        (Method::GET, "/api/v1/replays", get(replay::list)),
        (Method::POST, "/api/v1/replays/{name}/cancel", post(replay::cancel)),
        (Method::GET, "/openapi.json", get(openapi)),
    ]
}

/// The sentence of a problem, for the command line.
pub(crate) fn problem_detail(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<problem::Body>(body).ok().map(|problem| problem.detail)
}

const OPENAPI: &str = include_str!("admin/openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[cfg(test)]
mod tests;
