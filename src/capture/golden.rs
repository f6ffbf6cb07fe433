//! Golden exchanges: what the vendors' own SDKs and servers say to each other, and the episode that each has to become.
//!
//! `tests/golden/PRESET/CASE.json` holds one or more exchanges, which share a queue; `tests/golden/make` has the programs that made
//! them. Each is replayed through a [`Capture`] as the proxy would: whole, byte by byte, and in many pieces at random; and each stream
//! is put together from two pieces, cut at every byte. What comes out never differs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::routes::Routes;
use super::{Capture, Commit, Kept, Record};
use crate::clock;
use crate::config::{self, Input, OnFull};
use crate::episode::{End, Episode};
use crate::queue::{AppendError, Key, Lane, New, Note, Seq, SinkId};
use crate::telemetry::metrics::Metrics;

/// A stream is cut in two at each byte; at every 41st where nothing is optimised, for the time grows with the square of its length.
const STEP: usize = if cfg!(debug_assertions) { 41 } else { 1 };

/// Pieces that a response is cut into at random, and how often.
const PIECES: usize = 12;
const ROUNDS: u64 = 5;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    about: String,
    from: String,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// The route's.
    path: String,
    /// The route's; else the one that the case's directory is named after.
    preset: Option<String>,
    pub(crate) request: Asked,
    pub(crate) response: Answered,
    #[serde(default)]
    pub(crate) ending: Ending,
    /// None: it is no episode.
    pub(crate) episode: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Body,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Body,
}

/// Nothing, a document, or lines that are one text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Body {
    Lines(Vec<String>),
    Document(Map<String, Value>),
    None(()),
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    #[default]
    Complete,
    Error,
    Cancelled,
}

impl Body {
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Lines(lines) => lines.concat().into(),
            Self::Document(document) => serde_json::to_vec(document).unwrap().into(),
            Self::None(()) => Bytes::new(),
        }
    }
}

/// A queue in memory that commits at once.
#[derive(Default)]
struct Shelf {
    episodes: Mutex<Vec<Episode>>,
    uniques: Mutex<HashMap<Key, uuid::Uuid>>,
    notes: Mutex<HashMap<Key, Vec<u8>>>,
}

impl Shelf {
    fn clear(&self) {
        self.episodes.lock().unwrap().clear();
        self.uniques.lock().unwrap().clear();
        self.notes.lock().unwrap().clear();
    }
}

impl Record for Shelf {
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError> {
        let mut appended = Vec::new();
        for new in new {
            let mut uniques = self.uniques.lock().unwrap();
            let earlier = new.unique.as_ref().and_then(|unique| uniques.get(&unique.key).copied());
            if earlier.is_none() {
                uniques.extend(new.unique.as_ref().map(|unique| (unique.key, new.episode.id)));
                self.notes.lock().unwrap().extend(new.note.clone().map(|note| (note.key, note.value)));
                self.episodes.lock().unwrap().push(new.episode.clone());
            }
            appended.push(earlier);
        }
        Ok(Box::pin(std::future::ready(Ok(appended))))
    }

    fn is_full(&self) -> bool {
        false
    }

    fn commit_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn now(&self) -> u64 {
        clock::now_ms()
    }

    fn reserve(&self) -> Seq {
        1
    }

    fn hold(&self, _: &[(SinkId, Lane)], _: Seq, _: u64) {}

    fn release(&self, _: Seq) {}

    fn note(&self, key: Key) -> Option<Vec<u8>> {
        self.notes.lock().unwrap().get(&key).cloned()
    }

    fn write_note(&self, note: Note) -> Result<Commit, AppendError> {
        self.notes.lock().unwrap().insert(note.key, note.value);
        Ok(Box::pin(std::future::ready(Ok(Vec::new()))))
    }
}

/// Each case with its name and its preset.
pub(crate) fn cases() -> Vec<(String, String, Case)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let in_order = |directory: &Path| {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    };
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let directories = in_order(&root).into_iter().filter(|path| path.is_dir() && !path.ends_with("make"));
    let files = directories.flat_map(|directory| in_order(&directory).into_iter().map(move |file| (directory.clone(), file)));
    files
        .map(|(directory, file)| {
            let preset = name(&directory);
            let case = serde_json::from_slice(&std::fs::read(&file).unwrap());
            (format!("{preset}/{}", name(&file)), preset, case.unwrap_or_else(|error| panic!("{}: {error}", file.display())))
        })
        .collect()
}

