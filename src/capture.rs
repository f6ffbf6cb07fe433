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
//! | `duplicate` | a whole one with its `dedupe` or `join` key was recorded before |
//! | `truncated` | recorded, but a body was longer than `max_capture`, or not what its encoding says |
//! | `queued` | recorded whole (or with `end = "error"` where the upstream broke off, or a stream said that it failed) |
//!
//! A request on an offload route is counted too: see [`offload`].
//!
//! # From bytes to an episode
//! ```text
//! request  ─► kept ─► decode ─► document ─┐
//!                                         ├─► redact ─► extract ─► build ─► Episode
//! response ─► kept ─► decode ─► document ─┤
//!          └► reassembly (decode ─► stream, event by event) ─┘
//! ```
//! A stream is put together as it passes, because the frame that ends it has to wait for the commit ([`reassembly`]). All else is
//! read when the exchange has ended, each body once and only if a source asks for it.
//!
//! # What was cut
//! JSON that was cut can't be read, so a source that reads it finds nothing. A `success_if` over a part that was not seen can't be
//! judged and is left out; such an exchange is recorded, its end marked, if its input was found: to learn too much of what a user
//! said is better than to lose it.
//!
//! # Order
//! An episode's place in its lanes is that of its request: it is taken when the request comes, and [`order`] has the later one of
//! two wait that overlap in a session.

pub mod decode;
pub mod document;
pub mod extract;
pub mod offload;
pub mod order;
pub mod original;
pub mod reassembly;
pub mod record;
pub mod redact;
pub mod routes;
pub mod stream;
pub mod time;

mod build;
#[cfg(test)]
pub(crate) mod golden;
mod node;
mod request;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use build::{Built, Context, Extras, build};
use extract::{Document, Read, Response, Seen, Want};
use order::Ticket;
use reassembly::Reassembly;
pub use record::{Commit, Record, Release};
use routes::{Outcome, Route, Routes};
use stream::Assembled;

use crate::clock;
use crate::config::OrderBy;
use crate::episode::{End, Episode};
use crate::queue::{AppendError, Lane, New, Seq, SinkId};

/// Captured bytes from which parsing leaves the async threads. Below it, handing over costs more than it saves.
pub(crate) const PARSE_ELSEWHERE: usize = 256 * 1024;

/// What was kept of one direction's body.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The first `max_capture` bytes, as they came: counted references, not copies. None of a stream that was put together.
    pub frames: Vec<Bytes>,
    /// Their length.
    pub len: usize,
    /// The length of all that passed, in bytes.
    pub total: u64,
    /// The body came to its end.
    pub ended: bool,
    /// The digest of all that passed.
    pub sha256: [u8; 32],
    /// The stream that it was.
    pub stream: Option<Assembled>,
}

impl Kept {
    /// Of a message without a body.
    pub fn empty() -> Self {
        Self { ended: true, sha256: Sha256::digest([]).into(), ..Self::default() }
    }

    /// Whether all of the body is here.
    pub fn is_whole(&self) -> bool {
        self.ended && self.stream.as_ref().map_or(self.total == self.len as u64, |stream| !stream.truncated)
    }
}

/// What the heads of request and response say, as far as it is needed.
#[derive(Debug)]
struct Head {
    id: Uuid,
    /// When the request came (ms since the Unix epoch).
    arrived_ms: u64,
    method: Method,
    uri: Uri,
    request_headers: HeaderMap,
    status: u16,
    response_headers: HeaderMap,
}

impl Head {
    fn seen<'a>(&'a self, route: &'a Route, request: &'a Document<'a>, response: Option<&'a Response<'a>>) -> Seen<'a> {
        Seen {
            params: route.config.path.matches(self.uri.path()),
            query: self.uri.query(),
            request_headers: &self.request_headers,
            response_headers: &self.response_headers,
            request,
            response,
        }
    }
}

