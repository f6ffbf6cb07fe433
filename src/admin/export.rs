//! `GET /api/v1/export`: the queue as JSON Lines, an episode a line, in the order of their places; a page in memory at a time.
//!
//! What is captured meanwhile comes at the end, or not at all. An export that breaks off has no last chunk, so nobody takes it for whole.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use serde_json::json;

use super::Shared;
use super::api::{self, Line, Refused, UNREADABLE};
use super::problem::Problem;
use crate::queue::{self, Filter, Page, Queue, ReadError};

/// What it is: a JSON value a line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Longest wait for a page.
const PATIENCE: Duration = Duration::from_secs(60);

/// Episodes on a page, at most: a page ends by its bytes before.
const PAGE: usize = 1_000;

/// An export under way.
pub(crate) struct Export {
    queue: Queue,
    /// None at the end.
    filter: Option<Filter>,
}

impl Export {
    /// All episodes, or those that stand so at one of their sinks.
    pub(crate) fn new(queue: Queue, state: Option<queue::State>) -> Self {
        Self { queue, filter: Some(Filter { state, limit: PAGE, ..Filter::default() }) }
    }

    /// The next lines, perhaps none yet; nothing at the end. Reads the disk.
    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(filter) = &mut self.filter else { return Ok(None) };
        let Page { episodes, unreadable, next } = self.queue.list(filter)?;
        match next {
            Some(next) => filter.after = Some(next),
            None => self.filter = None,
        }
        let mut unreadable = unreadable.into_iter().peekable();
        let mut lines = Vec::new();
        for view in episodes {
            while let Some((seq, error)) = unreadable.next_if(|(seq, _)| *seq < view.seq) {
                stand_in(&mut lines, seq, &error);
            }
            lines.extend_from_slice(Line::from(view).to_json().as_bytes());
            lines.push(b'\n');
        }
        for (seq, error) in unreadable {
            stand_in(&mut lines, seq, &error);
        }
        Ok(Some(lines))
    }
}

/// A line for a record that can't be read: what is missing must not be missed.
fn stand_in(lines: &mut Vec<u8>, seq: queue::Seq, error: &str) {
    lines.extend_from_slice(format!("{UNREADABLE}{seq},\"error\":{}}}\n", json!(error)).as_bytes());
}

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(super) async fn export(State(shared): State<Shared>, pairs: Pairs) -> Result<impl IntoResponse, Problem> {
    let Query(pairs) = pairs.map_err(|e| Problem::bad_request(e.body_text()))?;
    let mut state = None;
    for (key, value) in pairs {
        match key.as_str() {
            "state" => state = Some(api::parse_state(&value).map_err(Refused)?),
            other => return Err(Problem::bad_request(format!("unknown query parameter \"{other}\"; allowed is state"))),
        }
    }
    let export = Export::new(shared.state.queue.clone(), state);
    // The first page before the head, so that a queue that can't be read is an error with a sentence.
    let (first, export) = page(&shared, export).await?;
    let rest = stream::try_unfold((shared, export), |(shared, export)| async {
        match page(&shared, export).await {
            Ok((lines, export)) => Ok(lines.map(|lines| (lines, (shared, export)))),
            Err(_) => Err(io::Error::other("the queue can't be read any further")),
        }
    });
    let first = stream::iter(first.map(Ok));
    let lines = futures_util::StreamExt::chain(first, rest).try_filter(|lines: &Bytes| {
        let some = !lines.is_empty();
        async move { some }
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)))
}

async fn page(shared: &Shared, mut export: Export) -> Result<(Option<Bytes>, Export), Problem> {
    let read = move || (export.read(), export);
    let (lines, export) = shared.reads.run_within(PATIENCE, read).await?;
    let lines = lines.map_err(|error| {
        tracing::error!(%error, "an export breaks off");
        Problem::queue_unavailable(error.to_string())
    })?;
    Ok((lines.map(Bytes::from), export))
}
