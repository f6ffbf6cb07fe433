//! Streams: a response that comes in events becomes one text.
//!
//! `sse.rs` and `ndjson.rs` split bytes into events, wherever the pieces are cut; `rules.rs` is what a route's `[proxy.route.stream]`
//! asks of each; `text.rs` and `answers.rs` are what comes of it.
//!
//! # An event
//! Its data is parsed once. Data that is no JSON (`[DONE]`) is only compared with the markers that are texts; so is, by its SSE name
//! alone, an event whose data is longer than the limit. Its order: does it end the stream or say that it failed, then what replaces,
//! then what is appended, then what else is asked. The event that ends the stream is read like any other, and nothing after it is.
//!
//! # When the end is seen
//! An SSE event ends with a blank line, and that is when clients act on it; but one that reads by lines acts at once. So the end is
//! seen with the ending of the event's first line of data, if that line alone is a marker: what follows cannot take that back. With
//! several lines of data, or with an `event` after them, it is seen at the blank line. Of NDJSON it is seen with the line's ending.
//! Where the pieces are cut changes none of this.
//!
//! # Bounds
//! The text has at most [`Plan::max`] bytes, and so have all answers to probes, and all that is gathered; it is cut at the end of a
//! character. An event that is longer than that is passed over. Memory is a small multiple of the limit, whatever comes.

use std::sync::Arc;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::node::{lines_of, texts_of};
use super::redact::Redactor;
use crate::config::source::EventPath;
use crate::config::{self, StreamFormat};
use answers::{Asked, Budget, Gathered};
use event::{Event, Stage};
use ndjson::Ndjson;
use path::Path;
use rules::{Rule, Rules, Seen};
use sse::Sse;
use text::Texts;

mod answers;
mod buffer;
mod event;
mod ndjson;
mod path;
mod rules;
mod sse;
mod text;

/// What a route wants to know of a stream, looked up once.
#[derive(Debug)]
pub struct Plan {
    /// How events are framed, where their `Content-Type` leaves that open.
    pub format: StreamFormat,
    /// `resp.json:` sources: each is asked of every event.
    pub probes: Vec<Probe>,
    /// `resp.stream:` sources: each gathers what all events have.
    pub gathers: Vec<EventPath>,
    /// Bytes of text, and of one event, at most.
    pub max: usize,
    redactor: Redactor,
    rules: Rules,
    /// Those of `probes` and of `gathers`.
    paths: (Vec<Path>, Vec<Rule>),
}

/// A path that is asked of each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// RFC 9535.
    pub path: JsonPath,
    /// What stays of the answers.
    pub pick: Pick,
}

/// What stays of the answers to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The first node of the first event that yields something.
    First,
    /// That of the last one.
    Last,
    /// The texts of all nodes of the last one that has any, a line each.
    Texts,
}

impl Plan {
    /// Looks up what can be known before a stream comes.
    pub fn new(rules: &config::Stream, probes: Vec<Probe>, gathers: Vec<EventPath>, redactor: Redactor, max: usize) -> Self {
        let paths = (probes.iter().map(|p| Path::new(&p.path)).collect(), gathers.iter().map(Rule::of).collect());
        Self { format: rules.format, rules: Rules::of(rules), probes, gathers, max, redactor, paths }
    }
}

/// Puts a stream together, as it passes.
#[derive(Debug)]
pub struct Assembler {
    framing: Framing,
    reader: Reader,
}

/// What a stream was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assembled {
    /// The text; none where no event had any.
    pub text: Option<String>,
    /// One per [`Plan::probes`].
    pub found: Vec<Option<Value>>,
    /// One per [`Plan::gathers`].
    pub gathered: Vec<Option<Value>>,
    /// The end marker was seen.
    pub ended: bool,
    /// An event said that the reply failed.
    pub failed: bool,
    /// Something was left out, because it was too long.
    pub truncated: bool,
}

#[derive(Debug)]
enum Framing {
    Sse(Sse),
    Ndjson(Ndjson),
}

/// Reads events.
#[derive(Debug)]
struct Reader {
    plan: Arc<Plan>,
    texts: Texts,
    /// One per probe, and one per gathering source.
    asked: Vec<Asked>,
    gathered: Vec<Gathered>,
    /// Of `asked` and of `gathered`.
    budgets: (Budget, Budget),
    ended: bool,
    failed: bool,
    truncated: bool,
}

impl Assembler {
    /// Begins.
    pub fn new(plan: Arc<Plan>, format: StreamFormat) -> Self {
        let framing = match format {
            StreamFormat::Sse => Framing::Sse(Sse::new(plan.max)),
            StreamFormat::Ndjson => Framing::Ndjson(Ndjson::new(plan.max)),
        };
        Self { framing, reader: Reader::new(plan) }
    }

