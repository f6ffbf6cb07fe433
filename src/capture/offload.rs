//! Offload: a request that is not forwarded. It becomes episodes, and its caller has the reply once these are on stable storage.
//!
//! What goes into the queue is what the service behind would have taken: a request that it would refuse is refused now, in its own
//! words ([`check`], [`fastapi`]), for nobody is there to be told later. Nothing is sampled, and nothing is dropped because no text was
//! found: a request from which no episode can be made is refused too. The exception is a list of messages that is empty, which is
//! nothing to keep.
//!
//! Order is the order in which the bodies were complete; several messages of one request are appended together, all or none, in
//! their order, and share one session. A request that names no session is a lane of its own.
//!
//! | outcome | what became of the request |
//! |---|---|
//! | `queue_full` | the queue had no room, or did not commit: 503 |
//! | `failed` | the store refused it, or did not commit in time: 503 |
//! | `cancelled` | the client left, or its body stopped coming |
//! | `no_match` | refused, or without a message |
//! | `duplicate` | an earlier one had its `dedupe` key: the reply is the same, with the earlier episode's id |
//! | `queued` | on stable storage |

mod check;
mod fastapi;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::check::is_something;
use super::decode::{self, DecodeError};
use super::document::document;
use super::extract::{Document, Seen, Want, text_of};
use super::original::original;
use super::request::request;
use super::routes::{Outcome, Route, Routes};
use super::{Commit, Kept, Tally, lanes, time};
use crate::clock;
use crate::config::offload::{Offload, Part, Refuse, Split};
use crate::episode::{Digests, End, Episode, Message};
use crate::queue::{AppendError, Key, Lane, New, SinkId, Unique};

/// One request on an offload route, from its head on. Dropped early, it counts as `cancelled`.
#[derive(Debug)]
pub struct Offloading {
    tally: Tally,
    arrived_ms: u64,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// In the words of the service that it was meant for.
    Service {
        /// The status.
        status: StatusCode,
        /// JSON.
        body: Bytes,
    },
    /// In offramp's own.
    Own {
        /// The status.
        status: StatusCode,
        /// A sentence.
        detail: String,
    },
    /// There is nowhere to put it.
    Queue(AppendError),
}

/// A request that was appended, and isn't durable yet.
pub struct Accepted {
    tally: Tally,
    commit: Option<Commit>,
    ids: Vec<Uuid>,
}

/// The reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: String,
    /// Its `Content-Type`.
    pub content_type: HeaderValue,
    /// The first episode, if there is one.
    pub id: Option<Uuid>,
}

impl Offloading {
    /// Begins with a request's head.
    pub fn begin(routes: &Arc<Routes>, route: usize) -> Self {
        let tally = Tally { routes: Arc::clone(routes), route, outcome: Outcome::Cancelled };
        Self { tally, arrived_ms: clock::now_ms() }
    }

    /// Longest body that is taken.
    pub fn max_body(&self) -> usize {
        usize::try_from(self.rules().config.max_capture).unwrap_or(usize::MAX)
    }

    /// Whether the queue has no room: then the body needn't be read. Counts it.
    pub fn is_refused(&mut self) -> bool {
        let full = self.tally.routes.record.is_full();
        if full {
            self.tally.outcome = Outcome::QueueFull;
        }
        full
    }

    /// Ends without an episode, through the client's fault.
    pub fn refuse(mut self) {
        self.tally.outcome = Outcome::NoMatch;
    }

