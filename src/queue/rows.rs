//! The values behind the [`keys`](super::keys). None is changed once released: see [`codec`](super::codec) for how one gets a new version,
//! and [`former`](super::former) for the old ones.
//!
//! | value | version | since the one before |
//! |---|---|---|
//! | [`Waiting`], and [`Ended`] with it | 3 | priority, and how often it died |
//! | | 2 | the event time is given when the episode is first sent, not when it is appended |
//! | [`SinkRow`] | 2 | why it is paused can be sealed |
//! | [`Episode`] | 2 | when the event happened, digests, the request itself, names of speakers |
//! | all others | 1 | |

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::codec::{CodecError, Former, Stored};
use super::former;
use super::{Attempt, Lane, Ledger, Seq, SinkId, State};
use crate::episode::Episode;

/// `m`: what concerns the queue as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Above every place that was ever used.
    pub next_seq: Seq,
    /// The id of the next sink.
    pub next_sink: u16,
    /// Episodes with a sink that waits for them.
    pub episodes: u64,
    /// Bytes of stored records, notes and unique keys.
    pub bytes: u64,
}

/// `s`: what concerns one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRow {
    /// Its part of the ledger.
    pub ledger: Ledger,
    /// Receipts kept.
    pub delivered_kept: u64,
    /// Why it is paused, if it is: a text, encoded, [sealed](super::seal) if there is a key.
    pub paused: Option<serde_bytes::ByteBuf>,
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
    /// The episode, encoded, [sealed](super::seal) if there is a key.
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

/// The time of an event (ms), on its way to being strictly after that of every event that was sent before it in its lane.
///
/// It is given when the episode is first claimed, because only then is it known what was sent before: until then an episode with an earlier
/// place may still come. The clock may stand still or be set back, and the time that an exchange names is anybody's guess: such an event is
/// moved behind its predecessor, by a millisecond.
///
/// On the disk it is unsigned, as it was when no time could lie before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TimeRow", into = "TimeRow")]
pub enum Time {
    /// Never sent: when the event happened.
    Event(i64),
    /// Given for an attempt that, as far as is known, did not reach the sink. Another one is given where others were sent meanwhile.
    Given(i64),
    /// The sink may have seen it with this time: it keeps it, also as a dead letter that is put back.
    Sent(i64),
}

/// [`Time`] as the disk has it.
#[derive(Serialize, Deserialize)]
enum TimeRow {
    Event(u64),
    Given(u64),
    Sent(u64),
}

impl From<TimeRow> for Time {
    fn from(row: TimeRow) -> Self {
        match row {
            TimeRow::Event(ms) => Self::Event(ms.cast_signed()),
            TimeRow::Given(ms) => Self::Given(ms.cast_signed()),
            TimeRow::Sent(ms) => Self::Sent(ms.cast_signed()),
        }
    }
}

impl From<Time> for TimeRow {
    fn from(time: Time) -> Self {
        match time {
            Time::Event(ms) => Self::Event(ms.cast_unsigned()),
            Time::Given(ms) => Self::Given(ms.cast_unsigned()),
            Time::Sent(ms) => Self::Sent(ms.cast_unsigned()),
        }
    }
}

impl Time {
    /// Milliseconds since the Unix epoch, or before it.
    pub fn ms(self) -> i64 {
        let (Self::Event(ms) | Self::Given(ms) | Self::Sent(ms)) = self;
        ms
    }

    /// As it is in another queue, where nobody knows what it was given after: for nothing, if the attempt reached nobody.
    #[must_use]
    pub fn elsewhere(self, sent: Sent) -> Self {
        match self {
            Self::Given(at) if sent == Sent::No => Self::Event(at),
            other => other,
        }
    }

    /// The sink may have seen it.
    #[must_use]
    pub fn seen(self) -> Self {
        if let Self::Given(at) = self { Self::Sent(at) } else { self }
    }
}

/// How often an episode became a dead letter at a sink, over all its redrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    /// So often.
    pub count: u32,
    /// The first time (ms); 0: never.
    pub first: u64,
    /// The last time (ms).
    pub last: u64,
}

impl Deaths {
    /// Once more.
    #[must_use]
    pub fn and(self, at: u64) -> Self {
        let first = if self.count == 0 { at } else { self.first };
        Self { count: self.count.saturating_add(1), first, last: at }
    }
}

/// `l`: an episode that waits in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Attempts begun.
    pub attempts: u32,
    /// No attempt before this time (ms).
    pub not_before: u64,
    /// What its age counts from (ms): when it was captured, or put back.
    pub since: u64,
    /// The time of the event.
    pub time: Time,
    /// What became of the latest attempt.
    pub sent: Sent,
    /// Lines of history.
    pub entries: u32,
    /// Sinks that this episode goes to.
    pub sinks: u16,
    /// Higher drains first.
    pub priority: u8,
    /// How often it died.
    pub deaths: Deaths,
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

/// `u`: a key that an episode has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The episode's id.
    pub id: Uuid,
    /// The key is free again at this time (ms).
    pub until: u64,
}

/// `o`: a note; its text is in `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRow {
    /// It is forgotten at this time (ms).
    pub until: u64,
}

/// `p`: what a note says, [sealed](super::seal) if there is a key, cut into pieces as records are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteText(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl Stored for Meta {}
impl Stored for SinkId {}
/// Why a sink is paused.
impl Stored for String {}
/// A place in `i`, a time in `c`.
impl Stored for u64 {}
impl Stored for Record {}
impl Stored for Attempt {}
impl Stored for Taken {}
impl Stored for NoteRow {}
impl Stored for NoteText {}

impl Stored for SinkRow {
    const VERSION: u8 = 2;

    fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
        Self::try_from(former.read::<former::SinkRow1>()?)
    }
}

impl Stored for Waiting {
    const VERSION: u8 = 3;

    fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
        match former.version {
            1 => former.read::<former::Waiting1>().map(Self::from),
            _ => former.read::<former::Waiting2>().map(Self::from),
        }
    }
}

impl Stored for Ended {
    const VERSION: u8 = 3;

    fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
        match former.version {
            1 => former.read::<former::Ended1>().map(Self::from),
            _ => former.read::<former::Ended2>().map(Self::from),
        }
    }
}

impl Stored for Episode {
    const VERSION: u8 = 2;

    fn upgrade(former: &Former<'_>) -> Result<Self, CodecError> {
        former.read::<former::Episode1>().map(Self::from)
    }
}
