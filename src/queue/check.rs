//! What a queue in good order looks like: every row against the others.
//!
//! However long the queue, only counters are kept: each row is looked up where another one says that it is.

use std::collections::BTreeMap;

use serde::Serialize;

use super::append::not_before;
use super::codec::{self, CodecError};
use super::engine::Engine;
use super::keys::{self, Fading};
use super::mend::{each_record, each_row};
use super::notes::{self, UNIQUE};
use super::park::PARKED;
use super::retention::ROWS;
use super::rows::{Ended, NoteRow, Record, Taken, Waiting};
use super::txn::{FOREIGN, Txn, TxnError, UNREADABLE};
use super::{Lane, Ledger, Seq, SinkId, State};
use crate::episode::Episode;

/// Sentences kept.
const FAULTS: usize = 1_000;

/// What is in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Records that can be read.
    pub records: u64,
    /// Bytes of all records, with what belongs to them.
    pub bytes: u64,
    /// Records that can't be read.
    pub unreadable: u64,
    /// Records that another offramp can read: a later one, or one with the key.
    pub foreign: u64,
    /// Each sink.
    pub sinks: Vec<SinkCensus>,
    /// What is not in order, a sentence each: at most a thousand.
    pub faults: Vec<String>,
    /// All that is not in order.
    pub count: u64,
}

/// What a queue holds for a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkCensus {
    /// Its name.
    pub name: String,
    /// Episodes that wait.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Of these, dead because they can't be read here.
    pub quarantined: u64,
    /// Receipts.
    pub delivered_kept: u64,
    /// Its ledger, as it is written down.
    pub ledger: Ledger,
}

/// Reads the whole queue: records that can't be read, rows that contradict each other, a ledger that does not balance. Takes as long as
/// reading everything takes; `progress` gets the count of records now and then. Changes nothing.
pub fn check(engine: &Engine, progress: &dyn Fn(u64)) -> Result<Census, TxnError> {
    let mut check = Check { engine, census: Census::default(), found: BTreeMap::new(), open: 0 };
    check.records(progress)?;
    check.lanes()?;
    check.ended()?;
    check.remembered()?;
    check.totals();
    check.sinks()?;
    Ok(check.census)
}

/// What a row says.
#[derive(PartialEq)]
enum Row<T> {
    There(T),
    Unreadable,
    Absent,
}

/// Found for a sink.
#[derive(Default)]
struct Found {
    /// By the records.
    pending: u64,
    dead: u64,
    /// Rows.
    waiting: u64,
    lanes: u64,
    ended_dead: u64,
    quarantined: u64,
    /// Rows of both kinds whose record is gone.
    bare: u64,
    delivered_kept: u64,
    oldest: Option<Seq>,
}

struct Check<'a> {
    engine: &'a Engine,
    census: Census,
    found: BTreeMap<SinkId, Found>,
    /// Records that wait somewhere.
    open: u64,
}

