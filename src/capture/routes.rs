//! The rules of a proxy's routes, with everything that can be known before a request comes already looked up.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, header};
use prometheus::IntCounter;

use super::Record;
use super::extract::Want;
use super::order::Order;
use super::redact::Redactor;
use super::request::TRACEPARENT;
use super::stream::{Plan, Probe};
use crate::config::source::Source;
use crate::config::{self, Action, OnFull, OrderBy};
use crate::queue::SinkId;
use crate::telemetry::metrics::Metrics;

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
    /// The exchanges under way.
    pub(crate) order: Arc<Order>,
    /// Longest time that an exchange waits for an earlier one of its session.
    pub(super) patience: Duration,
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
    /// How a stream is put together, where the route has rules for that.
    pub(super) plan: Option<Arc<Plan>>,
    /// The sources that find a session in the request, and whether one of them reads its body.
    pub(super) orderers: Vec<Source>,
    pub(super) reads_session: bool,
    outcomes: [IntCounter; OUTCOMES.len()],
}

impl Routes {
    /// Looks everything up once. `sinks` are all that are configured; names that no route gives are left alone.
    pub fn new(
        proxy: &str,
        routes: Vec<config::Route>,
        on_full: OnFull,
        patience: Duration,
        sinks: &[(String, SinkId, OrderBy)],
        record: Arc<dyn Record>,
        metrics: &Metrics,
    ) -> Self {
        let rules = routes.into_iter().map(|config| Route::new(proxy, config, sinks, metrics)).collect();
        Self {
            proxy: proxy.to_owned(),
            rules,
            record,
            late: metrics.queue_commit_late.clone(),
            order: Arc::default(),
            patience,
            on_full,
        }
    }

    /// Puts these in the place of others: the exchanges that are under way by those keep their place before the ones to come.
    #[must_use]
    pub fn following(mut self, former: &Self) -> Self {
        self.order = Arc::clone(&former.order);
        self
    }

    /// Where episodes go.
    pub fn record(&self) -> &Arc<dyn Record> {
        &self.record
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
        let mut request_headers = vec![header::CONTENT_ENCODING, header::CONTENT_TYPE, TRACEPARENT];
        let mut response_headers = vec![header::CONTENT_ENCODING, header::CONTENT_TYPE];
        for (_, source) in sources(&config) {
            match source {
                Source::ReqHeader(name) => request_headers.push(name.clone()),
                Source::RespHeader(name) => response_headers.push(name.clone()),
                Source::ReqCookie(_) => request_headers.push(header::COOKIE),
                _ => {}
            }
        }
        if !config.replays.is_empty() {
            request_headers.extend(config.keep_headers.iter().cloned());
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
        let plan = config.stream.as_ref().map(|rules| Arc::new(plan(&config, rules, &redactor)));
        let in_request = |source: &&Source| {
            !matches!(source, Source::RespJson(_) | Source::RespHeader(_) | Source::RespStream(_) | Source::Const(_))
        };
        let orderers: Vec<_> = config.extract.session.iter().filter(in_request).cloned().collect();
        Self {
            reads_session: orderers.iter().any(|source| matches!(source, Source::ReqJson(_))),
            redactor,
            config,
            sinks,
            replays,
            request_headers,
            response_headers,
            plan,
            orderers,
            outcomes,
        }
    }

    /// Bytes kept per direction.
    pub(super) fn max_capture(&self) -> usize {
        usize::try_from(self.config.max_capture).unwrap_or(usize::MAX)
    }

    /// What its `dedupe` keys are unique within.
    pub(super) fn dedupe_scope(&self, proxy: &str) -> String {
        format!("dedupe/{proxy}/{}", self.config.name)
    }

    /// Whether an episode can't be made without a look into the queue, which may read the disk.
    pub(super) fn asks_the_queue(&self) -> bool {
        self.config.extract.chain.is_some() || !self.config.join.is_empty()
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

/// Every source of a route, and what it is asked for.
fn sources(route: &config::Route) -> impl Iterator<Item = (Want, &Source)> {
    let e = &route.extract;
    let keys = [&e.session, &e.group, &e.user, &e.agent, &e.time, &route.success_if, &route.join].into_iter();
    let chain = e.chain.iter().flat_map(|chain| [&chain.previous, &chain.id]);
    let keys = keys.chain(chain).chain(route.dedupe.iter().map(|dedupe| &dedupe.key)).map(|list| (Want::Key, list));
    let metadata = e.metadata.iter().map(|(_, list)| (Want::Metadata, list));
    let all = keys.chain(metadata).chain([(Want::Input, &e.input), (Want::Output, &e.output)]);
    all.flat_map(|(want, list)| list.iter().map(move |source| (want, source)))
}

fn plan(route: &config::Route, rules: &config::Stream, redactor: &Redactor) -> Plan {
    let (mut probes, mut gathers) = (Vec::new(), Vec::new());
    for (want, source) in sources(route) {
        match source {
            Source::RespJson(path) => {
                let probe = Probe { path: path.clone(), pick: want.pick() };
                if !probes.contains(&probe) {
                    probes.push(probe);
                }
            }
            Source::RespStream(Some(path)) if !gathers.contains(path) => gathers.push(path.clone()),
            _ => {}
        }
    }
    Plan::new(rules, probes, gathers, redactor.clone(), usize::try_from(route.max_capture).unwrap_or(usize::MAX))
}
