//! One connection over Bolt: versions 5.0 to 5.4, and 4.4 for servers that know no better.
//!
//! Only what a sink needs: authentication by name and password, a statement in a transaction of its own, the way to the leader of a cluster.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pack;

/// "GOGOBOLT", then four proposals: a version and how many below it will do as well.
const HANDSHAKE: [u8; 20] = [0x60, 0x60, 0xB0, 0x17, 0, 4, 4, 5, 0, 0, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0];

/// The longest message that is read.
const LONGEST: usize = 16 << 20;

/// The longest chunk of a message that is sent.
const CHUNK: usize = 0xFFFF;

const HELLO: u8 = 0x01;
const RESET: u8 = 0x0F;
const RUN: u8 = 0x10;
const PULL: u8 = 0x3F;
const ROUTE: u8 = 0x66;
const LOGON: u8 = 0x6A;

/// Why a call failed.
#[derive(Debug)]
pub enum Fault {
    /// The connection broke, or there was none.
    Broken(io::Error),
    /// What answers doesn't speak Bolt, or none of these versions.
    Foreign(String),
    /// The server says no; what was asked had no effect.
    Refused {
        /// Such as `Neo.ClientError.Security.Unauthorized`.
        code: String,
        /// In words.
        message: String,
    },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A way to a server on which nothing was said yet.
pub struct Way(Pin<Box<dyn Stream>>);

impl Way {
    /// Connects, and makes the TLS that is asked for.
    pub async fn open(host: &str, port: u16, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self(Box::pin(tcp))) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Self(Box::pin(TlsConnector::from(tls.clone()).connect(name, tcp).await?)))
    }
}

/// A connection that has been let in.
pub struct Connection {
    stream: BufReader<Pin<Box<dyn Stream>>>,
    /// What the server calls itself.
    pub agent: String,
}

/// One message of a server.
enum Answer {
    Success(Value),
    Record(Vec<Value>),
    Ignored,
}

impl Connection {
    /// Agrees on a version and shows who asks. `address` is what a server that routes is told of how it was reached.
    pub async fn begin(way: Way, user: &str, password: &str, address: Option<&str>) -> Result<Self, Fault> {
        let mut stream = BufReader::new(way.0);
        stream.write_all(&HANDSHAKE).await?;
        stream.flush().await?;
        let mut version = [0; 4];
        stream.read_exact(&mut version).await?;
        let minor = match version {
            [0, 0, minor, 5] => Some(minor),
            [0, 0, 4, 4] => None,
            _ => {
                let said = version.escape_ascii();
                return Err(Fault::Foreign(format!("no server of Bolt 5.0 to 5.4 or 4.4: it answered \"{said}\"")));
            }
        };
        let mut connection = Self { stream, agent: String::new() };
        let mut hello = Map::new();
        hello.insert("user_agent".to_owned(), concat!("offramp/", env!("CARGO_PKG_VERSION")).into());
        if minor.is_some_and(|minor| minor >= 3) {
            hello.insert("bolt_agent".to_owned(), json!({ "product": concat!("offramp/", env!("CARGO_PKG_VERSION")) }));
        }
        if let Some(address) = address {
            hello.insert("routing".to_owned(), json!({ "address": address }));
        }
        let mut logon = Map::new();
        if user.is_empty() && password.is_empty() {
            logon.insert("scheme".to_owned(), "none".into());
        } else {
            logon.extend(
                [("scheme", "basic"), ("principal", user), ("credentials", password)].map(|(k, v)| (k.to_owned(), v.into())),
            );
        }
        // Since 5.1 it has a message of its own.
        let apart = minor.is_some_and(|minor| minor > 0);
        if !apart {
            hello.append(&mut logon);
        }
        let said = connection.ask(HELLO, &[&Value::Object(hello)]).await?;
        said["server"].as_str().unwrap_or_default().clone_into(&mut connection.agent);
        if apart {
            connection.ask(LOGON, &[&Value::Object(logon)]).await?;
        }
        Ok(connection)
    }

