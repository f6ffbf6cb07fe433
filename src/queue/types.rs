//! The queue's vocabulary: what goes in, what comes out, and what operators see of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::Ledger;
use super::replay::Replay;
use super::rows::{Deaths, Sent, Time};
use super::store::StoreError;
use crate::clock::as_ms;
use crate::config;
use crate::episode::Episode;

/// A sink as the queue knows it: small, stable on disk, handed out once per name for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

/// An episode's place in the order of arrival; never used twice.
pub type Seq = u64;

/// The key of a [`Unique`] or a [`Note`]: 16 bytes of the SHA-256 of a scope and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of some texts within a scope; other texts, or the same cut otherwise, are another key.
    pub fn of<'a>(scope: &'a str, texts: impl IntoIterator<Item = &'a str>) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for text in std::iter::once(scope).chain(texts) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

/// What keeps an episode from being appended twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unique {
    /// No second episode with this key ...
    pub key: Key,
    /// ... before this time (queue time, ms).
    pub until: u64,
}

/// A few bytes to remember, on disk, until they expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is found by; a later note with the same key replaces it.
    pub key: Key,
    /// What it says: 16 MiB at most, a few kilobytes as a rule.
    pub value: Vec<u8>,
    /// When it is forgotten (queue time, ms).
    pub until: u64,
}

/// What is appended.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// The episode.
    pub episode: &'a Episode,
    /// Where it goes.
    pub lanes: &'a [(SinkId, Lane)],
    /// Its place, from [`Queue::reserve`](super::Queue::reserve), used once; none: behind all others. Other places of its lanes may have
    /// been filled, even delivered, before: it is the next one then of those behind it.
    pub place: Option<Seq>,
    /// It is left out if an episode with this key is there.
    pub unique: Option<Unique>,
    /// Written in the same commit, if the episode is.
    pub note: Option<Note>,
    /// Higher drains first when workers are scarce.
    pub priority: u8,
}

impl<'a> New<'a> {
    /// An episode behind all others.
    pub fn of(episode: &'a Episode, lanes: &'a [(SinkId, Lane)]) -> Self {
        Self { episode, lanes, place: None, unique: None, note: None, priority: 0 }
    }
}

/// What became of each episode that was appended: none, or the id of the earlier one with the same [`Unique`] key, in whose favour it was
/// left out.
pub type Appended = Vec<Option<Uuid>>;

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

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another process has it.
    #[error("the queue at {} is in use by process {pid}: stop that one, or give this one another queue.path", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other's process id, as it wrote it down.
        pid: String,
    },
    /// The directory.
    #[error("the queue's directory {} can't be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The store.
    #[error("the queue at {} can't be opened: {source}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// The store's error.
        source: StoreError,
    },
    /// What is in the store is sealed.
    #[error(
        "the queue at {} has values that are sealed with the key {key}, and queue.encryption_key_file does not have it: put that key into \
         the file again, in a line below the key that is to seal from now on",
        path.display()
    )]
    Key {
        /// The directory.
        path: PathBuf,
        /// The key's id.
        key: String,
    },
    /// The disk.
    #[error(
        "the queue at {} can't be opened: its disk is full, {free} bytes are free. Free some megabytes there and start offramp again: \
         what is in the queue is safe",
        path.display()
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes that are free there.
        free: u64,
    },
    /// What is in the store.
    #[error("the queue at {} can't be read: {message}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl QueueError {
    /// Whether there is no room on the disk.
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_no_room())
    }

    pub(super) fn no_room(path: &Path) -> Self {
        let free = rustix::fs::statvfs(path).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        Self::NoRoom { path: path.to_owned(), free }
    }
}

/// Why something in the queue could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes of this episode are no episode.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// Another offramp can read it: a later one, or one with the key.
    #[error("this offramp can't read it: {why}")]
    Foreign {
        /// The reason of its dead letter.
        reason: &'static str,
        /// What it lacks.
        why: String,
    },
    /// The store as a whole; it may be readable later.
    #[error("the queue can't be read now: {0}")]
    Store(String),
}

/// What the queue has to know of a sink's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkSettings {
    /// How long (ms) an episode waits for others of its lane before it is due.
    pub linger: u64,
    /// A lane waits as long as a dead letter of it is there.
    pub park: bool,
}

impl SinkSettings {
    /// Of a configured sink.
    pub fn of(sink: &config::Sink) -> Self {
        Self { linger: as_ms(sink.batch.linger), park: sink.on_dead == config::OnDead::Park }
    }
}

/// What a scheduler asks for.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest {
    /// Lanes, at most.
    pub max: usize,
    /// Lanes beyond these, at most, that are claimed in advance: up to the first in line whose next attempt would be its last, or is none
    /// to be made yet, because it is in doubt. What is lost between a claim and its attempt (a kill does that) must cost no episode its
    /// only attempt.
    pub ahead: usize,
    /// Episodes of one lane, at most; more than one only of those that were never tried.
    pub batch: usize,
    /// Only episodes whose latest attempt is in doubt.
    pub in_doubt: bool,
    /// Attempts after which no further one is made.
    pub max_attempts: u32,
    /// Age (ms since it was captured, or put back) after which no further attempt is made.
    pub max_age: u64,
    /// The longest delay (ms) that a retry can have: what is due later than that is due.
    pub longest_delay: u64,
}

