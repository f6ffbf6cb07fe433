//! Capture: turns an exchange that ended into an [`Episode`] and hands it to the queue.
//!
//! A [`Capture`] begins when a request on a capturing route is forwarded (who was sent away from the line is no exchange) and ends
//! exactly once, however the exchange ends; each is counted in `offramp_capture_total` under exactly one outcome. Where several
//! would fit, the first of this list is counted:
//!
//! | outcome | what became of the exchange |
//! |---|---|
//! | `sampled_out` | not chosen by `sample` |
//! | `queue_full` | the queue had no room: not captured, or refused (`on_full = "reject"`) |
//! | `failed` | the store refused it or extraction broke: not captured, and said in the log |
//! | `cancelled` | the client left before the end; recorded with what it got, or not (`on_cancel = "discard"`, or before a response) |
//! | `no_match` | no episode: another status than `success`, a `success_if` that didn't hold, or neither input nor output found |
//! | `truncated` | recorded, but a body was longer than `max_capture` |
//! | `queued` | recorded whole (or with `end = "error"` where the upstream broke off) |
//!
//! # What was cut
//! JSON that was cut can't be read, so a source that reads it finds nothing. A `success_if` over a part that was not seen can't be
//! judged and is left out; such an exchange is recorded, its end marked, if its input was found: to learn too much of what a user
//! said is better than to lose it.

pub mod decode;
pub mod document;
pub mod extract;
pub mod offload;
pub mod original;
pub mod redact;
pub mod routes;
pub mod stream;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use uuid::Uuid;

use crate::clock;
use crate::config::OrderBy;
use crate::episode::{Digests, End, Episode, Message, Request};
use crate::queue::{AppendError, Appended, Key, Lane, New, Note, Queue, Seq, SinkId};
use extract::{Judgement, Pick, Seen};
use routes::{Outcome, Route, Routes};

/// Captured bytes from which parsing leaves the async threads. Below it, handing over costs more than it saves.
pub(crate) const PARSE_ELSEWHERE: usize = 256 * 1024;

/// Resolves once episodes are on stable storage. Dropping it does not take them back.
pub type Commit = Pin<Box<dyn Future<Output = Result<Appended, AppendError>> + Send>>;

/// Resolves when a response's last byte may leave: committed, or known to have failed. Dropping it takes nothing back.
pub type Release = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where episodes go: the queue, as capture sees it. Its methods are the queue's.
pub trait Record: Send + Sync + 'static {
    /// [`Queue::append`]
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError>;
    /// [`Queue::is_full`]
    fn is_full(&self) -> bool;
    /// [`Queue::commit_wait`]
    fn commit_wait(&self) -> Duration;
    /// [`Queue::now`]
    fn now(&self) -> u64;
    /// [`Queue::reserve`]
    fn reserve(&self) -> Seq;
    /// [`Queue::hold`]
    fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, until: u64);
    /// [`Queue::release`]
    fn release(&self, place: Seq);
    /// [`Queue::note`]
    fn note(&self, key: Key) -> Option<Vec<u8>>;
    /// [`Queue::write_note`]
    fn write_note(&self, note: Note) -> Result<Commit, AppendError>;
}

impl Record for Queue {
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError> {
        Ok(Box::pin(Queue::append(self, new)?))
    }

    fn is_full(&self) -> bool {
        Queue::is_full(self)
    }

    fn commit_wait(&self) -> Duration {
        Queue::commit_wait(self)
    }

    fn now(&self) -> u64 {
        Queue::now(self)
    }

    fn reserve(&self) -> Seq {
        Queue::reserve(self)
    }

    fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, until: u64) {
        Queue::hold(self, lanes, place, until);
    }

    fn release(&self, place: Seq) {
        Queue::release(self, place);
    }

    fn note(&self, key: Key) -> Option<Vec<u8>> {
        Queue::note(self, key)
    }

    fn write_note(&self, note: Note) -> Result<Commit, AppendError> {
        let written = Queue::write_note(self, note)?;
        Ok(Box::pin(async move { written.await.map(|()| Vec::new()) }))
    }
}

/// What was kept of one direction's body.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The first `max_capture` bytes, as they came: counted references, not copies.
    pub frames: Vec<Bytes>,
    /// Their length.
    pub len: usize,
    /// The length of all that passed, in bytes.
    pub total: u64,
    /// The body came to its end.
    pub ended: bool,
}

impl Kept {
    /// Whether all of the body is here.
    pub fn is_whole(&self) -> bool {
        self.ended && self.total == self.len as u64
    }
}

