//! The values behind the [`keys`](super::keys). Version 1: never changed once released (see [`codec`](super::codec)).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Lane, Ledger, Seq, SinkId, State};

/// `m`: what concerns the queue as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The place of the next episode.
    pub next_seq: Seq,
    /// The id of the next sink.
    pub next_sink: u16,
    /// Episodes with a sink that waits for them.
    pub episodes: u64,
    /// Bytes of stored records.
    pub bytes: u64,
}

/// `s`: what concerns one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRow {
    /// Its part of the ledger.
    pub ledger: Ledger,
    /// Receipts kept.
    pub delivered_kept: u64,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// No episode before this place waits for this sink.
    pub oldest: Seq,
    /// The longest time (ms) from a sending to its confirmation.
    pub longest_confirm: u64,
}

/// `e`: an episode and the lanes it belongs to. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The episode's id.
    pub id: Uuid,
    /// When the exchange began (ms).
    pub captured_at: u64,
    /// Where it goes.
    pub lanes: Vec<(SinkId, Lane)>,
    /// The episode, encoded.
    #[serde(with = "serde_bytes")]
    pub episode: Vec<u8>,
}

/// What became of the latest attempt, as far as the disk knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sent {
    /// Nothing is under way: never tried, or the last attempt certainly failed.
    No,
    /// An attempt began at this time (ms) and its end is not known.
    Began(u64),
    /// The sink took it at this time (ms); it has not been seen there yet.
    Accepted(u64),
}

/// `l`: an episode that waits in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Attempts begun.
    pub attempts: u32,
    /// No attempt before this time (ms).
    pub not_before: u64,
    /// The time of the event (ms): when it was captured, later by a millisecond where that wouldn't be after its predecessor in the lane.
    pub at: u64,
    /// What became of the latest attempt.
    pub sent: Sent,
    /// Lines of history.
    pub entries: u32,
    /// Sinks that this episode goes to.
    pub sinks: u16,
}

/// `t`: how it ended at one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Delivered or dead.
    pub state: State,
    /// When (ms).
    pub at: u64,
    /// When this row expires (ms).
    pub expires_at: u64,
    /// Why it is dead.
    pub reason: Option<String>,
    /// Its lane.
    pub lane: Lane,
    /// What it was while it waited.
    pub was: Waiting,
}
