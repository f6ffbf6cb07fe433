//! Taking in what another queue had: each episode behind all that is here, and at each sink where it stood there.
//!
//! Every one is taken, passed over because its id is here, or, when there is no room, left with all behind it; the rows of one go together.

use uuid::Uuid;

use super::engine::Engine;
use super::heads::ready;
use super::keys;
use super::retention::ROWS;
use super::rows::{Ended, Record, Time, Waiting};
use super::seal::Seals;
use super::store::MAX_VALUE;
use super::txn::{Txn, TxnError};
use super::{AppendError, Import, Imported, Lane, Seq, SinkId, Standing, State, codec, times};

/// An episode on its way into the queue.
#[derive(Debug, Clone)]
pub struct Importing {
    id: Uuid,
    /// A [`Record`], encoded.
    record: Vec<u8>,
    sinks: Vec<(SinkId, Lane, Standing)>,
}

impl Importing {
    /// Encodes and seals an episode: whoever brings it does that, not the writer.
    pub fn of(import: Import, seals: &Seals) -> Result<Self, AppendError> {
        let Import { episode, sinks } = import;
        let id = episode.id;
        let lanes = sinks.iter().map(|(sink, lane, _)| (*sink, *lane)).collect();
        let record = seals.encode(&episode, &keys::id(id)).and_then(|bytes| {
            let record = Record { id, captured_at: episode.captured_at, lanes, episode: bytes };
            codec::encode(&record)
        });
        let record = record.map_err(|error| {
            tracing::error!(%error, %id, "an episode can't be encoded");
            AppendError::Failed
        })?;
        Ok(Self { id, record, sinks })
    }

    /// Bytes that its record has, encoded.
    pub fn len(&self) -> usize {
        self.record.len()
    }

    /// Where it goes.
    pub fn sinks(&self) -> impl Iterator<Item = SinkId> {
        self.sinks.iter().map(|(sink, ..)| *sink)
    }
}

impl Engine {
    /// Takes episodes in, in this order, as far as there is room.
    pub fn import(&mut self, txn: &mut Txn<'_>, new: &[Importing], now: u64) -> Result<Imported, TxnError> {
        let mut done = Imported::default();
        for new in new {
            if txn.get_raw(&keys::id(new.id))?.is_some() {
                done.taken.push(false);
                continue;
            }
            let size = new.record.len() as u64 + ROWS;
            if self.meta.bytes + size > self.limits.max_bytes {
                self.evict(txn, size, now)?;
            }
            let waits = new.sinks.iter().any(|(.., standing)| is_waiting(standing));
            if self.meta.bytes + size > self.limits.max_bytes || waits && self.meta.episodes >= self.limits.max_episodes {
                done.full = true;
                break;
            }
            let seq = self.places.reserve();
            for (n, piece) in (0u16..).zip(new.record.chunks(MAX_VALUE)) {
                txn.put_raw(keys::chunk(seq, n), piece.to_vec());
            }
            txn.put(keys::id(new.id), &seq)?;
            self.meta.next_seq = self.meta.next_seq.max(seq + 1);
            self.meta.episodes += u64::from(waits);
            self.meta.bytes += size;
            for (sink, lane, standing) in &new.sinks {
                self.stand(txn, new, seq, (*sink, *lane), standing, now)?;
            }
            done.taken.push(true);
        }
        Ok(done)
    }

    /// Has an episode stand at a sink where it stood before.
    fn stand(
        &mut self,
        txn: &mut Txn<'_>,
        new: &Importing,
        seq: Seq,
        (sink, lane): (SinkId, Lane),
        standing: &Standing,
        now: u64,
    ) -> Result<(), TxnError> {
        for (n, attempt) in (0..).zip(&standing.history) {
            let key = keys::history(seq, sink, n);
            let sealed = self.seals.encode(attempt, &key)?;
            txn.put_raw(key, sealed);
        }
        let was = Waiting {
            attempts: standing.attempts,
            not_before: standing.next_attempt_at.unwrap_or_else(|| ready(now, standing.priority)),
            since: standing.since,
            time: standing.time.elsewhere(standing.sent),
            sent: standing.sent,
            entries: u32::try_from(standing.history.len()).unwrap_or(u32::MAX),
            sinks: u16::try_from(new.sinks.len()).unwrap_or(u16::MAX),
            priority: standing.priority,
            deaths: standing.deaths,
        };
        // What comes behind it in its lane must not get an earlier time than the one that it was sent with.
        if !matches!(was.time, Time::Event(_)) {
            times::give(txn, sink, lane, was.time.seen())?;
        }
        if is_waiting(standing) {
            self.lane_grew(txn, sink, lane, seq, was)?;
            let state = self.sink(sink);
            state.put(seq);
            state.row.ledger.captured += 1;
            state.row.ledger.pending += 1;
            return Ok(());
        }
        let ledger = &mut self.sink(sink).row.ledger;
        ledger.captured += 1;
        let keep = match standing.state {
            State::Delivered => {
                ledger.delivered += 1;
                Some(self.limits.keep_delivered)
            }
            State::Dead => {
                ledger.dead += 1;
                Some(self.limits.keep_dead)
            }
            State::Purged => {
                ledger.purged += 1;
                None
            }
            State::Expired | State::Pending | State::InFlight => {
                ledger.expired += 1;
                None
            }
        };
        let expires_at = keep.map_or(0, |keep| now.saturating_add(keep).max(1));
        if expires_at == 0 {
            times::removed(txn, sink, lane, was.time.ms(), now)?;
        } else {
            txn.put_raw(keys::expiry(expires_at, seq, sink), Vec::new());
        }
        match standing.state {
            State::Delivered => self.sink(sink).row.delivered_kept += 1,
            State::Dead => txn.put_raw(keys::dead(sink, seq), Vec::new()),
            _ => {}
        }
        let (state, at, reason) = (standing.state, standing.ended_at.unwrap_or(now), standing.reason.clone());
        txn.put(keys::ended(seq, sink), &Ended { state, at, expires_at, reason, lane, was })
    }
}

fn is_waiting(standing: &Standing) -> bool {
    matches!(standing.state, State::Pending | State::InFlight)
}
