//! A sample agent: answers in the shape of `automagik` after a fixed time, and can write each episode into the graph before it
//! answers, as services do that have no offramp.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::graph::{Graph, Message};
use super::loopback::Loopback;

/// How the agent behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time until an answer, graph writes aside.
    pub delay: Duration,
    /// Write the episode before answering.
    pub inline: Option<Inline>,
}

/// Inline writes, bounded as services bound them: so many at one time, and so long each.
#[derive(Debug, Clone)]
pub struct Inline {
    /// Where to.
    pub graph: Graph,
    /// Writes in flight, at most.
    pub workers: usize,
    /// Longest time for a write, the wait for a worker included. Beyond it the client gets 504 and the episode is lost.
    pub timeout: Duration,
}

/// A running agent; ends when dropped.
#[derive(Debug)]
pub struct Agent {
    server: Loopback,
}

impl Agent {
    /// Listens on a free port of loopback.
    pub async fn start(options: Options) -> io::Result<Self> {
        let writers = Semaphore::new(options.inline.as_ref().map_or(0, |inline| inline.workers.max(1)));
        let state = Arc::new(Shared { options, writers, life: Uuid::now_v7() });
        let router = Router::new()
            .route("/api/v1/agent/{name}/run", post(run))
            .route("/health", get(|| async { Json(json!({"status": "healthy"})) }))
            .with_state(state);
        Ok(Self { server: Loopback::start((Ipv4Addr::LOCALHOST, 0).into(), router).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

#[derive(Debug)]
struct Shared {
    options: Options,
    writers: Semaphore,
    /// Makes the session ids of this process its own: a graph that outlives the process never sees one twice.
    life: Uuid,
}

impl Shared {
    /// The session's id: the same for the same name, without a table that grows.
    fn session_id(&self, name: &str) -> Uuid {
        let digest = Sha256::new().chain_update(self.life).chain_update(name).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

#[derive(Deserialize)]
struct Question {
    message_content: String,
    session_name: Option<String>,
    session_id: Option<Uuid>,
    user_id: Option<String>,
}

async fn run(State(agent): State<Arc<Shared>>, Path(name): Path<String>, question: Json<Value>) -> Response {
    let asked_at = Timestamp::now();
    let question: Question = match serde_json::from_value(question.0) {
        Ok(question) => question,
        Err(error) => return failure(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    };
    let session = match (question.session_id, &question.session_name) {
        (Some(id), _) => id,
        (None, Some(name)) => agent.session_id(name),
        (None, None) => Uuid::now_v7(),
    };
    tokio::time::sleep(agent.options.delay).await;
    let answer = format!("{name} has read {} characters and will remember them.", question.message_content.chars().count());

    if let Some(inline) = &agent.options.inline {
        let content = format!("user: {}\nassistant: {answer}", question.message_content);
        if let Err(sentence) = write_inline(&agent, inline, &session.to_string(), content, asked_at).await {
            return failure(StatusCode::GATEWAY_TIMEOUT, &sentence);
        }
    }
    let body = json!({
        "message": answer, "session_id": session, "success": true, "tool_calls": [], "tool_outputs": [],
        "user_id": question.user_id, "usage": {},
    });
    Json(body).into_response()
}

async fn write_inline(agent: &Shared, inline: &Inline, group: &str, content: String, at: Timestamp) -> Result<(), String> {
    let message = Message {
        content,
        uuid: None,
        name: Uuid::now_v7().to_string(),
        role_type: "user".to_owned(),
        role: None,
        timestamp: at,
        source_description: "sample agent, inline".to_owned(),
    };
    let write = async {
        let _writer = agent.writers.acquire().await.map_err(|error| error.to_string())?;
        inline.graph.add_episode(group, message).await.map_err(|death| death.to_string())
    };
    tokio::time::timeout(inline.timeout, write)
        .await
        .unwrap_or_else(|_| Err(format!("the graph write did not finish within {} s", inline.timeout.as_secs_f64())))
}

fn failure(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({"detail": sentence}))).into_response()
}
