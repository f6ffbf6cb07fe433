//! A store for tests: an ordered map that can lose what was not synced, and fail when told to.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use std::collections::BTreeMap;

use super::keys::Key;
use super::store::{Store, StoreError, Visit, Writes};

type Map = BTreeMap<Key, Vec<u8>>;

/// The model. What `sync` has not seen is gone after [`Model::crash`].
#[derive(Default)]
pub struct Model {
    maps: Mutex<Maps>,
    failing: AtomicBool,
}

#[derive(Default)]
struct Maps {
    applied: Map,
    synced: Map,
}

impl Model {
    /// Power is lost: only what was synced remains.
    pub fn crash(&self) {
        let mut maps = self.maps();
        maps.applied = maps.synced.clone();
    }

    /// From now on every write fails (or works again).
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    fn maps(&self) -> std::sync::MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(StoreError::Engine("told to fail".into()));
        }
        Ok(())
    }
}

impl Store for Model {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.maps().applied.get(key).cloned())
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        if range.start < range.end {
            for (k, v) in self.maps().applied.range(range) {
                if !visit(k, v) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn apply(&self, writes: &Writes) -> Result<(), StoreError> {
        self.check()?;
        let mut maps = self.maps();
        for (k, v) in writes {
            match v {
                Some(v) => maps.applied.insert(k.clone(), v.clone()),
                None => maps.applied.remove(k),
            };
        }
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.check()?;
        self.crash();
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.check()?;
        let mut maps = self.maps();
        maps.synced = maps.applied.clone();
        Ok(())
    }
}