    /// Whether it is still good: with this asked before each use, what goes into a dead connection is nothing that matters.
    pub async fn reset(&mut self) -> Result<(), Fault> {
        self.ask(RESET, &[]).await.map(|_| ())
    }

    /// Who takes writes: host and port; none where the server doesn't say.
    pub async fn writer(&mut self, address: &str, database: Option<&str>) -> Result<Option<(String, u16)>, Fault> {
        let extra = database.map_or_else(|| json!({}), |name| json!({ "db": name }));
        let said = self.ask(ROUTE, &[&json!({ "address": address }), &json!([]), &extra]).await?;
        let servers = said["rt"]["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut writers =
            servers.iter().filter(|server| server["role"] == "WRITE").filter_map(|server| server["addresses"][0].as_str());
        Ok(writers.next().and_then(|address| {
            let (host, port) = address.rsplit_once(':')?;
            Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
        }))
    }

    /// Runs a statement in a transaction of its own, which the server gives up after `limit`: its first row.
    pub async fn run(
        &mut self,
        statement: &str,
        parameters: Map<String, Value>,
        database: Option<&str>,
        limit: Duration,
    ) -> Result<Option<Vec<Value>>, Fault> {
        let mut extra = Map::new();
        extra.insert("tx_timeout".to_owned(), crate::clock::as_ms(limit).into());
        if let Some(name) = database {
            extra.insert("db".to_owned(), name.into());
        }
        let mut out = Vec::new();
        append(&mut out, RUN, &[&statement.into(), &Value::Object(parameters), &Value::Object(extra)]);
        append(&mut out, PULL, &[&json!({ "n": -1 })]);
        self.write(&out).await?;
        let began = self.read().await;
        let mut first = None;
        loop {
            match self.read().await {
                Ok(Answer::Record(row)) => first = first.or(Some(row)),
                Ok(Answer::Success(_) | Answer::Ignored) => return began.map(|_| first),
                Err(fault) => return Err(began.err().unwrap_or(fault)),
            }
        }
    }

    /// Sends one message and waits for the answer.
    async fn ask(&mut self, tag: u8, fields: &[&Value]) -> Result<Value, Fault> {
        let mut out = Vec::new();
        append(&mut out, tag, fields);
        self.write(&out).await?;
        match self.read().await? {
            Answer::Success(said) => Ok(said),
            Answer::Record(_) | Answer::Ignored => Err(Fault::Foreign("it answered out of turn".to_owned())),
        }
    }

    async fn write(&mut self, out: &[u8]) -> io::Result<()> {
        self.stream.write_all(out).await?;
        self.stream.flush().await
    }

    async fn read(&mut self) -> Result<Answer, Fault> {
        let mut message = Vec::new();
        loop {
            let length = usize::from(self.stream.read_u16().await?);
            match (length, message.len()) {
                (0, 0) => {} // it only says that it is alive
                (0, _) => break,
                (more, have) if have + more > LONGEST => {
                    return Err(Fault::Foreign(format!("it sent a message of more than {LONGEST} bytes")));
                }
                (more, have) => {
                    message.resize(have + more, 0);
                    self.stream.read_exact(&mut message[have..]).await?;
                }
            }
        }
        let malformed = || Fault::Foreign("it sent a message that is not valid".to_owned());
        let (tag, mut fields) = pack::message(&message).map_err(|_| malformed())?;
        match (tag, fields.pop()) {
            (0x70, Some(said)) => Ok(Answer::Success(said)),
            (0x71, Some(Value::Array(row))) => Ok(Answer::Record(row)),
            (0x7E, _) => Ok(Answer::Ignored),
            (0x7F, Some(said)) => {
                let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
                Err(Fault::Refused { code: text("code"), message: text("message") })
            }
            _ => Err(malformed()),
        }
    }
}

/// Appends a message, in chunks.
fn append(out: &mut Vec<u8>, tag: u8, fields: &[&Value]) {
    let mut message = Vec::new();
    pack::structure(&mut message, tag, fields);
    for chunk in message.chunks(CHUNK) {
        // A chunk is no longer than that.
        out.extend(u16::try_from(chunk.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(chunk);
    }
    out.extend([0, 0]);
}