/// The routes of a case, one per exchange, as a file would configure them.
pub(crate) fn routes(preset: &str, case: &Case) -> Vec<config::Route> {
    let mut text = "[[sink]]\nname = \"s\"\ntype = \"file\"\npath = \"/x\"\n\
                    [[proxy]]\nname = \"p\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n"
        .to_owned();
    for (at, Exchange { path, preset: own, .. }) in case.exchanges.iter().enumerate() {
        let preset = own.as_deref().unwrap_or(preset);
        let _ = write!(text, "[[proxy.route]]\nname = \"r{at}\"\npath = {path:?}\npreset = {preset:?}\n");
    }
    let config = config::read(&text, Path::new("c.toml"), &Input::default()).unwrap_or_else(|faults| panic!("{faults}"));
    config.proxies.into_iter().next().unwrap().routes
}

/// Where a case is replayed.
struct Stage<'a> {
    case: &'a Case,
    shelf: Arc<Shelf>,
    routes: Arc<Routes>,
}

impl<'a> Stage<'a> {
    fn of(preset: &str, case: &'a Case) -> Self {
        let shelf = Arc::new(Shelf::default());
        let record: Arc<dyn Record> = shelf.clone();
        let routes = Routes::new("p", routes(preset, case), OnFull::Pass, Duration::ZERO, &[], record, &Metrics::new());
        Self { case, shelf, routes: Arc::new(routes) }
    }

    /// From the start, with each response as the pieces that `cut` makes of it; what each exchange became.
    fn replay(&self, mut cut: impl FnMut(&Bytes) -> Vec<Bytes>) -> Vec<Option<Value>> {
        self.shelf.clear();
        let exchanges = self.case.exchanges.iter().enumerate();
        exchanges
            .map(|(at, exchange)| {
                let before = self.shelf.episodes.lock().unwrap().len();
                take(&self.routes, at, exchange, &cut(&exchange.response.body.bytes()));
                let episodes = self.shelf.episodes.lock().unwrap();
                assert!(episodes.len() <= before + 1);
                episodes.get(before).map(shown)
            })
            .collect()
    }
}

/// One exchange, as the proxy takes it.
fn take(routes: &Arc<Routes>, route: usize, exchange: &Exchange, pieces: &[Bytes]) {
    let Exchange { request: asked, response: answered, .. } = exchange;
    let mut request = Request::builder().method(asked.method.as_str()).uri(asked.target.as_str()).body(()).unwrap();
    *request.headers_mut() = headers(&asked.headers);
    assert_eq!(routes.find(request.method(), request.uri().path()).map(|found| &routes.rules[found].config.path), {
        Some(&routes.rules[route].config.path)
    });
    let mut capture = Capture::begin(routes, route, &request).unwrap().unwrap();
    let sent = kept(&[asked.body.bytes()], true);
    capture.sent(Some(&sent));
    let mut stream = capture.answered(answered.status, &headers(&answered.headers));
    let mut end = match exchange.ending {
        Ending::Complete => End::Complete,
        Ending::Error => End::Error,
        Ending::Cancelled => End::Cancelled,
    };
    let response = if let Some(mut stream) = stream.take() {
        let marked = pieces.iter().any(|piece| stream.pass(piece));
        // From the end marker on it is complete, whatever follows.
        end = if marked { End::Complete } else { end };
        let stream = Some(stream.finish());
        Kept { ended: end == End::Complete, stream, ..Kept::default() }
    } else {
        kept(pieces, end == End::Complete)
    };
    if let Some(release) = capture.conclude(end, Some(&sent), response) {
        release.now_or_never().expect("the shelf commits at once");
    }
}

fn headers(given: &HashMap<String, String>) -> HeaderMap {
    given.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())).collect()
}

fn kept(frames: &[Bytes], ended: bool) -> Kept {
    let len = frames.iter().map(Bytes::len).sum();
    let sha256 = Sha256::digest(frames.concat()).into();
    Kept { frames: frames.to_vec(), len, total: len as u64, ended, sha256, stream: None }
}

