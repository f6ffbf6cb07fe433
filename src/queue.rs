//! The queue: an embedded write-ahead store of episodes with one lane per ordering key and sink.
//!
//! It knows lanes and bytes; it knows neither HTTP nor Graphiti.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::episode::Episode;

/// A sink as the queue knows it: small, stable on disk, handed out once per name for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SinkId(pub u16);

/// The ordering key of a lane at one sink: 16 bytes of the SHA-256 of the key's text, so that no key is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane(pub [u8; 16]);

impl Lane {
    /// The lane of an ordering key.
    pub fn of(key: &str) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(key.as_bytes());
        let mut lane = [0; 16];
        lane.copy_from_slice(&digest[..16]);
        Self(lane)
    }
}

/// An episode's place in the order of capture; never reused.
pub type Seq = u64;

/// Why an episode could not be appended. The request it belongs to goes on all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `max_episodes`, `max_bytes` or `min_free_disk` is reached.
    #[error("the queue is full")]
    Full,
    /// The store doesn't take writes.
    #[error("the queue's store is not writable")]
    Failed,
}

/// The handle that everyone shares; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<()>,
}

impl Queue {
    /// Hands an episode to the writer for the lanes given. Does not block; encodes here, in the caller.
    /// The future resolves once the episode is on stable storage (`durability = "sync"`), or at once in memory order
    /// (`"interval"`). Dropping the future does not take the episode back.
    pub fn append(
        &self,
        episode: &Episode,
        lanes: &[(SinkId, Lane)],
    ) -> Result<impl Future<Output = Result<(), AppendError>> + Send + use<>, AppendError> {
        let _ = (episode, lanes);
        Ok(async { Ok(()) })
    }

    /// Whether an append would be refused now: what `on_full = "reject"` asks before the upstream is called.
    pub fn is_full(&self) -> bool {
        false
    }

    /// Longest time that a response's last byte waits for its commit.
    pub fn commit_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// The id of a configured sink.
    pub fn sink_id(&self, name: &str) -> Option<SinkId> {
        let _ = name;
        None
    }
}

/// Where an episode stands at one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting: for its turn in the lane, or for its next attempt.
    Pending,
    /// An attempt is under way.
    InFlight,
    /// It is there: the sink confirmed it.
    Delivered,
    /// The sink gave up on it.
    Dead,
    /// An operator removed it.
    Purged,
    /// A dead letter that outlived `keep_dead`.
    Expired,
}

/// One attempt as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended (ms since the Unix epoch; RFC 3339 in JSON).
    pub at: u64,
    /// Its number, from 1.
    pub attempt: u32,
    /// `delivered`, `retry`, `dead`, `paused`, `stalled`.
    pub outcome: String,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// An episode at one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The sink's name.
    pub sink: String,
    /// Where it stands.
    pub state: State,
    /// Attempts begun.
    pub attempts: u32,
    /// The next attempt is not before this time, for a pending one that waits.
    pub next_attempt_at: Option<u64>,
    /// When it was confirmed.
    pub delivered_at: Option<u64>,
    /// Why it is a dead letter: `rejected`, `max_attempts`, `max_age`.
    pub reason: Option<String>,
    /// The last attempt's error.
    pub last_error: Option<String>,
    /// The attempts, oldest first (bounded: the first and the newest).
    pub history: Vec<Attempt>,
}

/// An episode with all that the queue knows about it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its place.
    pub seq: Seq,
    /// The record.
    pub episode: Episode,
    /// One per sink that it goes to.
    pub sinks: Vec<Standing>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only episodes that stand so at one of their sinks (at `sink`, if given).
    pub state: Option<State>,
    /// Only this session.
    pub session: Option<String>,
    /// Only episodes of this sink.
    pub sink: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Continue behind this place.
    pub after: Option<Seq>,
}

/// A page of a listing, in the order of capture.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The episodes.
    pub episodes: Vec<View>,
    /// Where the next page starts; none at the end. A page may be short, even empty, and still have one: each call reads a bounded
    /// number of records.
    pub next: Option<Seq>,
}

/// Which dead letters to redrive or purge. Empty lists and nones select everything that the others allow.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// These episodes.
    pub ids: Vec<Uuid>,
    /// At this sink.
    pub sink: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// Dead for this reason.
    pub reason: Option<String>,
}

/// The counters that must always balance, one per episode and sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Appended.
    pub captured: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Removed by an operator.
    pub purged: u64,
    /// Dead letters that outlived `keep_dead`.
    pub expired: u64,
    /// Waiting or in flight.
    pub pending: u64,
}

impl Ledger {
    /// captured − (delivered + dead + purged + expired + pending): 0, always.
    pub fn gap(&self) -> i64 {
        let out = self.delivered + self.dead + self.purged + self.expired + self.pending;
        i64::try_from(i128::from(self.captured) - i128::from(out)).unwrap_or(i64::MAX)
    }
}

/// Counters of the queue as a whole.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// `ok`, `full` or `degraded`.
    pub state: &'static str,
    /// Episodes with a sink that still waits for them.
    pub episodes: u64,
    /// Bytes of stored episodes.
    pub bytes: u64,
    /// Of all sinks together.
    pub ledger: Ledger,
    /// Per sink.
    pub sinks: Vec<SinkStats>,
}

/// Counters of one sink.
#[derive(Debug, Clone, Default)]
pub struct SinkStats {
    /// Its name.
    pub name: String,
    /// Its part of the ledger.
    pub ledger: Ledger,
    /// Claimed and not finished.
    pub in_flight: u64,
    /// Receipts kept.
    pub delivered_kept: u64,
    /// Capture time (ms) of the oldest pending episode.
    pub oldest_pending: Option<u64>,
}

impl Queue {
    /// Counters: from memory, no disk access.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// One episode. Reads the disk: call it off the async threads.
    pub fn episode(&self, id: Uuid) -> Option<View> {
        let _ = id;
        None
    }

    /// A page of episodes. Reads the disk: call it off the async threads.
    pub fn list(&self, filter: &Filter) -> Page {
        let _ = filter;
        Page::default()
    }

    /// Puts dead letters back, each at its original place in its lane; how many there were.
    pub async fn redrive(&self, select: Select) -> Result<u64, AppendError> {
        let _ = select;
        Ok(0)
    }

    /// Removes dead letters for good; how many there were.
    pub async fn purge(&self, select: Select) -> Result<u64, AppendError> {
        let _ = select;
        Ok(0)
    }

    /// Removes one episode, whatever its state, except where an attempt is in flight; whether it existed.
    pub async fn delete(&self, id: Uuid) -> Result<bool, AppendError> {
        let _ = id;
        Ok(false)
    }
}
