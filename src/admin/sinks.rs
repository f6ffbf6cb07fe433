//! Pause and resume; and what is left of a sink that is no longer configured.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Shared;
use super::api::{Count, known_sink};
use super::problem::Problem;

pub(super) async fn pause(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    set(&shared, &name, true).await
}

pub(super) async fn resume(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    set(&shared, &name, false).await
}

/// Removes what a sink left behind that is no longer configured.
pub(super) async fn purge(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Count>, Problem> {
    known_sink(&name, &shared.sink_names()).map_err(|refused| Problem::not_found(refused.0))?;
    if shared.state.drain.statuses().iter().any(|s| s.name == name) {
        return Err(Problem::conflict(format!(
            "\"{name}\" is configured, and goes on; take it out of the configuration first, or purge dead letters with /api/v1/dead/purge"
        )));
    }
    let Some(id) = shared.state.queue.sink_id(&name) else { return Ok(Json(Count { count: 0 })) };
    let count = shared.state.queue.clear(id).await?;
    tracing::info!(sink = name, count, "what a removed sink left behind was purged by an operator");
    Ok(Json(Count { count }))
}

/// Answers with the state that the sink has now: one that resumes may still be `open` or `stalled`.
async fn set(shared: &Shared, name: &str, paused: bool) -> Result<Json<Value>, Problem> {
    let known: Vec<String> = shared.state.drain.statuses().into_iter().map(|s| s.name).collect();
    known_sink(name, &known).map_err(|refused| Problem::not_found(refused.0))?;
    if !shared.state.drain.set_paused(name, paused).await? {
        return Err(Problem::not_found(format!("sink \"{name}\" has just gone")));
    }
    tracing::info!(sink = name, "{}", if paused { "paused by an operator" } else { "resumed by an operator" });
    let state = shared.state.drain.statuses().into_iter().find(|s| s.name == name).map_or("running", |s| s.state);
    Ok(Json(json!({"name": name, "state": state})))
}
