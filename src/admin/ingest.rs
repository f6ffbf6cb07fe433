//! `POST /api/v1/episodes`: episodes from services that hand them over themselves, one or a batch of them, all or none.
//!
//! The answer is 202 with the ids once they are on stable storage. With an idempotency key, a repeat within [`REMEMBERED`] stores
//! nothing and is answered with the ids of the first time. They bear the proxy `ingest` and the route `api`, in the record and in
//! `offramp_capture_total`, where each episode counts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::problem::Problem;
use super::{Settings, Shared};
use crate::capture::time;
use crate::clock;
use crate::config::OrderBy;
use crate::episode::{Digests, End, Episode, Message, Request};
use crate::queue::{AppendError, Key, Lane, New, SinkId, Unique};

/// Longest body.
pub(super) const MOST_BYTES: usize = 16 << 20;
/// Most episodes of a batch.
const MOST: usize = 1000;
/// How long an idempotency key holds.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest wait for the commit.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bodies beyond it are read off the async threads.
const READ_ELSEWHERE: usize = 256 * 1024;
/// What the episodes and their counters are labelled with.
const LABELS: [&str; 2] = ["ingest", "api"];

/// One episode as it is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    session: Option<String>,
    group: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    messages: Vec<Said>,
    #[serde(default)]
    metadata: Map<String, Value>,
    occurred_at: Option<Value>,
    sinks: Option<Vec<String>>,
    idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    role: Role,
    name: Option<String>,
    content: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
    System,
}

/// `{"episodes": [...]}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    episodes: Vec<Given>,
}

/// What was asked for, in the form in which it is answered.
enum Asked {
    One(Box<Given>),
    Many(Vec<Given>),
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Taken {
    /// To one episode.
    One { id: Uuid },
    /// To a batch, in its order.
    Many { ids: Vec<Uuid> },
}

pub(super) async fn ingest(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let count = |outcome, n: usize| {
        let [proxy, route] = LABELS;
        shared.state.metrics.capture.with_label_values(&[proxy, route, outcome]).inc_by(n as u64);
    };
    let prepared = async {
        let asked = read(&headers, body?).await?;
        let (given, single) = match asked {
            Asked::One(one) => (vec![*one], true),
            Asked::Many(many) => (many, false),
        };
        Ok((prepare(&shared, &headers, given, single)?, single))
    };
    let (prepared, single) = prepared.await.inspect_err(|_: &Problem| count("no_match", 1))?;
    let lanes: Vec<_> = prepared.iter().map(|p| p.lanes.as_slice()).collect();
    let new: Vec<_> =
        prepared.iter().zip(&lanes).map(|(p, lanes)| New { unique: p.unique, ..New::of(&p.episode, lanes) }).collect();
    let commit = async {
        let appended = shared.state.queue.append(&new)?;
        // What came too late may be there all the same: hence the idempotency key.
        tokio::time::timeout(PATIENCE, appended).await.map_err(|_| AppendError::Failed)?
    };
    let earlier = commit.await.map_err(|error| {
        count(if error == AppendError::Full { "queue_full" } else { "failed" }, new.len());
        match error {
            AppendError::Full => Problem::queue_full("nothing was taken: the queue is full"),
            AppendError::Failed => Problem::queue_unavailable("nothing was taken: the queue's store does not take it now"),
        }
    })?;
    let repeated = earlier.iter().flatten().count();
    count("duplicate", repeated);
    count("queued", new.len() - repeated);
    let ids: Vec<_> = prepared.iter().zip(earlier).map(|(p, earlier)| earlier.unwrap_or(p.episode.id)).collect();
    let taken = match ids.as_slice() {
        [id] if single => Taken::One { id: *id },
        _ => Taken::Many { ids },
    };
    Ok((StatusCode::ACCEPTED, Json(taken)))
}

/// What the body says.
async fn read(headers: &HeaderMap, body: Bytes) -> Result<Asked, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::media_type("this takes JSON, with the header \"Content-Type: application/json\""));
    }
    if body.len() <= READ_ELSEWHERE {
        return parse(&body);
    }
    tokio::task::spawn_blocking(move || parse(&body)).await.map_err(|_| Problem::internal("reading the body failed"))?
}

fn parse(body: &[u8]) -> Result<Asked, Problem> {
    let json: Value =
        serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))?;
    let asked = match json {
        Value::Array(_) => Asked::Many(typed(json, "episodes")?),
        Value::Object(ref members) if members.contains_key("episodes") => Asked::Many(typed::<Batch>(json, "")?.episodes),
        _ => Asked::One(Box::new(typed(json, "")?)),
    };
    if let Asked::Many(many) = &asked
        && !(1..=MOST).contains(&many.len())
    {
        return Err(Problem::bad_request(format!("a batch has 1 to {MOST} episodes, and this one has {}", many.len())));
    }
    Ok(asked)
}

/// A value as a type; the fault says where it is.
fn typed<T: serde::de::DeserializeOwned>(json: Value, within: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let place = match (within, path.as_str()) {
            ("", "." | "") => String::new(),
            ("", path) => format!("{path}: "),
            (within, "." | "") => format!("{within}: "),
            (within, path) => format!("{within}{path}: "),
        };
        Problem::bad_request(format!("{place}{}", error.inner()))
    })
}

/// An episode on its way into the queue.
struct Prepared {
    episode: Episode,
    lanes: Vec<(SinkId, Lane)>,
    unique: Option<Unique>,
}

