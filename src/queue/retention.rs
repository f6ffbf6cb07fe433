//! What becomes of episodes that have ended: receipts and dead letters are kept for their time, put back, purged, or make room.

use uuid::Uuid;

use super::engine::{Engine, SWEEP, read_record, readable_record, waits_elsewhere};
use super::heads::ready;
use super::notes::readable;
use super::rows::{Ended, Waiting};
use super::txn::{Txn, TxnError};
use super::{Attempt, Deleted, Lane, Seq, SinkId, State, keys, times};

/// Bytes that an episode's index rows take, roughly; counted with its record.
pub const ROWS: u64 = 256;

/// The outcome in the history's line of a dead letter that was put back; it is no attempt, and has the number 0.
const REDRIVEN: &str = "redriven";

impl Engine {
    /// Puts a dead letter back at its place; whether there was one.
    pub fn redrive(&mut self, txn: &mut Txn<'_>, sink: SinkId, seq: Seq, now: u64) -> Result<bool, TxnError> {
        let Some(dead) = dead_letter(txn, sink, seq)? else { return Ok(false) };
        let before = self.head(txn, sink, dead.lane)?;
        if dead.was.sinks == 1 || !waits_elsewhere(txn, seq, sink)? {
            self.meta.episodes += 1;
        }
        txn.remove(keys::ended(seq, sink));
        txn.remove(keys::dead(sink, seq));
        txn.remove(keys::expiry(dead.expires_at, seq, sink));
        self.unpark(txn, sink, dead.lane, seq)?;
        let mut waiting = Waiting { attempts: 0, not_before: ready(now, dead.was.priority), since: now, ..dead.was };
        let line = Attempt { at: now, attempt: 0, outcome: REDRIVEN.to_owned(), status: None, error: None, duration_ms: 0 };
        self.write_line(txn, seq, sink, &mut waiting, &line)?;
        txn.put(keys::waiting(sink, dead.lane, seq), &waiting)?;
        self.lane_changed(txn, sink, dead.lane, before, now)?;
        let state = self.sink(sink);
        state.row.ledger.dead -= 1;
        state.row.ledger.pending += 1;
        state.put(seq);
        Ok(true)
    }

    /// Removes a dead letter for good; whether there was one.
    pub fn purge(&mut self, txn: &mut Txn<'_>, sink: SinkId, seq: Seq, now: u64) -> Result<bool, TxnError> {
        let Some(dead) = dead_letter(txn, sink, seq)? else { return Ok(false) };
        self.lapse(txn, sink, seq, dead, State::Purged, now)?;
        Ok(true)
    }

    /// Nothing keeps this ended row any more: a receipt that expired, a dead letter that expired or was purged.
    fn lapse(
        &mut self,
        txn: &mut Txn<'_>,
        sink: SinkId,
        seq: Seq,
        mut ended: Ended,
        state: State,
        now: u64,
    ) -> Result<(), TxnError> {
        txn.remove(keys::expiry(ended.expires_at, seq, sink));
        let row = &mut self.sink(sink).row;
        if ended.state == State::Dead {
            row.ledger.dead -= 1;
            if state == State::Purged {
                row.ledger.purged += 1;
            } else {
                row.ledger.expired += 1;
            }
            txn.remove(keys::dead(sink, seq));
            let before = self.head(txn, sink, ended.lane)?;
            if self.unpark(txn, sink, ended.lane, seq)? {
                self.lane_changed(txn, sink, ended.lane, before, now)?;
            }
        } else {
            row.delivered_kept -= 1;
        }
        if ended.expires_at <= now {
            times::let_go(txn, sink, ended.lane, ended.was.time.ms(), now)?;
        } else {
            times::removed(txn, sink, ended.lane, ended.was.time.ms(), now)?;
        }
        ended.state = state;
        ended.expires_at = 0;
        txn.put(keys::ended(seq, sink), &ended)?;
        self.drop_unkept(txn, seq)
    }

