//! Dead letters: put back, or remove for good.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;

use super::Shared;
use super::api::{Count, Selection};
use super::problem::Problem;

type Body = Result<Json<Selection>, JsonRejection>;

pub(super) async fn redrive(State(shared): State<Shared>, body: Body) -> Result<Json<Count>, Problem> {
    let Json(selection) = body?;
    let count = shared.state.queue.redrive(selection.select(&shared.sink_names())?).await?;
    tracing::info!(count, "dead letters redriven by an operator");
    Ok(Json(Count { count }))
}

pub(super) async fn purge(State(shared): State<Shared>, body: Body) -> Result<Json<Count>, Problem> {
    let Json(selection) = body?;
    let count = shared.state.queue.purge(selection.select(&shared.sink_names())?).await?;
    tracing::info!(count, "dead letters purged by an operator");
    Ok(Json(Count { count }))
}
