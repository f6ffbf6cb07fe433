//! `POST /api/v1/import`: JSON Lines of an [export](super::export) into this queue, behind all that is there, in the order of the file.
//!
//! The body is read as it comes, a slice of lines is made into episodes off the async threads and handed to the writer, and only then more is
//! read: neither a file nor a queue is ever in memory. A line that can't be used is told by its number, and the others go on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use memchr::memchr;

use super::Shared;
use super::api::{Imported, Line};
use super::export::NDJSON;
use super::ingest::lane;
use super::problem::Problem;
use crate::config::OrderBy;
use crate::episode::Episode;
use crate::queue::{AppendError, Import, Lane, Queue, SinkId};

/// Lines of a slice.
const SLICE: usize = 256;
/// Bytes after which a slice ends.
const SLICE_BYTES: usize = 1 << 20;
/// Longest line (bytes): what the writer's buffer would not take in any case.
const LONGEST: usize = 64 << 20;
/// Longest wait for a commit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an import ended before its end. What was imported stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error(
        "the queue is full: {} episodes were imported, and the one in line {line} found no room; make room, or raise queue.max_episodes or \
         queue.max_bytes, and import the file again: what is there is passed over",
        .so_far.imported
    )]
    Full { so_far: Box<Imported>, line: u64 },
    #[error(
        "the queue's store does not take it now: {} episodes were imported; import the file again, what is there is passed over",
        .so_far.imported
    )]
    Failed { so_far: Box<Imported> },
}

/// Where episodes can go: each configured sink, with its lanes' key.
pub(crate) type Sinks = Vec<(String, SinkId, OrderBy)>;

/// An import under way.
pub(crate) struct Intake {
    queue: Queue,
    sinks: Arc<Sinks>,
    /// The beginning of a line.
    begun: Vec<u8>,
    too_long: bool,
    /// Whole lines with their numbers, and how many bytes that is.
    slice: Vec<(u64, Vec<u8>)>,
    bytes: usize,
    /// Lines that have ended.
    lines: u64,
    done: Imported,
}

impl Intake {
    pub(crate) fn new(queue: Queue, sinks: Sinks) -> Self {
        let sinks = Arc::new(sinks);
        Self {
            queue,
            sinks,
            begun: Vec::new(),
            too_long: false,
            slice: Vec::new(),
            bytes: 0,
            lines: 0,
            done: Imported::default(),
        }
    }

    /// Takes what comes next of the file.
    pub(crate) async fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while let Some(end) = memchr(b'\n', bytes) {
            self.gather(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
            if self.slice.len() == SLICE || self.bytes >= SLICE_BYTES {
                self.commit().await?;
            }
        }
        self.gather(bytes);
        Ok(())
    }

    /// The file has ended; a last line without its end counts.
    pub(crate) async fn finish(mut self) -> Result<Imported, Stopped> {
        if self.too_long || !self.begun.is_empty() {
            self.end_line();
        }
        self.commit().await?;
        self.done.faults.sort_by_key(|fault| fault.line); // what is too long is known before its slice is read
        Ok(self.done)
    }

    fn gather(&mut self, bytes: &[u8]) {
        self.too_long |= self.begun.len() + bytes.len() > LONGEST;
        if self.too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        self.lines += 1;
        let line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) {
            self.done.fail(self.lines, format!("it is longer than {} MiB", LONGEST >> 20));
        } else if !line.trim_ascii().is_empty() {
            self.bytes += line.len();
            self.slice.push((self.lines, line));
        }
    }

    /// Hands the slice over, and waits until it is on stable storage.
    async fn commit(&mut self) -> Result<(), Stopped> {
        let slice = std::mem::take(&mut self.slice);
        self.bytes = 0;
        if slice.is_empty() {
            return Ok(());
        }
        let (queue, sinks) = (self.queue.clone(), Arc::clone(&self.sinks));
        let work = tokio::task::spawn_blocking(move || {
            let Read { episodes, lines, faults } = read(slice, &sinks, queue.now());
            let commit = (!episodes.is_empty()).then(|| queue.import(episodes));
            (commit, lines, faults)
        });
        let Ok((commit, lines, faults)) = work.await else { return Err(self.failed()) };
        for (line, message) in faults {
            self.done.fail(line, message);
        }
        let Some(commit) = commit else { return Ok(()) };
        let committed = async { tokio::time::timeout(PATIENCE, commit?).await.map_err(|_| AppendError::Failed)? };
        let Ok(imported) = committed.await else { return Err(self.failed()) };
        let mut lines = lines.into_iter();
        for (taken, (_, unknown)) in imported.taken.into_iter().zip(lines.by_ref()) {
            if taken {
                self.done.take(unknown);
            } else {
                self.done.skipped += 1;
            }
        }
        match lines.next() {
            Some((line, _)) if imported.full => Err(Stopped::Full { so_far: Box::new(self.done.clone()), line }),
            _ => Ok(()),
        }
    }

    fn failed(&self) -> Stopped {
        Stopped::Failed { so_far: Box::new(self.done.clone()) }
    }
}

/// What a slice says.
#[derive(Default)]
struct Read {
    episodes: Vec<Import>,
    /// Of each of these its line, and the sinks that aren't here.
    lines: Vec<(u64, Vec<String>)>,
    faults: Vec<(u64, String)>,
}

fn read(slice: Vec<(u64, Vec<u8>)>, sinks: &Sinks, now: u64) -> Read {
    let find = |name: &str, episode: &Episode| -> Option<(SinkId, Lane)> {
        let (_, id, order_by) = sinks.iter().find(|(known, ..)| known == name)?;
        Some((*id, lane(episode, *order_by)))
    };
    let mut read = Read::default();
    for (number, text) in slice {
        match Line::read(&text).and_then(|line| line.into_import(&find, now)) {
            Ok((import, unknown)) => {
                read.episodes.push(import);
                read.lines.push((number, unknown));
            }
            Err(message) => read.faults.push((number, message)),
        }
    }
    read
}

pub(super) async fn import(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Json<Imported>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(NDJSON) {
        return Err(Problem::media_type(format!("this takes JSON Lines, with the header \"Content-Type: {NDJSON}\"")));
    }
    let mut intake = Intake::new(shared.state.queue.clone(), shared.settings().sinks.clone());
    let mut body = body.into_data_stream();
    while let Some(bytes) = body.next().await {
        // Nobody is left to be told; the lines that came are there, the one that was torn is not.
        let bytes = bytes.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if let Err(stopped) = intake.feed(&bytes).await {
            // Closed under a client that still sends, the connection could lose the answer.
            while let Some(Ok(_)) = body.next().await {}
            return Err(stopped.into());
        }
    }
    let done = intake.finish().await?;
    tracing::info!(imported = done.imported, skipped = done.skipped, failed = done.failed, "episodes imported by an operator");
    Ok(Json(done))
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Full { .. } => Self::queue_full(stopped.to_string()),
            Stopped::Failed { .. } => Self::queue_unavailable(stopped.to_string()),
        }
    }
}
