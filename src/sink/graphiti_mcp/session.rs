//! MCP over streamable HTTP: what of it a caller of tools needs.
//!
//! ```text
//! initialize ──► notifications/initialized ──► tools/list ──► tools/call, tools/call, …
//!      ▲                                                          │ 404: the server has forgotten the session
//!      └──────────────────────────────────────────────────────────┘ (as a restart makes it): once, then it is an error
//! ```
//! Every message is a POST; its answer is JSON, or a stream of events of which one is the answer. All workers share the session. There is
//! a crate for the protocol (rmcp); it brings a worker task, channels and a second way to make requests for the four messages above.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use reqwest::{Method, Response, Url};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::failed;
use crate::sink::http::{Client, READ, broken};
use crate::sink::{Cause, SinkError};

/// The version that is asked for. A server that has another one says so, and that is used.
const VERSION: &str = "2025-06-18";

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// Pages of a list of tools that are read, at most.
const PAGES: usize = 100;

/// Bytes of what a tool says of its failure that are kept.
const KEPT: usize = 1024;

/// A tool that is called.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    /// Those that it is given, and has to know.
    pub arguments: &'static [&'static str],
}

/// A server, and the session with it.
pub struct Server {
    client: Client,
    url: Url,
    /// What it must have.
    tools: &'static [Tool],
    session: Mutex<Option<Arc<Session>>>,
    requests: AtomicU64,
}

/// What every message of a session carries.
struct Session {
    headers: HeaderMap,
}

impl Server {
    pub fn new(client: Client, url: Url, tools: &'static [Tool]) -> Self {
        Self { client, url, tools, session: Mutex::default(), requests: AtomicU64::new(0) }
    }

    /// Calls a tool; the object that it answers. `changes`: whether the call would change something.
    pub async fn call(&self, tool: Tool, arguments: Value, changes: bool) -> Result<Value, SinkError> {
        let params = json!({ "name": tool.name, "arguments": arguments });
        let session = self.session(None).await?;
        let answered = match self.request(&session, "tools/call", &params, changes).await {
            Err(error) if session.is_over(&error) => {
                let session = self.session(Some(&session)).await?;
                self.request(&session, "tools/call", &params, changes).await
            }
            answered => answered,
        };
        self.result(tool, answered?, changes)
    }

    /// The session, a new one if there is none but `over`.
    async fn session(&self, over: Option<&Arc<Session>>) -> Result<Arc<Session>, SinkError> {
        let mut current = self.session.lock().await;
        match &*current {
            Some(session) if !over.is_some_and(|over| Arc::ptr_eq(over, session)) => Ok(session.clone()),
            _ => {
                *current = None; // should the opening be dropped, or fail
                let session = Arc::new(self.open().await?);
                *current = Some(session.clone());
                Ok(session)
            }
        }
    }

