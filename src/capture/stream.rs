//! Streams: a response that comes in events becomes one text.

use std::sync::Arc;

use serde_json::Value;
use serde_json_path::JsonPath;

use crate::config::source::EventPath;
use crate::config::{self, StreamFormat};

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
    plan: Arc<Plan>,
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

impl Assembler {
    /// Begins.
    pub fn new(plan: Arc<Plan>, _format: StreamFormat) -> Self {
        Self { plan }
    }

    /// Sees bytes pass; whether they hold the end marker. What follows that is not looked at.
    pub fn feed(&mut self, _data: &[u8]) -> bool {
        false
    }

    /// No more bytes.
    pub fn finish(self) -> Assembled {
        Assembled {
            found: vec![None; self.plan.probes.len()],
            gathered: vec![None; self.plan.gathers.len()],
            ..Assembled::default()
        }
    }
}