fn prepare(shared: &Shared, headers: &HeaderMap, given: Vec<Given>, single: bool) -> Result<Vec<Prepared>, Problem> {
    let key =
        match headers.get("idempotency-key") {
            None => None,
            Some(value) => Some(value.to_str().ok().filter(|key| !key.is_empty()).ok_or_else(|| {
                Problem::bad_request("the header Idempotency-Key is empty or no visible text; a UUID does well")
            })?),
        };
    let sinks = Sinks::of(shared);
    let now = clock::now_ms();
    let until = shared.state.queue.now().saturating_add(clock::as_ms(REMEMBERED));
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let one = |(n, given): (usize, Given)| {
        let refused = |what: String| {
            let place = if single { String::new() } else { format!("episodes[{n}].") };
            Problem::bad_request(format!("{place}{what}"))
        };
        let place = n.to_string();
        let key = match (&given.idempotency_key, key, single) {
            (Some(own), ..) if own.is_empty() => return Err(refused("idempotency_key is empty; a UUID does well".to_owned())),
            (Some(own), ..) => Some(Key::of("ingest/episode", [own.as_str()])),
            (None, Some(key), true) => Some(Key::of("ingest", [key])),
            (None, Some(key), false) => Some(Key::of("ingest", [key, place.as_str()])),
            (None, None, _) => None,
        };
        let to = sinks.chosen(given.sinks.as_deref()).map_err(&refused)?;
        let episode = episode(given, now, traceparent).map_err(&refused)?;
        let lanes = to.into_iter().map(|(id, order_by)| (id, lane(&episode, order_by))).collect();
        Ok(Prepared { episode, lanes, unique: key.map(|key| Unique { key, until }) })
    };
    given.into_iter().enumerate().map(one).collect()
}

fn episode(given: Given, now: u64, traceparent: Option<&str>) -> Result<Episode, String> {
    let Given { session, group, user, agent, messages, metadata, occurred_at, .. } = given;
    if messages.is_empty() {
        return Err("messages is empty; an episode has at least one".to_owned());
    }
    if let Some(n) = messages.iter().position(|message| message.content.is_empty()) {
        return Err(format!("messages[{n}].content is empty; a message has a text"));
    }
    let occurred_at = match occurred_at {
        None | Some(Value::Null) => None,
        Some(text) => Some(time::parse(&text).map_err(|_| {
            format!("occurred_at is {text}; a time is such as \"2026-01-01T00:00:00Z\", or Unix seconds or milliseconds")
        })?),
    };
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let id = Uuid::now_v7();
    let [proxy, route] = LABELS.map(ToOwned::to_owned);
    Ok(Episode {
        id,
        session: given(session).unwrap_or_else(|| id.to_string()),
        group: given(group),
        user: given(user),
        agent: given(agent),
        proxy,
        route,
        captured_at: now,
        completed_at: now,
        end: End::Complete,
        messages: messages.into_iter().map(Message::from).collect(),
        metadata: Value::Object(metadata).to_string(),
        request: Request {
            method: "POST".to_owned(),
            path: "/api/v1/episodes".to_owned(),
            status: StatusCode::ACCEPTED.as_u16(),
            traceparent: traceparent.map(ToOwned::to_owned),
        },
        occurred_at,
        sha256: Digests::default(),
        original: None,
    })
}

impl From<Said> for Message {
    fn from(said: Said) -> Self {
        let role = match said.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
        };
        Self { role: role.to_owned(), name: said.name.filter(|name| !name.is_empty()), content: said.content }
    }
}

pub(super) fn lane(episode: &Episode, order_by: OrderBy) -> Lane {
    Lane::of(match order_by {
        OrderBy::Session => &episode.session,
        OrderBy::Group => episode.group(),
        OrderBy::User => episode.user.as_deref().unwrap_or(&episode.session),
    })
}

/// Where episodes can go: everywhere but to a sink that sends requests again, for here is none.
struct Sinks {
    settings: Arc<Settings>,
    replays: Vec<String>,
}

impl Sinks {
    fn of(shared: &Shared) -> Self {
        let replays = shared.state.drain.statuses().into_iter().filter(|sink| sink.kind == "replay").map(|sink| sink.name);
        Self { settings: shared.settings(), replays: replays.collect() }
    }

    fn chosen(&self, wanted: Option<&[String]>) -> Result<Vec<(SinkId, OrderBy)>, String> {
        let able: Vec<_> = self.settings.sinks.iter().filter(|(name, ..)| !self.replays.contains(name)).collect();
        let names = able.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(wanted) = wanted else {
            if able.is_empty() {
                return Err("sinks: there is none that takes episodes without a request".to_owned());
            }
            return Ok(able.into_iter().map(|&(_, id, order_by)| (id, order_by)).collect());
        };
        if wanted.is_empty() {
            return Err(format!("sinks is empty; leave it out for all, or name some of: {names}"));
        }
        let mut chosen = Vec::new();
        for (n, name) in wanted.iter().enumerate() {
            match able.iter().find(|(known, ..)| known == name) {
                Some(_) if wanted[..n].contains(name) => return Err(format!("sinks[{n}] names {name:?} a second time")),
                Some(&&(_, id, order_by)) => chosen.push((id, order_by)),
                None => {
                    let why = if self.replays.contains(name) { "sends requests again, and here is none" } else { "is no sink" };
                    return Err(format!("sinks[{n}]: {name:?} {why}; those that can be named are: {names}"));
                }
            }
        }
        Ok(chosen)
    }
}