/// What a scheduler gets.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Heads of lanes, each with those behind it that may go in the same call, in order. Each must be given to
    /// [`Queue::finish`](super::Queue::finish).
    pub claims: Vec<Claim>,
    /// When to look again (queue time): a lane is due then, or a hold ends by itself.
    pub next_due: Option<u64>,
}

/// The right to make an attempt: nobody else makes one in this lane until it, and each that was claimed with it, is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The sink.
    pub sink: SinkId,
    /// The lane.
    pub lane: Lane,
    /// The episode.
    pub seq: Seq,
    /// Attempts begun; the one that this claim is for is among them if `sent` is [`Sent::No`] and it isn't exhausted.
    pub attempts: u32,
    /// The time of the event (ms): the same for each attempt, and later than those of all that were sent before it in its lane.
    pub at: i64,
    /// What was known of an earlier attempt when it was claimed. Anything but [`Sent::No`]: look it up before sending.
    pub sent: Sent,
    /// Lines of its history by then: one more says that this claim has ended.
    pub lines: u32,
    /// Why no further attempt may be made.
    pub exhausted: Option<&'static str>,
}

impl Claim {
    /// Whether it has counted an attempt.
    pub fn counts(&self) -> bool {
        self.sent == Sent::No && self.exhausted.is_none()
    }
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It is there.
    Delivered {
        /// Time (ms) from sending to confirmation, where it was confirmed.
        confirmed_in: Option<u64>,
    },
    /// Not now.
    Retry {
        /// Milliseconds until it is due.
        delay: u64,
        /// What is known of the attempt.
        sent: Sent,
    },
    /// Nothing changes but what is known of the attempt: it keeps its place among the lanes that are due.
    Hold {
        /// What is known of the attempt.
        sent: Sent,
    },
    /// The sink is at fault and certainly did not take it: the attempt is not counted, and it keeps its place.
    Uncount,
    /// The sink gave up on it.
    Dead {
        /// `rejected`, `max_attempts`, `max_age`, `unreadable`.
        reason: &'static str,
    },
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// An attempt is in flight: it stays.
    InFlight,
    /// There is no such episode.
    Unknown,
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
    /// Its number, from 1; 0 for what is no attempt.
    pub attempt: u32,
    /// `delivered`, `retry`, `dead`, `paused`, `stalled`; `redriven` where a dead letter was put back.
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
    /// The next attempt is not before this time, for one that was tried and is not due yet.
    pub next_attempt_at: Option<u64>,
    /// When it was confirmed.
    pub delivered_at: Option<u64>,
    /// When it was delivered, died, was purged or expired.
    pub ended_at: Option<u64>,
    /// Why it is a dead letter: `rejected`, `max_attempts`, `max_age`.
    pub reason: Option<String>,
    /// The last attempt's error.
    pub last_error: Option<String>,
    /// What its age counts from (ms).
    pub since: u64,
    /// The time of the event at this sink.
    pub time: Time,
    /// What is known of the latest attempt.
    pub sent: Sent,
    /// Higher drains first.
    pub priority: u8,
    /// How often it became a dead letter here.
    pub deaths: Deaths,
    /// The dead letter for which its lane is parked, for a pending one.
    pub parked_by: Option<Uuid>,
    /// The attempts, oldest first (bounded: the first and the newest).
    pub history: Vec<Attempt>,
}

/// An episode from another queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The episode.
    pub episode: Episode,
    /// Where it stood there, at which of the sinks here, and its lane at each.
    pub sinks: Vec<(SinkId, Lane, Standing)>,
}

/// What became of episodes from another queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// For each in turn whether it was taken; else its id was here already.
    pub taken: Vec<bool>,
    /// There was no room for the one behind these.
    pub full: bool,
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

/// A page of a listing, in the order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The episodes.
    pub episodes: Vec<View>,
    /// Places whose record can't be read, and why.
    pub unreadable: Vec<(Seq, String)>,
    /// Where the next page starts; none at the end. A page may be short, even empty, and still have one: each call reads a bounded
    /// number of records and bytes.
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

/// Counters of the queue as a whole.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// `ok`, `full` or `degraded`.
    pub state: &'static str,
    /// Episodes with a sink that still waits for them.
    pub episodes: u64,
    /// Bytes of stored episodes.
    pub bytes: u64,
    /// Bytes that the queue's directory takes on the disk.
    pub disk_bytes: u64,
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
    /// Lanes that are parked.
    pub parked_lanes: u64,
    /// Capture time (ms) of the oldest pending episode.
    pub oldest_pending: Option<u64>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// The longest time (ms) from a sending to its confirmation so far.
    pub longest_confirm_ms: u64,
    /// The replay under way, or the latest that this process has seen the end of.
    pub replay: Option<Replay>,
}
