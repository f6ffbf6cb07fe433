//! The episode: one captured exchange that a graph must learn. Who, what was asked, what was answered, when.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock;

/// One captured exchange, as it was when it ended. Never changed afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// `UUIDv7`, made at capture; every delivery attempt carries it.
    pub id: Uuid,
    /// The ordering key; the id itself where the exchange names no session.
    pub session: String,
    /// The partition of the graph; [`Episode::group`] falls back to the session.
    pub group: Option<String>,
    /// Who asked.
    pub user: Option<String>,
    /// Who answered.
    pub agent: Option<String>,
    /// The name of the proxy that saw it.
    pub proxy: String,
    /// The name of the route that matched.
    pub route: String,
    /// When the request arrived (ms since the Unix epoch): what the graph gets as the time of the event.
    pub captured_at: u64,
    /// When the exchange ended (ms since the Unix epoch).
    pub completed_at: u64,
    /// How it ended.
    pub end: End,
    /// What was said, in order.
    pub messages: Vec<Message>,
    /// What `extract.metadata` found: JSON text of one object (JSON travels as text: bincode has no `Value`).
    pub metadata: String,
    /// The request, without its query, headers and body: nothing in it can be a credential.
    pub request: Request,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The client got the whole response.
    Complete,
    /// The client left before the end.
    Cancelled,
    /// The upstream broke off.
    Error,
    /// Complete for the client, but longer than `max_capture`.
    Truncated,
}

/// One utterance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// What is kept of the request line and the response head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The response's status.
    pub status: u16,
    /// The W3C trace context that the request came with.
    pub traceparent: Option<String>,
}

impl Episode {
    /// The partition of the graph: the group, else the session.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.session)
    }

    /// As JSON, one line of the file sink; what is absent is null, and the group the one that it [falls back](Self::group) to.
    pub fn to_json(&self) -> serde_json::Value {
        // Metadata was made from a JSON object at capture; anything else can only be damage, and shows as null.
        let metadata: serde_json::Value = serde_json::from_str(&self.metadata).unwrap_or_default();
        serde_json::json!({
            "id": self.id,
            "session": self.session,
            "group": self.group(),
            "user": self.user,
            "agent": self.agent,
            "proxy": self.proxy,
            "route": self.route,
            "captured_at": clock::rfc3339(self.captured_at),
            "completed_at": clock::rfc3339(self.completed_at),
            "end": self.end,
            "messages": self.messages,
            "metadata": metadata,
            "request": self.request,
        })
    }
}
