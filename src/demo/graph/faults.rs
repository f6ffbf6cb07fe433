//! What goes wrong with a graph service, each switchable while it runs. Where a fault was measured, its origin is named: DESIGN.md §3
//! for Graphiti's own, otherwise what stands between a client and such a service.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::json;

/// One of the service's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /messages`
    Messages,
    /// `GET /episodes/{group_id}`
    Episodes,
    /// `GET /healthcheck`
    Healthcheck,
}

/// How a call is answered instead of properly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429, without effect: a gateway's limit before the service.
    TooManyRequests {
        /// The header's text: seconds, or an HTTP date.
        retry_after: Option<String>,
    },
    /// Another status, without effect: 500 is the service's when its database is away, 401 and 403 a gateway's when the token is
    /// wrong, 404 what a wrong base URL gets, 503 a load balancer's.
    Status(u16),
    /// Never an answer. A service whose event loop is blocked (`accepted: false`), or whose answer is lost on the way (`true`: the
    /// call has had its effect, and a client that sends again doubles it).
    Hang {
        /// Whether the call has its effect.
        accepted: bool,
    },
    /// The call has its effect, and the connection breaks in the middle of the answer's body: a process that is killed, a proxy that
    /// gives up.
    ResetMidResponse,
    /// The call has its effect, and the answer's body comes one byte at a time: a starved host, a throttled link.
    Drip {
        /// Time before each byte.
        every: Duration,
    },
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Until it is switched off.
    Always,
    /// The next so many times.
    Next(u32),
}

impl Times {
    /// Counts one down; whether it struck.
    fn strike(&mut self) -> bool {
        match self {
            Self::Always => true,
            Self::Next(left) => {
                let strikes = *left > 0;
                *left = left.saturating_sub(1);
                strikes
            }
        }
    }
}

/// The switches. All are off at first; each can be thrown at any time.
#[derive(Debug, Default)]
pub struct Faults {
    switches: Mutex<Switches>,
}

#[derive(Debug)]
struct Switches {
    answers: HashMap<Call, (Fault, Times)>,
    forget: Times,
    llm_rate_limit: Times,
}

impl Default for Switches {
    fn default() -> Self {
        Self { answers: HashMap::new(), forget: Times::Next(0), llm_rate_limit: Times::Next(0) }
    }
}

impl Faults {
    /// Answers `call` wrongly; replaces what was switched on for that call before.
    pub fn answer(&self, call: Call, fault: Fault, times: Times) {
        self.with(|switches| switches.answers.insert(call, (fault, times)));
    }

    /// Accept and forget: 202, and the message is gone although the worker lives (DESIGN.md §3: the queue is in memory, so what a
    /// restart behind a load balancer swallows looks just like this). Counted per message.
    pub fn forget(&self, times: Times) {
        self.with(|switches| switches.forget = times);
    }

    /// The LLM answers 429 (DESIGN.md §3: one is enough). Counted per write; the first ends the worker, and [`restart`] brings it back.
    ///
    /// [`restart`]: super::Graph::restart
    pub fn llm_rate_limit(&self, times: Times) {
        self.with(|switches| switches.llm_rate_limit = times);
    }

    /// Everything off. What has died stays dead, what hangs stays hanging.
    pub fn clear(&self) {
        self.with(|switches| *switches = Switches::default());
    }

    pub(super) fn forgets(&self) -> bool {
        self.with(|switches| switches.forget.strike())
    }

    pub(super) fn llm_refuses(&self) -> bool {
        self.with(|switches| switches.llm_rate_limit.strike())
    }

    fn strike(&self, call: Call) -> Option<Fault> {
        self.with(|switches| switches.answers.get_mut(&call).and_then(|(fault, times)| times.strike().then(|| fault.clone())))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        change(&mut self.switches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The layer around each call.
pub(super) async fn apply(State((faults, call)): State<(Arc<Faults>, Call)>, request: Request, next: Next) -> Response {
    match faults.strike(call) {
        None => next.run(request).await,
        Some(Fault::TooManyRequests { retry_after }) => {
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS);
            if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
        Some(Fault::Status(status)) => refusal(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Fault::Hang { accepted }) => {
            if accepted {
                next.run(request).await;
            }
            std::future::pending().await
        }
        Some(Fault::ResetMidResponse) => broken(next.run(request).await).await,
        Some(Fault::Drip { every }) => dripping(next.run(request).await, every).await,
    }
}

/// Starlette's 500 is plain text, all else has a `detail`.
fn refusal(status: StatusCode) -> Response {
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        return (status, "Internal Server Error").into_response();
    }
    (status, axum::Json(json!({"detail": status.canonical_reason().unwrap_or("Error")}))).into_response()
}

/// The head as it was, `content-length` included, and the body's bytes.
async fn taken_apart(response: Response) -> (axum::http::response::Parts, Bytes) {
    let (mut parts, body) = response.into_parts();
    // The bodies of this service are in memory: reading one can't fail.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    (parts, bytes)
}

async fn broken(response: Response) -> Response {
    let (parts, bytes) = taken_apart(response).await;
    let half = bytes.slice(..bytes.len() / 2);
    let failure = async {
        // Time for the first half to leave: without it the server would drop its buffer along with the connection.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    let body = stream::iter([Ok(half)]).chain(stream::once(failure));
    Response::from_parts(parts, Body::from_stream(body))
}

async fn dripping(response: Response, every: Duration) -> Response {
    let (parts, bytes) = taken_apart(response).await;
    let drops = stream::iter(0..bytes.len()).then(move |at| {
        let drop = bytes.slice(at..=at);
        async move {
            tokio::time::sleep(every).await;
            Ok::<_, Infallible>(drop)
        }
    });
    Response::from_parts(parts, Body::from_stream(drops))
}
