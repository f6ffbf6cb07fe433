//! Opening a queue: lock, store, and the rows kept in memory.
//!
//! Opening reads a handful of rows, however long the backlog: claims were in memory only, so a lane that was being worked on is simply ready.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::append::Places;
use super::engine::{Engine, Limits, SinkState};
use super::heads::Heads;
use super::keys;
use super::park;
use super::replay::{self, Course};
use super::rows::{Meta, SinkRow};
use super::seal::Seals;
use super::store::Store;
use super::txn::{Txn, TxnError};
use super::{QueueError, SinkId, codec};

/// Takes the directory for this process, as long as the file lives.
pub fn lock(dir: &Path) -> Result<File, QueueError> {
    let io = |source| QueueError::Directory { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    let path = dir.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    take(&mut file, dir)?;
    // For that sentence only: a full disk is no reason to stop here.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Keeps everybody else out of a directory that there is, without changing anything there, as long as the file lives. Where there is no lock
/// nobody has been in.
pub fn keep_out(dir: &Path) -> Result<Option<File>, QueueError> {
    let io = |source| QueueError::Directory { path: dir.to_owned(), source };
    std::fs::metadata(dir).map_err(io)?;
    match File::open(dir.join("lock")) {
        Ok(mut file) => take(&mut file, dir).map(|()| Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

fn take(file: &mut File, dir: &Path) -> Result<(), QueueError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut pid = Vec::new();
            let _ = file.take(32).read_to_end(&mut pid); // for the sentence only
            let pid = String::from_utf8_lossy(&pid).trim().to_owned();
            Err(QueueError::Locked { path: dir.to_owned(), pid })
        }
        Err(TryLockError::Error(source)) => Err(QueueError::Directory { path: dir.to_owned(), source }),
    }
}

/// An engine on what the store holds.
pub fn load(store: Arc<Store>, seals: Arc<Seals>, limits: Limits) -> Result<Engine, TxnError> {
    let meta = Meta { next_seq: 1, next_sink: 1, episodes: 0, bytes: 0 };
    let places = Arc::new(Places::from(meta.next_seq));
    let mut engine = Engine { store, seals, limits, places, meta, sinks: BTreeMap::new(), freed: BTreeSet::new() };
    reload(&mut engine)?;
    engine.places = Arc::new(Places::from(engine.meta.next_seq));
    Ok(engine)
}

/// Reads again what is kept in memory, all of it or nothing; claims and settings stay, and so does what was reserved.
pub fn reload(engine: &mut Engine) -> Result<(), TxnError> {
    engine.sinks.values_mut().for_each(|sink| sink.heads = Heads::default()); // even if nothing can be read now
    let store = engine.store.clone();
    let txn = Txn::new(&store);
    let meta = txn.get(&keys::meta())?;
    let prefix = keys::names();
    let mut names = Vec::new();
    txn.scan(prefix.clone()..keys::end_of(&prefix), &mut |key, value| {
        names.push((String::from_utf8_lossy(&key[1..]).into_owned(), value.to_vec()));
        true
    })?;
    let mut sinks = BTreeMap::new();
    for (name, id) in names {
        let id: SinkId = codec::decode(&id)?;
        let row: SinkRow = txn.get(&keys::sink(id))?.unwrap_or_default();
        let mut sink = SinkState::new(name, row);
        sink.open_reason(&engine.seals, id);
        sink.replay = replay::load(&txn, &engine.seals, id)?;
        sink.parked = park::count(&txn, id)?;
        sinks.insert(id, sink);
    }
    // All or nothing: half of it would be committed one day.
    for (id, sink) in &mut sinks {
        let Some(former) = engine.sinks.remove(id) else { continue };
        (sink.claimed, sink.settings) = (former.claimed, former.settings);
        sink.replay = sink.replay.take().or(former.replay.filter(|r| r.course != Course::Running));
    }
    if let Some(meta) = meta {
        engine.meta = meta;
    }
    engine.sinks = sinks;
    Ok(())
}

/// Gives each configured sink its id, new ones a new one.
pub fn name_sinks(engine: &mut Engine, names: &[String]) -> Result<(), TxnError> {
    let store = engine.store.clone();
    let mut txn = Txn::new(&store);
    for name in names {
        engine.name_sink(&mut txn, name)?;
    }
    let writes = engine.close(txn)?;
    Ok(store.commit(writes, true)?)
}