/// One exchange on a capturing route, from its request on.
#[derive(Debug)]
pub struct Capture {
    tally: Tally,
    id: Uuid,
    arrived_ms: u64,
    method: Method,
    uri: Uri,
    request_headers: HeaderMap,
    status: u16,
    response_headers: HeaderMap,
}

impl Capture {
    /// Begins with a request; `None` where the route passes or the sample leaves it out. Copies nothing but references.
    ///
    /// # Errors
    /// [`AppendError::Full`] if the queue is full and such requests are to be refused.
    pub fn begin<B>(routes: &Arc<Routes>, route: usize, request: &http::Request<B>) -> Result<Option<Box<Self>>, AppendError> {
        let Some(rules) = routes.capturing(route) else { return Ok(None) };
        if !rules.is_sampled() {
            rules.count(Outcome::SampledOut);
            return Ok(None);
        }
        if routes.refuses() {
            rules.count(Outcome::QueueFull);
            return Err(AppendError::Full);
        }
        Ok(Some(Box::new(Self {
            tally: Tally { routes: Arc::clone(routes), route, outcome: Outcome::Cancelled },
            id: Uuid::now_v7(),
            arrived_ms: clock::now_ms(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            request_headers: pick(request.headers(), &rules.request_headers),
            status: 0,
            response_headers: HeaderMap::new(),
        })))
    }

    /// The id that the episode has, should there be one.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Bytes to keep per direction.
    pub fn max_capture(&self) -> usize {
        usize::try_from(self.rules().config.max_capture).unwrap_or(usize::MAX)
    }

    /// Longest time that the last byte waits.
    pub fn commit_wait(&self) -> Duration {
        self.tally.routes.record.commit_wait()
    }

    /// Where to count a last byte that didn't wait for its commit.
    pub fn late(&self) -> prometheus::IntCounter {
        self.tally.routes.late.clone()
    }

    /// Notes the response's head.
    pub fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.response_headers = pick(headers, &self.rules().response_headers);
    }

    /// Ends without an answer from the upstream: no episode.
    pub fn unanswered(mut self: Box<Self>) {
        self.tally.outcome = Outcome::NoMatch;
    }

    /// Ends with the exchange: makes the episode and appends it. `request` is `None` where the request's body never came to an end.
    ///
    /// The release is what the last byte has to wait for; `None`: there is nothing to wait for. Never panics: what goes wrong
    /// in here is counted and logged, and the exchange goes on.
    pub fn conclude(mut self: Box<Self>, end: End, request: Option<&Kept>, response: Kept) -> Option<Release> {
        let rules = self.rules();
        if self.status == 0 {
            return None; // the client left before there was a response: the tally says `cancelled` already
        }
        if end == End::Cancelled && !rules.config.record_cancelled {
            return None;
        }
        if !rules.config.success.contains(self.status) {
            if end != End::Cancelled {
                self.tally.outcome = Outcome::NoMatch;
            }
            return None;
        }
        let bytes = request.map_or(0, |r| r.len) + response.len;
        if bytes > PARSE_ELSEWHERE && tokio::runtime::Handle::try_current().is_ok() {
            let request = request.cloned();
            let appending = tokio::task::spawn_blocking(move || self.append(end, request.as_ref(), &response));
            return Some(Box::pin(async move {
                if let Ok(Some(release)) = appending.await {
                    release.await;
                }
            }));
        }
        self.append(end, request, &response)
    }

