//! Mending: the rows that were read out of a damaged store are made consistent again.
//!
//! What tells of an episode is its record and, for each of its sinks, one row of `l` or of `t`. Everything else follows from these and is
//! made anew: ids, lanes that are ready, the lists of dead letters and of what expires, counters. Of what is missing, as much is put right as
//! can be without guessing:
//! - a record without a row at one of its sinks waits there;
//! - all that waits is *in doubt*, because a later row may be lost: where the sink can be asked, it is asked before anything is sent;
//! - a row of a lane without a readable record stays, and ends as the dead letter that the drain makes of it;
//! - a row that can't be read is taken for absent; one whose record is gone tells nothing any more, and goes;
//! - the ledger keeps what was captured, by its own rows or by the witness, whichever knows more: what is missing is its gap.

use std::collections::BTreeMap;

use super::append::not_before;
use super::codec::{self, CodecError};
use super::keys::{self, Fading, Key};
use super::notes::{self, UNIQUE};
use super::park::PARKED;
use super::retention::ROWS;
use super::rows::{Deaths, Ended, Meta, NoteRow, Record, Sent, SinkRow, Taken, Time, Waiting};
use super::store::{Seen, Store, Witness};
use super::txn::{Txn, TxnError};
use super::{Lane, Ledger, Seq, SinkId, State};

/// Tables that are made anew, and need not be copied.
pub const MADE: &[u8] = b"irdxwqz";

/// Rows that are looked at between two commits.
const SLICE: usize = 1024;

/// Bytes of records that are looked at between two commits.
const BYTES: usize = 4 << 20;

/// What became of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Records that can be read.
    pub records: u64,
    /// Records that can't be read, or are of a later version.
    pub unreadable: u64,
    /// Episodes that had no row at one of their sinks, and wait there now.
    pub revived: u64,
    /// What the ledger misses: episodes, each counted at each of its sinks.
    pub missing: u64,
}

/// Mends a store that has the tables that are not in [`MADE`].
pub fn mend(store: &Store, witness: Option<&Witness>) -> Result<Mended, TxnError> {
    let mut mending = Mending { store, mended: Mended::default(), meta: Meta::default(), sinks: BTreeMap::new() };
    mending.begin(witness)?;
    mending.records()?;
    mending.parks()?;
    mending.lanes()?;
    mending.ended()?;
    mending.remembered()?;
    mending.end()
}

/// What is counted for a sink.
#[derive(Default)]
struct Counts {
    /// What its row said, and what the witness saw.
    row: Option<SinkRow>,
    seen: Seen,
    /// Revived although, by its row, nothing waited there: it had ended, and what told how is lost.
    ended_once: u64,
    pending: u64,
    dead: u64,
    delivered_kept: u64,
    oldest: Option<Seq>,
}

struct Mending<'a> {
    store: &'a Store,
    mended: Mended,
    meta: Meta,
    sinks: BTreeMap<SinkId, Counts>,
}

/// The row, unless it is absent or can't be read.
fn readable<T: codec::Stored>(txn: &Txn<'_>, key: &[u8]) -> Result<Option<T>, TxnError> {
    match txn.get(key) {
        Err(TxnError::Codec(_)) => Ok(None),
        other => other,
    }
}