    /// Makes episodes of the whole request and appends them. `head` is as the client sent it. Parses in here: for a large body, call it
    /// off the async threads.
    pub fn accept(mut self, head: &Parts, body: &Kept) -> Result<Accepted, Refusal> {
        // Stays if something in here panics: the tally counts when it is dropped.
        self.tally.outcome = Outcome::Failed;
        let made = self.make(head, body).inspect_err(|_| self.tally.outcome = Outcome::NoMatch)?;
        let mut ids: Vec<Uuid> = made.episodes.iter().map(|episode| episode.id).collect();
        let rules = self.rules();
        let record = &self.tally.routes.record;
        let lanes = made.episodes.iter().enumerate().map(|(n, episode)| goes_to(rules, episode, n)).collect::<Vec<_>>();
        let mut new = Vec::with_capacity(ids.len());
        for (n, (episode, lanes)) in made.episodes.iter().zip(&lanes).enumerate() {
            let unique = made.unique.as_ref().map(|(texts, until)| {
                let place = n.to_string();
                let texts = texts.iter().map(String::as_str).chain((n > 0).then_some(place.as_str()));
                let scope = format!("dedupe/{}/{}", self.tally.routes.proxy, rules.config.name);
                Unique { key: Key::of(&scope, texts), until: *until }
            });
            new.push(New { place: Some(record.reserve()), unique, ..New::of(episode, lanes) });
        }
        if new.is_empty() {
            ids.clear();
            self.tally.outcome = Outcome::NoMatch;
            return Ok(Accepted { tally: self.tally, commit: None, ids });
        }
        match record.append(&new) {
            Ok(commit) => {
                self.tally.outcome = Outcome::Queued;
                Ok(Accepted { tally: self.tally, commit: Some(commit), ids })
            }
            Err(error) => {
                self.tally.failed(error);
                Err(Refusal::Queue(error))
            }
        }
    }

    fn make(&self, head: &Parts, body: &Kept) -> Result<Made, Refusal> {
        let rules = self.rules();
        let route = &rules.config;
        // Without it the route would not be an offload route.
        let default = Offload::default();
        let offload = route.offload.as_deref().unwrap_or(&default);
        let bytes = decoded(head, body, self.max_body())?;
        let json = read(offload, &head.headers, &bytes)?;
        if let Some(json) = &json {
            judge(offload, json)?;
        }
        let nothing = HeaderMap::new();
        let document = Document::of_json(json, &head.headers, &rules.redactor);
        let seen = Seen {
            params: route.path.matches(head.uri.path()),
            query: head.uri.query(),
            request_headers: &head.headers,
            response_headers: &nothing,
            request: &document,
            response: None,
        };
        let unique = route.dedupe.as_ref().and_then(|dedupe| {
            let texts: Vec<_> = dedupe.key.iter().map(|key| seen.text(std::slice::from_ref(key), Want::Key)).collect();
            let until = self.tally.routes.record.now().saturating_add(clock::as_ms(dedupe.window));
            let any = texts.iter().any(Option::is_some);
            any.then(|| (texts.into_iter().map(Option::unwrap_or_default).collect(), until))
        });
        let mut told = messages(offload, document.json(Want::Input))?;
        let extract = &route.extract;
        if matches!(offload.split, Split::Whole) {
            let user = seen.text(&extract.input, Want::Input).map(|text| Message::new("user", text));
            let assistant = seen.text(&extract.output, Want::Output).map(|text| Message::new("assistant", text));
            let messages: Vec<_> = user.into_iter().chain(assistant).collect();
            if messages.is_empty() && route.replays.is_empty() {
                let detail = "nothing that was said was found in the request, so there is nothing to keep".to_owned();
                return Err(Refusal::Own { status: StatusCode::UNPROCESSABLE_ENTITY, detail });
            }
            told.push(Told { messages, ..Told::default() });
        } else if told.is_empty() && !route.replays.is_empty() {
            told.push(Told::default());
        }
        let first = Uuid::now_v7();
        let key = |sources| {
            seen.text(sources, Want::Key).map(|mut text| {
                rules.redactor.key(&mut text);
                text
            })
        };
        let session = key(&extract.session).unwrap_or_else(|| first.to_string());
        let mut original = (!route.replays.is_empty())
            .then(|| original(&route.keep_headers, &rules.redactor, &head.uri, &head.headers, Some(body)));
        let now = clock::now_ms();
        let base = Episode {
            id: first,
            session,
            group: key(&extract.group),
            user: key(&extract.user),
            agent: key(&extract.agent),
            proxy: self.tally.routes.proxy.clone(),
            route: route.name.clone(),
            captured_at: self.arrived_ms,
            completed_at: now,
            end: End::Complete,
            messages: Vec::new(),
            metadata: String::new(),
            request: request(&head.method, &head.uri, &head.headers, offload.reply.status.as_u16(), &rules.redactor),
            occurred_at: seen.text(&extract.time, Want::Key).and_then(|text| time::parse(&text.into()).ok()),
            sha256: Digests { request: Some(digest(body)), response: None },
            original: None,
        };
        let shared: Map<_, _> =
            extract.metadata.iter().filter_map(|(key, sources)| Some((key.clone(), seen.value(sources)?))).collect();
        let episodes = told
            .into_iter()
            .enumerate()
            .map(|(n, mut told)| {
                let mut metadata = shared.clone();
                metadata.append(&mut told.metadata);
                let mut episode = Episode {
                    id: if n == 0 { first } else { Uuid::now_v7() },
                    occurred_at: told.time.or(base.occurred_at),
                    original: original.take().flatten(),
                    ..base.clone()
                };
                for message in &mut told.messages {
                    rules.redactor.text(&mut message.content);
                    if let Some(name) = &mut message.name {
                        rules.redactor.key(name);
                    }
                }
                for value in metadata.values_mut() {
                    rules.redactor.document(value);
                }
                episode.messages = told.messages;
                episode.metadata = Value::Object(metadata).to_string();
                episode
            })
            .collect();
        Ok(Made { episodes, unique })
    }