impl Check<'_> {
    fn fault(&mut self, what: String) {
        self.census.count += 1;
        if self.census.faults.len() < FAULTS {
            self.census.faults.push(what);
        }
    }

    fn found(&mut self, sink: SinkId) -> &mut Found {
        self.found.entry(sink).or_default()
    }

    /// Each record, and where it stands at each of its sinks.
    fn records(&mut self, progress: &dyn Fn(u64)) -> Result<(), TxnError> {
        let (store, mut open, mut last) = (self.engine.store.clone(), 0, None);
        each_record(&store, &mut |txn, seq, bytes| {
            last = Some(seq);
            self.census.bytes += bytes.len() as u64 + ROWS;
            let read = codec::decode::<Record>(bytes).map(|record| {
                let episode = self.engine.seals.decode::<Episode>(&record.episode, &keys::id(record.id));
                (record, episode.map(drop))
            });
            let readable = read.as_ref().map_err(Clone::clone).and_then(|(_, episode)| episode.clone());
            match readable {
                Ok(()) => self.census.records += 1,
                Err(error @ (CodecError::Version { .. } | CodecError::Key(_))) => {
                    self.census.foreign += 1;
                    self.fault(format!("the record at {seq} is for another offramp: {error}"));
                }
                Err(error) => {
                    self.census.unreadable += 1;
                    self.fault(format!("the record at {seq} can't be read: {error}"));
                }
            }
            progress(self.census.records);
            let Ok((record, _)) = read else { return Ok(()) };
            if self.row::<Seq>(txn, &keys::id(record.id), "the row of an id")? != Row::There(seq) {
                self.fault(format!("the id {} does not lead to its record at {seq}", record.id));
            }
            let mut waits = false;
            for &(sink, lane) in &record.lanes {
                let row = self.row::<Waiting>(txn, &keys::waiting(sink, lane, seq), "a row of a lane")?;
                let ended = self.row::<Ended>(txn, &keys::ended(seq, sink), "a row of what has ended")?;
                match (row, ended) {
                    (Row::There(_) | Row::Unreadable, Row::Absent) => {
                        waits = true;
                        self.found(sink).pending += 1;
                    }
                    (Row::Absent, Row::There(ended)) => self.found(sink).dead += u64::from(ended.state == State::Dead),
                    (Row::Absent, Row::Unreadable) => {}
                    (Row::Absent, Row::Absent) => {
                        self.fault(format!("{} at sink {} neither waits nor has ended", record.id, sink.0));
                    }
                    _ => self.fault(format!("{} at sink {} waits and has ended", record.id, sink.0)),
                }
            }
            open += u64::from(waits);
            Ok(())
        })?;
        self.open = open;
        let next = self.engine.meta.next_seq;
        if let Some(last) = last.filter(|last| *last >= next) {
            self.fault(format!("there is a record at {last}, the next place is said to be {next}"));
        }
        Ok(())
    }

    /// The totals of the queue against what was found.
    fn totals(&mut self) {
        let (bytes, episodes, open) = (self.engine.meta.bytes, self.engine.meta.episodes, self.open);
        if self.census.bytes != bytes {
            self.fault(format!("{} bytes are stored, the totals say {bytes}", self.census.bytes));
        }
        // Each row of a lane whose record can't be read counts as an episode.
        let bare: u64 = self.found.values().map(|found| found.bare).sum();
        if open > episodes || open + self.census.unreadable + self.census.foreign + bare < episodes {
            self.fault(format!("{open} episodes wait, the totals say {episodes}"));
        }
    }

    /// Whether a row is there, and what it says.
    fn row<T: codec::Stored>(&mut self, txn: &Txn<'_>, key: &[u8], what: &str) -> Result<Row<T>, TxnError> {
        match txn.get(key) {
            Err(TxnError::Codec(error)) => {
                self.fault(format!("{what} can't be read: {error}"));
                Ok(Row::Unreadable)
            }
            found => Ok(found?.map_or(Row::Absent, Row::There)),
        }
    }

    /// Each lane with work has its row of `r`.
    fn lanes(&mut self) -> Result<(), TxnError> {
        let store = self.engine.store.clone();
        let mut head: Option<(SinkId, Lane)> = None;
        each_row(&store, &keys::waitings(), &mut |txn, key, row| {
            let (Some((sink, lane)), Some(seq)) = (keys::lane_of_waiting(key), keys::seq_of_waiting(key)) else { return Ok(()) };
            let found = self.found(sink);
            found.waiting += 1;
            found.oldest = Some(found.oldest.map_or(seq, |oldest| oldest.min(seq)));
            if head != Some((sink, lane)) {
                head = Some((sink, lane));
                found.lanes += 1;
                let due = not_before(row);
                if (due == PARKED) != txn.first(&keys::parked(sink, lane))?.is_some() {
                    self.fault(format!(
                        "a lane of sink {} is parked for no dead letter, or is not for the one that it has",
                        sink.0
                    ));
                }
                if txn.get_raw(&keys::ready(sink, due, lane))?.is_none() {
                    self.fault(format!("a lane of sink {} has work and is not marked ready for it", sink.0));
                }
            }
            if txn.first(&keys::episode(seq))?.is_none() {
                self.found(sink).bare += 1;
                self.fault(format!("what waits at {seq} for sink {} has no record", sink.0));
            }
            Ok(())
        })
    }

    fn ended(&mut self) -> Result<(), TxnError> {
        let store = self.engine.store.clone();
        each_row(&store, &keys::all_parks(), &mut |txn, key, _| {
            let (Some((sink, lane)), Some(seq)) = (keys::lane_of_waiting(key), keys::seq_of_waiting(key)) else { return Ok(()) };
            let ended = self.row::<Ended>(txn, &keys::ended(seq, sink), "a row of what has ended")?;
            if matches!(ended, Row::Absent) || matches!(ended, Row::There(e) if e.state != State::Dead || e.lane != lane) {
                self.fault(format!("a lane of sink {} is parked for what is no dead letter, at {seq}", sink.0));
            }
            Ok(())
        })?;
        each_row(&store, &keys::endeds(), &mut |txn, key, row| {
            let Some((seq, sink)) = keys::seq_and_sink_of_ended(key) else { return Ok(()) };
            let Some(ended) = codec::decode::<Ended>(row).ok().filter(|e| e.expires_at != 0) else { return Ok(()) };
            if txn.get_raw(&keys::expiry(ended.expires_at, seq, sink))?.is_none() {
                self.fault(format!("what ended at {seq} for sink {} never expires", sink.0));
            }
            let dead = ended.state == State::Dead;
            if dead && txn.get_raw(&keys::dead(sink, seq))?.is_none() {
                self.fault(format!("the dead letter at {seq} of sink {} is not listed", sink.0));
            }
            let bare = txn.first(&keys::episode(seq))?.is_none();
            let found = self.found(sink);
            found.bare += u64::from(bare);
            found.ended_dead += u64::from(dead);
            found.quarantined += u64::from(dead && ended.reason.is_some_and(|r| r == UNREADABLE || FOREIGN.contains(&&*r)));
            found.delivered_kept += u64::from(!dead);
            Ok(())
        })
    }

    /// Each sink's counters against what was found.
    fn sinks(&mut self) -> Result<(), TxnError> {
        let engine = self.engine;
        for (id, sink) in &engine.sinks {
            let (name, ledger) = (&sink.name, sink.row.ledger);
            let found = self.found.remove(id).unwrap_or_default();
            match ledger.gap() {
                0 => {}
                gap => self.fault(format!("{name}: {gap} episodes are missing: captured, and nothing tells what became of them")),
            }
            let spare = self.census.unreadable + self.census.foreign + found.bare;
            if (found.waiting, found.ended_dead) != (ledger.pending, ledger.dead) {
                let (waiting, dead) = (found.waiting, found.ended_dead);
                self.fault(format!(
                    "{name}: {waiting} pending and {dead} dead, the ledger says {} and {}",
                    ledger.pending, ledger.dead
                ));
            }
            if found.waiting.abs_diff(found.pending) > spare || found.ended_dead.abs_diff(found.dead) > spare {
                let Found { waiting, pending, ended_dead, dead, .. } = found;
                self.fault(format!("{name}: {waiting} wait and {ended_dead} are dead, by their records {pending} and {dead}"));
            }
            if let Some(oldest) = found.oldest.filter(|oldest| *oldest < sink.row.oldest) {
                self.fault(format!("{name}: one waits at {oldest}, none should before {}", sink.row.oldest));
            }
            let (mut ready, prefix) = (0, keys::readies(*id));
            engine.store.scan(prefix.clone()..keys::end_of(&prefix), &mut |_, _| {
                ready += 1;
                true
            })?;
            if ready != found.lanes {
                self.fault(format!("{name}: {ready} lanes are marked ready, {} have work", found.lanes));
            }
            self.census.sinks.push(SinkCensus {
                name: name.clone(),
                pending: found.waiting,
                dead: found.ended_dead,
                quarantined: found.quarantined,
                delivered_kept: found.delivered_kept,
                ledger,
            });
        }
        for id in std::mem::take(&mut self.found).into_keys() {
            self.fault(format!("there is something for sink {}, which has no name", id.0));
        }
        Ok(())
    }

    /// What is remembered for a while: each has its row of `y`, so that it will be forgotten.
    fn remembered(&mut self) -> Result<(), TxnError> {
        let store = self.engine.store.clone();
        each_row(&store, &keys::uniques(), &mut |txn, key, row| {
            let Some(name) = keys::name_of(key) else { return Ok(()) };
            self.census.bytes += UNIQUE;
            match codec::decode::<Taken>(row) {
                Ok(taken) if txn.get_raw(&keys::fading(taken.until, Fading::Unique(name)))?.is_some() => {}
                Ok(_) => self.fault("a unique key never expires".to_owned()),
                Err(error) => self.fault(format!("a unique key can't be read: {error}")),
            }
            Ok(())
        })?;
        each_row(&store, &keys::notes(), &mut |txn, key, row| {
            let Some(name) = keys::name_of(key) else { return Ok(()) };
            self.census.bytes += notes::size(txn, name)?;
            match codec::decode::<NoteRow>(row) {
                Ok(row) if txn.get_raw(&keys::fading(row.until, Fading::Note(name)))?.is_some() => {}
                Ok(_) => self.fault("a note never expires".to_owned()),
                Err(error) => self.fault(format!("a note can't be read: {error}")),
            }
            match notes::read(&self.engine.store, &self.engine.seals, name, 0) {
                Err(TxnError::Codec(error)) => self.fault(format!("what a note says can't be read: {error}")),
                other => drop(other?),
            }
            Ok(())
        })
    }
}
