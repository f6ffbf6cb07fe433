//! The configuration: a typed tree, complete with defaults.
//!
//! [`load`] makes one of a file, the environment and `--set`, or tells everything that is wrong: `load.rs` has the way from text to
//! tree to [`Config`], `overlay.rs` what lies over the file, `read.rs` and `values.rs` the typed reader, `sections/` every key with
//! its default, `check.rs` the rules between keys.

pub mod credentials;
pub mod encryption;
pub mod fault;
pub mod offload;
pub mod pattern;
pub mod presets;
pub mod request;
pub mod source;
pub mod status;
pub mod template;
pub mod units;

mod address;
mod check;
mod expand;
mod graph;
mod kind;
mod load;
mod overlay;
mod read;
mod route;
mod sections;
mod tree;
mod values;

pub use fault::{Fault, Faults, Origin};
pub use graph::{Falkordb, Neo4j, Server, ServerTrust};
pub use load::{Input, load, load_with, read};
pub use route::{Action, Chain, Dedupe, Extract, Marker, Redact, Route, Stream, StreamFormat};

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use status::{RetryOn, StatusSet};

/// Everything that `run` needs to know. Made by [`load`]; each value has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[[proxy]]`, in the order of the file.
    pub proxies: Vec<Proxy>,
    /// `[queue]`.
    pub queue: Queue,
    /// `[[sink]]`, in the order of the file.
    pub sinks: Vec<Sink>,
    /// `[admin]`.
    pub admin: Admin,
    /// `[log]`.
    pub log: Log,
}

/// Where to accept connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`, not yet resolved.
    Tcp(String),
    /// `unix:/absolute/path`.
    Unix(PathBuf),
    /// `fd:NAME`: a listening socket that the service manager hands over (`FileDescriptorName=` of a systemd socket unit).
    Fd(String),
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`: HTTP/1.1.
    Http,
    /// `h2c://`: HTTP/2 without TLS, known in advance.
    H2c,
    /// `https://`: TLS, and HTTP/2 or HTTP/1.1 as the upstream chooses (ALPN).
    Https,
}

/// Where a proxy forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `http://host:port`: the host and the port (80 if absent, 443 for `https`) to connect to, and the authority for `Host`.
    Http {
        /// What is spoken there.
        scheme: Scheme,
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// What `Host` says when `preserve_host` is off: as written in the file.
        authority: HeaderValue,
    },
    /// `unix:/absolute/path`.
    Unix(PathBuf),
}

/// `[[proxy]]`
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Unique.
    pub name: String,
    /// Where clients connect.
    pub listen: Listen,
    /// Where requests go.
    pub upstream: Upstream,
    /// Forward the client's `Host`.
    pub preserve_host: bool,
    /// Append to `X-Forwarded-For`, `-Proto` and `-Host`.
    pub forwarded: bool,
    /// Longest wait for a connection to the upstream.
    pub connect_timeout: Duration,
    /// Longest wait for the response head after the request was sent.
    pub response_timeout: Duration,
    /// Longest time without a byte in either direction.
    pub idle_timeout: Duration,
    /// Requests forwarded at one time.
    pub max_in_flight: usize,
    /// Requests that may wait in line for one of those places.
    pub max_waiting: usize,
    /// Longest time in that line.
    pub wait_timeout: Duration,
    /// Open client connections; beyond it new ones wait to be accepted.
    pub max_connections: usize,
    /// Longest time for a request's head to arrive.
    pub header_read_timeout: Duration,
    /// Longest wait on shutdown for requests in flight.
    pub drain_timeout: Duration,
    /// Most header lines of a request's head.
    pub max_headers: usize,
    /// Most bytes of a request's head.
    pub max_header_size: usize,
    /// Send `x-offramp-episode` on captured responses.
    pub expose_episode_id: bool,
    /// Serve TLS; none = plain.
    pub tls: Option<ServerTls>,
    /// For an `https` upstream.
    pub upstream_tls: UpstreamTls,
    /// When to leave the upstream alone for a while.
    pub breaker: Breaker,
    /// What clients get meanwhile.
    pub fallback: Fallback,
    /// Who may connect to a unix socket.
    pub socket: SocketFile,
    /// First match wins.
    pub routes: Vec<Route>,
}

/// `proxy.tls`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and its chain, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// `proxy.upstream_tls`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The certificate authorities to trust, PEM; none = the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that offramp shows, with its key.
    pub client: Option<ServerTls>,
}

/// `proxy.fallback`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Its status.
    pub status: http::StatusCode,
    /// Its body.
    pub body: bytes::Bytes,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
}

/// `proxy.socket_mode`, `socket_user` and `socket_group`: of the file of a unix socket; what isn't given stays as the system makes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketFile {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
}

/// `[queue]`
#[derive(Debug, Clone)]
pub struct Queue {
    /// The directory.
    pub path: PathBuf,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Longest time that a response's last byte waits for its commit.
    pub commit_wait: Duration,
    /// Pending episodes, at most.
    pub max_episodes: u64,
    /// Bytes of stored episodes, at most.
    pub max_bytes: u64,
    /// Below this much free disk nothing more is captured.
    pub min_free_disk: u64,
    /// What a full queue does with a request that would be captured.
    pub on_full: OnFull,
    /// How long receipts (and bodies) stay after delivery.
    pub keep_delivered: Duration,
    /// How long dead letters stay.
    pub keep_dead: Duration,
    /// What records are sealed with: the first seals, all open; none = records are plain.
    pub encryption_keys: Vec<encryption::SealingKey>,
}

