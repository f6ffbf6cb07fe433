//! One client of the load generator: a connection that is opened again when it has broken, and what can go wrong with a request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;

use super::load::Mark;

/// Why a request counts as failed. The sentence is its kind in the report: it holds nothing of the single request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::ErrorKind),
    /// The connection broke before the end of the answer.
    #[error("the connection broke")]
    Broken,
    /// No whole answer in time.
    #[error("no answer in time")]
    Timeout,
    /// An answer that isn't 200.
    #[error("HTTP {}", .0.as_u16())]
    Status(StatusCode),
    /// 200 without `success: true`, or without a session.
    #[error("HTTP 200, but no success")]
    NoSuccess,
}

/// What an answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The agent's id of the session.
    pub session_id: String,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
    session_id: Option<String>,
}

/// A client with at most one connection and one request in flight.
#[derive(Debug)]
pub struct Client {
    target: SocketAddr,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects when it is first used.
    pub fn new(target: SocketAddr, timeout: Duration) -> Self {
        Self { target, timeout, connection: None }
    }

    /// Opens the connection, and what lies behind it, with a request that no route captures. A failure shows in the first request.
    pub async fn warm_up(&mut self) {
        let request = Request::builder().method(Method::GET).uri("/health");
        if let Ok(request) = request.header(header::HOST, self.target.to_string()).body(Full::default()) {
            let _ = self.send(request).await;
        }
    }

    /// Asks the agent one question, in its session. After an error the next question opens a new connection.
    ///
    /// # Panics
    /// Never: constant parts and a socket address are a valid request.
    pub async fn ask(&mut self, mark: &Mark) -> Result<Reply, AskError> {
        let question = json!({
            "message_content": mark.text(), "message_type": "text", "session_name": mark.session,
            "session_origin": "offramp-demo", "user_id": "demo",
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/agent/sample/run")
            .header(header::HOST, self.target.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(question.to_string()))
            .expect("constant parts and a socket address are a valid request");
        let (status, body) = self.send(request).await?;
        if status != StatusCode::OK {
            return Err(AskError::Status(status));
        }
        match serde_json::from_slice(&body) {
            Ok(Answer { success: true, session_id: Some(session_id) }) => Ok(Reply { session_id }),
            _ => Err(AskError::NoSuccess),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), AskError> {
        // Taken, and put back only after a whole answer: what a time-out leaves half read is never used again.
        let connection = self.connection.take();
        let exchange = async {
            let mut connection = self.usable(connection).await?;
            let response = connection.send_request(request).await.map_err(|_| AskError::Broken)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|_| AskError::Broken)?.to_bytes();
            Ok((connection, status, body))
        };
        let (connection, status, body) = tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(AskError::Timeout))?;
        self.connection = Some(connection);
        Ok((status, body))
    }

    /// The connection from before, if it still takes a request, else a new one.
    async fn usable(&self, connection: Option<SendRequest<Full<Bytes>>>) -> Result<SendRequest<Full<Bytes>>, AskError> {
        if let Some(mut connection) = connection
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let stream = TcpStream::connect(self.target).await.map_err(|error| AskError::Connect(error.kind()))?;
        // Only latency is lost where the system refuses.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| AskError::Broken)?;
        // Ends when the sender is dropped; its error is the sender's too.
        tokio::spawn(connection);
        Ok(sender)
    }
}