/// Looks at a row, and may change what it likes: key and value.
type AtRow<'a> = &'a mut dyn FnMut(&mut Txn<'_>, &[u8], &[u8]) -> Result<(), TxnError>;

/// Looks at a record, and may change what it likes: place and bytes.
type AtRecord<'a> = &'a mut dyn FnMut(&mut Txn<'_>, Seq, &[u8]) -> Result<(), TxnError>;

/// Visits the rows of a table in order, a slice at a time, so that what is visited may be changed.
pub fn each_row(store: &Store, prefix: &[u8], visit: AtRow<'_>) -> Result<(), TxnError> {
    let (mut from, end) = (prefix.to_vec(), keys::end_of(prefix));
    loop {
        let (mut slice, mut size) = (Vec::new(), 0);
        store.scan(from.clone()..end.clone(), &mut |key, value| {
            size += value.len();
            slice.push((key.to_vec(), value.to_vec()));
            slice.len() < SLICE && size < BYTES
        })?;
        let Some((last, _)) = slice.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0); // the first key behind it
        let mut txn = Txn::new(store);
        for (key, value) in &slice {
            visit(&mut txn, key, value)?;
        }
        let writes = txn.into_writes();
        if !writes.is_empty() {
            store.commit(writes, false)?;
        }
    }
}

/// Visits the records in order, each put together from its pieces.
pub fn each_record(store: &Store, visit: AtRecord<'_>) -> Result<(), TxnError> {
    let mut from = keys::episodes();
    let end = keys::end_of(&from);
    loop {
        let (mut slice, mut size, mut whole) = (Vec::<(Seq, Vec<u8>)>::new(), 0, true);
        store.scan(from.clone()..end.clone(), &mut |key, piece| {
            let Some(seq) = keys::seq_of_episode(key) else { return true };
            let full = slice.len() == SLICE || size > BYTES;
            match slice.last_mut() {
                Some((last, bytes)) if *last == seq => bytes.extend_from_slice(piece),
                _ if full => {
                    whole = false;
                    return false;
                }
                _ => slice.push((seq, piece.to_vec())),
            }
            size += piece.len();
            true
        })?;
        let Some((last, _)) = slice.last() else { return Ok(()) };
        from = keys::episode(last + 1);
        let mut txn = Txn::new(store);
        for (seq, bytes) in &slice {
            visit(&mut txn, *seq, bytes)?;
        }
        let writes = txn.into_writes();
        if !writes.is_empty() {
            store.commit(writes, false)?;
        }
        if whole {
            return Ok(());
        }
    }
}

/// A record that may be damaged, and where it goes.
fn record(txn: &Txn<'_>, seq: Seq) -> Result<Option<Record>, TxnError> {
    match super::engine::read_record(txn, seq) {
        Err(TxnError::Codec(_)) => Ok(None),
        other => other.map(|found| found.map(|(record, _)| record)),
    }
}

impl Mending<'_> {
    /// What is known from the rows of the queue and of its sinks, and from the witness.
    fn begin(&mut self, witness: Option<&Witness>) -> Result<(), TxnError> {
        let mut txn = Txn::new(self.store);
        let meta: Option<Meta> = readable(&txn, &keys::meta())?;
        for meta in meta.iter().chain(witness.and_then(|w| w.meta.as_ref())) {
            self.meta.next_seq = self.meta.next_seq.max(meta.next_seq);
            self.meta.next_sink = self.meta.next_sink.max(meta.next_sink);
        }
        for seen in witness.map(|w| &w.sinks).into_iter().flatten() {
            txn.put(keys::name(&seen.name), &seen.id)?;
            self.sinks.entry(seen.id).or_default().seen = seen.clone();
        }
        self.store.commit(txn.into_writes(), false)?;
        let sinks = &mut self.sinks;
        each_row(self.store, &keys::names(), &mut |txn, key, id| {
            match codec::decode::<SinkId>(id) {
                Ok(id) => drop(sinks.entry(id).or_default()),
                Err(_) => txn.remove(key.to_vec()),
            }
            Ok(())
        })?;
        let txn = Txn::new(self.store);
        for (id, counts) in &mut self.sinks {
            counts.row = readable(&txn, &keys::sink(*id))?;
        }
        Ok(())
    }

    fn sink(&mut self, id: SinkId) -> &mut Counts {
        self.sinks.entry(id).or_default()
    }

    fn records(&mut self) -> Result<(), TxnError> {
        each_record(self.store, &mut |txn, seq, bytes| {
            self.meta.bytes += bytes.len() as u64 + ROWS;
            self.meta.next_seq = self.meta.next_seq.max(seq + 1);
            let Ok(record) = codec::decode::<Record>(bytes) else {
                self.mended.unreadable += 1;
                return Ok(());
            };
            self.mended.records += 1;
            txn.put(keys::id(record.id), &seq)?;
            let (mut waits, mut revived) = (false, false);
            for &(sink, lane) in &record.lanes {
                let before = self.sink(sink).row.as_ref().is_some_and(|row| seq < row.oldest);
                let key = keys::waiting(sink, lane, seq);
                let ended = keys::ended(seq, sink);
                if is_of_use::<Ended>(txn, &ended)? {
                    txn.remove(key); // it waited before it ended
                } else if txn.get_raw(&key)?.is_some() {
                    waits = true;
                } else {
                    txn.remove(ended);
                    txn.put(key, &doubtful(&record))?;
                    self.sink(sink).ended_once += u64::from(before);
                    (waits, revived) = (true, true);
                }
            }
            self.meta.episodes += u64::from(waits);
            self.mended.revived += u64::from(revived);
            Ok(())
        })
    }

    /// A lane stays parked as long as its dead letter is there.
    fn parks(&mut self) -> Result<(), TxnError> {
        each_row(self.store, &keys::all_parks(), &mut |txn, key, _| {
            let (Some((sink, lane)), Some(seq)) = (keys::lane_of_waiting(key), keys::seq_of_waiting(key)) else { return Ok(()) };
            let ended = keys::ended(seq, sink);
            let dead = match readable::<Ended>(txn, &ended)? {
                Some(ended) => ended.state == State::Dead && ended.lane == lane,
                None => is_of_use::<Ended>(txn, &ended)?,
            };
            if !dead || txn.first(&keys::episode(seq))?.is_none() {
                txn.remove(key.to_vec());
            }
            Ok(())
        })
    }

    fn lanes(&mut self) -> Result<(), TxnError> {
        let mut head: Option<(SinkId, Lane)> = None;
        each_row(self.store, &keys::waitings(), &mut |txn, key, row| {
            let (Some((sink, lane)), Some(seq)) = (keys::lane_of_waiting(key), keys::seq_of_waiting(key)) else { return Ok(()) };
            match record(txn, seq)? {
                Some(record) if !record.lanes.contains(&(sink, lane)) => {
                    txn.remove(key.to_vec());
                    return Ok(());
                }
                Some(_) => {}
                None if is_of_use::<Ended>(txn, &keys::ended(seq, sink))? => {
                    txn.remove(key.to_vec());
                    return Ok(());
                }
                // Nobody can tell what else waits for it: each such row counts as an episode, and is counted out as one.
                None => self.meta.episodes += 1,
            }
            let is_head = head != Some((sink, lane));
            let mut due = not_before(row);
            if let Some(mut waiting) = readable::<Waiting>(txn, key)? {
                // What was written since may be lost: an attempt, even a delivery.
                if waiting.sent == Sent::No {
                    waiting.sent = Sent::Began(waiting.since);
                }
                let parked = is_head && txn.first(&keys::parked(sink, lane))?.is_some();
                if parked {
                    waiting.not_before = PARKED;
                } else if waiting.not_before == PARKED {
                    waiting.not_before = waiting.since;
                }
                due = waiting.not_before;
                txn.put(key.to_vec(), &waiting)?;
            }
            self.meta.next_seq = self.meta.next_seq.max(seq + 1);
            let counts = self.sink(sink);
            counts.pending += 1;
            counts.oldest = Some(counts.oldest.map_or(seq, |oldest| oldest.min(seq)));
            if is_head {
                head = Some((sink, lane));
                txn.put_raw(keys::ready(sink, due, lane), Vec::new());
            }
            Ok(())
        })
    }

    fn ended(&mut self) -> Result<(), TxnError> {
        each_row(self.store, &keys::endeds(), &mut |txn, key, _| {
            let Some((seq, sink)) = keys::seq_and_sink_of_ended(key) else { return Ok(()) };
            let ended: Option<Ended> = readable(txn, key)?;
            if txn.first(&keys::episode(seq))?.is_none() || (ended.is_none() && !is_of_use::<Ended>(txn, key)?) {
                txn.remove(key.to_vec());
                return Ok(());
            }
            let Some(ended) = ended.filter(|e| e.expires_at != 0) else { return Ok(()) };
            txn.put_raw(keys::expiry(ended.expires_at, seq, sink), Vec::new());
            if ended.state == State::Dead {
                txn.put_raw(keys::dead(sink, seq), Vec::new());
                self.sink(sink).dead += 1;
            } else {
                self.sink(sink).delivered_kept += 1;
            }
            Ok(())
        })
    }

    /// Unique keys, notes and history.
    fn remembered(&mut self) -> Result<(), TxnError> {
        each_row(self.store, &keys::uniques(), &mut |txn, key, row| {
            match (keys::name_of(key), codec::decode::<Taken>(row)) {
                (Some(name), Ok(taken)) => {
                    self.meta.bytes += UNIQUE;
                    txn.put_raw(keys::fading(taken.until, Fading::Unique(name)), Vec::new());
                }
                _ => txn.remove(key.to_vec()),
            }
            Ok(())
        })?;
        each_row(self.store, &keys::notes(), &mut |txn, key, row| {
            match (keys::name_of(key), codec::decode::<NoteRow>(row)) {
                (Some(name), Ok(note)) => {
                    self.meta.bytes += notes::size(txn, name)?;
                    txn.put_raw(keys::fading(note.until, Fading::Note(name)), Vec::new());
                }
                _ => txn.remove(key.to_vec()),
            }
            Ok(())
        })?;
        let orphan = |txn: &mut Txn<'_>, key: &[u8], owner: Option<Key>| {
            if owner.is_some_and(|owner| matches!(txn.first(&owner), Ok(None))) {
                txn.remove(key.to_vec());
            }
            Ok(())
        };
        each_row(self.store, &keys::note_texts(), &mut |txn, key, _| orphan(txn, key, keys::name_of(key).map(keys::note)))?;
        each_row(self.store, &keys::all_histories(), &mut |txn, key, _| {
            orphan(txn, key, keys::seq_of_episode(key).map(keys::episode))
        })
    }

    /// The rows of the queue and of its sinks.
    fn end(mut self) -> Result<Mended, TxnError> {
        let mut txn = Txn::new(self.store);
        for (id, counts) in self.sinks {
            let ledger = counts.ledger();
            let mut row = counts.row.unwrap_or_default();
            row.ledger = ledger;
            row.delivered_kept = counts.delivered_kept;
            row.oldest = counts.oldest.unwrap_or(self.meta.next_seq);
            self.mended.missing += row.ledger.gap().unsigned_abs();
            self.meta.next_sink = self.meta.next_sink.max(id.0.saturating_add(1));
            txn.put(keys::sink(id), &row)?;
        }
        self.meta.next_seq = self.meta.next_seq.max(1);
        self.meta.next_sink = self.meta.next_sink.max(1);
        txn.put(keys::meta(), &self.meta)?;
        self.store.commit(txn.into_writes(), false)?;
        Ok(self.mended)
    }
}