/// What a case says of an episode.
pub(crate) fn shown(episode: &Episode) -> Value {
    let messages = episode.messages.iter().map(|message| json!({"role": message.role, "content": message.content}));
    json!({
        "session": (episode.session != episode.id.to_string()).then_some(&episode.session),
        "user": episode.user,
        "agent": episode.agent,
        "messages": messages.collect::<Vec<_>>(),
        "metadata": serde_json::from_str::<Value>(&episode.metadata).unwrap(),
        "end": episode.end,
    })
}

/// Says where two lists of episodes differ, in full.
#[track_caller]
fn assert_same(what: &str, case: &Case, found: &[Option<Value>]) {
    for (at, (found, exchange)) in found.iter().zip(&case.exchanges).enumerate() {
        let show = |episode: &Option<Value>| episode.as_ref().map_or("no episode".to_owned(), |e| format!("{e:#}"));
        assert!(
            *found == exchange.episode,
            "{what}, exchange {at} ({}; {}) became\n{}\nand not\n{}",
            case.about,
            case.from,
            show(found),
            show(&exchange.episode)
        );
    }
}

#[test]
fn each_golden_exchange_becomes_its_episode() {
    let mut wrong = Vec::new();
    for (name, preset, case) in cases() {
        let found = Stage::of(&preset, &case).replay(|body| vec![body.clone()]);
        let compare = || assert_same(&name, &case, &found);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:?}", wrong.len());
}

#[test]
fn each_preset_has_golden_exchanges_plain_and_streamed() {
    let cases = cases();
    for preset in config::presets::names() {
        // The polls of a run are in the cases of its start; some APIs always stream, and one never does.
        let kinds: &[&str] = match preset {
            "automagik" => &["plain"],
            "automagik-async" | "automagik-status" => &["joined"],
            "ag-ui" | "ai-sdk" => &["stream"],
            // They offload: tests/offload.rs has their exchanges.
            "graphiti-messages" | "lightrag-text" | "mem0-memories" => &[],
            "langgraph" => &["wait", "stream"],
            "a2a" => &["0.3-rpc-task", "0.3-rpc-stream", "0.3-rest-message", "1.0-rpc-task", "1.0-rpc-stream", "1.0-rest-task"],
            _ => &["plain", "stream"],
        };
        let directory = if preset == "automagik-status" { "automagik-async" } else { preset };
        for kind in kinds {
            let wanted = format!("{directory}/{kind}");
            assert!(cases.iter().any(|(name, ..)| name.starts_with(&wanted)), "{wanted}");
        }
    }
}

#[test]
fn a_stream_byte_by_byte_becomes_the_same_episode() {
    for (name, preset, case) in cases() {
        let found = Stage::of(&preset, &case).replay(|body| (0..body.len()).map(|at| body.slice(at..=at)).collect());
        assert_same(&format!("{name} byte by byte"), &case, &found);
    }
}

#[test]
fn a_stream_cut_in_two_at_any_byte_becomes_the_same_episode() {
    let cases = cases();
    // A document is kept as it comes: where it is cut makes no difference to anybody.
    let streamed = |case: &Case| case.exchanges.iter().any(|exchange| matches!(exchange.response.body, Body::Lines(_)));
    let streams: Vec<_> = cases.iter().filter(|(.., case)| streamed(case)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, preset, case)) = streams.get(next.fetch_add(1, Ordering::Relaxed)) {
            let stage = Stage::of(preset, case);
            let longest = case.exchanges.iter().map(|exchange| exchange.response.body.bytes().len()).max().unwrap_or_default();
            for at in (1..longest).step_by(STEP) {
                let found = stage.replay(|body| {
                    let at = at.min(body.len());
                    vec![body.slice(..at), body.slice(at..)]
                });
                assert_same(&format!("{name} cut at {at}"), case, &found);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

#[test]
fn a_response_in_many_pieces_becomes_the_same_episode() {
    for (name, preset, case) in cases() {
        let stage = Stage::of(&preset, &case);
        for seed in 0..ROUNDS {
            let mut random = fastrand::Rng::with_seed(seed);
            let found = stage.replay(|body| {
                let mut cuts: Vec<_> = (0..PIECES).map(|_| random.usize(..=body.len())).collect();
                cuts.extend([0, body.len()]);
                cuts.sort_unstable();
                cuts.windows(2).map(|ends| body.slice(ends[0]..ends[1])).collect()
            });
            assert_same(&format!("{name} in pieces (seed {seed})"), &case, &found);
        }
    }
}