    /// Sees bytes pass. True once: where they complete the end marker. What follows that is not looked at.
    pub fn feed(&mut self, data: &[u8]) -> bool {
        if self.reader.ended {
            return false;
        }
        let reader = &mut self.reader;
        match &mut self.framing {
            Framing::Sse(sse) => sse.feed(data, |event| reader.take(&event)),
            Framing::Ndjson(ndjson) => ndjson.feed(data, |event| reader.take(&event)),
        }
    }

    /// No more bytes. An event that was cut off counts if its data is whole JSON: who watched the stream has seen it.
    pub fn finish(self) -> Assembled {
        let Self { framing, mut reader } = self;
        if !reader.ended {
            match framing {
                Framing::Sse(sse) => sse.finish(|event| reader.take(&event)),
                Framing::Ndjson(ndjson) => ndjson.finish(|event| reader.take(&event)),
            }
        }
        reader.finish()
    }

    /// Bytes of memory that grow with what passes.
    #[cfg(test)]
    fn held(&self) -> usize {
        let framing = match &self.framing {
            Framing::Sse(sse) => sse.held(),
            Framing::Ndjson(ndjson) => ndjson.held(),
        };
        framing + self.reader.texts.held() + self.reader.budgets.0.used() + self.reader.budgets.1.used()
    }
}

impl Reader {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            texts: Texts::new(plan.max),
            asked: plan.probes.iter().map(|_| Asked::default()).collect(),
            gathered: plan.gathers.iter().map(|_| Gathered::default()).collect(),
            budgets: (Budget::new(plan.max), Budget::new(plan.max)),
            plan,
            ended: false,
            failed: false,
            truncated: false,
        }
    }

    /// Reads an event; whether it ends the stream.
    fn take(&mut self, event: &Event<'_>) -> bool {
        if event.stage == Stage::Line && self.plan.rules.end.is_empty() {
            return false;
        }
        let mut json = event.data.and_then(parse);
        let mut keys = None;
        if let Some(json) = json.as_mut().filter(|_| !self.plan.redactor.is_empty()) {
            // Who looks for a key tells two apart that are redacted: see `Redactor`.
            keys = Some(self.plan.redactor.document_of_keys(json).unwrap_or_else(|| json.clone()));
            self.plan.redactor.document(json);
        }
        let seen = Seen::new(event, json.as_ref());
        let ends = self.plan.rules.end.iter().any(|mark| mark.holds(&seen));
        // Of what was cut off only what is whole can be told from its start: JSON, or a marker.
        let is_whole = match event.stage {
            Stage::Line => ends,
            Stage::Whole => true,
            Stage::Rest => ends || json.is_some() || event.data.is_none(),
        };
        if is_whole {
            self.ended |= ends;
            self.failed |= self.plan.rules.error.iter().any(|mark| mark.holds(&seen));
            self.truncated |= event.data.is_none();
            if let Some(json) = &json {
                self.read(&seen, json, keys.as_ref().unwrap_or(json));
            }
        }
        self.ended
    }

    fn read(&mut self, seen: &Seen<'_>, json: &Value, keys: &Value) {
        let Self { plan, texts, asked, gathered, budgets, .. } = self;
        let rules = &plan.rules;
        let mut fits = true;
        let mut id = None;
        for rule in &rules.replace {
            let Some(node) = rule.nodes(seen).last() else { continue };
            let whole = lines_of([node]);
            if !whole.is_empty() {
                let id = id.get_or_insert_with(|| rules.id(json));
                fits &= texts.replace(id.as_deref(), &whole);
            }
        }
        for rule in &rules.append {
            for node in rule.nodes(seen).all() {
                texts_of(node, |text| {
                    let id = id.get_or_insert_with(|| rules.id(json));
                    fits &= texts.append(id.as_deref(), text);
                });
            }
        }
        for ((asked, path), probe) in asked.iter_mut().zip(&plan.paths.0).zip(&plan.probes) {
            let json = if probe.pick == Pick::First { keys } else { json };
            fits &= asked.ask(path, probe.pick, json, &mut budgets.0);
        }
        for (gathered, rule) in gathered.iter_mut().zip(&plan.paths.1) {
            for node in rule.nodes(seen).all() {
                fits &= gathered.add(node, &mut budgets.1);
            }
        }
        self.truncated |= !fits;
    }

    fn finish(self) -> Assembled {
        Assembled {
            text: self.texts.join(),
            found: self.asked.into_iter().map(Asked::into_found).collect(),
            gathered: self.gathered.into_iter().map(Gathered::into_value).collect(),
            ended: self.ended,
            failed: self.failed,
            truncated: self.truncated,
        }
    }
}

/// The JSON that an event's data is, if it is any.
fn parse(data: &[u8]) -> Option<Value> {
    match std::str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text).ok(),
        // As the standard decodes it: what is no UTF-8 becomes U+FFFD, and the rest of the event is good.
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(data)).ok(),
    }
}

#[cfg(test)]
mod tests;
