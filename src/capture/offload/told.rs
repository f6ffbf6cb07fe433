//! What a request says: its messages, by episode.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Map, Value};
use serde_json_path::JsonPath;

use super::{Refusal, time};
use crate::capture::extract::{Seen, Want};
use crate::capture::node::text_of;
use crate::config;
use crate::config::offload::{Offload, Part, Split};
use crate::episode::Message;

/// What one episode says.
#[derive(Default)]
pub struct Told {
    /// Its messages.
    pub messages: Vec<Message>,
    /// What else is kept of them.
    pub metadata: Map<String, Value>,
    /// When it was said.
    pub time: Option<i64>,
}

/// The messages that a body lists, by episode.
pub fn messages(offload: &Offload, json: Option<&Value>) -> Result<Vec<Told>, Refusal> {
    let (path, together) = match &offload.split {
        Split::Whole => return Ok(Vec::new()),
        Split::Each(path) => (path, false),
        Split::All(path) => (path, true),
    };
    let nodes = json.map(|json| path.query(json).all()).unwrap_or_default();
    let mut told = Vec::with_capacity(nodes.len());
    for (n, node) in nodes.into_iter().enumerate() {
        told.push(message(&offload.message, node).ok_or_else(|| Refusal::Own {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: format!("message {n} has no text, and only messages with one can be kept"),
        })?);
    }
    if together && told.len() > 1 {
        let time = told.iter().find_map(|one| one.time);
        let mut metadata = Map::new();
        let messages = told
            .into_iter()
            .flat_map(|mut one| {
                metadata.append(&mut one.metadata);
                one.messages
            })
            .collect();
        return Ok(vec![Told { messages, metadata, time }]);
    }
    Ok(told)
}

fn message(part: &Part, node: &Value) -> Option<Told> {
    let find = |path: &JsonPath| path.query(node).first();
    let content = match part.content.as_ref().map_or(Some(node), find)? {
        Value::String(text) => text.clone(),
        other => text_of(other)?,
    };
    let text = |path: &Option<JsonPath>| path.as_ref().and_then(find).and_then(text_of);
    let role = text(&part.role).map_or(Cow::Borrowed("user"), Cow::Owned).into_owned();
    let known = |(key, path): &(String, JsonPath)| {
        let value = find(path).filter(|value| !matches!(value, Value::Null) && value.as_str() != Some(""))?;
        Some((key.clone(), value.clone()))
    };
    Some(Told {
        messages: vec![Message { role, name: text(&part.name), content }],
        metadata: part.metadata.iter().filter_map(known).collect(),
        time: part.time.as_ref().and_then(find).and_then(|value| time::parse(value).ok()),
    })
}

/// What the sources of a route find, as one episode.
pub fn found(extract: &config::Extract, seen: &Seen<'_>) -> Told {
    let user = seen.text(&extract.input, Want::Input).map(|text| Message::new("user", text));
    let assistant = seen.text(&extract.output, Want::Output).map(|text| Message::new("assistant", text));
    Told { messages: user.into_iter().chain(assistant).collect(), ..Told::default() }
}
