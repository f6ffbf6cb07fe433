//! `[proxy.route.stream]`

use serde_json_path::JsonPath;

use crate::config::fault::Origin;
use crate::config::read::{Context, Field, Header, Read, Section};
use crate::config::source::{EVENT_PATHS, EventPath, json_path};
use crate::config::values::{choice, list};
use crate::config::{Marker, Stream, StreamFormat};

/// What a marker may look like.
const MARKERS: &str = "the whole data or the name of an event such as \"[DONE]\", $.a or NAME:$.a";

/// What a route, or its preset, says about `stream`: a key that isn't given differs from one that is given as empty.
#[derive(Debug, Clone, Default)]
pub struct Given {
    at: Origin,
    format: Option<StreamFormat>,
    append: Option<Paths>,
    replace: Option<Paths>,
    by: Option<Vec<JsonPath>>,
    end: Option<Vec<Marker>>,
    error: Option<Vec<Marker>>,
}

/// Event paths: how many stand there, and those that aren't wrong; the others are told.
#[derive(Debug, Clone, Default)]
struct Paths {
    given: usize,
    good: Vec<EventPath>,
}

/// Reads the table out of a route, or out of a preset.
pub fn stream(parent: &mut Section<'_>) -> Option<Given> {
    let mut s = parent.maybe_table("stream", Header::Own("[proxy.route.stream]"))?;
    let given = Given {
        at: s.at().clone(),
        format: s.maybe("format", choice(&[("sse", StreamFormat::Sse), ("ndjson", StreamFormat::Ndjson)])),
        append: s.maybe("append", event_paths),
        replace: s.maybe("replace", event_paths),
        by: s.maybe("by", list(id)),
        end: s.maybe("end", list(marker)),
        error: s.maybe("error", list(marker)),
    };
    s.finish();
    Some(given)
}

/// The route's own keys, and the preset's where the route gives none; none at all where neither has the table.
pub fn merged(own: Option<Given>, preset: Option<Given>, cx: &Context<'_>) -> Option<Stream> {
    match (own, preset) {
        (None, None) => None,
        (Some(given), None) | (None, Some(given)) => Some(given.over(Given::default(), cx)),
        (Some(own), Some(preset)) => Some(own.over(preset, cx)),
    }
}

impl Given {
    fn over(self, preset: Self, cx: &Context<'_>) -> Stream {
        let append = self.append.or(preset.append).unwrap_or_default();
        let replace = self.replace.or(preset.replace).unwrap_or_default();
        if append.given + replace.given == 0 {
            let allowed = "give it append or replace, or leave [proxy.route.stream] out";
            cx.missing(self.at, format!("this stream captures nothing, {allowed}"));
        }
        Stream {
            format: self.format.or(preset.format).unwrap_or(StreamFormat::Sse),
            append: append.good,
            replace: replace.good,
            by: self.by.or(preset.by).unwrap_or_default(),
            end: self.end.or(preset.end).unwrap_or_default(),
            error: self.error.or(preset.error).unwrap_or_default(),
        }
    }
}

#[allow(clippy::unnecessary_wraps)] // A reader like the others; its faults are those of its elements.
fn event_paths(field: &Field<'_>) -> Read<Paths> {
    Ok(Paths { given: field.items().len(), good: list(event_path)(field)? })
}

fn event_path(field: &Field<'_>) -> Read<EventPath> {
    EventPath::parse(&field.text(EVENT_PATHS)?)
}

fn id(field: &Field<'_>) -> Read<JsonPath> {
    json_path(&field.text("a JSONPath such as $.id")?)
}

fn marker(field: &Field<'_>) -> Read<Marker> {
    let text = field.text(MARKERS)?;
    if text.starts_with('$') || text.contains(":$") {
        return EventPath::parse(&text).map(Marker::Path);
    }
    if text.trim().is_empty() { Err(format!("allowed: {MARKERS}")) } else { Ok(Marker::Text(text.trim().to_owned())) }
}
