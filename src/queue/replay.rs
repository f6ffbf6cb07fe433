//! Replays: a sink gets again what it has had, and what is kept and never went to it, to build a graph anew.
//!
//! A replay walks over the records in the order of their places, a slice at a time, up to the place that was the next one when it began: what
//! comes later goes to the sink by itself. Each episode waits in its lane again, at its own place. Left out is what waits at the sink anyway,
//! its dead letters (which are redriven), what was purged, and what it confirmed after the replay began.
//!
//! A slice is read off the writer's thread, and everything may have changed when its turn comes: so the writer looks at each row again. The
//! row in `j`, which tells how far the replay is, moves in the same batch, and so a replay goes on where it was after a restart.
//!
//! An episode that never went to the sink is captured for it now: its record gets the lane, and is written anew.

use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Stored};
use super::engine::{Engine, readable_record, waits_elsewhere};
use super::heads::ready;
use super::inspect::next_seq;
use super::notes::readable;
use super::rows::{Deaths, Ended, Record, Sent, Time, Waiting};
use super::seal::Seals;
use super::shared::{Op, Shared};
use super::store::MAX_VALUE;
use super::txn::{Txn, TxnError};
use super::{AppendError, Attempt, Lane, Queue, Seq, SinkId, State, keys};
use crate::episode::Episode;

/// Records that are read for a slice, and those of them that it has, at most.
const READS: usize = 2_048;
const SLICE: usize = 256;

/// Bytes of records after which a slice ends.
const BYTES: usize = 4 << 20;

/// What the history says of an episode that is replayed.
const REPLAYED: &str = "replayed";

/// A replay, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Only this session.
    pub session: Option<String>,
    /// Only what was captured at this time (ms) or later.
    pub since: u64,
    /// When it began (queue time, ms).
    pub began: u64,
    /// From this place ...
    pub first: Seq,
    /// ... to before this one.
    pub until: Seq,
    /// It has come to before this place.
    pub next: Seq,
    /// Episodes that it has put back or captured.
    pub count: u64,
    /// Episodes that the sink can't get, because they have no request to send again or can't be read.
    pub skipped: u64,
    /// Whether it goes on.
    pub course: Course,
}

/// Whether a replay goes on. Only one that does is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It does.
    Running,
    /// It has come to its end.
    Done,
    /// An operator ended it.
    Cancelled,
}

/// `j`: a replay under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRow {
    /// A text, encoded, [sealed](super::seal) if there is a key.
    pub session: Option<serde_bytes::ByteBuf>,
    since: u64,
    began: u64,
    first: Seq,
    until: Seq,
    next: Seq,
    count: u64,
    skipped: u64,
}

impl Stored for ReplayRow {}

impl ReplayRow {
    fn of(replay: &Replay, seals: &Seals, key: &[u8]) -> Result<Self, CodecError> {
        let &Replay { ref session, since, began, first, until, next, count, skipped, .. } = replay;
        let session = session.as_ref().map(|session| seals.encode(session, key)).transpose()?.map(serde_bytes::ByteBuf::from);
        Ok(Self { session, since, began, first, until, next, count, skipped })
    }

    fn open(self, seals: &Seals, key: &[u8]) -> Result<Replay, CodecError> {
        let Self { session, since, began, first, until, next, count, skipped } = self;
        let session = session.map(|sealed| seals.decode(&sealed, key)).transpose()?;
        Ok(Replay { session, since, began, first, until, next, count, skipped, course: Course::Running })
    }
}

/// What the writer is asked.
#[derive(Debug, Clone)]
pub enum Ask {
    Begin { session: Option<String>, since: u64 },
    Go(Slice),
    Cancel,
}

/// Some episodes of a replay.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Which replay, and how far it was.
    pub began: u64,
    pub from: Seq,
    pub next: Seq,
    pub items: Vec<Item>,
    pub skipped: u64,
}

/// An episode to replay, and, if it was never addressed to the sink, its lane there and when the event happened.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    pub seq: Seq,
    pub new: Option<(Lane, i64)>,
}

/// The lane that an episode has at the sink; none if the sink can't send it.
pub type LaneOf<'a> = &'a dyn Fn(&Episode) -> Option<Lane>;

