//! `FalkorDB`: Cypher over RESP, with `GRAPH.QUERY`.
//!
//! # What is delivered
//! The statement (`sink/cypher.rs`) is one query, which the server runs wholly or not at all, and delivered means that it has answered: there is
//! nothing to follow up. With the default statement an episode is there exactly once in effect, because each of its nodes is merged on
//! its id, under a constraint that is made with the first connection. With a statement of one's own that depends on the statement: write
//! `MERGE`. How stable what is written is, is Redis' business (`appendfsync`).
//!
//! Parameters are written into the query: see `falkordb/literal.rs` for what that changes (NUL).
//!
//! # What goes wrong
//! - No connection, TLS or hand-shake: another attempt, nothing is in doubt. A connection that was idle is tried before it is used.
//! - The connection breaks, or nothing comes in `timeout`, while the query runs: in doubt. It is looked up by its id before it is sent again.
//! - The server refuses: see `falkordb/failure.rs` for what is tried again, what pauses the sink, and what is a dead letter. Before the first episode
//!   the server is asked to explain the statement, so one that it doesn't understand pauses the sink and kills nobody.

mod failure;
mod literal;

use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::cypher::{self, LOOK_UP, Statement};
use super::pool::Pool;
use super::{BatchError, Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::config;

/// What makes merging on an id find at once what it looks for: an index ...
const INDEXES: [&str; 2] = ["CREATE INDEX FOR (e:Episode) ON (e.id)", "CREATE INDEX FOR (s:Session) ON (s.id)"];

/// ... and the constraint that stands on it.
const UNIQUE: [&str; 2] = ["Episode", "Session"];

/// The sink.
pub struct FalkordbSink {
    client: Client,
    graph: String,
    connect_timeout: Duration,
    timeout: Duration,
    statement: Statement,
    /// A server works on one query of a connection at a time.
    idle: Pool<MultiplexedConnection>,
    /// Done once the server has the constraints, and has understood the statement.
    prepared: OnceCell<()>,
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `ca_file`.
    #[error("{}: {0}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// What the client itself says.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl FalkordbSink {
    pub(super) fn new(falkordb: &config::Falkordb, config: &config::Sink) -> Result<Self, ClientError> {
        Ok(Self {
            client: client(falkordb)?,
            graph: falkordb.graph.clone(),
            connect_timeout: config.connect_timeout,
            timeout: config.timeout,
            statement: Statement::new(falkordb.statement.as_deref()),
            idle: Pool::default(),
            prepared: OnceCell::new(),
        })
    }

    /// Writes these episodes, all or none.
    async fn send(&self, deliveries: &[Delivery]) -> Result<(), SinkError> {
        let mut connection = self.connection().await?;
        self.prepared.get_or_try_init(|| self.prepare(&mut connection)).await?;
        let query = literal::query(&self.statement.text, &self.statement.parameters(deliveries));
        self.call(&mut connection, &["GRAPH.QUERY", &self.graph, &query]).await?;
        self.idle.put(connection);
        Ok(())
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        let mut connection = self.connection().await?;
        // Not the read-only variant: that one takes a graph which isn't there yet for an error.
        let query = literal::query(LOOK_UP, &cypher::id(delivery));
        let found = self.call(&mut connection, &["GRAPH.QUERY", &self.graph, &query]).await;
        let found = found.map_err(|error| SinkError { ambiguous: false, ..error })?;
        self.idle.put(connection);
        // Header, rows, statistics.
        let rows = found.as_sequence().and_then(|parts| parts.get(1)?.as_sequence()).map_or(0, <[_]>::len);
        Ok(match rows {
            0 if self.statement.is_own => Presence::Unknown, // who knows where it writes
            0 => Presence::Absent,
            _ => Presence::Present,
        })
    }

    async fn call(&self, connection: &mut MultiplexedConnection, command: &[&str]) -> Result<redis::Value, SinkError> {
        let mut call = redis::Cmd::new();
        for part in command {
            call.arg(part);
        }
        match timeout(self.timeout, call.query_async(connection)).await {
            Ok(answered) => answered.map_err(|error| failure::failure(&error)),
            Err(late) => Err(failed(Cause::Timeout, format!("no answer to the query: {late}"), true)),
        }
    }

    /// One that answers: an idle one, or a new one.
    async fn connection(&self) -> Result<MultiplexedConnection, SinkError> {
        while let Some(mut idle) = self.idle.take() {
            if let Ok(Ok(())) = timeout(self.connect_timeout, redis::cmd("PING").exec_async(&mut idle)).await {
                return Ok(idle);
            }
        }
        // Time-outs are kept here, where it is known what they mean.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| failure::unconnected(&error)),
            Err(late) => Err(failed(Cause::Connect, format!("cannot connect: {late}"), false)),
        }
    }

    /// Constraints are a belt beside the braces: who may not make them is told so, and served.
    async fn prepare(&self, connection: &mut MultiplexedConnection) -> Result<(), SinkError> {
        // Makes the graph: without one nothing is explained.
        self.make(connection, &["GRAPH.QUERY", &self.graph, "RETURN 1"]).await?;
        if !self.statement.is_own {
            for index in INDEXES {
                self.make(connection, &["GRAPH.QUERY", &self.graph, index]).await?;
            }
            for label in UNIQUE {
                let constraint = ["GRAPH.CONSTRAINT", "CREATE", &self.graph, "UNIQUE", "NODE", label, "PROPERTIES", "1", "id"];
                self.make(connection, &constraint).await?;
            }
        }
        let sample = literal::query(&self.statement.text, &self.statement.parameters(&[cypher::sample()]));
        match self.call(connection, &["GRAPH.EXPLAIN", &self.graph, &sample]).await {
            Ok(_) => Ok(()),
            Err(error) if error.cause == Cause::Status(400) => {
                let message = format!("the statement is not understood: {error}");
                Err(failed(Cause::Status(404), message, false))
            }
            Err(error) => Err(SinkError { ambiguous: false, ..error }),
        }
    }

    async fn make(&self, connection: &mut MultiplexedConnection, command: &[&str]) -> Result<(), SinkError> {
        match self.call(connection, command).await {
            Err(error) if matches!(error.cause, Cause::Status(400 | 403)) => {
                if !error.message.contains("already") {
                    tracing::warn!(graph = self.graph, ?command, %error, "an index or a constraint could not be made");
                }
                Ok(())
            }
            made => made.map(|_| ()).map_err(|error| SinkError { ambiguous: false, ..error }),
        }
    }
}

fn client(falkordb: &config::Falkordb) -> Result<Client, ClientError> {
    let config::Server { host, port, tls } = &falkordb.server;
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = &falkordb.user {
        login = login.set_username(user);
    }
    if let Some(password) = &falkordb.password {
        login = login.set_password(&password.0);
    }
    if *tls == config::ServerTrust::Plain {
        let address = ConnectionAddr::Tcp(host.clone(), *port);
        return Ok(Client::open(address.into_connection_info()?.set_redis_settings(login))?);
    }
    // Chosen once for the process; a second sink finds it chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(|source| ClientError::File { path: path.clone(), source });
    let root_cert = falkordb.ca_file.as_ref().map(read).transpose()?;
    let address = ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None };
    let info = address.into_connection_info()?.set_redis_settings(login);
    Ok(Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?)
}

fn failed(cause: Cause, message: String, ambiguous: bool) -> SinkError {
    SinkError { cause, message, retry_after: None, ambiguous }
}

impl Sink for FalkordbSink {
    fn kind(&self) -> &'static str {
        "falkordb"
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