    fn append(mut self: Box<Self>, end: End, request: Option<&Kept>, response: &Kept) -> Option<Release> {
        // Stays if extraction panics: the tally counts when it is dropped.
        self.tally.outcome = Outcome::Failed;
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let episode = self.build(end, request, response)?;
            let lanes = lanes(&episode, &self.rules().sinks);
            Some((self.tally.routes.record.append(&[New::of(&episode, &lanes)]), episode.end))
        }));
        let route = &self.rules().config.name;
        let (appended, end) = match built {
            Ok(Some(built)) => built,
            Ok(None) => {
                self.tally.outcome = if end == End::Cancelled { Outcome::Cancelled } else { Outcome::NoMatch };
                return None;
            }
            Err(_) => {
                tracing::error!(%route, id = %self.id, "capture panicked; the exchange was not recorded, its traffic is untouched");
                return None;
            }
        };
        match appended {
            Ok(commit) => {
                self.tally.outcome = match end {
                    End::Cancelled => Outcome::Cancelled,
                    End::Truncated => Outcome::Truncated,
                    End::Complete | End::Error => Outcome::Queued,
                };
                let mut tally = self.tally;
                Some(Box::pin(async move {
                    if let Err(error) = commit.await {
                        tally.failed(error);
                    }
                }))
            }
            Err(error) => {
                self.tally.failed(error);
                None
            }
        }
    }

    /// The episode, if there is one in this exchange.
    fn build(&self, end: End, request: Option<&Kept>, response: &Kept) -> Option<Episode> {
        let rules = self.rules();
        let route = &rules.config;
        for (reads, headers, what) in
            [(rules.reads_request, &self.request_headers, "request"), (rules.reads_response, &self.response_headers, "response")]
        {
            if reads && is_encoded(headers) {
                tracing::debug!(route = %route.name, id = %self.id, "not captured: the {what} has a content-encoding, which this version can't read");
                return None;
            }
        }
        let seen = Seen::new(
            route.path.matches(self.uri.path()),
            self.uri.query(),
            &self.request_headers,
            &self.response_headers,
            request,
            response,
        );
        let mut judged = true;
        for source in &route.success_if {
            match seen.judge(source) {
                Judgement::Holds => {}
                Judgement::Fails => return None,
                Judgement::Unseen => judged = false,
            }
        }
        let extract = &route.extract;
        let input = seen.text(&extract.input, Pick::Last);
        let output = seen.text(&extract.output, Pick::First);
        if input.is_none() && (output.is_none() || !judged) {
            return None;
        }
        let metadata: serde_json::Map<_, _> = extract
            .metadata
            .iter()
            .filter_map(|(key, sources)| Some((key.clone(), seen.text(sources, Pick::First)?.into())))
            .collect();
        let whole = request.is_some_and(Kept::is_whole) && response.is_whole();
        Some(Episode {
            id: self.id,
            session: seen.text(&extract.session, Pick::First).unwrap_or_else(|| self.id.to_string()),
            group: seen.text(&extract.group, Pick::First),
            user: seen.text(&extract.user, Pick::First),
            agent: seen.text(&extract.agent, Pick::First),
            proxy: self.tally.routes.proxy.clone(),
            route: route.name.clone(),
            captured_at: self.arrived_ms,
            completed_at: clock::now_ms(),
            end: if end == End::Complete && !whole { End::Truncated } else { end },
            messages: input
                .map(|c| Message::new("user", c))
                .into_iter()
                .chain(output.map(|c| Message::new("assistant", c)))
                .collect(),
            metadata: serde_json::Value::Object(metadata).to_string(),
            request: Request {
                method: self.method.as_str().to_owned(),
                path: self.uri.path().to_owned(),
                status: self.status,
                traceparent: self.request_headers.get(routes::TRACEPARENT).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned),
            },
            occurred_at: None,
            sha256: Digests::default(),
            original: None,
        })
    }

    fn rules(&self) -> &Route {
        self.tally.rules()
    }
}

/// Counts its outcome when it is dropped: so each exchange is counted once, whichever way it ends.
#[derive(Debug)]
struct Tally {
    routes: Arc<Routes>,
    route: usize,
    outcome: Outcome,
}

impl Tally {
    fn rules(&self) -> &Route {
        &self.routes.rules[self.route]
    }

    fn failed(&mut self, error: AppendError) {
        self.outcome = match error {
            AppendError::Full => Outcome::QueueFull,
            AppendError::Failed => Outcome::Failed,
        };
        tracing::debug!(route = %self.rules().config.name, %error, "an exchange was not recorded; its traffic is untouched");
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.rules().count(self.outcome);
    }
}

/// The values of a few headers, as counted references.
fn pick(headers: &HeaderMap, names: &[http::HeaderName]) -> HeaderMap {
    let mut picked = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            picked.append(name.clone(), value.clone());
        }
    }
    picked
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|v| v.as_bytes().split(|&b| b == b',').any(|c| !c.trim_ascii().eq_ignore_ascii_case(b"identity")))
}

/// Where an episode goes: one lane per sink, by the sink's ordering key.
fn lanes(episode: &Episode, sinks: &[(SinkId, OrderBy)]) -> Vec<(SinkId, Lane)> {
    let key = |order_by| match order_by {
        OrderBy::Session => episode.session.as_str(),
        OrderBy::Group => episode.group(),
        OrderBy::User => episode.user.as_deref().unwrap_or(&episode.session),
    };
    sinks.iter().map(|&(id, order_by)| (id, Lane::of(key(order_by)))).collect()
}