/// Whether a row is there and this offramp or a later one can read it.
fn is_of_use<T: codec::Stored>(txn: &Txn<'_>, key: &[u8]) -> Result<bool, TxnError> {
    match txn.get::<T>(key) {
        Ok(found) => Ok(found.is_some()),
        Err(TxnError::Codec(error)) => Ok(matches!(error, CodecError::Version { .. })),
        Err(error) => Err(error),
    }
}

/// What nobody knows anything of.
fn doubtful(record: &Record) -> Waiting {
    let at = record.captured_at;
    Waiting {
        attempts: 1,
        not_before: at,
        since: at,
        time: Time::Sent(at.cast_signed()),
        sent: Sent::Began(at),
        entries: 0,
        sinks: u16::try_from(record.lanes.len()).unwrap_or(u16::MAX),
        priority: 0,
        deaths: Deaths::default(),
    }
}

impl Counts {
    /// What was captured is what the one knows that knows more of it. Delivered is what the rows tell: a receipt that should be there and is
    /// not may have gone with a part of the log, and what it was for waits again, and must not be counted twice. The rest is missing.
    fn ledger(&self) -> Ledger {
        let (pending, dead, seen) = (self.pending, self.dead, &self.seen);
        let (known, kept) = match &self.row {
            Some(row) => (row.ledger, row.delivered_kept),
            None => (seen.ledger, seen.delivered_kept),
        };
        let Ledger { purged, expired, .. } = known;
        let delivered = (known.delivered + self.delivered_kept).saturating_sub(kept);
        let lost = kept.saturating_sub(self.delivered_kept) + known.dead.saturating_sub(dead);
        let captured = known.captured.max(seen.ledger.captured) + self.ended_once.saturating_sub(lost);
        Ledger {
            captured: captured.max(delivered + dead + purged + expired + pending),
            delivered,
            dead,
            purged,
            expired,
            pending,
        }
    }
}