    fn rules(&self) -> &Route {
        self.tally.rules()
    }
}

impl Accepted {
    /// Waits until the episodes are on stable storage, then tells what to answer. Dropping it takes nothing back.
    pub async fn kept(self) -> Result<Answer, AppendError> {
        let Self { mut tally, commit, mut ids } = self;
        if let Some(commit) = commit {
            // An answer that never comes counts as none.
            tally.outcome = Outcome::Failed;
            let earlier = match commit.await {
                Ok(earlier) => earlier,
                Err(error) => {
                    tally.failed(error);
                    return Err(error);
                }
            };
            tally.outcome = Outcome::Queued;
            if !earlier.is_empty() && earlier.iter().all(Option::is_some) {
                tally.outcome = Outcome::Duplicate;
            }
            for (id, earlier) in ids.iter_mut().zip(earlier) {
                *id = earlier.unwrap_or(*id);
            }
        }
        let default = Offload::default();
        let reply = &tally.rules().config.offload.as_deref().unwrap_or(&default).reply;
        let id = ids.first().copied();
        let shown = id.map(|id| id.to_string()).unwrap_or_default();
        Ok(Answer {
            status: reply.status,
            body: reply.body.replace("{id}", &shown),
            content_type: reply.content_type.clone(),
            id,
        })
    }
}

/// What becomes of one request.
struct Made {
    episodes: Vec<Episode>,
    /// Texts of the `dedupe` key, and until when it holds.
    unique: Option<(Vec<String>, u64)>,
}

/// What one episode says.
#[derive(Default)]
struct Told {
    messages: Vec<Message>,
    metadata: Map<String, Value>,
    time: Option<u64>,
}

/// Where an episode goes. A sink that sends the request again gets it once, with the first episode; it is the only kind that takes an
/// episode in which nothing is said.
fn goes_to(rules: &Route, episode: &Episode, n: usize) -> Vec<(SinkId, Lane)> {
    let mut lanes = lanes(episode, &rules.sinks);
    lanes.retain(|(sink, _)| if rules.replays.contains(sink) { n == 0 } else { !episode.messages.is_empty() });
    lanes
}

