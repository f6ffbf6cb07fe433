//! Neo4j, and whoever else speaks Bolt: Memgraph, `ArcadeDB`.
//!
//! # What is delivered
//! The statement (`sink/cypher.rs`) is run in a transaction of its own, and delivered means that the server has committed it: there is nothing
//! to follow up. With the default statement an episode is there exactly once in effect, because each of its nodes is merged on its id,
//! under a constraint that is made with the first connection. With a statement of one's own that depends on the statement: write `MERGE`.
//!
//! # What goes wrong
//! - No connection, TLS or hand-shake: another attempt, nothing is in doubt. A connection that was idle is tried before it is used.
//! - The connection breaks, or nothing comes in `timeout`, while the statement runs: in doubt. It is looked up by its id before it is sent
//!   again. The server is told to give up its transaction after the same time.
//! - The server refuses: see `neo4j/code.rs` for what is tried again, what pauses the sink, and what is a dead letter. Before the first episode the
//!   server is asked to explain the statement, so one that it doesn't understand pauses the sink and kills nobody.
//!
//! Several episodes go in one transaction: all of them, or none.
//!
//! # Why no driver
//! neo4rs, which is the one that is kept, speaks 4.4 at most (0.9.0-rc.11), limits each read by the time for connecting, drops the code of what
//! is refused at the beginning, and has one error for a connection that was never made and one that broke during a commit. What is
//! retried, looked up and paused hangs on just that.

