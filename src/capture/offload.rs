//! Offload: a request that is not forwarded. It becomes episodes, and its caller has the reply once these are on stable storage.
//!
//! What goes into the queue is what the service behind would have taken: a request that it would refuse is refused now, in its own
//! words (`check.rs`, `fastapi.rs`), for nobody is there to be told later. Nothing is sampled, and nothing is dropped because no text was
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

mod body;
mod check;
mod fastapi;
mod told;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::told::Told;
use super::extract::{Document, Seen, Want};
use super::original::original;
use super::request::request;
use super::routes::{Outcome, Route, Routes};
use super::{Commit, Kept, Tally, lanes, time};
use crate::clock;
use crate::config;
use crate::config::offload::{Offload, Split};
use crate::episode::{Digests, End, Episode};
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
        let lanes: Vec<_> = made.episodes.iter().enumerate().map(|(n, episode)| goes_to(rules, episode, n)).collect();
        let mut new = Vec::with_capacity(ids.len());
        for (n, (episode, lanes)) in made.episodes.iter().zip(&lanes).enumerate() {
            let unique = made.unique.as_ref().map(|(texts, until)| {
                let place = n.to_string();
                let texts = texts.iter().map(String::as_str).chain((n > 0).then_some(place.as_str()));
                Unique { key: Key::of(&rules.dedupe_scope(&self.tally.routes.proxy), texts), until: *until }
            });
            let priority = rules.config.priority;
            new.push(New { place: Some(record.reserve()), unique, priority, ..New::of(episode, lanes) });
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
                self.tally.outcome = outcome_of(error);
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
        let bytes = body::decoded(head, body, self.max_body())?;
        let json = body::read(offload, &head.headers, &bytes)?;
        if let Some(json) = &json {
            body::judge(offload, json)?;
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
        let unique = route.dedupe.as_ref().and_then(|dedupe| self.unique(dedupe, &seen));
        let mut told = told::messages(offload, document.json(Want::Input))?;
        if matches!(offload.split, Split::Whole) {
            let found = told::found(&route.extract, &seen);
            if found.messages.is_empty() && route.replays.is_empty() {
                let detail = "nothing that was said was found in the request, so there is nothing to keep".to_owned();
                return Err(Refusal::Own { status: StatusCode::UNPROCESSABLE_ENTITY, detail });
            }
            told.push(found);
        } else if told.is_empty() && !route.replays.is_empty() {
            told.push(Told::default());
        }
        let base = self.base(head, body, &seen, offload.reply.status);
        let kept = || original(&route.keep_headers, &rules.redactor, &head.uri, &head.headers, Some(body));
        let mut original = if route.replays.is_empty() { None } else { kept() };
        let shared = route.extract.metadata.iter();
        let shared: Map<_, _> = shared.filter_map(|(key, sources)| Some((key.clone(), seen.value(sources)?))).collect();
        let episode = |(n, Told { mut messages, metadata: own, time }): (usize, Told)| {
            for message in &mut messages {
                rules.redactor.text(&mut message.content);
                if let Some(name) = &mut message.name {
                    rules.redactor.key(name);
                }
            }
            let mut metadata = Value::Object(shared.clone().into_iter().chain(own).collect());
            rules.redactor.document(&mut metadata);
            Episode {
                id: if n == 0 { base.id } else { Uuid::now_v7() },
                occurred_at: time.or(base.occurred_at),
                original: original.take(),
                messages,
                metadata: metadata.to_string(),
                ..base.clone()
            }
        };
        Ok(Made { episodes: told.into_iter().enumerate().map(episode).collect(), unique })
    }

    /// The texts of the request's `dedupe` key, and until when they hold; none where no source yields.
    fn unique(&self, dedupe: &config::Dedupe, seen: &Seen<'_>) -> Option<(Vec<String>, u64)> {
        let until = self.tally.routes.record.now().saturating_add(clock::as_ms(dedupe.window));
        Some((seen.texts(&dedupe.key)?, until))
    }

    /// What all episodes of a request have in common. The id is the first one's.
    fn base(&self, head: &Parts, body: &Kept, seen: &Seen<'_>, status: StatusCode) -> Episode {
        let rules = self.rules();
        let extract = &rules.config.extract;
        let id = Uuid::now_v7();
        let key = |sources| {
            seen.text(sources, Want::Key).map(|mut text| {
                rules.redactor.key(&mut text);
                text
            })
        };
        Episode {
            id,
            session: key(&extract.session).unwrap_or_else(|| id.to_string()),
            group: key(&extract.group),
            user: key(&extract.user),
            agent: key(&extract.agent),
            proxy: self.tally.routes.proxy.clone(),
            route: rules.config.name.clone(),
            captured_at: self.arrived_ms,
            completed_at: clock::now_ms(),
            end: End::Complete,
            messages: Vec::new(),
            metadata: String::new(),
            request: request(&head.method, &head.uri, &head.headers, status.as_u16(), &rules.redactor),
            occurred_at: seen.text(&extract.time, Want::Key).and_then(|text| time::parse(&text.into()).ok()),
            sha256: Digests { request: Some(body.sha256), response: None },
            original: None,
        }
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
                    tally.outcome = outcome_of(error);
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

fn outcome_of(error: AppendError) -> Outcome {
    match error {
        AppendError::Full => Outcome::QueueFull,
        AppendError::Failed => Outcome::Failed,
    }
}

/// Where an episode goes. A sink that sends the request again gets it once, with the first episode; it is the only kind that takes an
/// episode in which nothing is said.
fn goes_to(rules: &Route, episode: &Episode, n: usize) -> Vec<(SinkId, Lane)> {
    let mut lanes = lanes(episode, &rules.sinks);
    lanes.retain(|(sink, _)| if rules.replays.contains(sink) { n == 0 } else { !episode.messages.is_empty() });
    lanes
}
