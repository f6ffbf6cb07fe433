//! Pause and resume.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Shared;
use super::api::known_sink;
use super::problem::Problem;

pub(super) async fn pause(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    set(&shared, &name, true).await
}

pub(super) async fn resume(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    set(&shared, &name, false).await
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