    /// Removes an episode that every sink has ended and nothing keeps.
    pub(super) fn drop_unkept(&mut self, txn: &mut Txn<'_>, seq: Seq) -> Result<(), TxnError> {
        let Some((record, size)) = readable_record(txn, seq)? else { return Ok(()) };
        for &(sink, _) in &record.lanes {
            // A row that can't be read keeps it.
            if readable::<Ended>(txn, &keys::ended(seq, sink))?.is_none_or(|e| e.expires_at != 0) {
                return Ok(());
            }
        }
        let mut gone = vec![keys::id(record.id)];
        for prefix in [keys::episode(seq)].into_iter().chain(record.lanes.iter().map(|(s, _)| keys::histories(seq, *s))) {
            txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
                gone.push(key.to_vec());
                true
            })?;
        }
        gone.extend(record.lanes.iter().map(|(s, _)| keys::ended(seq, *s)));
        for key in gone {
            txn.remove(key);
        }
        self.meta.bytes = self.meta.bytes.saturating_sub(size as u64 + ROWS);
        Ok(())
    }

    /// Removes one episode at every sink, unless an attempt is in flight.
    pub fn delete(&mut self, txn: &mut Txn<'_>, id: Uuid, now: u64) -> Result<Deleted, TxnError> {
        let Some(seq) = txn.get::<Seq>(&keys::id(id))? else { return Ok(Deleted::Unknown) };
        let Some((record, _)) = read_record(txn, seq)? else { return Ok(Deleted::Unknown) };
        if record.lanes.iter().any(|(sink, lane)| self.sink(*sink).claimed.has(*lane, seq)) {
            return Ok(Deleted::InFlight);
        }
        for &(sink, lane) in &record.lanes {
            if self.give_up(txn, sink, lane, seq, now)? {
                continue;
            }
            if let Some(ended) = txn.get::<Ended>(&keys::ended(seq, sink))?.filter(|e| e.expires_at != 0) {
                let state = if ended.state == State::Dead { State::Purged } else { ended.state };
                self.lapse(txn, sink, seq, ended, state, now)?;
            }
        }
        self.drop_unkept(txn, seq)?;
        Ok(Deleted::Gone)
    }

    /// Removes an episode that waits at a sink; whether it did.
    pub(super) fn give_up(&mut self, txn: &mut Txn<'_>, sink: SinkId, lane: Lane, seq: Seq, now: u64) -> Result<bool, TxnError> {
        let key = keys::waiting(sink, lane, seq);
        let Some(was) = txn.get::<Waiting>(&key)? else { return Ok(false) };
        let before = self.head(txn, sink, lane)?;
        txn.remove(key);
        self.lane_changed(txn, sink, lane, before, now)?;
        times::removed(txn, sink, lane, was.time.ms(), now)?;
        self.left(txn, seq, sink, was.sinks)?;
        let ledger = &mut self.sink(sink).row.ledger;
        ledger.pending -= 1;
        ledger.purged += 1;
        let ended = Ended { state: State::Purged, at: now, expires_at: 0, reason: None, lane, was };
        txn.put(keys::ended(seq, sink), &ended)?;
        Ok(true)
    }

    /// Lets receipts and dead letters expire whose time has come; whether more are waiting.
    pub fn expire(&mut self, txn: &mut Txn<'_>, now: u64) -> Result<bool, TxnError> {
        let due = expiring(txn, now)?;
        for &(time, seq, sink) in &due {
            match txn.get::<Ended>(&keys::ended(seq, sink)) {
                Ok(Some(ended)) if ended.expires_at == time => {
                    let state = if ended.state == State::Dead { State::Expired } else { ended.state };
                    self.lapse(txn, sink, seq, ended, state, now)?;
                }
                Ok(_) => txn.remove(keys::expiry(time, seq, sink)),
                Err(TxnError::Codec(error)) => {
                    tracing::error!(seq, %error, "an ended row can't be read; it is kept, and never expires");
                    txn.remove(keys::expiry(time, seq, sink));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(due.len() == SWEEP)
    }

    /// Makes room for `size` bytes: receipts, the oldest first, never what is still to be delivered.
    pub(super) fn evict(&mut self, txn: &mut Txn<'_>, size: u64, now: u64) -> Result<(), TxnError> {
        for (_, seq, sink) in expiring(txn, u64::MAX)? {
            if self.meta.bytes + size <= self.limits.max_bytes {
                break;
            }
            if let Some(ended) = readable::<Ended>(txn, &keys::ended(seq, sink))?.filter(|e| e.state == State::Delivered) {
                self.lapse(txn, sink, seq, ended, State::Delivered, now)?;
            }
        }
        Ok(())
    }
}

fn dead_letter(txn: &Txn<'_>, sink: SinkId, seq: Seq) -> Result<Option<Ended>, TxnError> {
    Ok(txn.get::<Ended>(&keys::ended(seq, sink))?.filter(|e| e.state == State::Dead))
}

fn expiring(txn: &Txn<'_>, until: u64) -> Result<Vec<(u64, Seq, SinkId)>, TxnError> {
    let mut due = Vec::new();
    txn.scan(keys::expiries()..keys::expiry(until, u64::MAX, SinkId(u16::MAX)), &mut |key, _| {
        due.extend(keys::expiry_of(key));
        due.len() < SWEEP
    })?;
    Ok(due)
}
