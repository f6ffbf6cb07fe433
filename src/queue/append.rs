//! Taking episodes in: all that one append brings, or nothing of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::engine::Engine;
use super::heads::ready;
use super::keys;
use super::notes::{UNIQUE, Writing};
use super::retention::ROWS;
use super::rows::{Deaths, Record, Sent, Time, Waiting};
use super::seal::Seals;
use super::store::MAX_VALUE;
use super::txn::{Txn, TxnError};
use super::{AppendError, Appended, Key, Lane, New, Seq, SinkId, Unique, codec};

/// Hands out places, each once as long as the process lives. After a crash they continue behind the last one that was used: what had been
/// handed out and not used belonged to a process that is gone.
#[derive(Debug)]
pub struct Places(AtomicU64);

impl Places {
    /// From this one on.
    pub fn from(next: Seq) -> Self {
        Self(AtomicU64::new(next))
    }

    /// The next place.
    pub fn reserve(&self) -> Seq {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this place has been handed out.
    fn is_reserved(&self, seq: Seq) -> bool {
        seq < self.0.load(Ordering::Relaxed)
    }
}

/// An episode on its way into the queue.
#[derive(Debug, Clone)]
pub struct Append {
    pub id: Uuid,
    pub captured_at: u64,
    /// When the event was (ms).
    pub time: i64,
    pub lanes: Vec<(SinkId, Lane)>,
    /// A [`Record`], encoded.
    pub record: Vec<u8>,
    pub place: Option<Seq>,
    pub unique: Option<Unique>,
    pub note: Option<Writing>,
    pub priority: u8,
}

impl Append {
    /// Encodes and seals an episode: whoever brings it does that, not the writer.
    pub fn of(new: &New<'_>, seals: &Seals) -> Result<Self, AppendError> {
        let New { episode, lanes, place, unique, note, priority } = new;
        let (id, captured_at) = (episode.id, episode.captured_at);
        let record = seals.encode(*episode, &keys::id(id)).and_then(|bytes| {
            let record = Record { id, captured_at, lanes: lanes.to_vec(), episode: bytes };
            codec::encode(&record)
        });
        let record = record.map_err(|error| {
            tracing::error!(%error, %id, "an episode can't be encoded");
            AppendError::Failed
        })?;
        let note = note.clone().map(|note| Writing::new(note, seals)).transpose()?;
        let time = episode.time();
        let (lanes, place, unique, priority) = (lanes.to_vec(), *place, *unique, *priority);
        Ok(Self { id, captured_at, time, lanes, record, place, unique, note, priority })
    }

    /// Bytes that its record and its note have, encoded.
    pub fn len(&self) -> usize {
        self.record.len() + self.note.as_ref().map_or(0, |n| n.text.len())
    }

    /// Bytes that it takes with its rows, roughly.
    fn size(&self) -> u64 {
        let unique = if self.unique.is_some() { UNIQUE } else { 0 };
        self.record.len() as u64 + ROWS + unique + self.note.as_ref().map_or(0, Writing::size)
    }
}

impl Engine {
    /// Takes episodes in, each at its place in each of its lanes, but for those whose unique key another one has. All of the others or, if
    /// there isn't room for them all, none.
    pub fn append(&mut self, txn: &mut Txn<'_>, new: &[Append], now: u64) -> Result<Result<Appended, AppendError>, TxnError> {
        let first = first_ones(txn, new, now)?;
        let taken = || new.iter().zip(&first).filter(|(_, first)| first.is_none()).map(|(new, _)| new);
        let (count, size) = taken().fold((0, 0), |(count, size), new| (count + 1, size + new.size()));
        for _ in 0..count {
            if self.meta.bytes + size <= self.limits.max_bytes {
                break;
            }
            self.evict(txn, size, now)?;
        }
        if count > 0 && (self.meta.episodes + count > self.limits.max_episodes || self.meta.bytes + size > self.limits.max_bytes)
        {
            return Ok(Err(AppendError::Full));
        }
        for new in taken() {
            self.take_in(txn, new, now)?;
        }
        Ok(Ok(first))
    }

    fn take_in(&mut self, txn: &mut Txn<'_>, new: &Append, now: u64) -> Result<(), TxnError> {
        let seq = self.place(txn, new)?;
        for (n, piece) in (0u16..).zip(new.record.chunks(MAX_VALUE)) {
            txn.put_raw(keys::chunk(seq, n), piece.to_vec());
        }
        txn.put(keys::id(new.id), &seq)?;
        let sinks = u16::try_from(new.lanes.len()).unwrap_or(u16::MAX);
        let waiting = Waiting {
            attempts: 0,
            not_before: 0, // each sink has its own
            since: new.captured_at,
            time: Time::Event(new.time),
            sent: Sent::No,
            entries: 0,
            sinks,
            priority: new.priority,
            deaths: Deaths::default(),
        };
        for &(sink, lane) in &new.lanes {
            // One that is in flight stays so, whatever comes before it now: the lane is claimed.
            let at = now.saturating_add(self.sink(sink).settings.linger);
            let waiting = Waiting { not_before: ready(at, new.priority), ..waiting.clone() };
            self.lane_grew(txn, sink, lane, seq, waiting)?;
            let state = self.sink(sink);
            state.put(seq);
            state.row.ledger.captured += 1;
            state.row.ledger.pending += 1;
        }
        if let Some(unique) = new.unique.filter(|u| u.until > now) {
            self.take(txn, unique, new.id)?;
        }
        if let Some(note) = &new.note {
            self.put_note(txn, note)?;
        }
        self.meta.next_seq = self.meta.next_seq.max(seq + 1);
        self.meta.episodes += 1;
        self.meta.bytes += new.record.len() as u64 + ROWS;
        Ok(())
    }

    /// Where it goes: the place that it asks for. One that can't be its own would be another episode's loss.
    fn place(&self, txn: &Txn<'_>, new: &Append) -> Result<Seq, TxnError> {
        if let Some(seq) = new.place {
            // Behind all that were ever used there is nothing to look for.
            let is_free = || Ok::<_, TxnError>(seq >= self.meta.next_seq || txn.get_raw(&keys::chunk(seq, 0))?.is_none());
            if self.places.is_reserved(seq) && is_free()? {
                return Ok(seq);
            }
            tracing::error!(seq, id = %new.id, "a place was never reserved or is taken: the episode goes behind all others");
        }
        Ok(self.places.reserve())
    }
}

/// For each that is left out the id of the one in whose favour.
fn first_ones(txn: &Txn<'_>, new: &[Append], now: u64) -> Result<Appended, TxnError> {
    let mut here: HashMap<Key, Uuid> = HashMap::new();
    let mut first = Vec::with_capacity(new.len());
    for new in new {
        first.push(match new.unique.filter(|u| u.until > now) {
            None => None,
            Some(unique) => match (here.get(&unique.key), Engine::taken(txn, unique, now)?) {
                (Some(id), _) => Some(*id),
                (None, Some(taken)) => Some(taken.id),
                (None, None) => {
                    here.insert(unique.key, new.id);
                    None
                }
            },
        });
    }
    Ok(first)
}

/// The not-before of a row of a lane; 0 if it can't be read.
pub(super) fn not_before(row: &[u8]) -> u64 {
    codec::decode::<Waiting>(row).map_or(0, |w| w.not_before)
}
