//! What crosses the wire: `POST /messages` parsed by the rules of the service's models, refused in the words of `FastAPI`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// One message of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The text.
    pub content: String,
    /// The id of a node that exists. Any other ends the worker: never send one.
    pub uuid: Option<String>,
    /// The episode's name; comes back unchanged.
    pub name: String,
    /// `user`, `assistant` or `system`.
    pub role_type: String,
    /// The speaker's name; the key is required, null is allowed.
    pub role: Option<String>,
    /// The time of the event.
    pub timestamp: Timestamp,
    /// Where it comes from.
    pub source_description: String,
}

/// Errors found so far, each with the place where it was found.
struct Errors(Vec<Value>);

impl Errors {
    fn add(&mut self, kind: &str, at: &[Value], message: &str, input: &Value) {
        let mut loc = vec![json!("body")];
        loc.extend_from_slice(at);
        self.0.push(json!({"type": kind, "loc": loc, "msg": message, "input": input}));
    }
}

/// The group and the messages, or every fault of the body.
pub(super) fn parse_messages(body: &[u8]) -> Result<(String, Vec<Message>), Vec<Value>> {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => {
            let fault = json!({
                "type": "json_invalid", "loc": ["body", error.column()], "msg": "JSON decode error",
                "input": {}, "ctx": {"error": error.to_string()},
            });
            return Err(vec![fault]);
        }
    };
    let mut errors = Errors(Vec::new());
    let Some(fields) = body.as_object() else {
        errors.add("model_attributes_type", &[], "Input should be a valid dictionary or object to extract fields from", &body);
        return Err(errors.0);
    };
    let group = text(fields, &body, "group_id", &[], Need::Value, &mut errors);
    let mut messages = Vec::new();
    match fields.get("messages") {
        None => errors.add("missing", &[json!("messages")], "Field required", &body),
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let at = [json!("messages"), json!(index)];
                messages.extend(parse_message(item, &at, &mut errors));
            }
        }
        Some(other) => errors.add("list_type", &[json!("messages")], "Input should be a valid list", other),
    }
    if errors.0.is_empty() { Ok((group.unwrap_or_default(), messages)) } else { Err(errors.0) }
}

/// Whether a field may be absent, and whether it may be null.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Present, and text.
    Value,
    /// Present, and text or null.
    Key,
    /// Absent, or text.
    Nothing,
    /// Absent, or text or null.
    NothingOrNull,
}

fn text(fields: &Map<String, Value>, whole: &Value, key: &str, at: &[Value], need: Need, errors: &mut Errors) -> Option<String> {
    let at = [at, &[json!(key)]].concat();
    match fields.get(key) {
        Some(Value::String(text)) => return Some(text.clone()),
        Some(Value::Null) if matches!(need, Need::Key | Need::NothingOrNull) => {}
        Some(other) => errors.add("string_type", &at, "Input should be a valid string", other),
        None if matches!(need, Need::Value | Need::Key) => errors.add("missing", &at, "Field required", whole),
        None => {}
    }
    None
}

fn parse_message(item: &Value, at: &[Value], errors: &mut Errors) -> Option<Message> {
    let Some(fields) = item.as_object() else {
        errors.add("model_attributes_type", at, "Input should be a valid dictionary or object to extract fields from", item);
        return None;
    };
    let before = errors.0.len();
    let mut get = |key, need| text(fields, item, key, at, need, errors);
    let message = Message {
        content: get("content", Need::Value).unwrap_or_default(),
        uuid: get("uuid", Need::NothingOrNull),
        name: get("name", Need::Nothing).unwrap_or_default(),
        role_type: get("role_type", Need::Value).unwrap_or_default(),
        role: get("role", Need::Key),
        source_description: get("source_description", Need::Nothing).unwrap_or_default(),
        timestamp: match fields.get("timestamp") {
            None => Timestamp::now(),
            Some(value) => value.as_str().and_then(parse_time).unwrap_or_else(|| {
                let at = [at, &[json!("timestamp")]].concat();
                errors.add("datetime_from_date_parsing", &at, "Input should be a valid datetime or date", value);
                Timestamp::UNIX_EPOCH
            }),
        },
    };
    if errors.0.len() == before && !matches!(message.role_type.as_str(), "user" | "assistant" | "system") {
        let at = [at, &[json!("role_type")]].concat();
        errors.add("literal_error", &at, "Input should be 'user', 'assistant' or 'system'", &json!(message.role_type));
    }
    (errors.0.len() == before).then_some(message)
}

/// With an offset, or without: then it is UTC.
fn parse_time(text: &str) -> Option<Timestamp> {
    let without_offset = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(without_offset)
}

/// `last_n` of a query; the service has no default for it.
pub(super) fn parse_last_n(text: Option<&str>) -> Result<i64, Value> {
    let fault = |kind, message| json!({"type": kind, "loc": ["query", "last_n"], "msg": message, "input": text});
    text.ok_or_else(|| fault("missing", "Field required"))?
        .parse()
        .map_err(|_| fault("int_parsing", "Input should be a valid integer, unable to parse string as an integer"))
}
