//! The proxy: forwards requests to one upstream and lets capture watch.
//!
//! `crate::stack` puts the layers of this module in their order; `crate::server` brings the connections.

pub mod body;
pub mod dial;
pub mod forward;
pub mod guard;
pub mod headers;
pub mod lease;
pub mod line;
pub mod link;
pub mod measure;
mod offload;
pub mod pool;
pub mod rescue;
pub mod stall;
pub mod tee;
pub mod upgrade;
pub mod upload;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::capture::Record;
use crate::capture::routes::Routes;
use crate::config::{self, Fallback, OnFull, OrderBy, Upstream};
use crate::queue::{Queue, SinkId};
use crate::telemetry::metrics::Metrics;
use crate::tls;
use dial::Dial;
use guard::Guard;
use headers::Rewrite;
use line::Line;
use link::Link;
use measure::Meters;
use pool::Pool;

/// One `[[proxy]]`, ready to serve. Its settings never change: other ones are another proxy in its place, which takes over what is to
/// outlive them ([`Proxy::renew`]), and a request keeps the one that it began with.
#[derive(Debug)]
pub struct Proxy {
    name: String,
    rewrite: Rewrite,
    routes: Arc<Routes>,
    meters: Arc<Meters>,
    line: Arc<Line>,
    reach: Reach,
    pool: Arc<Pool>,
    guard: Option<Arc<Guard>>,
    fallback: Arc<Fallback>,
    response_timeout: Duration,
    idle_timeout: Duration,
    expose_episode_id: bool,
    /// Open client connections, at most.
    pub(crate) max_connections: usize,
    /// Longest time for a request's head to arrive.
    pub(crate) header_read_timeout: Duration,
    /// Lines and bytes of a request's head, at most.
    pub(crate) max_headers: usize,
    pub(crate) max_header_size: usize,
    /// Longest wait on shutdown for requests in flight.
    pub(crate) drain_timeout: Duration,
}

/// What the connections of a pool depend on.
#[derive(Debug)]
struct Reach {
    upstream: Upstream,
    tls: Option<Arc<tls::Client>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

/// A request on its way through the stack.
pub struct Exchange {
    /// As the client sent it.
    pub(crate) request: Request<Incoming>,
    /// When its head was there.
    pub(crate) arrived: Instant,
    /// The client's address; none on a unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// The connection that it came by.
    pub(crate) link: Arc<Link>,
    /// The route that matched, once it was looked for.
    pub(crate) route: Option<usize>,
    /// It stays here: the upstream, and how it is, is nothing to it.
    pub(crate) offloaded: bool,
}

impl Proxy {
    /// A proxy that hands its episodes to `queue`. `sinks` are all that are configured; `tls` is for an `https` upstream.
    pub fn new(
        config: config::Proxy,
        on_full: OnFull,
        sinks: &[(String, SinkId, OrderBy)],
        queue: Queue,
        metrics: &Metrics,
        tls: Option<Arc<tls::Client>>,
    ) -> Arc<Self> {
        Self::recording(config, on_full, sinks, Arc::new(queue), metrics, tls)
    }

    /// A proxy that hands its episodes to any [`Record`].
    pub fn recording(
        config: config::Proxy,
        on_full: OnFull,
        sinks: &[(String, SinkId, OrderBy)],
        record: Arc<dyn Record>,
        metrics: &Metrics,
        tls: Option<Arc<tls::Client>>,
    ) -> Arc<Self> {
        Self::build(None, config, on_full, sinks, record, metrics, tls)
    }

    /// The proxy that takes this one's place, with the same line, the same connections to the same upstream, and what is known of it. The
    /// listener, and what an open connection of a client goes by (its time-outs and the limits of a head), stay as they are.
    pub fn renew(
        &self,
        config: config::Proxy,
        on_full: OnFull,
        sinks: &[(String, SinkId, OrderBy)],
        metrics: &Metrics,
        tls: Option<Arc<tls::Client>>,
    ) -> Arc<Self> {
        Self::build(Some(self), config, on_full, sinks, Arc::clone(self.routes.record()), metrics, tls)
    }