mod bolt;
mod code;
mod pack;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use self::bolt::{Connection, Fault, Way};
use super::cypher::{self, LOOK_UP, Statement};
use super::pool::Pool;
use super::{BatchError, Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::config;
use crate::tls::{self, TlsError};

/// What makes `id` unique, so that merging on it finds at once what it looks for, and makes it once.
const CONSTRAINTS: [&str; 2] = [
    "CREATE CONSTRAINT offramp_episode IF NOT EXISTS FOR (e:Episode) REQUIRE e.id IS UNIQUE",
    "CREATE CONSTRAINT offramp_session IF NOT EXISTS FOR (s:Session) REQUIRE s.id IS UNIQUE",
];

/// The same as Memgraph says it. Its constraints are no indexes.
const MEMGRAPH: [&str; 4] = [
    "CREATE CONSTRAINT ON (e:Episode) ASSERT e.id IS UNIQUE",
    "CREATE CONSTRAINT ON (s:Session) ASSERT s.id IS UNIQUE",
    "CREATE INDEX ON :Episode(id)",
    "CREATE INDEX ON :Session(id)",
];

/// The sink.
pub struct Neo4jSink {
    config: config::Neo4j,
    connect_timeout: Duration,
    timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
    statement: Statement,
    idle: Pool<Connection>,
    /// Done once the server has the constraints, and has understood the statement.
    prepared: OnceCell<()>,
}

impl Neo4jSink {
    pub(super) fn new(neo4j: &config::Neo4j, config: &config::Sink) -> Result<Self, TlsError> {
        let tls = match neo4j.server.tls {
            config::ServerTrust::Plain => None,
            config::ServerTrust::Verified => Some(tls::towards(neo4j.ca_file.as_deref())?),
            config::ServerTrust::Anyone => Some(tls::towards_anyone()),
        };
        Ok(Self {
            config: neo4j.clone(),
            connect_timeout: config.connect_timeout,
            timeout: config.timeout,
            tls,
            statement: Statement::new(neo4j.statement.as_deref()),
            idle: Pool::default(),
            prepared: OnceCell::new(),
        })
    }

    /// Writes these episodes, all or none.
    async fn send(&self, deliveries: &[Delivery]) -> Result<(), SinkError> {
        let mut connection = self.connection().await?;
        self.prepared.get_or_try_init(|| self.prepare(&mut connection)).await?;
        self.run(connection, &self.statement.text, self.statement.parameters(deliveries)).await.map(|_| ())
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        let connection = self.connection().await?;
        match self.run(connection, LOOK_UP, cypher::id(delivery)).await {
            Ok(Some(_)) => Ok(Presence::Present),
            Ok(None) if self.statement.is_own => Ok(Presence::Unknown), // who knows where it writes
            Ok(None) => Ok(Presence::Absent),
            Err(error) => Err(SinkError { ambiguous: false, ..error }),
        }
    }

    /// Runs a statement. The connection is used again, unless it is the connection that may be wrong.
    async fn run(
        &self,
        mut connection: Connection,
        statement: &str,
        parameters: Map<String, Value>,
    ) -> Result<Option<Vec<Value>>, SinkError> {
        let ran = timeout(self.timeout, connection.run(statement, parameters, self.database(), self.timeout)).await;
        let result = ran.unwrap_or_else(|late| Err(Fault::Broken(late.into())));
        if result.is_ok() {
            self.idle.put(connection);
        }
        result.map_err(|fault| match fault {
            Fault::Broken(error) => failed(Cause::Timeout, format!("no answer to the statement: {error}"), true),
            Fault::Foreign(what) => failed(Cause::Timeout, what, true),
            Fault::Refused { code, message } => code::refusal(&code, &message),
        })
    }

    /// One that answers: an idle one, or a new one.
    async fn connection(&self) -> Result<Connection, SinkError> {
        while let Some(mut idle) = self.idle.take() {
            if let Ok(Ok(())) = timeout(self.connect_timeout, idle.reset()).await {
                return Ok(idle);
            }
        }
        let config::Server { host, port, .. } = &self.config.server;
        let mut connection = self.connect(host, *port).await?;
        if self.config.routed {
            let address = address(host, *port);
            let asked = timeout(self.timeout, connection.writer(&address, self.database())).await;
            match asked.unwrap_or_else(|late| Err(Fault::Broken(late.into()))).map_err(unheard)? {
                Some((leader, its_port)) if (&leader, its_port) != (host, *port) => {
                    connection = self.connect(&leader, its_port).await?;
                }
                Some(_) => {}
                None => return Err(failed(Cause::Status(503), "the cluster has no leader".to_owned(), false)),
            }
        }
        Ok(connection)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Connection, SinkError> {
        let address = address(host, port);
        let unreached = |error| failed(Cause::Connect, format!("cannot connect to {address}: {error}"), false);
        let way = timeout(self.connect_timeout, Way::open(host, port, self.tls.as_ref())).await;
        let way = way.unwrap_or_else(|late| Err(late.into())).map_err(unreached)?;
        let password = self.config.password.as_ref().map_or("", |password| &password.0);
        let routed = self.config.routed.then_some(address.as_str());
        let begun = timeout(self.timeout, Connection::begin(way, &self.config.user, password, routed)).await;
        begun.unwrap_or_else(|late| Err(Fault::Broken(late.into()))).map_err(unheard)
    }

    /// Constraints are a belt beside the braces: who may not make them (or has made them otherwise) is told so, and served.
    async fn prepare(&self, connection: &mut Connection) -> Result<(), SinkError> {
        let constraints: &[&str] = match (self.statement.is_own, connection.agent.contains("Memgraph")) {
            (true, _) => &[],
            (false, true) => &MEMGRAPH,
            (false, false) => &CONSTRAINTS,
        };
        for constraint in constraints {
            match self.try_out(connection, constraint, Map::new()).await {
                Ok(()) => {}
                Err(error) if worth_another(&error) => return Err(error),
                Err(error) => tracing::warn!(constraint, %error, "a constraint could not be made"),
            }
        }
        let statement = format!("EXPLAIN {}", self.statement.text);
        let sample = self.statement.parameters(&[cypher::sample()]);
        match self.try_out(connection, &statement, sample).await {
            Err(error) if error.cause == Cause::Status(400) => Err(SinkError {
                cause: Cause::Status(404),
                message: format!("the statement is not understood: {error}"),
                ..error
            }),
            Err(error) if worth_another(&error) || error.cause != Cause::Status(500) => Err(error),
            _ => Ok(()), // it may be that it explains nothing
        }
    }

    async fn try_out(
        &self,
        connection: &mut Connection,
        statement: &str,
        parameters: Map<String, Value>,
    ) -> Result<(), SinkError> {
        let ran = timeout(self.timeout, connection.run(statement, parameters, self.database(), self.timeout)).await;
        match ran.unwrap_or_else(|late| Err(Fault::Broken(late.into()))) {
            Ok(_) => Ok(()),
            Err(fault) => {
                let told = unheard(fault);
                // After a refusal it hears nothing else.
                let again =
                    timeout(self.timeout, connection.reset()).await.unwrap_or_else(|late| Err(Fault::Broken(late.into())));
                again.map_err(unheard)?;
                Err(told)
            }
        }
    }

    fn database(&self) -> Option<&str> {
        self.config.database.as_deref()
    }
}

/// Whether the server only couldn't now.
fn worth_another(error: &SinkError) -> bool {
    matches!(error.cause, Cause::Connect | Cause::Timeout | Cause::Status(429 | 503))
}

/// What failed before an episode was sent: nothing is in doubt.
fn unheard(fault: Fault) -> SinkError {
    match fault {
        Fault::Broken(error) => failed(Cause::Timeout, format!("the connection broke before anything was sent: {error}"), false),
        Fault::Foreign(what) => failed(Cause::Connect, what, false),
        Fault::Refused { code, message } => SinkError { ambiguous: false, ..code::refusal(&code, &message) },
    }
}

fn failed(cause: Cause, message: String, ambiguous: bool) -> SinkError {
    SinkError { cause, message, retry_after: None, ambiguous }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Sink for Neo4jSink {
    fn kind(&self) -> &'static str {
        "neo4j"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(async move { self.send(std::slice::from_ref(delivery)).await.map(|()| Receipt::Delivered) })
    }

    fn deliver_batch<'a>(&'a self, deliveries: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, BatchError>> {
        Box::pin(async move {
            let mut taken = 0;
            for call in cypher::calls(deliveries) {
                self.send(call).await.map_err(|error| BatchError { taken, receipt: Receipt::Delivered, error })?;
                taken += call.len();
            }
            Ok(Receipt::Delivered)
        })
    }

    fn batches(&self) -> bool {
        self.statement.takes_several
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(self.find(delivery))
    }

    fn follow(&self) -> Option<Follow> {
        None
    }
}
