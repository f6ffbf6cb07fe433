//! The admin API's client: one request, one connection, over TCP or a Unix socket.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
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
        self.read(&self.exchange(method, path, body, limit).await.map_err(|trouble| self.failure(&trouble))?)
    }

    /// Reads what may be of any length: `take` gets it piece by piece. `None` is a 404.
    pub(super) async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Option<()>, Failure> {
        let request = self.request(Method::GET, path, None).map_err(|e| self.failure(&Trouble::Broken(e.to_string())))?;
        let stream = self.connect().await.map_err(|why| self.failure(&why.into()))?;
        let broken = |e: hyper::Error| self.failure(&Trouble::Broken(e.to_string()));
        let late = |_| self.failure(&NoAnswer::Timeout.into());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection); // it ends with the body, or with the runtime
        let response = timeout(CHANGE_TIMEOUT, sender.send_request(request)).await.map_err(late)?.map_err(broken)?;
        let (status, mut body) = (response.status(), response.into_body());
        if !status.is_success() {
            let body = timeout(TIMEOUT, body.collect()).await.map_err(late)?.map_err(broken)?.to_bytes();
            return Ok(self.read::<IgnoredAny>(&Answer { status, body })?.map(|_| ()));
        }
        while let Some(frame) = timeout(CHANGE_TIMEOUT, body.frame()).await.map_err(late)? {
            if let Ok(bytes) = frame.map_err(broken)?.into_data() {
                take(&bytes)?;
            }
        }
        Ok(Some(()))
    }

    /// Sends what may be of any length: the pieces that `next` gives, up to an empty one. `None` is a 404.
    pub(super) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &'static str,
        mut next: impl AsyncFnMut() -> Result<Bytes, Failure>,
    ) -> Result<Option<T>, Failure> {
        let (pieces, taken) = mpsc::channel::<Bytes>(1);
        let body = stream::unfold(taken, |mut taken| async {
            let piece = taken.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), taken))
        });
        let request = self.head(Method::POST, path).header(header::CONTENT_TYPE, kind).body(StreamBody::new(Box::pin(body)));
        let request = request.map_err(|e| self.failure(&Trouble::Broken(e.to_string())))?;
        let stream = self.connect().await.map_err(|why| self.failure(&why.into()))?;
        let late = |_| self.failure(&NoAnswer::Timeout.into());
        let pump = async {
            let pieces = pieces; // which ends the body when it goes
            loop {
                let piece = next().await?;
                // Whoever takes no more has answered, or is gone: the other branch tells.
                if piece.is_empty() || timeout(CHANGE_TIMEOUT, pieces.send(piece)).await.map_err(late)?.is_err() {
                    return Ok::<(), Failure>(());
                }
            }
        };
        let mut sending = pin!(send(stream, request));
        let answer = tokio::select! {
            answer = &mut sending => answer,
            pumped = pump => {
                // A failure breaks the connection off, so that nobody takes what was torn for the end.
                pumped?;
                timeout(CHANGE_TIMEOUT, sending).await.map_err(late)?
            }
        };
        self.read(&answer.map_err(|e| self.failure(&Trouble::Broken(e.to_string())))?)
    }

    fn failure(&self, trouble: &Trouble) -> Failure {
        match trouble {
            Trouble::NoAnswer(why) => Failure::Unreachable(format!("offramp does not answer at {}: {why}", self.address())),
            Trouble::Broken(e) => Failure::Unreachable(format!("the connection to offramp at {} broke: {e}", self.address())),
        }
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<Option<T>, Failure> {
        match answer.status {
            status if status.is_success() => serde_json::from_slice(&answer.body).map(Some).map_err(|_| self.stranger()),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => Err(Failure::Failed(format!(
                "offramp at {} refuses the token; is admin.token_file of this configuration the one that it was started with?",
                self.address()
            ))),
            StatusCode::BAD_REQUEST => Err(Refused(self.detail(answer)).into()),
            _ => Err(Failure::Failed(self.detail(answer))),
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
        let stream = self.connect().await?;
        timeout(limit, send(stream, request)).await.map_err(|_| NoAnswer::Timeout)?.map_err(|e| Trouble::Broken(e.to_string()))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, NoAnswer> {
        let connected = timeout(TIMEOUT, async {
            Ok::<Box<dyn Stream>, std::io::Error>(match &self.listen {
                Listen::Tcp(address) => Box::new(TcpStream::connect(address).await?),
                Listen::Unix(path) => Box::new(UnixStream::connect(path).await?),
                // Refused by the configuration: nobody could tell its address.
                Listen::Fd(_) => return Err(std::io::ErrorKind::Unsupported.into()),
            })
        });
        connected.await.map_err(|_| NoAnswer::Timeout)?.map_err(NoAnswer::Connect)
    }

    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> http::Result<Request<Full<Bytes>>> {
        let mut request = self.head(method, path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default()))
    }

    fn head(&self, method: Method, path: &str) -> http::request::Builder {
        let host = match &self.listen {
            Listen::Tcp(address) => address.as_str(),
            Listen::Unix(_) | Listen::Fd(_) => "localhost",
        };
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {}", token.0)),
            None => request,
        }
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

async fn send<B>(stream: Box<dyn Stream>, request: Request<B>) -> hyper::Result<Answer>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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
