//! The oldest episode that waits for a sink: what the sink's lag is read from. There is no row for it; a mark moves forward over the places.
//!
//! Long requests end long after shorter ones that began later, so places behind the mark are filled every day. They are remembered one by
//! one, because to take the mark back to them would mean to walk over everything delivered since once more. On disk is only the least of
//! them ([`SinkRow::oldest`](super::rows::SinkRow)): after a crash the mark starts from there.

use std::collections::BTreeSet;

use super::engine::{Engine, SWEEP};
use super::rows::Record;
use super::txn::{Txn, TxnError};
use super::{Lane, Seq, SinkId, codec, keys};

/// Places behind the mark that are remembered; beyond that the mark goes back. (A redrive of very many dead letters.)
const LATE: usize = 4096;

/// What is known of a sink's oldest waiting episode.
#[derive(Debug, Default)]
pub struct Oldest {
    /// No episode before this place waits, those in `late` aside.
    walked: Seq,
    /// Places before `walked` that were filled since it went by.
    late: BTreeSet<Seq>,
    found: Option<Found>,
}

/// The oldest one.
#[derive(Debug, Clone, Copy)]
struct Found {
    seq: Seq,
    lane: Lane,
    captured_at: u64,
}

impl Oldest {
    /// No episode before this place waits.
    pub fn from(walked: Seq) -> Self {
        Self { walked, ..Self::default() }
    }

    /// When the oldest episode was captured (ms), as far as known.
    pub fn captured_at(&self) -> Option<u64> {
        self.found.map(|f| f.captured_at)
    }

    /// The place before which nothing waits.
    pub fn mark(&self) -> Seq {
        self.late.first().copied().unwrap_or(self.walked)
    }

    /// An episode now waits at this place.
    pub fn put(&mut self, seq: Seq) {
        if seq < self.walked {
            self.late.insert(seq);
            if self.late.len() > LATE {
                self.walked = self.mark();
                self.late.clear();
            }
        }
    }

    /// Nothing waits before `next`.
    fn clear(&mut self, next: Seq) {
        *self = Self::from(next);
    }

    /// Moves forward, a bounded way.
    fn advance(&mut self, txn: &Txn<'_>, sink: SinkId, next: Seq) -> Result<(), TxnError> {
        if let Some(found) = self.found {
            if found.seq == self.mark() && txn.get_raw(&keys::waiting(sink, found.lane, found.seq))?.is_some() {
                return Ok(());
            }
            self.found = None;
        }
        for _ in 0..SWEEP {
            let late = self.late.first().copied();
            let Some((seq, record)) = next_record(txn, late.unwrap_or(self.walked))? else {
                self.late.clear(); // no record from there on
                self.walked = next.max(self.walked);
                return Ok(());
            };
            if late.is_none() {
                self.walked = seq;
            }
            if late.is_none_or(|late| late == seq) {
                self.found = find(txn, sink, seq, record)?;
                if self.found.is_some() {
                    return Ok(());
                }
            }
            if let Some(late) = late {
                self.late.remove(&late);
            } else {
                self.walked = seq + 1;
            }
        }
        Ok(())
    }
}

/// The record at a place, if it waits for the sink. One that can't be read is passed over: the drain says so when it comes to it.
fn find(txn: &Txn<'_>, sink: SinkId, seq: Seq, record: Option<Record>) -> Result<Option<Found>, TxnError> {
    let Some(record) = record else { return Ok(None) };
    let Some(&(_, lane)) = record.lanes.iter().find(|(s, _)| *s == sink) else { return Ok(None) };
    let waits = txn.get_raw(&keys::waiting(sink, lane, seq))?.is_some();
    Ok(waits.then_some(Found { seq, lane, captured_at: record.captured_at }))
}

/// The first record at or behind a place; nothing for what it says if that can't be read.
fn next_record(txn: &Txn<'_>, from: Seq) -> Result<Option<(Seq, Option<Record>)>, TxnError> {
    let (mut at, mut bytes) = (None, Vec::new());
    txn.scan(keys::episode(from)..keys::end_of(&keys::episodes()), &mut |key, piece| {
        let seq = keys::seq_of_episode(key);
        if at.is_some() && at != seq {
            return false;
        }
        at = seq;
        bytes.extend_from_slice(piece);
        true
    })?;
    Ok(at.map(|seq| (seq, codec::decode(&bytes).ok())))
}

impl Engine {
    /// Moves each sink's mark forward, a bounded way.
    pub fn advance_oldest(&mut self, txn: &Txn<'_>) -> Result<(), TxnError> {
        let next = self.meta.next_seq;
        for (&id, sink) in &mut self.sinks {
            if sink.row.ledger.pending == 0 {
                sink.oldest.clear(next);
            } else {
                sink.oldest.advance(txn, id, next)?;
            }
            sink.row.oldest = sink.oldest.mark();
        }
        Ok(())
    }
}