/// `queue.durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage before the last byte is released.
    Sync,
    /// Made stable every so often; a crash may lose that much.
    Interval(Duration),
}

/// `queue.on_full`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Forward, do not capture, count.
    Pass,
    /// 503 before the upstream is called.
    Reject,
}

/// `[[sink]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    /// Unique.
    pub name: String,
    /// `type` and the keys that belong to it.
    pub kind: SinkKind,
    /// Attempts in flight, at most.
    pub workers: usize,
    /// The lane key.
    pub order_by: OrderBy,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for one request of an attempt.
    pub timeout: Duration,
    /// When to try again, and when to give up.
    pub retry: Retry,
    /// What is worth another attempt.
    pub retry_on: RetryOn,
    /// What says that the sink is misconfigured.
    pub pause_on: StatusSet,
    /// When to leave the sink alone for a while.
    pub breaker: Breaker,
    /// How many attempts may begin.
    pub rate: Rate,
    /// Find out by itself how many attempts at once the sink takes, between 1 and `workers`.
    pub adaptive: bool,
    /// Several episodes of a lane in one call.
    pub batch: Batch,
    /// What a lane does after a dead letter.
    pub on_dead: OnDead,
    /// Sent with every request; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `sink.type`
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    /// Graphiti's REST service.
    Graphiti(Graphiti),
    /// Graphiti's MCP server.
    GraphitiMcp(GraphitiMcp),
    /// Bolt.
    Neo4j(Neo4j),
    /// `FalkorDB`, over RESP.
    Falkordb(Falkordb),
    /// The service that a request was meant for: it gets the request again.
    Replay {
        /// Base URL without a trailing slash.
        url: String,
    },
    /// Any service that speaks HTTP.
    Http(Box<request::Service>),
    /// JSON Lines, appended and synced.
    File {
        /// The file.
        path: PathBuf,
        /// Bytes of one file, after which a new one is begun; 0 = never.
        max_bytes: u64,
        /// How many full ones stay beside it.
        keep: u32,
    },
}

/// The keys of `type = "graphiti"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Graphiti {
    /// Base URL without a trailing slash.
    pub url: String,
    /// How a delivery is proved.
    pub confirm: Confirm,
    /// What an episode becomes there.
    pub format: GraphitiFormat,
}

/// The keys of `type = "graphiti-mcp"`.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphitiMcp {
    /// Where its clients connect to, path and all, without a trailing slash.
    pub url: String,
    /// How a delivery is proved.
    pub confirm: Confirm,
}

/// `sink.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphitiFormat {
    /// One message, whose text names who said what.
    Turn,
    /// A message for each of the episode's.
    Messages,
}

/// `confirm = { mode, timeout, poll }`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confirm {
    /// Read the episode back (else the 202 is taken for a delivery).
    pub read_back: bool,
    /// Without any episode of the sink appearing for this long, the sink is stalled.
    pub timeout: Duration,
    /// Time between two looks.
    pub poll: Duration,
}

/// `sink.order_by`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderBy {
    /// The episode's session.
    Session,
    /// Its group.
    Group,
    /// Its user, else its session.
    User,
}

/// `sink.retry`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts before an episode is a dead letter; at least 1.
    pub max_attempts: u32,
    /// The first delay.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// Draw each delay from 0 to its bound (else wait the whole bound).
    pub full_jitter: bool,
    /// Age (since capture) at which an episode is a dead letter.
    pub max_age: Duration,
}

/// `sink.breaker` and `proxy.breaker`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Failures in a row that open it; 0 = never.
    pub consecutive_failures: u32,
    /// Share of failures within `window` that opens it, above 0 and up to 1; 0 = never.
    pub failure_rate: f64,
    /// What `failure_rate` is a share of: the attempts that ended within the last `window` ...
    pub window: Duration,
    /// ... if there were so many.
    pub min_attempts: u32,
    /// Time until a probe.
    pub open_for: Duration,
}

impl Breaker {
    /// Opens after so many failures in a row, and for nothing else.
    pub fn in_a_row(consecutive_failures: u32, open_for: Duration) -> Self {
        Self { consecutive_failures, open_for, failure_rate: 0.0, window: Duration::from_secs(60), min_attempts: 20 }
    }

    /// Whether anything opens it.
    pub fn is_on(&self) -> bool {
        self.consecutive_failures > 0 || self.failure_rate > 0.0
    }
}

/// `sink.rate`: a bucket of tokens, one for each attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second; 0 = no limit.
    pub per_second: f64,
    /// Tokens that the bucket holds; at least 1.
    pub burst: u32,
}

/// `sink.batch`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Consecutive episodes of one lane in one call, at most; 1 = each by itself.
    pub max_items: usize,
    /// How long an episode waits for others of its lane.
    pub linger: Duration,
}

/// `sink.on_dead`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDead {
    /// The lane goes on with the next episode.
    Continue,
    /// The lane waits until the dead letter is redriven, purged, or has expired.
    Park,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where the admin API listens.
    pub listen: Listen,
    /// The bearer token; required where `listen` isn't loopback.
    pub token: Option<Secret>,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// An `EnvFilter` directive: `info`, `offramp=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Where lines go; none = standard error.
    pub file: Option<PathBuf>,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// A value that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}
