//! What a queue in good order looks like: every row against the others.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::{Engine, read_record};
use super::keys::{self, Fading};
use super::notes::{self, UNIQUE};
use super::retention::ROWS;
use super::rows::{Ended, NoteRow, Taken, Waiting};
use super::txn::{Txn, TxnError};
use super::{Lane, Ledger, Seq, SinkId, State};
use crate::episode::Episode;

/// Per lane what waits: place and not-before.
type Lanes = BTreeMap<Lane, Vec<(Seq, u64)>>;

/// Reads the whole queue and says in a sentence each what is not in order: records that can't be read, rows that contradict each other, a
/// ledger that does not balance. Takes as long as reading everything takes.
pub fn check(engine: &Engine) -> Result<Vec<String>, TxnError> {
    let txn = Txn::new(&engine.store);
    let mut check = Check { engine, txn, faults: Vec::new(), bytes: 0, waiting: BTreeMap::new(), found: BTreeMap::new() };
    check.records()?;
    for id in engine.sinks.keys() {
        check.sink(*id)?;
    }
    check.keys_and_notes()?;
    if check.bytes != engine.meta.bytes {
        check.faults.push(format!("{} bytes are stored, the totals say {}", check.bytes, engine.meta.bytes));
    }
    Ok(check.faults)
}

struct Check<'a> {
    engine: &'a Engine,
    txn: Txn<'a>,
    faults: Vec<String>,
    /// Found so far.
    bytes: u64,
    waiting: BTreeMap<SinkId, Lanes>,
    found: BTreeMap<SinkId, Ledger>,
}

impl Check<'_> {
    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Each record, and where it stands at each of its sinks.
    fn records(&mut self) -> Result<(), TxnError> {
        let mut seqs: BTreeMap<Seq, u64> = BTreeMap::new();
        let prefix = keys::episodes();
        self.txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, piece| {
            if let Some(seq) = keys::seq_of_episode(key) {
                *seqs.entry(seq).or_default() += piece.len() as u64;
            }
            true
        })?;
        if let Some((&last, _)) = seqs.last_key_value()
            && last >= self.engine.meta.next_seq
        {
            self.fault(format!("there is a record at {last}, the next place is said to be {}", self.engine.meta.next_seq));
        }
        let mut open = 0;
        for (&seq, &size) in &seqs {
            self.bytes += size + ROWS;
            let record = match read_record(&self.txn, seq) {
                Ok(Some((record, _))) => {
                    if let Err(error) = self.engine.seals.decode::<Episode>(&record.episode, &keys::id(record.id)) {
                        self.fault(format!("the episode in the record at {seq} can't be read: {error}"));
                    }
                    record
                }
                Ok(None) => continue,
                Err(TxnError::Codec(error)) => {
                    self.fault(format!("the record at {seq} can't be read: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.txn.get::<Seq>(&keys::id(record.id))? != Some(seq) {
                self.fault(format!("the id {} does not lead to its record at {seq}", record.id));
            }
            let mut waits = false;
            for &(sink, lane) in &record.lanes {
                let ledger = self.found.entry(sink).or_default();
                let row: Option<Waiting> = self.txn.get(&keys::waiting(sink, lane, seq))?;
                let ended: Option<Ended> = self.txn.get(&keys::ended(seq, sink))?;
                match (row, ended) {
                    (Some(row), None) => {
                        ledger.pending += 1;
                        waits = true;
                        self.waiting.entry(sink).or_default().entry(lane).or_default().push((seq, row.not_before));
                    }
                    (None, Some(ended)) if ended.state == State::Dead => ledger.dead += 1,
                    (None, Some(_)) => {}
                    (None, None) => self.fault(format!("{} at sink {} neither waits nor has ended", record.id, sink.0)),
                    (Some(_), Some(_)) => self.fault(format!("{} at sink {} waits and has ended", record.id, sink.0)),
                }
            }
            open += u64::from(waits);
        }
        if open != self.engine.meta.episodes {
            self.fault(format!("{open} episodes wait, the totals say {}", self.engine.meta.episodes));
        }
        Ok(())
    }

    /// A sink's ledger, its mark and its lanes.
    fn sink(&mut self, id: SinkId) -> Result<(), TxnError> {
        let Some(sink) = self.engine.sinks.get(&id) else { return Ok(()) };
        let (row, counted) = (&sink.row.ledger, self.found.remove(&id).unwrap_or_default());
        if row.gap() != 0 {
            self.fault(format!("the ledger of {} has a gap of {}: {row:?}", sink.name, row.gap()));
        }
        if (row.pending, row.dead) != (counted.pending, counted.dead) {
            self.fault(format!(
                "{}: {} pending and {} dead, the ledger says {} and {}",
                sink.name, counted.pending, counted.dead, row.pending, row.dead
            ));
        }
        let lanes = self.waiting.remove(&id).unwrap_or_default();
        if let Some(oldest) = lanes.values().filter_map(|rows| rows.first()).map(|(seq, _)| *seq).min()
            && oldest < sink.row.oldest
        {
            self.fault(format!("{}: one waits at {oldest}, none should before {}", sink.name, sink.row.oldest));
        }
        let expected: BTreeSet<Vec<u8>> =
            lanes.iter().filter_map(|(lane, rows)| Some(keys::ready(id, rows.first()?.1, *lane))).collect();
        let prefix = keys::readies(id);
        let mut ready = BTreeSet::new();
        self.txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| ready.insert(key.to_vec()))?;
        if ready != expected {
            self.fault(format!("{}: {} lanes are marked ready, {} have work", sink.name, ready.len(), expected.len()));
        }
        Ok(())
    }

    /// What is remembered for a while: each has its row of `y`, so that it will be forgotten.
    fn keys_and_notes(&mut self) -> Result<(), TxnError> {
        let mut fading = BTreeSet::new();
        let prefix = keys::fadings();
        self.txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| fading.insert(key.to_vec()))?;
        for name in self.names(&keys::uniques())? {
            self.bytes += UNIQUE;
            match self.txn.get::<Taken>(&keys::unique(name)) {
                Ok(Some(taken)) if fading.contains(&keys::fading(taken.until, Fading::Unique(name))) => {}
                Ok(_) => self.fault("a unique key never expires".to_owned()),
                Err(error) => self.fault(format!("a unique key can't be read: {error}")),
            }
        }
        for name in self.names(&keys::notes())? {
            self.bytes += notes::size(&self.txn, name)?;
            match self.txn.get::<NoteRow>(&keys::note(name)) {
                Ok(Some(row)) if fading.contains(&keys::fading(row.until, Fading::Note(name))) => {}
                Ok(_) => self.fault("a note never expires".to_owned()),
                Err(error) => self.fault(format!("a note can't be read: {error}")),
            }
            if let Err(error) = notes::read(&self.engine.store, &self.engine.seals, name, 0) {
                self.fault(format!("what a note says can't be read: {error}"));
            }
        }
        Ok(())
    }

    fn names(&self, prefix: &keys::Key) -> Result<Vec<super::Key>, TxnError> {
        let mut names = Vec::new();
        self.txn.scan(prefix.clone()..keys::end_of(prefix), &mut |key, _| {
            names.extend(keys::name_of(key));
            true
        })?;
        Ok(names)
    }
}
