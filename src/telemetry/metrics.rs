//! Every metric, named once. Label values come from the configuration, never from traffic.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Seconds: from what offramp may add (tens of microseconds) to what a graph write may take (minutes).
const FAST: &[f64] =
    &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const REQUEST: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const SLOW: &[f64] =
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0];

/// The handles. Cheap to clone: each is a counted reference.
#[derive(Clone)]
pub struct Metrics {
    /// What `/metrics` gathers.
    pub registry: Registry,
    /// `{proxy,route,method,code}`
    pub http_requests: IntCounterVec,
    /// `{proxy,route}`, seconds
    pub http_request_duration: HistogramVec,
    /// `{proxy}`, seconds that offramp itself added
    pub http_overhead: HistogramVec,
    /// `{proxy}`
    pub http_in_flight: IntGaugeVec,
    /// `{proxy}`
    pub http_waiting: IntGaugeVec,
    /// `{proxy,route,outcome}`
    pub capture: IntCounterVec,
    /// Seconds from append to stable storage.
    pub queue_commit: Histogram,
    /// Commits that outlasted `commit_wait`.
    pub queue_commit_late: IntCounter,
    /// `{sink,state}`, set when scraped
    pub queue_episodes: IntGaugeVec,
    /// Set when scraped.
    pub queue_bytes: IntGauge,
    /// Set when scraped.
    pub queue_disk_bytes: IntGauge,
    /// `{sink}`, set when scraped
    pub queue_oldest_pending: GaugeVec,
    /// Set when scraped; always 0.
    pub ledger_gap: IntGauge,
    /// `{sink,outcome}`
    pub sink_attempts: IntCounterVec,
    /// `{sink}`, seconds
    pub sink_attempt: HistogramVec,
    /// `{sink}`, seconds from capture to confirmation
    pub sink_delivery_lag: HistogramVec,
    /// `{sink}`: 0 closed, 1 open, 2 half-open
    pub sink_breaker_state: IntGaugeVec,
    /// `{sink}`
    pub sink_workers_busy: IntGaugeVec,
    /// `{sink,reason}`
    pub sink_dead: IntCounterVec,
    /// `{sink}`
    pub sink_possible_duplicates: IntCounterVec,
}

impl Metrics {
    /// A registry of its own with every metric in it, and the usual `process_*`.
    ///
    /// # Panics
    /// Never: each name is registered once.
    #[allow(clippy::missing_panics_doc)]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            http_requests: counters(
                r,
                "offramp_http_requests_total",
                "Requests answered.",
                &["proxy", "route", "method", "code"],
            ),
            http_request_duration: histograms(
                r,
                "offramp_http_request_duration_seconds",
                "From the request's head to the response's last byte.",
                &["proxy", "route"],
                REQUEST,
            ),
            http_overhead: histograms(r, "offramp_http_overhead_seconds", "Time that offramp itself added.", &["proxy"], FAST),
            http_in_flight: gauges(r, "offramp_http_in_flight", "Requests being forwarded.", &["proxy"]),
            http_waiting: gauges(r, "offramp_http_waiting", "Requests waiting in line.", &["proxy"]),
            capture: counters(
                r,
                "offramp_capture_total",
                "Exchanges on capturing routes, by what became of them.",
                &["proxy", "route", "outcome"],
            ),
            queue_commit: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new("offramp_queue_commit_seconds", "From append to stable storage.").buckets(FAST.to_vec()),
                ),
            ),
            queue_commit_late: registered(
                r,
                IntCounter::new("offramp_queue_commit_late_total", "Responses released before their commit, after commit_wait."),
            ),
            queue_episodes: gauges(r, "offramp_queue_episodes", "Episodes by sink and state.", &["sink", "state"]),
            queue_bytes: registered(r, IntGauge::new("offramp_queue_bytes", "Bytes of stored episodes.")),
            queue_disk_bytes: registered(
                r,
                IntGauge::new("offramp_queue_disk_bytes", "Bytes that the queue's directory takes on the disk."),
            ),
            queue_oldest_pending: registered(
                r,
                GaugeVec::new(Opts::new("offramp_queue_oldest_pending_seconds", "Age of the oldest pending episode."), &["sink"]),
            ),
            ledger_gap: registered(
                r,
                IntGauge::new("offramp_ledger_gap", "captured - (delivered + dead + purged + expired + pending): always 0."),
            ),
            sink_attempts: counters(r, "offramp_sink_attempts_total", "Attempts by how they ended.", &["sink", "outcome"]),
            sink_attempt: histograms(
                r,
                "offramp_sink_attempt_seconds",
                "Length of an attempt, confirmation included.",
                &["sink"],
                SLOW,
            ),
            sink_delivery_lag: histograms(
                r,
                "offramp_sink_delivery_lag_seconds",
                "From capture to confirmation.",
                &["sink"],
                SLOW,
            ),
            sink_breaker_state: gauges(r, "offramp_sink_breaker_state", "0 closed, 1 open, 2 half-open.", &["sink"]),
            sink_workers_busy: gauges(r, "offramp_sink_workers_busy", "Attempts in flight.", &["sink"]),
            sink_dead: counters(r, "offramp_sink_dead_total", "Dead letters by reason.", &["sink", "reason"]),
            sink_possible_duplicates: counters(
                r,
                "offramp_sink_possible_duplicates_total",
                "Episodes sent again that an earlier attempt may have brought there.",
                &["sink"],
            ),
            registry: registry.clone(),
        };
        let build: GaugeVec = registered(
            r,
            GaugeVec::new(Opts::new("offramp_build_info", "Always 1; the labels tell the build."), &["version", "revision"]),
        );
        let one: Gauge =
            build.with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("OFFRAMP_REVISION").unwrap_or("unknown")]);
        one.set(1.0);
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("registered once");
        metrics
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(r: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a name and labels that are constants of this file");
    r.register(Box::new(collector.clone())).expect("each name of this file is registered once");
    collector
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(r, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histograms(r: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    registered(r, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
}
