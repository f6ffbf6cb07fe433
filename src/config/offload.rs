//! What a route with `action = "offload"` takes, refuses and answers: `[proxy.route.offload]` and `[proxy.route.reply]`.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json_path::JsonPath;

/// `[proxy.route.offload]` and `[proxy.route.reply]`, with the preset already filled in.
#[derive(Debug, Clone, Default)]
pub struct Offload {
    /// How a request becomes messages and episodes.
    pub split: Split,
    /// Where the parts of one message are.
    pub message: Part,
    /// What the body has to be. Empty: any.
    pub fields: Vec<Field>,
    /// What must not be missing altogether.
    pub needs: Vec<Need>,
    /// How a refusal looks.
    pub refuse: Refuse,
    /// What the caller gets once the episodes are durable.
    pub reply: Reply,
}

/// How a request becomes messages and episodes.
#[derive(Debug, Clone, Default)]
pub enum Split {
    /// One episode, of what `extract.input` and `extract.output` find.
    #[default]
    Whole,
    /// `each = "$.messages[*]"`: what this finds are messages, and each is an episode of its own.
    Each(JsonPath),
    /// `all = "$.messages[*]"`: what this finds are messages, and all of them are one episode.
    All(JsonPath),
}

/// `[proxy.route.offload.message]`: paths within a message.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Its text.
    pub content: Option<JsonPath>,
    /// `user`, `assistant` or `system`; absent: `user`.
    pub role: Option<JsonPath>,
    /// Who spoke.
    pub name: Option<JsonPath>,
    /// When.
    pub time: Option<JsonPath>,
    /// What else is kept of it.
    pub metadata: Vec<(String, JsonPath)>,
}

/// One `[[proxy.route.offload.field]]` with those below it: what the JSON at a path has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its key within the object around it.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// It may not be absent.
    pub required: bool,
    /// It may be null.
    pub nullable: bool,
    /// For text: one of these; empty = any.
    pub one_of: Vec<String>,
    /// For text: so many characters at least.
    pub min_length: usize,
    /// For text: what is said of one without a visible character; none = such a text is fine.
    pub blank: Option<String>,
    /// Of an object its fields, of an array those of each of its objects; empty = anything.
    pub fields: Vec<Field>,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
    /// A boolean, or one of the words and numbers that are taken for one.
    Boolean,
    /// A time as ISO 8601 or in Unix seconds or milliseconds.
    Timestamp,
}

/// One `[[proxy.route.offload.need]]`: a request in which all of these are missing is answered so.
#[derive(Debug, Clone)]
pub struct Need {
    /// Of these one must be neither absent, null nor empty.
    pub one_of: Vec<JsonPath>,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's body: JSON.
    pub body: Bytes,
}

/// `offload.refuse`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refuse {
    /// As offramp refuses everything: problem+json.
    #[default]
    Problem,
    /// As a service of `FastAPI` and `pydantic` does.
    FastApi,
}

/// `[proxy.route.reply]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body; `{id}` in it stands for the id of the first episode.
    pub body: String,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            body: r#"{"id":"{id}"}"#.to_owned(),
            content_type: HeaderValue::from_static("application/json"),
        }
    }
}
