//! Verifying a queue that nobody uses: everything in it is read, without the engine, and nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Census};
use super::engine::Limits;
use super::seal::Seals;
use super::store::{Reading, Store, StoreError};
use super::txn::{Txn, TxnError};
use super::{QueueError, keys, recover};
use crate::config;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// What is in the queue; none if there is nothing.
    pub census: Option<Census>,
    /// Where its store lies.
    pub store: PathBuf,
    /// What can't be read of its files, a sentence each (the first ones).
    pub damage: Vec<String>,
    /// All of that.
    pub damaged: usize,
    /// What was damaged earlier and has been set aside.
    pub quarantined: Vec<PathBuf>,
}

impl Verified {
    /// Whether all is in order.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.census.as_ref().is_none_or(|census| census.count == 0)
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes of its files are read.
    Bytes(u64),
    /// So many of its records.
    Records(u64),
}

/// Reads everything in a queue that no process has open. Blocks for the disk.
pub fn verify(config: &config::Queue, progress: &(dyn Fn(Progress) + Sync)) -> Result<Verified, QueueError> {
    let path = &config.path;
    let failed = |source| QueueError::Store { path: path.clone(), source };
    let _lock = recover::keep_out(path)?;
    let Reading { store, dir, faults, count, quarantined } =
        Reading::of(path, &|bytes| progress(Progress::Bytes(bytes))).map_err(failed)?;
    let census = match store {
        None => None,
        Some(store) => {
            let census = load(Arc::new(store), config);
            Some(census.and_then(|engine| check::check(&engine, &|n| progress(Progress::Records(n)))).map_err(|e| of(path, e))?)
        }
    };
    Ok(Verified { census, store: dir, damage: faults, damaged: count, quarantined })
}

/// Accepts that what is missing in the ledger is gone: counts it as purged. How much that was.
pub fn write_off(config: &config::Queue) -> Result<u64, QueueError> {
    let path = &config.path;
    drop(recover::keep_out(path)?); // there must be a queue: none is made here
    let _lock = recover::lock(path)?;
    let store = Store::open(path).map_err(|source| QueueError::Store { path: path.clone(), source })?;
    let mut engine = load(Arc::new(store), config).map_err(|e| of(path, e))?;
    let store = engine.store.clone();
    let mut written_off = 0;
    let mut write = || {
        let mut txn = Txn::new(&store);
        for (id, sink) in &mut engine.sinks {
            let missing = u64::try_from(sink.row.ledger.gap()).unwrap_or(0);
            sink.row.ledger.purged += missing;
            written_off += missing;
            txn.put(keys::sink(*id), &sink.row)?;
        }
        store.commit(txn.into_writes(), true)?;
        Ok(store.bear_witness()?)
    };
    write().map_err(|e: TxnError| of(path, e))?;
    Ok(written_off)
}

fn load(store: Arc<Store>, config: &config::Queue) -> Result<super::engine::Engine, TxnError> {
    let limits = Limits::none();
    recover::load(store, Arc::new(Seals::new(&config.encryption_keys)), limits)
}

fn of(path: &Path, error: TxnError) -> QueueError {
    match error {
        TxnError::Store(source @ StoreError::Io { .. }) => QueueError::Store { path: path.to_owned(), source },
        error => QueueError::Unreadable { path: path.to_owned(), message: error.to_string() },
    }
}