    async fn open(&self) -> Result<Session, SinkError> {
        let client = json!({ "name": "offramp", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": client });
        let mut session = Session { headers: HeaderMap::new() };
        session.headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        session.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let id = self.id();
        let response = self.post(&session, &message(Some(id), "initialize", &params), false).await.map_err(unopened)?;
        let given = response.headers().get(&SESSION).cloned();
        let answer = self.answer(response, id, false).await.map_err(unopened)?;
        let version = answer["protocolVersion"].as_str().and_then(|version| HeaderValue::from_str(version).ok());
        session.headers.extend(given.map(|id| (SESSION, id)));
        session.headers.insert(PROTOCOL, version.unwrap_or(HeaderValue::from_static(VERSION)));
        self.post(&session, &message(None, "notifications/initialized", &json!({})), false).await.map_err(unopened)?;
        self.has_tools(&session).await?;
        Ok(session)
    }

    /// An error if it lacks a tool, or one of its arguments. Servers pass over arguments that they don't know.
    async fn has_tools(&self, session: &Session) -> Result<(), SinkError> {
        let (mut tools, mut params) = (Vec::new(), json!({}));
        for _ in 0..PAGES {
            let mut page = self.request(session, "tools/list", &params, false).await.map_err(unopened)?;
            if let Value::Array(some) = page["tools"].take() {
                tools.extend(some);
            }
            match page["nextCursor"].take() {
                Value::String(next) => params = json!({ "cursor": next }),
                _ => break,
            }
        }
        for Tool { name, arguments } in self.tools {
            let lacks = |what: &str| {
                Err(failed(Cause::Status(404), format!("the server has no {what}: it is none of Graphiti's, or too old")))
            };
            let Some(tool) = tools.iter().find(|tool| tool["name"] == *name) else { return lacks(&format!("tool {name}")) };
            let known = &tool["inputSchema"]["properties"];
            if let Some(argument) = arguments.iter().find(|argument| known.get(argument).is_none()) {
                return lacks(&format!("argument {argument} of {name}"));
            }
        }
        Ok(())
    }

    /// Sends a request; its result.
    async fn request(&self, session: &Session, method: &str, params: &Value, changes: bool) -> Result<Value, SinkError> {
        let id = self.id();
        let response = self.post(session, &message(Some(id), method, params), changes).await?;
        self.answer(response, id, changes).await
    }

    async fn post(&self, session: &Session, message: &Value, changes: bool) -> Result<Response, SinkError> {
        let body = message.to_string().into_bytes();
        self.client.send(Method::POST, self.url.clone(), session.headers.clone(), body, changes).await
    }

    /// The answer to a request among what the server says.
    async fn answer(&self, mut response: Response, id: u64, changes: bool) -> Result<Value, SinkError> {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut events = kind.starts_with("text/event-stream").then(Events::default);
        let (mut body, mut read) = (Vec::new(), 0);
        while let Some(piece) = response.chunk().await.map_err(|e| broken(&e, changes))? {
            read += piece.len();
            if read > READ {
                return Err(no_answer(&format!("it is longer than {} MiB", READ >> 20), changes));
            }
            let Some(events) = &mut events else {
                body.extend_from_slice(&piece);
                continue;
            };
            events.add(&piece);
            // Not every server ends the stream behind its answer.
            while let Some(event) = events.next() {
                if let Some(answer) = answers(&event, id) {
                    return self.understood(answer, changes);
                }
            }
        }
        let answer = answers(&body, id).ok_or_else(|| no_answer("there is none in what it said", changes))?;
        self.understood(answer, changes)
    }

    /// The result of an answer, unless it is an error.
    fn understood(&self, mut answer: Value, changes: bool) -> Result<Value, SinkError> {
        let error = &answer["error"];
        if error.is_null() {
            return Ok(answer["result"].take());
        }
        // What the protocol is against was not done; -32603 and the server's own codes may come from within.
        let was_refused = matches!(error["code"].as_i64(), Some(-32700 | -32602..=-32600));
        Err(SinkError { ambiguous: changes && !was_refused, ..self.says(error["message"].as_str().unwrap_or_default()) })
    }

    /// What a tool answered.
    fn result(&self, tool: Tool, mut result: Value, changes: bool) -> Result<Value, SinkError> {
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        if result["isError"] == true {
            return Err(SinkError { ambiguous: changes, ..self.says(text) });
        }
        let mut said = match result["structuredContent"].take() {
            Value::Null => serde_json::from_str(result["content"][0]["text"].as_str().unwrap_or_default()).unwrap_or_default(),
            structured => structured,
        };
        // Where a tool can answer several shapes, they are wrapped.
        if said["result"].is_object() {
            said = said["result"].take();
        }
        match said["error"].as_str() {
            Some(error) => Err(self.says(error)),
            None if said["message"].is_string() => Ok(said),
            None => Err(no_answer(&format!("it is not what {} answers", tool.name), changes)),
        }
    }

    /// The server's own words against a request.
    fn says(&self, words: &str) -> SinkError {
        let words = self.client.without_secrets(words.trim());
        let words: String = words.char_indices().take_while(|(at, c)| at + c.len_utf8() <= KEPT).map(|(_, c)| c).collect();
        failed(Cause::Status(500), format!("answered an error: {words}"))
    }

    fn id(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

impl Session {
    /// Whether the server has forgotten it: 404, or 400 with older servers. What it says so to was not done.
    fn is_over(&self, error: &SinkError) -> bool {
        self.headers.contains_key(&SESSION) && matches!(error.cause, Cause::Status(400 | 404))
    }
}

/// A message; a notification without an id.
fn message(id: Option<u64>, method: &str, params: &Value) -> Value {
    let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    if let Some(id) = id {
        message["id"] = id.into();
    }
    message
}

/// The message, if it is the answer to this request.
fn answers(message: &[u8], id: u64) -> Option<Value> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let is_answer = message["id"] == id && (message.get("result").is_some() || message.get("error").is_some());
    is_answer.then_some(message)
}

/// Without a session there is nothing that an episode could be blamed for: what neither passes nor is about credentials pauses the sink.
fn unopened(mut error: SinkError) -> SinkError {
    if let Cause::Status(status) = error.cause
        && !matches!(status, 401 | 403 | 408 | 425 | 429 | 500..)
    {
        error.cause = Cause::Status(404);
    }
    error.message.insert_str(0, "no MCP session: ");
    error
}

fn no_answer(why: &str, changes: bool) -> SinkError {
    let message = format!("no answer to the request: {why}");
    SinkError { ambiguous: changes, ..failed(Cause::Timeout, message) }
}

/// The data of server-sent events, as they come.
#[derive(Default)]
struct Events {
    /// Without CR, of which JSON has none.
    bytes: Vec<u8>,
    /// So far there is no end of an event.
    searched: usize,
}

impl Events {
    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend(piece.iter().filter(|byte| **byte != b'\r'));
    }

    /// The data of the next event, once it is whole.
    fn next(&mut self) -> Option<Vec<u8>> {
        let Some(end) = memmem::find(&self.bytes[self.searched..], b"\n\n") else {
            self.searched = self.bytes.len().saturating_sub(1);
            return None;
        };
        let rest = self.bytes.split_off(self.searched + end + 2);
        let event = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        let lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
        Some(lines.map(|data| data.strip_prefix(b" ").unwrap_or(data)).collect::<Vec<_>>().join(&b'\n'))
    }
}
