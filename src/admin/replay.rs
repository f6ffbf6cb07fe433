//! Replays: begun and ended by operators, and brought on here, slice by slice, as fast as the sink takes what they bring.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};

use super::api::{ReplayReport, Replays, Wanted, known_sink};
use super::ingest::lane;
use super::problem::Problem;
use super::{Inner, Shared};
use crate::config::OrderBy;
use crate::queue::{Course, Queue, SinkId};

/// A sink that has so many pending gets no more by a replay for now.
const ENOUGH: u64 = 10_000;

/// How often a replay looks whether its sink has room for more.
const LOOK: Duration = Duration::from_millis(200);

/// How long it waits when the store does not take it.
const REST: Duration = Duration::from_secs(1);

/// What brings on the replay at one sink.
struct Driver {
    queue: Queue,
    name: String,
    id: SinkId,
    order_by: OrderBy,
    /// The sink sends requests again: an episode without one is none for it.
    sends_requests: bool,
    /// `queue.max_episodes`: what is captured must find room beside what is replayed.
    max_episodes: u64,
}

impl Driver {
    /// Until the replay has come to its end, or somebody has ended it.
    async fn run(self) {
        loop {
            if !self.has_room() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let (order_by, sends_requests) = (self.order_by, self.sends_requests);
            let bringing = self.queue.replay_on(self.id, move |episode| {
                (!sends_requests || episode.original.is_some()).then(|| lane(episode, order_by))
            });
            match bringing.await {
                Ok(Some(replay)) if replay.course == Course::Running => {}
                Ok(Some(replay)) => {
                    let (replayed, skipped) = (replay.count, replay.skipped);
                    return tracing::info!(sink = self.name, replayed, skipped, "a replay is done: all of it waits in its lanes");
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(sink = self.name, %error, "a replay waits for the queue");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        let stats = self.queue.stats();
        let pending = stats.sinks.iter().find(|s| s.name == self.name).map_or(0, |s| s.ledger.pending);
        stats.state == "ok" && pending < ENOUGH && stats.episodes <= self.max_episodes / 2
    }
}

/// Brings on the replay at a sink, until this API ends.
fn drive(shared: &Inner, name: &str) {
    let state = &shared.state;
    let settings = shared.settings();
    let Some((name, id, order_by)) = settings.sinks.iter().find(|(known, ..)| known == name).cloned() else { return };
    let sends_requests = state.drain.statuses().iter().any(|s| s.name == name && s.kind == "replay");
    let (queue, max_episodes) = (state.queue.clone(), settings.limits.max_episodes);
    shared.spawn(Driver { queue, name, id, order_by, sends_requests, max_episodes }.run());
}

/// Goes on with what was under way when offramp was last stopped.
pub(super) fn go_on(shared: &Inner) {
    for sink in shared.state.queue.stats().sinks {
        if sink.replay.is_some_and(|r| r.course == Course::Running) {
            tracing::info!(sink = sink.name, "a replay goes on where it was");
            drive(shared, &sink.name);
        }
    }
}

pub(super) async fn begin(
    State(shared): State<Shared>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<ReplayReport>, Problem> {
    let Json(wanted) = body?;
    let since = wanted.since()?;
    let known: Vec<String> = shared.settings().sinks.iter().map(|(name, ..)| name.clone()).collect();
    known_sink(&wanted.sink, &known)?;
    let Some(id) = shared.state.queue.sink_id(&wanted.sink) else {
        return Err(Problem::not_found(format!("sink \"{}\" has just gone", wanted.sink)));
    };
    let Some(replay) = shared.state.queue.begin_replay(id, wanted.session, since).await? else {
        return Err(Problem::conflict(format!(
            "a replay is under way at \"{0}\"; wait for its end, or end it: POST /api/v1/replays/{0}/cancel",
            wanted.sink
        )));
    };
    tracing::info!(sink = wanted.sink, "a replay was begun by an operator");
    drive(&shared, &wanted.sink);
    Ok(Json(ReplayReport::of(&wanted.sink, &replay)))
}

pub(super) async fn list(State(shared): State<Shared>) -> Json<Replays> {
    let sinks = shared.state.queue.stats().sinks;
    let replays = sinks.iter().filter_map(|sink| Some(ReplayReport::of(&sink.name, sink.replay.as_ref()?)));
    Json(Replays { replays: replays.collect() })
}

pub(super) async fn cancel(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<ReplayReport>, Problem> {
    known_sink(&name, &shared.sink_names()).map_err(|refused| Problem::not_found(refused.0))?;
    let none = || Problem::conflict(format!("no replay is under way at \"{name}\""));
    let id = shared.state.queue.sink_id(&name).ok_or_else(none)?;
    let replay = shared.state.queue.cancel_replay(id).await?.ok_or_else(none)?;
    tracing::info!(sink = name, replayed = replay.count, "a replay was ended by an operator");
    Ok(Json(ReplayReport::of(&name, &replay)))
}
