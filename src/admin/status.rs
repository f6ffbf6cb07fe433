//! `GET /api/v1/status`.

use axum::Json;
use axum::extract::State;

use super::api::{ProxyStatus, Status};
use super::{ProxyFacts, Shared};
use crate::clock;
use crate::telemetry::metrics::Metrics;

pub(super) async fn status(State(shared): State<Shared>) -> Json<Status> {
    let state = &shared.state;
    let proxies = shared.settings().proxies.iter().map(|proxy| load(proxy, &state.metrics)).collect();
    Json(Status::assemble(&state.queue.stats(), &state.drain.statuses(), proxies, state.started.elapsed(), clock::now_ms()))
}

/// The gauges are the one place where a proxy counts its requests.
fn load(proxy: &ProxyFacts, metrics: &Metrics) -> ProxyStatus {
    let read = |gauge: &prometheus::IntGaugeVec| u64::try_from(gauge.with_label_values(&[&proxy.name]).get()).unwrap_or(0);
    ProxyStatus {
        name: proxy.name.clone(),
        listen: proxy.listen.clone(),
        upstream: proxy.upstream.clone(),
        in_flight: read(&metrics.http_in_flight),
        waiting: read(&metrics.http_waiting),
    }
}