/// What comes next in a replay, so many at most. Reads the disk.
pub fn slice(shared: &Shared, sink: SinkId, replay: &Replay, lane_of: LaneOf<'_>, most: usize) -> Result<Slice, TxnError> {
    let txn = Txn::new(&shared.store);
    let mut slice = Slice { began: replay.began, from: replay.next, next: replay.next, items: Vec::new(), skipped: 0 };
    let mut bytes = 0;
    for _ in 0..READS {
        let Some(seq) = next_seq(&txn, slice.next.checked_sub(1))?.filter(|seq| *seq < replay.until) else {
            slice.next = replay.until;
            break;
        };
        if slice.items.len() == most || bytes > BYTES {
            break;
        }
        slice.next = seq + 1;
        let Some((record, size)) = readable_record(&txn, seq)? else {
            slice.skipped += 1;
            continue;
        };
        bytes += size;
        if record.captured_at < replay.since || !may(&txn, sink, seq, &record, replay.began)? {
            continue;
        }
        let known = record.lanes.iter().any(|(s, _)| *s == sink);
        if known && replay.session.is_none() {
            slice.items.push(Item { seq, new: None });
            continue;
        }
        let Ok(episode) = shared.seals.decode::<Episode>(&record.episode, &keys::id(record.id)) else {
            slice.skipped += 1;
            continue;
        };
        if replay.session.as_ref().is_some_and(|session| *session != episode.session) {
            continue;
        }
        if known {
            slice.items.push(Item { seq, new: None });
        } else if let Some(lane) = lane_of(&episode) {
            slice.items.push(Item { seq, new: Some((lane, episode.time())) });
        } else {
            slice.skipped += 1;
        }
    }
    Ok(slice)
}

/// Whether it is for the replay to bring: it never went to the sink, or is there since before the replay.
fn may(txn: &Txn<'_>, sink: SinkId, seq: Seq, record: &Record, began: u64) -> Result<bool, TxnError> {
    if record.lanes.iter().all(|(s, _)| *s != sink) {
        return Ok(true);
    }
    Ok(readable::<Ended>(txn, &keys::ended(seq, sink))?.is_some_and(|e| e.state == State::Delivered && e.at <= began))
}

/// The replay that a sink's row tells of.
pub fn load(txn: &Txn<'_>, seals: &Seals, sink: SinkId) -> Result<Option<Replay>, TxnError> {
    let key = keys::replay(sink);
    let Some(row) = readable::<ReplayRow>(txn, &key)? else { return Ok(None) };
    row.open(seals, &key).map(Some).or_else(|error| {
        tracing::error!(%error, "a replay can't be read, and does not go on");
        Ok(None)
    })
}

impl Engine {
    /// Begins, moves or ends a replay; how it stands then. None where there was none to do that to, or one to begin is under way already.
    pub fn replay(&mut self, txn: &mut Txn<'_>, sink: SinkId, ask: &Ask, now: u64) -> Result<Option<Replay>, TxnError> {
        let running = self.sink(sink).replay.clone().filter(|r| r.course == Course::Running);
        let replay = match (ask, running) {
            (Ask::Begin { session, since }, None) => {
                let until = self.meta.next_seq;
                let first = next_seq(txn, None)?.unwrap_or(until);
                let (session, since) = (session.clone(), *since);
                Replay { session, since, began: now, first, until, next: first, count: 0, skipped: 0, course: Course::Running }
            }
            (Ask::Cancel, Some(replay)) => Replay { course: Course::Cancelled, ..replay },
            (Ask::Go(slice), Some(replay)) if (slice.began, slice.from) == (replay.began, replay.next) => {
                let mut count = 0;
                for item in &slice.items {
                    count += u64::from(self.bring(txn, sink, *item, replay.began, now)?);
                }
                let (count, skipped) = (replay.count + count, replay.skipped + slice.skipped);
                Replay { next: slice.next, count, skipped, ..replay }
            }
            _ => return Ok(None),
        };
        let key = keys::replay(sink);
        let done = replay.course == Course::Running && replay.next >= replay.until;
        let replay = if done { Replay { course: Course::Done, ..replay } } else { replay };
        if replay.course == Course::Running {
            let row = ReplayRow::of(&replay, &self.seals, &key)?;
            txn.put(key, &row)?;
        } else {
            txn.remove(key);
        }
        self.sink(sink).replay = Some(replay.clone());
        Ok(Some(replay))
    }

