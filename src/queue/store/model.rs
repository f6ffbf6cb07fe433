//! A disk in memory for tests: it can lose what was not synced, and fail when told to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Db, Disk, Generation, Key, Remains, Room, StoreError, Visit, Witness, Writes};

type Map = BTreeMap<Key, Vec<u8>>;

/// The model; clones are the same disk.
#[derive(Clone, Default)]
pub struct Model {
    disk: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    generations: Mutex<BTreeMap<Generation, Maps>>,
    failing: AtomicBool,
    /// A write has failed since the last opening: who knows what it left.
    failed: AtomicBool,
    condemned: Mutex<BTreeMap<Generation, Maps>>,
    quarantined: Mutex<Vec<Generation>>,
    witness: Mutex<Option<Witness>>,
}

#[derive(Clone, Default)]
struct Maps {
    applied: Map,
    synced: Map,
    /// What the engine stumbles over.
    damaged: Option<Key>,
}

/// A generation that is open.
struct Open {
    disk: Arc<Inner>,
    generation: Generation,
}

impl Model {
    /// Power is lost: only what was synced remains.
    pub fn crash(&self) {
        for maps in self.disk.generations().values_mut() {
            maps.applied = maps.synced.clone();
        }
    }

    /// From now on every write fails (or works again).
    pub fn fail(&self, failing: bool) {
        self.disk.failing.store(failing, Ordering::Relaxed);
    }

    /// From now on the row with this key can't be read, in no generation that there is now.
    pub fn damage(&self, key: &[u8]) {
        for maps in self.disk.generations().values_mut() {
            maps.damaged = Some(key.to_vec());
        }
    }

    /// What was set aside.
    pub fn quarantined(&self) -> Vec<Generation> {
        lock(&self.disk.quarantined).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Maps {
    fn check(&self, key: &[u8]) -> Result<(), StoreError> {
        if self.damaged.as_deref() == Some(key) { Err(StoreError::Damaged("a page can't be read".into())) } else { Ok(()) }
    }
}

impl Inner {
    fn generations(&self) -> MutexGuard<'_, BTreeMap<Generation, Maps>> {
        lock(&self.generations)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failing.load(Ordering::Relaxed) {
            self.failed.store(true, Ordering::Relaxed);
            return Err(StoreError::io("the model")(std::io::Error::other("told to fail")));
        }
        Ok(())
    }
}

impl Disk for Model {
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
        self.disk.check()?;
        let mut generations = self.disk.generations();
        let maps = generations.entry(generation).or_default();
        if self.disk.failed.swap(false, Ordering::Relaxed) {
            maps.applied = maps.synced.clone();
        }
        Ok(Arc::new(Open { disk: self.disk.clone(), generation }))
    }

    fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        Ok(self.disk.generations().keys().copied().collect())
    }

    fn remove(&self, generation: Generation) -> Result<(), StoreError> {
        self.disk.check()?;
        self.disk.generations().remove(&generation);
        Ok(())
    }

    fn size(&self, generation: Generation) -> Result<u64, StoreError> {
        let generations = self.disk.generations();
        let size = generations.get(&generation).map_or(0, |maps| maps.applied.iter().map(|(k, v)| k.len() + v.len()).sum());
        Ok(size as u64)
    }

    fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError> {
        self.disk.check()?;
        let mut generations = self.disk.generations();
        let copy = generations.get(&from).cloned().ok_or(StoreError::Closed)?;
        generations.insert(to, Maps { applied: copy.synced.clone(), ..copy });
        Ok(())
    }

    fn abandon(&self, generation: Generation) -> Result<(), StoreError> {
        self.remove(generation)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.disk.check()
    }

    fn room(&self) -> Result<Room, StoreError> {
        Ok(Room { free: 1 << 40, total: 1 << 40, used: 0 })
    }

    fn ballast(&self, _size: u64) -> Result<bool, StoreError> {
        self.disk.check()?;
        Ok(false)
    }

    fn condemn(&self, generation: Generation) -> Result<(), StoreError> {
        self.disk.check()?;
        let maps = self.disk.generations().remove(&generation);
        lock(&self.disk.condemned).extend(maps.map(|maps| (generation, maps)));
        Ok(())
    }

    fn condemned(&self) -> Result<Vec<Generation>, StoreError> {
        Ok(lock(&self.disk.condemned).keys().copied().collect())
    }

    fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError> {
        let damaged = self.disk.generations().get(&generation).is_some_and(|maps| maps.damaged.is_some());
        Ok(damaged.then(|| "a page can't be read".to_owned()))
    }

    fn remains(&self, generation: Generation) -> Result<Remains, StoreError> {
        let maps = lock(&self.disk.condemned).get(&generation).cloned();
        let Some(mut maps) = maps.or_else(|| self.disk.generations().get(&generation).cloned()) else {
            return Ok(Remains::default());
        };
        let lost = maps.damaged.take().and_then(|key| maps.applied.remove(&key)).map_or(0, |_| 1);
        let copy = Inner { generations: Mutex::new([(generation, maps)].into()), ..Inner::default() };
        Ok(Remains { db: Some(Arc::new(Open { disk: Arc::new(copy), generation })), lost })
    }

    fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
        self.disk.check()?;
        lock(&self.disk.condemned).remove(&generation);
        lock(&self.disk.quarantined).push(generation);
        Ok("the model's quarantine".to_owned())
    }

    fn witness(&self) -> Option<Witness> {
        lock(&self.disk.witness).clone()
    }

    fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
        *lock(&self.disk.witness) = Some(witness.clone());
        Ok(())
    }
}

impl Open {
    fn with<T>(&self, call: impl FnOnce(&mut Maps) -> T) -> Result<T, StoreError> {
        self.disk.generations().get_mut(&self.generation).map(call).ok_or(StoreError::Closed)
    }
}

impl Db for Open {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|maps| maps.check(key).map(|()| maps.applied.get(key).cloned()))?
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.with(|maps| {
            if range.start < range.end {
                for (k, v) in maps.applied.range(range) {
                    maps.check(k)?;
                    if !visit(k, v) {
                        break;
                    }
                }
            }
            Ok(())
        })?
    }

    fn apply(&self, writes: &Writes) -> Result<(), StoreError> {
        self.disk.check()?;
        self.with(|maps| {
            for (k, v) in writes {
                match v {
                    Some(v) => maps.applied.insert(k.clone(), v.clone()),
                    None => maps.applied.remove(k),
                };
            }
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.check()?;
        self.with(|maps| maps.synced = maps.applied.clone())
    }
}
