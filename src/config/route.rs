//! A route: what is captured of what it matches, and where that is found. Its preset is already filled in.

use std::time::Duration;

use http::HeaderName;
use regex::Regex;
use serde_json_path::JsonPath;

use super::offload::Offload;
use super::pattern::PathPattern;
use super::source::{EventPath, Source};
use super::status::StatusSet;

/// What a route does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Forward, and make an episode of it.
    #[default]
    Capture,
    /// Don't forward: make episodes of the request, and answer once they are durable.
    Offload,
    /// Forward untouched.
    Pass,
}

/// `[[proxy.route]]`, with its preset already filled in.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique within its proxy.
    pub name: String,
    /// Upper case; empty = any.
    pub methods: Vec<http::Method>,
    /// Matched against the whole path.
    pub path: PathPattern,
    /// What to do.
    pub action: Action,
    /// Higher drains first when workers are scarce; 0 to 100.
    pub priority: u8,
    /// Names of sinks, never empty for `capture` (default: every sink).
    pub sinks: Vec<String>,
    /// Statuses that become episodes.
    pub success: StatusSet,
    /// Each must yield something that is neither absent, false, null nor empty.
    pub success_if: Vec<Source>,
    /// Bytes kept per direction.
    pub max_capture: u64,
    /// Record what a client that left had got (else discard it).
    pub record_cancelled: bool,
    /// Share of the matching exchanges that are captured, 0 to 1.
    pub sample: f64,
    /// What makes a second exchange no new episode.
    pub dedupe: Option<Dedupe>,
    /// What is made unreadable before anything is written.
    pub redact: Vec<Redact>,
    /// Exchanges with one key are parts of one episode; empty = each is an episode of its own.
    pub join: Vec<Source>,
    /// How a streamed response becomes text.
    pub stream: Option<Stream>,
    /// Where each part of the episode is found.
    pub extract: Extract,
    /// What an offload route takes and answers; `Some` for these alone.
    pub offload: Option<Box<Offload>>,
    /// Those of `sinks` that send the request again: for them it is kept whole.
    pub replays: Vec<String>,
    /// What is kept of its head for them.
    pub keep_headers: Vec<HeaderName>,
}

/// `[proxy.route.extract]`: for each field a list, the first source that yields wins.
#[derive(Debug, Clone, Default)]
pub struct Extract {
    /// The ordering key.
    pub session: Vec<Source>,
    /// The graph's partition.
    pub group: Vec<Source>,
    /// Who asked.
    pub user: Vec<Source>,
    /// Who answered.
    pub agent: Vec<Source>,
    /// What was asked.
    pub input: Vec<Source>,
    /// What was answered.
    pub output: Vec<Source>,
    /// Further keys.
    pub metadata: Vec<(String, Vec<Source>)>,
    /// When it happened, where the exchange says so.
    pub time: Vec<Source>,
    /// Which exchange this one continues, where no session is named.
    pub chain: Option<Chain>,
}

impl Extract {
    /// Each of its lists by its key.
    pub fn lists(&self) -> impl Iterator<Item = (String, &Vec<Source>)> {
        let Self { session, group, user, agent, input, output, metadata, time, chain } = self;
        let named = [
            ("session", session),
            ("group", group),
            ("user", user),
            ("agent", agent),
            ("input", input),
            ("output", output),
            ("time", time),
        ];
        named
            .into_iter()
            .map(|(key, sources)| (key.to_owned(), sources))
            .chain(metadata.iter().map(|(key, sources)| (format!("metadata.{key}"), sources)))
            .chain(chain.iter().flat_map(|c| [("chain.previous".to_owned(), &c.previous), ("chain.id".to_owned(), &c.id)]))
    }
}

/// `extract.chain`: an exchange that continues another belongs to that one's session.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// The id of the exchange that this one continues.
    pub previous: Vec<Source>,
    /// Its own.
    pub id: Vec<Source>,
}

/// `route.dedupe`
#[derive(Debug, Clone)]
pub struct Dedupe {
    /// How long a key is remembered.
    pub window: Duration,
    /// All of these together; an exchange in which none yields is compared with nothing.
    pub key: Vec<Source>,
}

/// One of `route.redact`.
#[derive(Debug, Clone)]
pub enum Redact {
    /// `$.a`: what a path finds in the JSON of request, response and events.
    Json(JsonPath),
    /// `re:…`: what matches in any text of the record.
    Text(Regex),
}

/// `[proxy.route.stream]`
#[derive(Debug, Clone)]
pub struct Stream {
    /// How events are framed.
    pub format: StreamFormat,
    /// What they find is appended to the text.
    pub append: Vec<EventPath>,
    /// What they find replaces the text.
    pub replace: Vec<EventPath>,
    /// Which text an event speaks of: each has its own.
    pub by: Vec<JsonPath>,
    /// What ends the stream.
    pub end: Vec<Marker>,
    /// What says that the reply failed.
    pub error: Vec<Marker>,
}

/// `stream.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// Server-sent events.
    Sse,
    /// A JSON document a line.
    Ndjson,
}

/// What makes an event special.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// Its whole data, or one of its names, is this text.
    Text(String),
    /// It has something there that is neither absent, false, null nor empty.
    Path(EventPath),
}
