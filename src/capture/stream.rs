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

use crate::config::source::EventPath;
use crate::config::{self, StreamFormat};
use answers::{Asked, Budget, Gathered};
use event::{Event, Stage};
use ndjson::Ndjson;
use path::Path;
use rules::{Rule, Rules, Seen};
use sse::Sse;
use text::{Texts, texts_of};

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
    /// How events become text.
    pub rules: config::Stream,
    /// `resp.json:` sources: each is asked of every event.
    pub probes: Vec<Probe>,
    /// `resp.stream:` sources: each gathers what all events have.
    pub gathers: Vec<EventPath>,
    /// Bytes of text, and of one event, at most.
    pub max: usize,
}

/// A path that is asked of each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// RFC 9535.
    pub path: JsonPath,
    /// Which event's answer stays: the last one that yields something, else the first.
    pub last: bool,
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
    rules: Rules,
    texts: Texts,
    asked: Vec<Asked>,
    gathered: Vec<(Rule, Gathered)>,
    /// Of `asked` and of `gathered`.
    budgets: (Budget, Budget),
    ended: bool,
    failed: bool,
    truncated: bool,
}

impl Assembler {
    /// Begins.
    #[allow(clippy::needless_pass_by_value)] // Who assembles has a share of the plan; that it isn't kept is no promise.
    pub fn new(plan: Arc<Plan>, format: StreamFormat) -> Self {
        let framing = match format {
            StreamFormat::Sse => Framing::Sse(Sse::new(plan.max)),
            StreamFormat::Ndjson => Framing::Ndjson(Ndjson::new(plan.max)),
        };
        Self { framing, reader: Reader::new(&plan) }
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
    fn new(plan: &Plan) -> Self {
        Self {
            rules: Rules::of(&plan.rules),
            texts: Texts::new(plan.max),
            asked: plan.probes.iter().map(|probe| Asked::new(Path::new(&probe.path), probe.last)).collect(),
            gathered: plan.gathers.iter().map(|path| (Rule::of(path), Gathered::default())).collect(),
            budgets: (Budget::new(plan.max), Budget::new(plan.max)),
            ended: false,
            failed: false,
            truncated: false,
        }
    }

    /// Reads an event; whether it ends the stream.
    fn take(&mut self, event: &Event<'_>) -> bool {
        if event.stage == Stage::Line && self.rules.end.is_empty() {
            return false;
        }
        let json = event.data.and_then(parse);
        let seen = Seen::new(event, json.as_ref());
        let ends = self.rules.end.iter().any(|mark| mark.holds(&seen));
        // Of what was cut off only what is whole can be told from its start: JSON, or a marker.
        let is_whole = match event.stage {
            Stage::Line => ends,
            Stage::Whole => true,
            Stage::Rest => ends || json.is_some() || event.data.is_none(),
        };
        if is_whole {
            self.ended |= ends;
            self.failed |= self.rules.error.iter().any(|mark| mark.holds(&seen));
            self.truncated |= event.data.is_none();
            if let Some(json) = &json {
                self.read(&seen, json);
            }
        }
        self.ended
    }

    fn read(&mut self, seen: &Seen<'_>, json: &Value) {
        let Self { rules, texts, asked, gathered, budgets, .. } = self;
        let mut fits = true;
        let mut id = None;
        for rule in &rules.replace {
            let Some(node) = rule.nodes(seen).last() else { continue };
            let mut whole = String::new();
            texts_of(node, |text| {
                if !whole.is_empty() {
                    whole.push('\n');
                }
                whole.push_str(text);
            });
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
        for asked in asked {
            fits &= asked.ask(json, &mut budgets.0);
        }
        for (rule, gathered) in gathered {
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
            gathered: self.gathered.into_iter().map(|(_, gathered)| gathered.into_value()).collect(),
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
