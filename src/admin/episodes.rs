//! Episodes: list, show, remove.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use uuid::Uuid;

use super::Shared;
use super::api::{self, Episode, Listing, Page};
use super::problem::Problem;
use crate::queue::Deleted;
use crate::queue::View;

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(super) async fn list(State(shared): State<Shared>, pairs: Pairs) -> Result<Json<Page>, Problem> {
    let Query(pairs) = pairs.map_err(|e| Problem::bad_request(e.body_text()))?;
    let listing = Listing::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    let filter = listing.filter(&shared.sink_names())?;
    let queue = shared.state.queue.clone();
    let page = shared.reads.run(move || queue.list(&filter)).await??;
    Ok(Json(page.into()))
}

pub(super) async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Episode>, Problem> {
    Ok(Json(find(&shared, &id).await?.into()))
}

/// An attempt that is under way can't be called back: removing its episode would only hide where it went.
pub(super) async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = find(&shared, &id).await?.episode.id;
    match shared.state.queue.delete(id).await? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::InFlight => Err(Problem::conflict("an attempt is under way; try again when it has ended".to_owned())),
        Deleted::Unknown => Err(unknown(id)),
    }
}

async fn find(shared: &Shared, id: &str) -> Result<View, Problem> {
    let id = Uuid::try_parse(id)
        .map_err(|_| Problem::bad_request(format!("\"{id}\" is no episode id; an id looks like {}", api::SAMPLE_ID)))?;
    let queue = shared.state.queue.clone();
    shared.reads.run(move || queue.episode(id)).await??.ok_or_else(|| unknown(id))
}

fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no episode {id}; delivered ones are kept for queue.keep_delivered"))
}