    fn build(
        former: Option<&Self>,
        config: config::Proxy,
        on_full: OnFull,
        sinks: &[(String, SinkId, OrderBy)],
        record: Arc<dyn Record>,
        metrics: &Metrics,
        tls: Option<Arc<tls::Client>>,
    ) -> Arc<Self> {
        let mut routes = Routes::new(&config.name, config.routes, on_full, config.response_timeout, sinks, record, metrics);
        let reach =
            Reach { upstream: config.upstream, tls, connect_timeout: config.connect_timeout, idle_timeout: config.idle_timeout };
        let guard = Guard::new(&config.name, config.breaker, config.fallback.status);
        let (line, guard, pool) = if let Some(former) = former {
            routes = routes.following(&former.routes);
            former.line.resize(config.max_in_flight, config.max_waiting, config.wait_timeout);
            // What is known of another upstream is nothing to this one.
            let guarded = former.guard.as_ref().filter(|_| former.reach.upstream == reach.upstream);
            let guard = guarded.map_or(guard, |guarded| guarded.renew(config.breaker, config.fallback.status));
            let pool = if former.reach == reach { Arc::clone(&former.pool) } else { reach.pool() };
            (Arc::clone(&former.line), guard, pool)
        } else {
            let label = [config.name.as_str()];
            let line = Line::new(
                config.max_in_flight,
                config.max_waiting,
                config.wait_timeout,
                metrics.http_in_flight.with_label_values(&label),
                metrics.http_waiting.with_label_values(&label),
            );
            (line, guard, reach.pool())
        };
        let routes = Arc::new(routes);
        Arc::new(Self {
            rewrite: Rewrite {
                preserve_host: config.preserve_host,
                forwarded: config.forwarded,
                authority: pool.dial().authority().clone(),
                tls: config.tls.is_some(),
            },
            meters: Arc::new(Meters::new(&config.name, &routes, metrics)),
            routes,
            line,
            guard,
            fallback: Arc::new(config.fallback),
            reach,
            pool,
            name: config.name,
            response_timeout: config.response_timeout,
            idle_timeout: config.idle_timeout,
            expose_episode_id: config.expose_episode_id,
            max_connections: config.max_connections,
            header_read_timeout: config.header_read_timeout,
            max_headers: config.max_headers,
            max_header_size: config.max_header_size,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests being forwarded now, until the last byte of their responses.
    pub fn in_flight(&self) -> usize {
        self.line.in_flight()
    }

    /// Requests waiting in line now.
    pub fn waiting(&self) -> usize {
        self.line.waiting()
    }

    pub(crate) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    pub(crate) fn guard(&self) -> Option<&Arc<Guard>> {
        self.guard.as_ref()
    }

    pub(crate) fn fallback(&self) -> &Arc<Fallback> {
        &self.fallback
    }

    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }
}

impl Reach {
    fn pool(&self) -> Arc<Pool> {
        Pool::new(Dial::new(&self.upstream, self.tls.clone()), self.connect_timeout, self.idle_timeout)
    }
}

impl PartialEq for Reach {
    fn eq(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(this), Some(other)) => Arc::ptr_eq(this, other),
            (this, other) => this.is_none() && other.is_none(),
        };
        tls && (&self.upstream, self.connect_timeout, self.idle_timeout)
            == (&other.upstream, other.connect_timeout, other.idle_timeout)
    }
}

/// Why offramp answers a request itself. What the client sees of it is in `rescue.rs`.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The upstream takes no connection.
    #[error("cannot connect to the upstream: {0}")]
    Connect(#[source] io::Error),
    /// Nor did it within `connect_timeout`.
    #[error("the upstream took no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection broke before the response's head, or what came wasn't HTTP.
    #[error("the upstream gave no valid response: {0}")]
    Protocol(#[source] hyper::Error),
    /// The connection ended before the response's head, and after the client had closed its half: most servers take that for the
    /// client's leaving, and so it counts here.
    #[error("the upstream gave no response once the client had closed its half of the connection")]
    Abandoned,
    /// The response's head says something that it may not.
    #[error("the upstream's response can't be forwarded: {0}")]
    Misbehaved(&'static str),
    /// No response's head within `response_timeout`.
    #[error("the upstream gave no response within {0:?}")]
    ResponseTimeout(Duration),
    /// The upstream took no byte of the request for `idle_timeout`.
    #[error("the upstream took no byte of the request for {0:?}")]
    UploadTimeout(Duration),
    /// In flight and in line, all places are taken.
    #[error("{waiting} requests are waiting already")]
    LineFull {
        /// `max_waiting`
        waiting: usize,
    },
    /// No place became free within `wait_timeout`.
    #[error("no place became free within {0:?}")]
    WaitedTooLong(Duration),
    /// The queue is full, and `on_full = "reject"`.
    #[error("what is said now could not be kept: the queue is full")]
    QueueFull,
    /// What an offloaded request says could not be made durable.
    #[error("what is said now could not be kept: {0}")]
    NotKept(&'static str),
    /// An offloaded request that can't be taken.
    #[error("{detail}")]
    Unacceptable {
        /// The response's status.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// The upstream's breaker is open.
    #[error("the upstream has failed repeatedly and is left alone for a while")]
    BreakerOpen {
        /// When it is tried again.
        retry_at: Instant,
        /// Of the fallback.
        status: StatusCode,
    },
    /// offramp stops.
    #[error("offramp is shutting down")]
    ShuttingDown,
    /// The request can't be forwarded.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The request's head is too large.
    #[error("the request's head is too large")]
    HeaderTooLarge,
    /// The request's target is too long.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// A handler panicked.
    #[error("{0}")]
    Panicked(String),
}

impl ProxyError {
    /// The value of `x-offramp-error`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::ConnectTimeout(_) => "upstream_connect",
            Self::Protocol(_) | Self::Abandoned | Self::Misbehaved(_) => "upstream_protocol",
            Self::ResponseTimeout(_) | Self::UploadTimeout(_) => "upstream_timeout",
            Self::LineFull { .. } | Self::WaitedTooLong(_) => "overloaded",
            Self::QueueFull | Self::NotKept(_) => "queue_full",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::ShuttingDown => "shutting_down",
            Self::BadRequest(_) | Self::TargetTooLong | Self::Unacceptable { .. } => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::Panicked(_) => "internal",
        }
    }

    /// The response's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TargetTooLong => return StatusCode::URI_TOO_LONG,
            Self::BreakerOpen { status, .. } | Self::Unacceptable { status, .. } => return *status,
            _ => {}
        }
        match self.code() {
            "upstream_connect" | "upstream_protocol" => StatusCode::BAD_GATEWAY,
            "upstream_timeout" => StatusCode::GATEWAY_TIMEOUT,
            "bad_request" => StatusCode::BAD_REQUEST,
            "header_too_large" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "internal" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The problem's `title`: the same for every problem of a kind.
    pub fn title(&self) -> &'static str {
        match self.code() {
            "upstream_connect" => "The upstream can't be reached",
            "upstream_protocol" => "The upstream's response is broken",
            "upstream_timeout" => "The upstream takes too long",
            "overloaded" => "Too many requests are being served",
            "queue_full" => "The queue is full",
            "breaker_open" => "The upstream is failing",
            "shutting_down" => "The proxy is shutting down",
            "bad_request" => "The request can't be forwarded",
            "header_too_large" => "The request's head is too large",
            _ => "An error inside the proxy",
        }
    }

    /// The problem's `detail`. Nothing of a panic's text: it is for the log.
    pub fn detail(&self) -> String {
        match self {
            Self::Panicked(_) => "the handler of this request panicked; the log has its backtrace".to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether it is the upstream's fault.
    pub fn is_upstreams(&self) -> bool {
        self.code().starts_with("upstream_") && !matches!(self, Self::Abandoned)
    }

    /// How long to wait before the same request may succeed, where it may. The line moves on within moments.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BreakerOpen { retry_at, .. } => Some(retry_at.saturating_duration_since(Instant::now())),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests;
