//! The episode: one captured exchange that a graph must learn. Who, what was asked, what was answered, when.

use std::fmt::Write as _;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
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
    /// When the event happened (ms since the Unix epoch, or before it), where the exchange itself says so; else it is `captured_at`.
    #[serde(with = "unsigned")]
    pub occurred_at: Option<i64>,
    /// What passed, in 32 bytes a direction.
    pub sha256: Digests,
    /// The request itself, for a sink that sends it again.
    pub original: Option<Original>,
}

/// SHA-256 of the bodies as they passed: also of what was cut off from the record, and before a `Content-Encoding` was undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of the request's body, as far as it came; none for an episode that was no exchange.
    pub request: Option<[u8; 32]>,
    /// Of the response's body.
    pub response: Option<[u8; 32]>,
}

impl Digests {
    /// In hexadecimal digits: request and response.
    pub fn to_hex(self) -> [Option<String>; 2] {
        [self.request, self.response].map(|digest| {
            digest.map(|bytes| {
                bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}"); // a String takes it all
                    text
                })
            })
        })
    }
}

/// A request as it can be sent again. Its method is [`Request::method`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Path and query, without the query's credentials.
    pub target: String,
    /// The headers that a route allows, in order.
    pub headers: Vec<(String, serde_bytes::ByteBuf)>,
    /// The whole body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
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

/// One utterance. As JSON without `name`, where nobody is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    /// Who spoke, where the exchange names the speaker.
    #[serde(default)]
    pub name: Option<String>,
    /// The text.
    pub content: String,
}

impl Message {
    /// What somebody said who isn't named.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), name: None, content: content.into() }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // bincode tells fields by their place: there none may be missing.
        let shown = self.name.is_some() || !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Message", 2 + usize::from(shown))?;
        fields.serialize_field("role", &self.role)?;
        if shown {
            fields.serialize_field("name", &self.name)?;
        }
        fields.serialize_field("content", &self.content)?;
        fields.end()
    }
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

/// How the disk has a time that may lie before 1970: unsigned, as it was when none could, so that those from before are read as they were.
mod unsigned {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)] // serde's signature
    pub fn serialize<S: Serializer>(time: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        time.map(i64::cast_unsigned).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<i64>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(u64::cast_signed))
    }
}

impl Episode {
    /// When the event happened (ms since the Unix epoch, or before it): what the exchange says, else when its request arrived. Never later
    /// than that: what was told has happened, and a graph hides what lies in the future.
    pub fn time(&self) -> i64 {
        let captured_at = i64::try_from(self.captured_at).unwrap_or(i64::MAX);
        self.occurred_at.map_or(captured_at, |time| time.min(captured_at))
    }

    /// The partition of the graph: the group, else the session.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.session)
    }

    /// As JSON, one line of the file sink; what is absent is null, and the group the one that it [falls back](Self::group) to.
    pub fn to_json(&self) -> serde_json::Value {
        // Metadata was made from a JSON object at capture; anything else can only be damage, and shows as null.
        let metadata: serde_json::Value = serde_json::from_str(&self.metadata).unwrap_or_default();
        let [request_sha256, response_sha256] = self.sha256.to_hex();
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
            "occurred_at": self.occurred_at.map(clock::event),
            "end": self.end,
            "messages": self.messages,
            "metadata": metadata,
            "request": self.request,
            "sha256": { "request": request_sha256, "response": response_sha256 },
        })
    }
}
