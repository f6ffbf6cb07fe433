//! Sinks: the graph backends that episodes are delivered to.
//!
//! # Writing a sink
//! A sink makes one attempt and tells exactly how it went; when to try again, when to give up and what to record is the drain's business. It
//! knows one episode at a time (or one batch), no queue, no lane, no retry. What has to be right is what it says of an attempt: from
//! that follows whether an episode is lost, doubled, or blocks its lane.
//!
//! ## 1. Send: [`Sink::deliver`]
//! - The episode's id ([`Episode::id`]) travels with every attempt, as whatever the backend knows a thing by: a key, a name, a property.
//!   It is what a second attempt is recognised by, and what [`Sink::look_up`] asks for.
//! - The time of the event is [`Delivery::at`], which increases strictly within a lane, and not the time of the delivery.
//! - [`Receipt::Delivered`] means that it *is there* (invariant 7): committed, synced, or answered by a service that answers when it is
//!   done. A service that only promises gives [`Receipt::Accepted`], and [`Sink::follow`] says how the drain finds out.
//!
//! ## 2. Say what went wrong: [`SinkError`]
//! Two questions, and they are not the same one:
//! - *May it have had its effect?* [`SinkError::ambiguous`]. A refused connection has had none, an answer that refuses has had none, a
//!   time-out while the request was under way may have. When in doubt, it is ambiguous. The drain then waits for [`Sink::settle`], asks
//!   [`Sink::look_up`], and sends again only what is not there.
//! - *Would another attempt end otherwise?* [`SinkError::cause`], which `retry_on` and `pause_on` are matched against. By default:
//!
//! | cause | is for | the drain |
//! |---|---|---|
//! | [`Cause::Connect`], [`Cause::Timeout`] | nobody there, no answer | tries again |
//! | [`Cause::Status`] 408, 425, 429, 5xx | can't now; with [`SinkError::retry_after`] if it says until when | tries again |
//! | [`Cause::Status`] 401, 403, 404 | the sink is misconfigured: credentials, address, statement | pauses the sink, costs no episode anything |
//! | any other [`Cause::Status`] | it is this episode that is not taken | makes it a dead letter |
//! | [`Cause::Unfit`] | the episode has nothing that this sink could send | makes it a dead letter |
//! | [`Cause::Local`] | this machine: a full disk, a missing directory | tries again |
//!
//! A protocol without statuses is given the nearest of HTTP's: see the tables in `neo4j/code.rs` and `falkordb/failure.rs`. Whatever can be told before
//! the first episode is sent (a statement that the server doesn't understand) is told then, as 404: a fault of the configuration must not
//! make dead letters. A message goes into the history and the log, so no credential is ever in one (invariant 10).
//!
//! ## 3. Be asked: [`Sink::look_up`]
//! - [`Presence::Present`] and [`Presence::Absent`] are taken at their word: a wrong `Absent` is a second copy, a wrong `Present` a loss. A
//!   sink that can't be sure says [`Presence::Unknown`], and the episode is sent again.
//! - A look changes nothing, so its errors are never ambiguous.
//! - Once in effect comes from one of two: the backend takes an id once (a `MERGE`, an idempotency key), or it can be asked. With neither
//!   a sink is at least once, and the table in the README says so.
//!
//! ## 4. Be dropped
//! Each call is given up by dropping it (shutdown, time-outs). So a connection in use is taken out of its pool and only given back when the call
//! ended well, and nothing that is kept in memory is needed for being right: after a restart it is gone.
//!
//! ## 5. Several at once: [`Sink::deliver_batch`]
//! Only if it can be told how many of the first ones were taken ([`BatchError::taken`]); all or none is the simplest. The lane's order is
//! that of the slice.
//!
//! ## Where it has to be entered
//! 1. Its keys: a variant of [`SinkKind`], read in `config/sections/sink.rs`, each key with its default in `config.toml`.
//! 2. [`open`], below.
//! 3. What it is called and where it sends: `config/kind.rs`; where `offramp sink test` connects, what it advises and where a probe is
//!    found: `probe/reach.rs` and `probe/advice.rs`. The compiler names each place.
//! 4. A `Backend` in `tests/conformance/`: the suite that every sink has to pass, against the real service if there is any way to run it.
//! 5. A row in the README's table: once or at least once, and how that is known.

mod cypher;
pub mod falkordb;
pub mod file;
pub mod graphiti;
pub mod graphiti_mcp;
mod http;
pub mod neo4j;
mod pool;
pub mod probe;
pub mod replay;
pub mod templated;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::clock;
use crate::config::{self, SinkKind};
use crate::episode::Episode;

