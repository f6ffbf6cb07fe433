//! `GET /metrics`: Prometheus text, `OpenMetrics` on request.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};

use super::api::age_seconds;
use super::problem::Problem;
use super::{Shared, openmetrics};
use crate::clock;
use crate::queue::Stats;
use crate::telemetry::metrics::Metrics;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn scrape(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    let metrics = &shared.state.metrics;
    set_gauges(metrics, &shared.state.queue.stats(), clock::now_ms());
    let families = metrics.registry.gather();
    if prefers_openmetrics(&headers) {
        return Ok(([(header::CONTENT_TYPE, OPENMETRICS)], openmetrics::encode(&families)).into_response());
    }
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&families, &mut text)
        .map_err(|e| Problem::internal(format!("the metrics cannot be encoded: {e}")))?;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS)], text).into_response())
}

/// What the queue counts itself is copied when somebody looks.
fn set_gauges(metrics: &Metrics, stats: &Stats, now: u64) {
    for sink in &stats.sinks {
        let name = sink.name.as_str();
        let waiting = sink.ledger.pending.saturating_sub(sink.in_flight);
        for (state, count) in [
            // The states of one metric must not overlap, or their sum would count an episode twice.
            ("pending", waiting),
            ("in_flight", sink.in_flight),
            ("dead", sink.ledger.dead),
            ("delivered", sink.delivered_kept),
        ] {
            metrics.queue_episodes.with_label_values(&[name, state]).set(signed(count));
        }
        metrics.queue_oldest_pending.with_label_values(&[name]).set(age_seconds(sink.oldest_pending, now));
    }
    metrics.queue_bytes.set(signed(stats.bytes));
    metrics.queue_disk_bytes.set(signed(stats.disk_bytes));
    metrics.ledger_gap.set(stats.ledger.gap());
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Whether the client asks for `OpenMetrics` by name, and at least as much as for plain text.
fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let mut openmetrics: f32 = 0.0;
    let mut plain: f32 = 0.0;
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).map_or(Ok(1.0), str::parse);
        let q = q.unwrap_or(0.0);
        if media.eq_ignore_ascii_case("application/openmetrics-text") {
            openmetrics = openmetrics.max(q);
        } else if media.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(q);
        }
    }
    openmetrics > 0.0 && openmetrics >= plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::testing::{NOW, stats};

    #[test]
    fn gauges_show_the_queue_as_it_is_when_scraped() {
        let metrics = Metrics::new();
        set_gauges(&metrics, &stats(), NOW);
        let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        for line in [
            "offramp_queue_episodes{sink=\"graphiti\",state=\"pending\"} 4",
            "offramp_queue_episodes{sink=\"graphiti\",state=\"in_flight\"} 2",
            "offramp_queue_episodes{sink=\"graphiti\",state=\"dead\"} 1",
            "offramp_queue_episodes{sink=\"log\",state=\"delivered\"} 10",
            "offramp_queue_oldest_pending_seconds{sink=\"graphiti\"} 42.5",
            "offramp_queue_oldest_pending_seconds{sink=\"log\"} 0",
            "offramp_queue_bytes 20480",
            "offramp_queue_disk_bytes 65536",
            "offramp_ledger_gap 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn openmetrics_only_for_those_who_ask_for_it() {
        let prefers = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            prefers_openmetrics(&headers)
        };
        assert!(prefers("application/openmetrics-text"));
        assert!(prefers("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"));
        assert!(!prefers("application/openmetrics-text;q=0.2, text/plain"));
        assert!(!prefers("application/openmetrics-text;q=0"));
        assert!(!prefers("*/*") && !prefers_openmetrics(&HeaderMap::new()));
    }
}
