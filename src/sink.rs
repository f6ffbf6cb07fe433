//! Sinks: the graph backends that episodes are delivered to.
//!
//! # Writing a sink
//! A sink makes one attempt and tells exactly how it went; when to try again, when to give up and what to record is the drain's business.
//! - [`Sink::deliver`] sends one episode. [`Receipt::Delivered`] means that it *is there*: a service that only promises gives
//!   [`Receipt::Accepted`], and the drain looks it up until it is seen.
//! - [`Sink::look_up`] asks whether an episode is there. The drain asks before it sends again after an ambiguous end.
//! - An error says whether the request may have had its effect all the same ([`SinkError::ambiguous`]): a refused connection hasn't, a
//!   time-out may have. When in doubt, it is ambiguous.
//! - Each call is given up by dropping it (shutdown, time-outs): a sink keeps no state that this would break.

mod cypher;
pub mod falkordb;
pub mod file;
pub mod graphiti;
pub mod graphiti_mcp;
mod http;
pub mod neo4j;
mod pool;
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
    /// The time of the event (ms since the Unix epoch), strictly increasing within a lane.
    pub at: u64,
}

impl Delivery {
    /// [`Delivery::at`] as RFC 3339 in UTC, with milliseconds.
    pub fn timestamp(&self) -> String {
        clock::rfc3339(self.at)
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
        SinkKind::File { path } => Ok(Arc::new(file::FileSink::new(path.clone()))),
    }
}