/// One exchange on a capturing route, from its request on.
pub struct Capture {
    tally: Tally,
    head: Head,
    /// Its place in the queue, taken when it arrived.
    place: Seq,
    /// Until when later ones of its session wait for it (queue time, ms).
    patience: u64,
    /// All of the request has been forwarded.
    is_sent: bool,
    /// The request's document, once it was read.
    asked: Option<Read>,
    /// Among the exchanges of its session. Left behind the append: dropped after it.
    ticket: Option<Ticket>,
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
        let record = &routes.record;
        Ok(Some(Box::new(Self {
            tally: Tally { routes: Arc::clone(routes), route, outcome: Outcome::Cancelled },
            place: record.reserve(),
            patience: record.now().saturating_add(clock::as_ms(routes.patience)),
            head: Head {
                id: Uuid::now_v7(),
                arrived_ms: clock::now_ms(),
                method: request.method().clone(),
                uri: request.uri().clone(),
                request_headers: pick(request.headers(), &rules.request_headers),
                status: 0,
                response_headers: HeaderMap::new(),
            },
            is_sent: false,
            asked: None,
            ticket: None,
        })))
    }

    /// The id that the episode has, should there be one.
    pub fn id(&self) -> Uuid {
        self.head.id
    }

    /// Bytes to keep per direction.
    pub fn max_capture(&self) -> usize {
        self.rules().max_capture()
    }

    /// Longest time that the last byte waits.
    pub fn commit_wait(&self) -> Duration {
        self.tally.routes.record.commit_wait()
    }

    /// Where to count a last byte that didn't wait for its commit.
    pub fn late(&self) -> prometheus::IntCounter {
        self.tally.routes.late.clone()
    }

    /// All of the request has been forwarded: takes its place among the exchanges of the session that it names. For a request of more
    /// than 256 KiB that names it in its body alone, this is left out. Never panics.
    pub fn sent(&mut self, request: Option<&Kept>) {
        let rules = &self.tally.routes.rules[self.tally.route];
        if std::mem::replace(&mut self.is_sent, true) || rules.orderers.is_empty() {
            return;
        }
        let named = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let kept = request.filter(|kept| rules.reads_session && kept.len <= PARSE_ELSEWHERE);
            // It may be encoded, and longer than it looks.
            let limit = rules.max_capture().min(PARSE_ELSEWHERE);
            let document = Document::new(&self.head.request_headers, kept, limit, &rules.redactor);
            let session = self.head.seen(rules, &document, None).text(&rules.orderers, Want::Key);
            (session, document.into_read())
        }));
        if let Ok((session, read)) = named {
            let routes = &self.tally.routes;
            self.ticket = session.map(|s| routes.order.enter(&routes.record, &s, self.place, self.patience));
            self.asked = read;
        }
    }

    /// Notes the response's head. What to put a stream together with, if it is one.
    pub fn answered(&mut self, status: u16, headers: &HeaderMap) -> Option<Box<Reassembly>> {
        self.head.status = status;
        self.head.response_headers = pick(headers, &self.rules().response_headers);
        let rules = self.rules();
        let plan = rules.plan.as_ref().filter(|_| rules.config.success.contains(status))?;
        Reassembly::of(plan, headers).map(Box::new)
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
        let status = self.head.status;
        if status == 0 {
            return None; // the client left before there was a response: the tally says `cancelled` already
        }
        if end == End::Cancelled && !rules.config.record_cancelled {
            return None;
        }
        if !rules.config.success.contains(status) {
            if end != End::Cancelled {
                self.tally.outcome = Outcome::NoMatch;
            }
            return None;
        }
        let text = response.stream.as_ref().and_then(|stream| stream.text.as_ref()).map_or(0, String::len);
        let bytes = request.map_or(0, |r| r.len) + response.len + text;
        // What is encoded may be many times as long as it looks.
        let is_work = bytes > PARSE_ELSEWHERE || rules.asks_the_queue() || self.is_encoded();
        if is_work && tokio::runtime::Handle::try_current().is_ok() {
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
        let asked = self.asked.take();
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| self.record(asked, end, request, response)));
        let route = &self.rules().config.name;
        let (appended, outcome) = match built {
            Ok(Some(built)) => built,
            Ok(None) => {
                self.tally.outcome = if end == End::Cancelled { Outcome::Cancelled } else { Outcome::NoMatch };
                return None;
            }
            Err(_) => {
                tracing::error!(%route, id = %self.head.id, "capture panicked; the exchange was not recorded, its traffic is untouched");
                return None;
            }
        };
        match appended {
            Ok(commit) => {
                self.tally.outcome = outcome;
                let mut tally = self.tally;
                Some(Box::pin(async move {
                    match commit.await {
                        Ok(duplicates) if duplicates.iter().any(Option::is_some) => tally.duplicate(),
                        Ok(_) => {}
                        Err(error) => tally.failed(error),
                    }
                }))
            }
            Err(error) => {
                self.tally.failed(error);
                None
            }
        }
    }

    /// Hands over what there is to record, if anything.
    fn record(
        &self,
        asked: Option<Read>,
        end: End,
        request: Option<&Kept>,
        response: &Kept,
    ) -> Option<(Result<Commit, AppendError>, Outcome)> {
        let rules = self.rules();
        let record = &*self.tally.routes.record;
        let document = Document::new(&self.head.request_headers, request, rules.max_capture(), &rules.redactor).with(asked);
        let context = Context { head: &self.head, route: rules, proxy: &self.tally.routes.proxy, record };
        match build(&context, end, &document, request, response) {
            Built::Nothing => None,
            Built::Part(note) => Some((record.write_note(note), Outcome::NoMatch)),
            Built::Episode(episode, Extras { unique, note }) => {
                let lanes = lanes(&episode, &rules.sinks);
                if let Some(ticket) = &self.ticket {
                    ticket.wait_for_earlier(&lanes);
                }
                let priority = rules.config.priority;
                let new = New { episode: &episode, lanes: &lanes, place: Some(self.place), unique, note, priority };
                let outcome = match episode.end {
                    End::Cancelled => Outcome::Cancelled,
                    End::Truncated => Outcome::Truncated,
                    End::Complete | End::Error => Outcome::Queued,
                };
                Some((record.append(&[new]), outcome))
            }
        }
    }

    fn is_encoded(&self) -> bool {
        decode::is_encoded(&self.head.request_headers) || decode::is_encoded(&self.head.response_headers)
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

    fn duplicate(&mut self) {
        self.outcome = Outcome::Duplicate;
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

/// Where an episode goes: one lane per sink, by the sink's ordering key.
fn lanes(episode: &Episode, sinks: &[(SinkId, OrderBy)]) -> Vec<(SinkId, Lane)> {
    let key = |order_by| match order_by {
        OrderBy::Session => episode.session.as_str(),
        OrderBy::Group => episode.group(),
        OrderBy::User => episode.user.as_deref().unwrap_or(&episode.session),
    };
    sinks.iter().map(|&(id, order_by)| (id, Lane::of(key(order_by)))).collect()
}
