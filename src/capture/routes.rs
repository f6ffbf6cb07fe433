//! The rules of a proxy's routes, with everything that can be known before a request comes already looked up.

use std::sync::Arc;

use http::{HeaderName, Method, header};
use prometheus::IntCounter;

use super::Record;
use super::redact::Redactor;
use crate::config::source::Source;
use crate::config::{self, Action, OnFull, OrderBy};
use crate::queue::SinkId;
use crate::telemetry::metrics::Metrics;

/// The one header whose value goes into the record.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What became of an exchange on a capturing route: the label of `offramp_capture_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Recorded whole.
    Queued,
    /// One with its key was recorded before.
    Duplicate,
    /// Left out by `sample`.
    SampledOut,
    /// Recorded, but longer than `max_capture`.
    Truncated,
    /// The client left before the end.
    Cancelled,
    /// No room.
    QueueFull,
    /// Nothing to record.
    NoMatch,
    /// Capture itself failed.
    Failed,
}

const OUTCOMES: [(Outcome, &str); 8] = [
    (Outcome::Queued, "queued"),
    (Outcome::Duplicate, "duplicate"),
    (Outcome::SampledOut, "sampled_out"),
    (Outcome::Truncated, "truncated"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::QueueFull, "queue_full"),
    (Outcome::NoMatch, "no_match"),
    (Outcome::Failed, "failed"),
];

/// The routes of one proxy.
pub struct Routes {
    pub(super) proxy: String,
    pub(super) rules: Vec<Route>,
    pub(super) record: Arc<dyn Record>,
    pub(super) late: IntCounter,
    on_full: OnFull,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("proxy", &self.proxy).field("routes", &self.rules.len()).finish_non_exhaustive()
    }
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: config::Route,
    pub(super) sinks: Vec<(SinkId, OrderBy)>,
    /// Those that send the request again.
    pub(super) replays: Vec<SinkId>,
    pub(super) redactor: Redactor,
    /// Headers that a source reads, and those that every capture needs.
    pub(super) request_headers: Vec<HeaderName>,
    pub(super) response_headers: Vec<HeaderName>,
    /// Some source reads the JSON of this direction.
    pub(super) reads_request: bool,
    pub(super) reads_response: bool,
    outcomes: [IntCounter; OUTCOMES.len()],
}

impl Routes {
    /// Looks everything up once. `sinks` are all that are configured; names that no route gives are left alone.
    pub fn new(
        proxy: &str,
        routes: Vec<config::Route>,
        on_full: OnFull,
        sinks: &[(String, SinkId, OrderBy)],
        record: Arc<dyn Record>,
        metrics: &Metrics,
    ) -> Self {
        let rules = routes.into_iter().map(|config| Route::new(proxy, config, sinks, metrics)).collect();
        Self { proxy: proxy.to_owned(), rules, record, late: metrics.queue_commit_late.clone(), on_full }
    }

    /// The first route that matches. Does not allocate.
    pub fn find(&self, method: &Method, path: &str) -> Option<usize> {
        self.rules.iter().position(|r| {
            (r.config.methods.is_empty() || r.config.methods.contains(method)) && r.config.path.matches(path).is_some()
        })
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|r| r.config.name.as_str())
    }

    pub(super) fn capturing(&self, route: usize) -> Option<&Route> {
        self.rules.get(route).filter(|r| r.config.action == Action::Capture)
    }

    /// Whether a route keeps its requests to itself.
    pub fn offloads(&self, route: usize) -> bool {
        self.rules.get(route).is_some_and(|r| r.config.action == Action::Offload)
    }

    /// Whether a request that would be captured has to be refused now.
    pub(super) fn refuses(&self) -> bool {
        self.on_full == OnFull::Reject && self.record.is_full()
    }
}

impl Route {
    fn new(proxy: &str, config: config::Route, sinks: &[(String, SinkId, OrderBy)], metrics: &Metrics) -> Self {
        let mut request_headers = vec![header::CONTENT_ENCODING, TRACEPARENT];
        let mut response_headers = vec![header::CONTENT_ENCODING];
        let (mut reads_request, mut reads_response) = (false, false);
        for source in sources(&config) {
            match source {
                Source::ReqJson(_) => reads_request = true,
                Source::RespJson(_) => reads_response = true,
                Source::ReqHeader(name) => request_headers.push(name.clone()),
                Source::RespHeader(name) => response_headers.push(name.clone()),
                Source::ReqCookie(_) => request_headers.push(header::COOKIE),
                Source::RespStream(_) | Source::ReqPath(_) | Source::ReqQuery(_) | Source::Const(_) => {}
            }
        }
        for names in [&mut request_headers, &mut response_headers] {
            names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            names.dedup();
        }
        let outcomes = OUTCOMES.map(|(_, label)| metrics.capture.with_label_values(&[proxy, &config.name, label]));
        let replays = sinks.iter().filter(|(name, ..)| config.replays.contains(name)).map(|&(_, id, _)| id).collect();
        let redactor = Redactor::new(&config.redact);
        let sinks =
            sinks.iter().filter(|(name, ..)| config.sinks.contains(name)).map(|&(_, id, order_by)| (id, order_by)).collect();
        Self { config, sinks, replays, redactor, request_headers, response_headers, reads_request, reads_response, outcomes }
    }

    /// Draws whether this exchange is captured.
    pub(super) fn is_sampled(&self) -> bool {
        self.config.sample >= 1.0 || fastrand::f64() < self.config.sample
    }

    pub(super) fn count(&self, outcome: Outcome) {
        for ((o, _), counter) in OUTCOMES.iter().zip(&self.outcomes) {
            if *o == outcome {
                counter.inc();
            }
        }
    }
}

fn sources(route: &config::Route) -> impl Iterator<Item = &Source> {
    let e = &route.extract;
    [&e.session, &e.group, &e.user, &e.agent, &e.input, &e.output, &route.success_if]
        .into_iter()
        .chain(e.metadata.iter().map(|(_, sources)| sources))
        .flatten()
}