/// The body without its `Content-Encoding`.
fn decoded(head: &Parts, body: &Kept, limit: usize) -> Result<Bytes, Refusal> {
    if !decode::is_encoded(&head.headers) {
        return Ok(match body.frames.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        });
    }
    let refuse = |status, detail: String| Err(Refusal::Own { status, detail });
    match decode::decode(&head.headers, &body.frames, limit) {
        Ok(decoded) if decoded.cut => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body, decoded, is longer than {limit} bytes, or broke off"),
        ),
        Ok(decoded) => Ok(decoded.bytes),
        Err(error @ (DecodeError::Unknown(_) | DecodeError::TooMany)) => {
            refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string())
        }
        Err(error @ DecodeError::Damaged) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// The body as JSON; refused where the route needs JSON and it is none.
fn read(offload: &Offload, headers: &HeaderMap, body: &[u8]) -> Result<Option<Value>, Refusal> {
    let needed = !offload.fields.is_empty() || !offload.needs.is_empty() || !matches!(offload.split, Split::Whole);
    if !needed {
        return Ok(document(headers, body));
    }
    if offload.refuse == Refuse::FastApi && !body.is_empty() && !is_json(headers) {
        return Err(service(fastapi::foreign(body)));
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(text) {
        Ok(json) => Ok(Some(json)),
        Err(error) => Err(match offload.refuse {
            Refuse::FastApi => service(fastapi::malformed(body)),
            Refuse::Problem => {
                let detail = format!("the request's body is no JSON: {error}");
                Refusal::Own { status: StatusCode::BAD_REQUEST, detail }
            }
        }),
    }
}

/// Whether a body is announced as JSON, or not announced at all.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

/// Refuses what the service would refuse.
fn judge(offload: &Offload, json: &Value) -> Result<(), Refusal> {
    let wrong = check::check(&offload.fields, json);
    if !wrong.is_empty() {
        return Err(match offload.refuse {
            Refuse::FastApi => service(fastapi::invalid(&wrong)),
            Refuse::Problem => {
                let detail = wrong.iter().map(|wrong| format!("{}: {}", wrong.path(), wrong.says)).collect::<Vec<_>>().join("; ");
                Refusal::Own { status: StatusCode::UNPROCESSABLE_ENTITY, detail }
            }
        });
    }
    for need in &offload.needs {
        let there = need.one_of.iter().any(|path| path.query(json).iter().any(|node| is_something(node)));
        if !there {
            return Err(Refusal::Service { status: need.status, body: need.body.clone() });
        }
    }
    Ok(())
}

/// The messages that a body lists, by episode.
fn messages(offload: &Offload, json: Option<&Value>) -> Result<Vec<Told>, Refusal> {
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
    let find = |path: &serde_json_path::JsonPath| path.query(node).first();
    let content = match part.content.as_ref().map_or(Some(node), find)? {
        Value::String(text) => text.clone(),
        other => text_of(other)?,
    };
    let text = |path: &Option<serde_json_path::JsonPath>| path.as_ref().and_then(find).and_then(text_of);
    let role = text(&part.role).map_or(Cow::Borrowed("user"), Cow::Owned).into_owned();
    let known = |(key, path): &(String, serde_json_path::JsonPath)| {
        let value = find(path).filter(|value| !matches!(value, Value::Null) && value.as_str() != Some(""))?;
        Some((key.clone(), value.clone()))
    };
    Some(Told {
        messages: vec![Message { role, name: text(&part.name), content }],
        metadata: part.metadata.iter().filter_map(known).collect(),
        time: part.time.as_ref().and_then(find).and_then(|value| time::parse(value).ok()),
    })
}

fn service((status, body): (StatusCode, String)) -> Refusal {
    Refusal::Service { status, body: body.into() }
}

fn digest(body: &Kept) -> [u8; 32] {
    body.frames.iter().fold(Sha256::new(), |hash, frame| hash.chain_update(frame)).finalize().into()
}