    /// Has one episode wait at the sink; whether that is still to be done.
    fn bring(&mut self, txn: &mut Txn<'_>, sink: SinkId, item: Item, began: u64, now: u64) -> Result<bool, TxnError> {
        let Some((mut record, size)) = readable_record(txn, item.seq)? else { return Ok(false) };
        if !may(txn, sink, item.seq, &record, began)? {
            return Ok(false);
        }
        let waits = waits_elsewhere(txn, item.seq, sink)?;
        let (lane, was) = match item.new {
            None => {
                let Some(ended) = readable::<Ended>(txn, &keys::ended(item.seq, sink))? else { return Ok(false) };
                self.take_back(txn, sink, item.seq, &ended);
                (ended.lane, ended.was)
            }
            Some((lane, time)) if record.lanes.iter().all(|(s, _)| *s != sink) => {
                record.lanes.push((sink, lane));
                (lane, self.address(txn, item.seq, &record, size, sink, time)?)
            }
            Some(_) => return Ok(false),
        };
        self.meta.episodes += u64::from(!waits);
        let mut waiting = Waiting { attempts: 0, not_before: ready(now, was.priority), since: now, sent: Sent::No, ..was };
        let told = Attempt { at: now, attempt: 0, outcome: REPLAYED.to_owned(), status: None, error: None, duration_ms: 0 };
        self.write_line(txn, item.seq, sink, &mut waiting, &told)?;
        self.lane_grew(txn, sink, lane, item.seq, waiting)?;
        let state = self.sink(sink);
        state.row.ledger.pending += 1;
        state.put(item.seq);
        Ok(true)
    }

    /// A receipt is none any more.
    fn take_back(&mut self, txn: &mut Txn<'_>, sink: SinkId, seq: Seq, ended: &Ended) {
        txn.remove(keys::ended(seq, sink));
        let row = &mut self.sink(sink).row;
        row.ledger.delivered -= 1;
        if ended.expires_at != 0 {
            row.delivered_kept -= 1;
            txn.remove(keys::expiry(ended.expires_at, seq, sink));
        }
    }

    /// Writes a record anew, which has one lane more: the last one, at `sink`. What its row there begins with.
    fn address(
        &mut self,
        txn: &mut Txn<'_>,
        seq: Seq,
        record: &Record,
        size: usize,
        sink: SinkId,
        time: i64,
    ) -> Result<Waiting, TxnError> {
        let bytes = codec::encode(record)?;
        self.meta.bytes += bytes.len().saturating_sub(size) as u64;
        for (n, piece) in (0u16..).zip(bytes.chunks(MAX_VALUE)) {
            txn.put_raw(keys::chunk(seq, n), piece.to_vec());
        }
        let sinks = u16::try_from(record.lanes.len()).unwrap_or(u16::MAX);
        for &(other, lane) in record.lanes.iter().filter(|(s, _)| *s != sink) {
            let key = keys::waiting(other, lane, seq);
            if let Some(waiting) = readable::<Waiting>(txn, &key)? {
                txn.put(key, &Waiting { sinks, ..waiting })?;
            }
            let key = keys::ended(seq, other);
            if let Some(mut ended) = readable::<Ended>(txn, &key)? {
                ended.was.sinks = sinks;
                txn.put(key, &ended)?;
            }
        }
        self.sink(sink).row.ledger.captured += 1;
        Ok(Waiting {
            attempts: 0,
            not_before: 0,
            since: 0,
            time: Time::Event(time),
            sent: Sent::No,
            entries: 0,
            sinks,
            priority: 0,
            deaths: Deaths::default(),
        })
    }
}

/// What operators do.
impl Queue {
    /// Begins a replay at a sink; none if one is under way there. It goes on by [`replay_on`](Self::replay_on) alone.
    pub async fn begin_replay(&self, sink: SinkId, session: Option<String>, since: u64) -> Result<Option<Replay>, AppendError> {
        self.ask(|reply| Op::Replay(sink, Ask::Begin { session, since }, reply))?.await
    }

    /// Takes the next slice of the replay at a sink; how it stands then, none if there is none under way. `lane_of` gives the lane that an
    /// episode has there.
    pub async fn replay_on(
        &self,
        sink: SinkId,
        lane_of: impl Fn(&Episode) -> Option<Lane> + Send + 'static,
    ) -> Result<Option<Replay>, AppendError> {
        let running = self.stats().sinks.into_iter().find(|s| self.sink_id(&s.name) == Some(sink)).and_then(|s| s.replay);
        let Some(replay) = running.filter(|r| r.course == Course::Running) else { return Ok(None) };
        let shared = self.inner.shared.clone();
        let read = tokio::task::spawn_blocking(move || slice(&shared, sink, &replay, &lane_of, SLICE));
        let slice = read.await.map_err(|_| AppendError::Failed)?.map_err(|error| {
            tracing::error!(%error, "what is to be replayed can't be read");
            AppendError::Failed
        })?;
        self.ask(|reply| Op::Replay(sink, Ask::Go(slice), reply))?.await
    }

    /// Ends the replay at a sink where it is: what it has put back stays. None if there is none under way.
    pub async fn cancel_replay(&self, sink: SinkId) -> Result<Option<Replay>, AppendError> {
        self.ask(|reply| Op::Replay(sink, Ask::Cancel, reply))?.await
    }
}
