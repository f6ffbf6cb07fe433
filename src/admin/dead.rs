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
    let rate = selection.rate;
    let select = selection.select(&shared.sink_names())?;
    let queue = shared.state.queue.clone();
    let Some(rate) = rate else {
        let count = queue.redrive(select).await?;
        tracing::info!(count, "dead letters redriven by an operator");
        return Ok(Json(Count { count }));
    };
    let count = queue.count_dead(select.clone()).await?;
    tracing::info!(count, rate, "dead letters are redriven by an operator, so many a second");
    shared.spawn(async move {
        match queue.redrive_at(select, rate, count).await {
            Ok(count) => tracing::info!(count, "as many dead letters are redriven"),
            Err(error) => tracing::error!(%error, "a redrive has ended before its end; what is left stays dead"),
        }
    });
    Ok(Json(Count { count }))
}

pub(super) async fn purge(State(shared): State<Shared>, body: Body) -> Result<Json<Count>, Problem> {
    let Json(selection) = body?;
    if selection.rate.is_some() {
        return Err(Problem::bad_request("rate is for a redrive; a purge removes all at once"));
    }
    let count = shared.state.queue.purge(selection.select(&shared.sink_names())?).await?;
    tracing::info!(count, "dead letters purged by an operator");
    Ok(Json(Count { count }))
}
