//! Presets: what `extract` and `success_if` are for an API that many use, and what a sink sends to a service that many use. Data, not
//! code; a route's own keys win, and so do a sink's.

use std::sync::Arc;

use toml::de::DeTable;

use super::Action;
use super::fault::Origin;
use super::pattern::PathPattern;
use super::read::{Context, Field, Read, Section, nearest};
use super::sections::extract::{Given, sources};
use super::sections::offload;
use super::sections::stream::{self, stream};
use super::source::Source;
use super::tree::{Node, Table, Value};
use super::values::choice;

/// The presets of sinks of `type = "http"`: name and TOML.
const SINKS: [(&str, &str); 5] = [
    ("lightrag", include_str!("presets/sinks/lightrag.toml")),
    ("mem0", include_str!("presets/sinks/mem0.toml")),
    ("zep", include_str!("presets/sinks/zep.toml")),
    ("cognee", include_str!("presets/sinks/cognee.toml")),
    ("letta", include_str!("presets/sinks/letta.toml")),
];

/// The presets of routes: name and TOML.
const PRESETS: [(&str, &str); 15] = [
    ("automagik", include_str!("presets/automagik.toml")),
    ("automagik-async", include_str!("presets/automagik-async.toml")),
    ("automagik-status", include_str!("presets/automagik-status.toml")),
    ("openai-chat", include_str!("presets/openai-chat.toml")),
    ("openai-responses", include_str!("presets/openai-responses.toml")),
    ("anthropic-messages", include_str!("presets/anthropic-messages.toml")),
    ("langgraph", include_str!("presets/langgraph.toml")),
    ("a2a", include_str!("presets/a2a.toml")),
    ("dify", include_str!("presets/dify.toml")),
    ("ollama-chat", include_str!("presets/ollama-chat.toml")),
    ("ag-ui", include_str!("presets/ag-ui.toml")),
    ("ai-sdk", include_str!("presets/ai-sdk.toml")),
    ("graphiti-messages", include_str!("presets/graphiti-messages.toml")),
    ("lightrag-text", include_str!("presets/lightrag-text.toml")),
    ("mem0-memories", include_str!("presets/mem0-memories.toml")),
];

/// What a preset fills in where a route gives nothing.
#[derive(Debug, Clone, Default)]
pub struct Preset {
    /// `action`: what the preset is for.
    pub action: Action,
    /// `extract`.
    pub extract: Given,
    /// `success_if`.
    pub success_if: Vec<Source>,
    /// `join`.
    pub join: Vec<Source>,
    /// `stream`.
    pub stream: Option<stream::Given>,
    /// `offload` and `reply`.
    pub offload: offload::Given,
}

/// The names of the presets of routes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The names of the presets of sinks.
pub fn sinks() -> impl Iterator<Item = &'static str> {
    SINKS.iter().map(|(name, _)| *name)
}

/// The TOML of the preset of this name.
pub fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().chain(&SINKS).find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What the preset of this name is for: the first line of its file is a comment that says so.
pub fn about(name: &str) -> Option<&'static str> {
    text(name)?.lines().next()?.strip_prefix("# ")
}

/// The name that was meant, if there is one like it.
pub fn like(name: &str) -> Option<&'static str> {
    nearest(name, names().chain(sinks()))
}

/// Reads `preset = "name"`, for a route with this path.
pub fn preset(field: &Field<'_>, path: Option<&PathPattern>) -> Read<Preset> {
    let (name, text) = one_of(field, &PRESETS)?;
    Ok(parse(field.cx(), name, text, path))
}

/// Reads `preset = "name"` of a sink: its keys.
pub fn sink(field: &Field<'_>) -> Read<Table> {
    let (name, text) = one_of(field, &SINKS)?;
    Ok(tree(field.cx(), name, text))
}

fn one_of(field: &Field<'_>, presets: &[(&'static str, &'static str)]) -> Read<(&'static str, &'static str)> {
    let mut names: Vec<_> = presets.iter().map(|(name, _)| format!("{name:?}")).collect();
    let last = names.pop().unwrap_or_default();
    let allowed = format!("{} or {last}", names.join(", "));
    let wanted = field.text(&allowed)?;
    if let Some(found) = presets.iter().find(|(name, _)| *name == wanted) {
        return Ok(*found);
    }
    match nearest(&wanted, presets.iter().map(|(name, _)| *name)) {
        Some(near) => Err(format!("did you mean {near:?}? allowed: {allowed}")),
        None => Err(format!("allowed: {allowed}")),
    }
}

fn tree(cx: &Context<'_>, name: &str, text: &str) -> Table {
    let file: Arc<str> = format!("preset {name}").into();
    let at = |offset| super::load::place(&file, text, offset);
    // A preset is part of the program: a test reads each of them, and what is wrong with one would be told like any other fault.
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        cx.fault(at(error.span().map_or(0, |span| span.start)), error.message().to_owned());
    }
    Table::from_toml(table.into_inner(), &at)
}

fn parse(cx: &Context<'_>, name: &str, text: &str, path: Option<&PathPattern>) -> Preset {
    let table = Value::Table(tree(cx, name, text));
    let mut section = Section::root(cx, &format!("preset.{name}"), Node { value: table, at: Origin::Whole, raw: None });
    let action = section.get("action", Action::Capture, choice(&[("capture", Action::Capture), ("offload", Action::Offload)]));
    let offload = offload::Given::read(&mut section);
    let success_if = section.get("success_if", Vec::new(), sources(None));
    let join = section.get("join", Vec::new(), sources(None));
    let stream = stream(&mut section);
    let mut extract = Given::read(&mut section, None);
    section.finish();
    // A source that reads a name which this route's path doesn't have yields nothing; the next in its list is meant then.
    extract.retain(|source| match source {
        Source::ReqPath(name) => path.is_none_or(|path| path.has(name)),
        _ => true,
    });
    Preset { action, extract, success_if, join, stream, offload }
}
