//! Probes.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::api::GraphitiQueue;
use super::problem::Problem;
use super::readiness::disk_reason;

/// The process answers: nothing else is asked, so that a slow disk gets nobody killed.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// A queue that is merely `full` stays ready: requests are served, they just aren't captured.
pub(super) async fn readyz(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    let mut reasons = shared.state.readiness.reasons();
    if shared.state.queue.stats().state == "degraded" {
        reasons.push("queue: not open for writing; the log says why".to_owned());
    }
    let settings = shared.settings();
    match shared.reads.run(move || disk_reason(&settings.limits.path, settings.limits.min_free_disk)).await {
        Ok(reason) => reasons.extend(reason),
        Err(_) => reasons.push("disk: it does not answer".to_owned()),
    }
    if reasons.is_empty() { Ok(Json(json!({"status": "ready"}))) } else { Err(Problem::not_ready(reasons)) }
}

pub(super) async fn graphiti_queue(State(shared): State<Shared>) -> Json<GraphitiQueue> {
    let state = &shared.state;
    Json(GraphitiQueue::assemble(&state.queue.stats(), &state.drain.statuses(), shared.settings().limits.max_episodes))
}