/// What is delivered.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The episode; each attempt carries its id.
    pub episode: Arc<Episode>,
    /// The time of the event (ms since the Unix epoch, or before it), strictly increasing within a lane.
    pub at: i64,
}

impl Delivery {
    /// [`Delivery::at`] as RFC 3339 in UTC, with milliseconds.
    pub fn timestamp(&self) -> String {
        clock::event(self.at)
    }
}

/// What a sink says of an episode that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is there.
    Delivered,
    /// It will be: see [`Sink::look_up`].
    Accepted,
}

/// Whether an episode is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not, or not yet where the sink [confirms later](Sink::follow).
    Absent,
    /// It is not, and what was accepted won't be: why. A failed attempt, after which it is sent again.
    Failed(String),
    /// This sink can't tell.
    Unknown,
}

/// How a sink's promise is followed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// Without any episode of the sink appearing for this long, the sink is stalled.
    pub timeout: Duration,
    /// Time between two looks.
    pub poll: Duration,
}

/// Why a call with several episodes failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct BatchError {
    /// So many of them, the first ones, were taken all the same, as the receipt tells.
    pub taken: usize,
    /// What the sink says of those.
    pub receipt: Receipt,
    /// What became of the one behind them, and of all that follow it.
    pub error: SinkError,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// What kind of failure.
    pub cause: Cause,
    /// In words, for the history; never with a credential in it.
    pub message: String,
    /// When the backend asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the request may have had its effect.
    pub ambiguous: bool,
}

/// What kind of failure: what `retry_on` and `pause_on` are matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No connection.
    Connect,
    /// No answer in time, or the connection broke before the answer.
    Timeout,
    /// An answer with this status.
    Status(u16),
    /// This machine: a full disk, a missing directory.
    Local,
    /// The episode itself: it has nothing that this sink could send. No attempt will ever end otherwise.
    Unfit,
}

impl Cause {
    /// The HTTP status, if there was one.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }
}

/// A graph backend.
pub trait Sink: Send + Sync + 'static {
    /// `type` in the configuration.
    fn kind(&self) -> &'static str;

    /// Sends one episode, once.
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>>;

    /// Sends several consecutive episodes of one lane in one call, in their order. Called only if [`Sink::batches`].
    fn deliver_batch<'a>(&'a self, deliveries: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, BatchError>> {
        let _ = deliveries;
        unreachable!("a sink that takes no batches is never given one")
    }

    /// Whether several episodes can be sent in one call.
    fn batches(&self) -> bool {
        false
    }

    /// How long the effect of a request whose end is not known may take to show: the drain waits for that before it looks.
    fn settle(&self) -> Duration {
        Duration::ZERO
    }

    /// Asks whether an episode is there.
    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>>;

    /// How to follow up [`Receipt::Accepted`]; none for a sink that never says it, and whose `Absent` is final.
    fn follow(&self) -> Option<Follow>;
}

/// Why a sink could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("sink {name}: {message}")]
pub struct SetupError {
    /// The sink.
    pub name: String,
    /// What is wrong.
    pub message: String,
}

/// The sink of a configuration.
pub fn open(config: &config::Sink) -> Result<Arc<dyn Sink>, SetupError> {
    let setup = |error: &dyn std::error::Error| SetupError { name: config.name.clone(), message: error.to_string() };
    let client = || http::Client::new(config).map_err(|e| setup(&e));
    match &config.kind {
        SinkKind::Graphiti(graphiti) => Ok(Arc::new(graphiti::GraphitiSink::new(client()?, graphiti))),
        SinkKind::GraphitiMcp(mcp) => {
            let url = mcp.url.parse::<reqwest::Url>().map_err(|e| setup(&e))?;
            Ok(Arc::new(graphiti_mcp::GraphitiMcpSink::new(client()?, url, mcp.confirm, config)))
        }
        SinkKind::Neo4j(neo4j) => Ok(Arc::new(neo4j::Neo4jSink::new(neo4j, config).map_err(|e| setup(&e))?)),
        SinkKind::Falkordb(falkordb) => Ok(Arc::new(falkordb::FalkordbSink::new(falkordb, config).map_err(|e| setup(&e))?)),
        SinkKind::Http(service) => Ok(Arc::new(templated::TemplatedSink::new(client()?, service))),
        SinkKind::Replay { url } => Ok(Arc::new(replay::ReplaySink::new(client()?, url, config))),
        SinkKind::File { path, max_bytes, keep } => Ok(Arc::new(file::FileSink::new(path, *max_bytes, *keep))),
    }
}
