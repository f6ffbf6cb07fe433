//! Opening a queue: lock, store, the rows kept in memory, and the checks that a queue in good order passes.
//!
//! Opening reads a handful of rows, however long the backlog: claims were in memory only, so a lane that was being worked on is simply ready.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::engine::{Engine, Limits, SinkState, read_record};
use super::keys;
use super::rows::{Ended, Meta, SinkRow, Waiting};
use super::store::Store;
use super::txn::{Txn, TxnError};
use super::{Lane, Ledger, QueueError, Seq, SinkId, State, codec};

/// Takes the directory for this process, as long as the file lives.
pub fn lock(dir: &Path) -> Result<File, QueueError> {
    let io = |source| QueueError::Directory { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    let path = dir.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid); // for the sentence only
            return Err(QueueError::Locked { path: dir.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

/// An engine on what the store holds.
pub fn load(store: Arc<dyn Store>, limits: Limits) -> Result<Engine, TxnError> {
    let mut engine =
        Engine { store, limits, meta: Meta { next_seq: 1, next_sink: 1, episodes: 0, bytes: 0 }, sinks: BTreeMap::new() };
    reload(&mut engine)?;
    Ok(engine)
}

/// Reads again what is kept in memory; claims stay.
pub fn reload(engine: &mut Engine) -> Result<(), TxnError> {
    let store = engine.store.clone();
    let txn = Txn::new(&*store);
    if let Some(meta) = txn.get(&keys::meta())? {
        engine.meta = meta;
    }
    let prefix = keys::names();
    let mut names = Vec::new();
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, value| {
        names.push((String::from_utf8_lossy(&key[1..]).into_owned(), value.to_vec()));
        true
    })?;
    let mut claimed: HashMap<SinkId, HashMap<Lane, Seq>> =
        std::mem::take(&mut engine.sinks).into_iter().map(|(id, sink)| (id, sink.claimed)).collect();
    for (name, id) in names {
        let id: SinkId = codec::decode(&id)?;
        let row: SinkRow = txn.get(&keys::sink(id))?.unwrap_or_default();
        let mut sink = SinkState::new(name, row);
        sink.claimed = claimed.remove(&id).unwrap_or_default();
        engine.sinks.insert(id, sink);
    }
    Ok(())
}

/// Gives each configured sink its id, new ones a new one.
pub fn name_sinks(engine: &mut Engine, names: &[String]) -> Result<(), TxnError> {
    let store = engine.store.clone();
    let mut txn = Txn::new(&*store);
    for name in names {
        if engine.sinks.values().all(|s| s.name != *name) {
            let id = SinkId(engine.meta.next_sink);
            engine.meta.next_sink += 1;
            txn.put(keys::name(name), &id)?;
            engine.sinks.insert(id, SinkState::new(name.clone(), SinkRow::default()));
        }
    }
    let writes = engine.close(txn)?;
    store.apply(&writes)?;
    store.sync()?;
    Ok(())
}

/// Per lane what waits: place, not-before, event time.
type Lanes = BTreeMap<Lane, Vec<(Seq, u64, u64)>>;

/// Reads the whole queue and says in a sentence each what is not in order: records that can't be read, rows that contradict each other, a
/// ledger that does not balance. Takes as long as reading everything takes.
pub fn check(engine: &Engine) -> Result<Vec<String>, TxnError> {
    let txn = Txn::new(&*engine.store);
    let mut faults = Vec::new();
    let mut seqs = BTreeSet::new();
    let prefix = keys::episodes();
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| {
        seqs.extend(keys::seq_of_episode(key));
        true
    })?;
    let mut waiting: BTreeMap<SinkId, Lanes> = BTreeMap::new();
    let mut found: BTreeMap<SinkId, Ledger> = BTreeMap::new();
    let mut open = 0;
    for &seq in &seqs {
        let record = match read_record(&txn, seq) {
            Ok(Some((record, _))) => record,
            Ok(None) => continue,
            Err(TxnError::Codec(error)) => {
                faults.push(format!("the record at {seq} can't be read: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        if txn.get::<Seq>(&keys::id(record.id))? != Some(seq) {
            faults.push(format!("the id {} does not lead to its record at {seq}", record.id));
        }
        let mut waits = false;
        for &(sink, lane) in &record.lanes {
            let ledger = found.entry(sink).or_default();
            let row: Option<Waiting> = txn.get(&keys::waiting(sink, lane, seq))?;
            let ended: Option<Ended> = txn.get(&keys::ended(seq, sink))?;
            match (row, ended) {
                (Some(row), None) => {
                    ledger.pending += 1;
                    waits = true;
                    waiting.entry(sink).or_default().entry(lane).or_default().push((seq, row.not_before, row.at));
                }
                (None, Some(ended)) if ended.state == State::Dead => ledger.dead += 1,
                (None, Some(_)) => {}
                (None, None) => faults.push(format!("{} at sink {} neither waits nor has ended", record.id, sink.0)),
                (Some(_), Some(_)) => faults.push(format!("{} at sink {} waits and has ended", record.id, sink.0)),
            }
        }
        open += u64::from(waits);
    }
    if open != engine.meta.episodes {
        faults.push(format!("{open} episodes wait, the totals say {}", engine.meta.episodes));
    }
    for (id, sink) in &engine.sinks {
        let (row, counted) = (&sink.row.ledger, found.remove(id).unwrap_or_default());
        if row.gap() != 0 {
            faults.push(format!("the ledger of {} has a gap of {}: {row:?}", sink.name, row.gap()));
        }
        if (row.pending, row.dead) != (counted.pending, counted.dead) {
            faults.push(format!(
                "{}: {} pending and {} dead, the ledger says {} and {}",
                sink.name, counted.pending, counted.dead, row.pending, row.dead
            ));
        }
        let lanes = waiting.remove(id).unwrap_or_default();
        let expected: BTreeSet<Vec<u8>> =
            lanes.iter().filter_map(|(lane, rows)| Some(keys::ready(*id, rows.first()?.1, *lane))).collect();
        let prefix = keys::readies(*id);
        let mut ready = BTreeSet::new();
        txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, _| ready.insert(key.to_vec()))?;
        if ready != expected {
            faults.push(format!("{}: {} lanes are marked ready, {} have work", sink.name, ready.len(), expected.len()));
        }
        if lanes.values().any(|rows| rows.windows(2).any(|w| w[0].2 >= w[1].2)) {
            faults.push(format!("{}: event times of a lane do not increase", sink.name));
        }
    }
    Ok(faults)
}
