//! The rules of a route, ready to be asked of each event.

use std::borrow::Cow;

use serde_json::Value;

use super::event::Event;
use super::path::{Nodes, Path};
use crate::capture::node::is_something;
use crate::config::source::EventPath;
use crate::config::{self, Marker};

/// The rules of a stream.
#[derive(Debug)]
pub struct Rules {
    /// What they find replaces a text.
    pub replace: Vec<Rule>,
    /// What they find is appended to one.
    pub append: Vec<Rule>,
    /// Which text that is.
    pub by: Vec<Path>,
    /// What ends the stream.
    pub end: Vec<Mark>,
    /// What says that the reply failed.
    pub error: Vec<Mark>,
}

/// A path, of all events or of those with a name.
#[derive(Debug)]
pub struct Rule {
    name: Option<String>,
    path: Path,
}

/// What makes an event special.
#[derive(Debug)]
pub enum Mark {
    /// Its whole data, or one of its names, is this text.
    Text(String),
    /// It has something there.
    Path(Rule),
}

/// An event, as rules see it.
#[derive(Debug)]
pub struct Seen<'e> {
    field: &'e [u8],
    data: Option<&'e [u8]>,
    json: Option<&'e Value>,
    /// Its names in its JSON.
    told: [Option<&'e str>; 2],
}

impl Rules {
    /// Those of a configuration.
    pub fn of(stream: &config::Stream) -> Self {
        let rules = |paths: &[EventPath]| paths.iter().map(Rule::of).collect();
        let marks = |markers: &[Marker]| markers.iter().map(Mark::of).collect();
        Self {
            replace: rules(&stream.replace),
            append: rules(&stream.append),
            by: stream.by.iter().map(Path::new).collect(),
            end: marks(&stream.end),
            error: marks(&stream.error),
        }
    }

    /// The id of the text that an event speaks of.
    pub fn id<'j>(&self, json: &'j Value) -> Option<Cow<'j, str>> {
        self.by.iter().find_map(|path| match path.nodes(json).first()? {
            Value::String(id) if !id.is_empty() => Some(Cow::Borrowed(id.as_str())),
            Value::Number(id) => Some(Cow::Owned(id.to_string())),
            _ => None,
        })
    }
}

impl Rule {
    /// That of a configuration.
    pub fn of(path: &EventPath) -> Self {
        Self { name: path.name.clone(), path: Path::new(&path.path) }
    }

    /// What it finds in an event; nothing in one that hasn't its name.
    pub fn nodes<'e>(&self, seen: &Seen<'e>) -> Nodes<'e> {
        match seen.json {
            Some(json) if self.name.as_ref().is_none_or(|name| seen.is_named(name)) => self.path.nodes(json),
            _ => Nodes::One(None),
        }
    }
}

impl Mark {
    fn of(marker: &Marker) -> Self {
        match marker {
            Marker::Text(text) => Self::Text(text.clone()),
            Marker::Path(path) => Self::Path(Rule::of(path)),
        }
    }

    /// Whether it holds for an event.
    pub fn holds(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::Text(text) => seen.data.is_some_and(|data| data.trim_ascii() == text.as_bytes()) || seen.is_named(text),
            Self::Path(rule) => rule.nodes(seen).all().any(is_something),
        }
    }
}

impl<'e> Seen<'e> {
    /// An event and its data, if that is JSON.
    pub fn new(event: &Event<'e>, json: Option<&'e Value>) -> Self {
        let told = ["type", "event"].map(|name| json?.get(name)?.as_str());
        Self { field: event.name, data: event.data, json, told }
    }

    fn is_named(&self, name: &str) -> bool {
        self.field == name.as_bytes() || self.told.contains(&Some(name))
    }
}
