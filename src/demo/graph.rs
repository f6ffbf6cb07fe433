//! A sample graph service: Graphiti's REST contract in memory, with its faults.
//!
//! [`Mode::Strict`] is the service as it is (DESIGN.md §3): one worker takes episodes from a queue in memory, whatever their group,
//! and any exception ends that worker for good while `POST /messages` goes on saying 202. [`Mode::Parallel`] is what the demo shows:
//! the same service with so many LLM slots, the episodes of one group still one after the other. [`Graph::faults`] switches on the
//! rest of what was measured. Nothing here is durable except in the sense of the service: what is *stored* outlives
//! [`Graph::restart`], what is *queued* doesn't.

pub mod faults;
mod wire;
mod work;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Mutex;

use self::faults::{Call, Faults};
use self::work::Work;
use super::loopback::Loopback;

pub use self::wire::Message;
pub use self::work::{Death, Posted, Stored};

/// How many episodes are written at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One, first come first served over all groups: Graphiti's REST service.
    Strict,
    /// As many as there are LLM slots (at least one), those of a group one after the other.
    Parallel(usize),
}

/// How the service starts.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long one write takes.
    pub write_delay: Duration,
    /// How many at one time.
    pub mode: Mode,
}

impl Default for Options {
    /// The strict service with writes that take no time.
    fn default() -> Self {
        Self { write_delay: Duration::ZERO, mode: Mode::Strict }
    }
}

/// A running sample graph service; cheap to clone. It ends with its last handle.
#[derive(Debug, Clone)]
pub struct Graph {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    work: Arc<Work>,
    faults: Arc<Faults>,
    address: SocketAddr,
    /// None while the process is "down".
    listening: Mutex<Option<Loopback>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Writers in flight hold `work`: they must not go on writing for nobody.
        self.work.end();
    }
}

impl Graph {
    /// Listens on a free port of loopback.
    pub async fn start(options: Options) -> io::Result<Self> {
        let faults = Arc::new(Faults::default());
        let work = Work::new(options, Arc::clone(&faults));
        let server = Loopback::start((Ipv4Addr::LOCALHOST, 0).into(), router(&work, &faults)).await?;
        let address = server.address();
        Ok(Self { inner: Arc::new(Inner { work, faults, address, listening: Mutex::new(Some(server)) }) })
    }

    /// Where it listens; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The base URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// The switches.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Changes how long a write takes, from the next one on.
    pub fn set_write_delay(&self, delay: Duration) {
        self.inner.work.set_write_delay(delay);
    }

    /// The process ends: the port refuses connections, open ones break, what is queued or half written is lost. What is stored stays.
    pub async fn stop(&self) {
        let server = self.inner.listening.lock().await.take();
        self.inner.work.end();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// The process starts (again), on the same port, with an empty queue and a worker that lives.
    pub async fn resume(&self) -> io::Result<()> {
        let mut listening = self.inner.listening.lock().await;
        if listening.is_none() {
            self.inner.work.begin();
            *listening = Some(Loopback::start(self.inner.address, router(&self.inner.work, &self.inner.faults)).await?);
        }
        Ok(())
    }

    /// [`Graph::stop`], then [`Graph::resume`]: the only cure for a dead worker. Faults stay as they are switched.
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        self.resume().await
    }

    /// Writes one episode as graphiti-core's `add_episode` does when a service calls it inline: takes an LLM slot and the whole write
    /// delay, and is there when it returns. Dropping the future leaves nothing behind.
    pub async fn add_episode(&self, group: &str, message: Message) -> Result<(), Death> {
        self.inner.work.add_episode(group, message).await
    }

    /// Everything in the graph, in the order in which it was written.
    pub fn stored(&self) -> Vec<Stored> {
        self.inner.work.stored()
    }

    /// One group's episodes, in the order in which they were written (whatever their timestamps say).
    pub fn group(&self, group: &str) -> Vec<Stored> {
        self.inner.work.group(group)
    }

    /// Every message that got a 202, in the order of arrival, whatever became of it.
    pub fn posted(&self) -> Vec<Posted> {
        self.inner.work.posted()
    }

    /// Messages accepted and not yet taken by a writer.
    pub fn queued(&self) -> usize {
        self.inner.work.queued()
    }

    /// What ended the worker, if it is dead. No client can see this.
    pub fn death(&self) -> Option<Death> {
        self.inner.work.death()
    }

    /// Waits until so many episodes are stored; for ever if they never are.
    pub async fn wait_stored(&self, count: usize) {
        self.inner.work.wait(|work| work.stored_count() >= count).await;
    }

    /// Waits until the worker is dead; for ever if it lives.
    pub async fn wait_death(&self) -> Death {
        self.inner.work.wait(|work| work.death().is_some()).await;
        self.death().unwrap_or(Death::Ended)
    }
}

fn router(work: &Arc<Work>, faults: &Arc<Faults>) -> Router {
    let with_faults = |call| from_fn_with_state((Arc::clone(faults), call), faults::apply);
    Router::new()
        .route("/messages", post(add_messages).layer(with_faults(Call::Messages)))
        .route("/episodes/{group_id}", get(get_episodes).layer(with_faults(Call::Episodes)))
        .route("/healthcheck", get(healthcheck).layer(with_faults(Call::Healthcheck)))
        .fallback(|| async { detail(StatusCode::NOT_FOUND, &json!("Not Found")) })
        .with_state(Arc::clone(work))
}

async fn add_messages(State(work): State<Arc<Work>>, body: Bytes) -> Response {
    match wire::parse_messages(&body) {
        Ok((group, messages)) => {
            work.post(&group, messages);
            let accepted = json!({"message": "Messages added to processing queue", "success": true});
            (StatusCode::ACCEPTED, axum::Json(accepted)).into_response()
        }
        Err(errors) => detail(StatusCode::UNPROCESSABLE_ENTITY, &json!(errors)),
    }
}

async fn get_episodes(
    State(work): State<Arc<Work>>,
    Path(group): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let last_n = match wire::parse_last_n(query.get("last_n").map(String::as_str)) {
        Ok(last_n) => last_n,
        Err(error) => return detail(StatusCode::UNPROCESSABLE_ENTITY, &json!([error])),
    };
    // A negative LIMIT is the database's error, which nobody catches.
    let Ok(last_n) = usize::try_from(last_n) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response();
    };
    let now = Timestamp::now();
    let mut episodes = work.group(&group);
    episodes.retain(|episode| episode.valid_at <= now);
    episodes.sort_by_key(|episode| episode.valid_at);
    let newest = episodes.split_off(episodes.len().saturating_sub(last_n));
    axum::Json(newest.iter().map(Stored::to_json).collect::<Vec<_>>()).into_response()
}

/// Healthy as long as the process answers, whatever the worker does.
async fn healthcheck() -> Response {
    axum::Json(json!({"status": "healthy"})).into_response()
}

/// An error in the shape of `FastAPI`.
fn detail(status: StatusCode, detail: &serde_json::Value) -> Response {
    (status, axum::Json(json!({"detail": detail}))).into_response()
}

#[cfg(test)]
mod tests;
