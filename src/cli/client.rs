//! The admin API's client: one request, one connection, over TCP or a Unix socket.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::failure::Failure;
use crate::admin::api::Refused;
use crate::admin::problem_detail;
use crate::config::{Admin, Listen, Secret};

/// Longest wait for a connection, and for an answer that reads.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to a change: a redrive of a million dead letters takes its time.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(300);

/// Knows where, and bears the token.
#[derive(Debug)]
pub(super) struct Client {
    listen: Listen,
    token: Option<Secret>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// What came back.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Client {
    pub(super) fn new(admin: &Admin) -> Self {
        Self { listen: dialable(&admin.listen), token: admin.token.clone() }
    }

    /// Where it asks, as the configuration writes it.
    pub(super) fn address(&self) -> String {
        self.listen.to_string()
    }

    /// Whether an offramp answers there. Something else that does is a failure: to go on would be to guess.
    pub(super) async fn probe(&self) -> Result<Result<(), NoAnswer>, Failure> {
        let answer = match self.exchange(Method::GET, "/livez", None, TIMEOUT).await {
            Ok(answer) => answer,
            Err(Trouble::NoAnswer(why)) => return Ok(Err(why)),
            Err(Trouble::Broken(_)) => return Err(self.stranger()),
        };
        let live = serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|body| body["status"] == "live");
        if answer.status == StatusCode::OK && live { Ok(Ok(())) } else { Err(self.stranger()) }
    }

    /// Reads. `None` is a 404.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        self.call(Method::GET, path, None, TIMEOUT).await
    }

    /// Changes something. `None` is a 404.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<Option<T>, Failure> {
        let body =
            serde_json::to_vec(body).map_err(|e| Failure::Failed(format!("the request cannot be written as JSON: {e}")))?;
        self.call(Method::POST, path, Some(body.into()), CHANGE_TIMEOUT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Option<T>, Failure> {
        let answer = self.exchange(method, path, body, limit).await.map_err(|trouble| match trouble {
            Trouble::NoAnswer(why) => Failure::Unreachable(format!("offramp does not answer at {}: {why}", self.address())),
            Trouble::Broken(e) => Failure::Unreachable(format!("the connection to offramp at {} broke: {e}", self.address())),
        })?;
        match answer.status {
            status if status.is_success() => serde_json::from_slice(&answer.body).map(Some).map_err(|_| self.stranger()),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => Err(Failure::Failed(format!(
                "offramp at {} refuses the token; is admin.token_file of this configuration the one that it was started with?",
                self.address()
            ))),
            StatusCode::BAD_REQUEST => Err(Refused(self.detail(&answer)).into()),
            _ => Err(Failure::Failed(self.detail(&answer))),
        }
    }

    fn detail(&self, answer: &Answer) -> String {
        problem_detail(&answer.body).unwrap_or_else(|| format!("offramp at {} answered {}", self.address(), answer.status))
    }

    fn stranger(&self) -> Failure {
        Failure::Failed(format!(
            "what answers at {} is not the admin API of this version of offramp; check admin.listen",
            self.address()
        ))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>, limit: Duration) -> Result<Answer, Trouble> {
        let request = self.request(method, path, body).map_err(|e| Trouble::Broken(e.to_string()))?;
        let connected = timeout(TIMEOUT, async {
            Ok::<Box<dyn Stream>, std::io::Error>(match &self.listen {
                Listen::Tcp(address) => Box::new(TcpStream::connect(address).await?),
                Listen::Unix(path) => Box::new(UnixStream::connect(path).await?),
                // Refused by the configuration: nobody could tell its address.
                Listen::Fd(_) => return Err(std::io::ErrorKind::Unsupported.into()),
            })
        });
        let stream = connected.await.map_err(|_| NoAnswer::Timeout)?.map_err(NoAnswer::Connect)?;
        timeout(limit, send(stream, request)).await.map_err(|_| NoAnswer::Timeout)?.map_err(|e| Trouble::Broken(e.to_string()))
    }

    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> http::Result<Request<Full<Bytes>>> {
        let host = match &self.listen {
            Listen::Tcp(address) => address.as_str(),
            Listen::Unix(_) | Listen::Fd(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.0));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default()))
    }
}

/// What can go wrong before there is a whole answer.
#[derive(Debug)]
enum Trouble {
    NoAnswer(NoAnswer),
    Broken(String),
}

impl From<NoAnswer> for Trouble {
    fn from(why: NoAnswer) -> Self {
        Self::NoAnswer(why)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn send(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
    };
    // The connection is driven here, beside the answer: its own end tells nothing that the answer doesn't.
    let (_, answer) = tokio::join!(connection, answer);
    answer
}

/// An address that listens on every interface is reached through the loopback.
fn dialable(listen: &Listen) -> Listen {
    match listen {
        Listen::Tcp(address) => Listen::Tcp(match address.rsplit_once(':') {
            Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
            Some(("[::]", port)) => format!("[::1]:{port}"),
            _ => address.clone(),
        }),
        other => other.clone(),
    }
}
