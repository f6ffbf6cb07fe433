//! Rewriting: what is alive goes to a fresh generation, and the old one is removed with all its waste.
//!
//! sled's files never shrink: of 200,000 episodes that came and went 689 MB stay, and one long-lived record in a hundred quadruples what a
//! moving backlog takes. So, when a generation takes much more than what is alive in it, the rows are copied to a new one, in order of their
//! keys, a slice between two commits. A cursor stands behind the last copied row: what a commit changes before it is changed in the copy
//! as well, what lies behind it will be copied later. When the cursor has reached the end, both hold the same; the copy is marked as whole and
//! synced, takes over, and the old generation goes.
//!
//! Until it is marked the old generation is all that counts: a crash leaves it whole, and the copy is a leftover that the next opening
//! removes. After a fault of the copy (no space, say) it is removed at once, and tried again later. The mark itself may be on the disk or not
//! when its sync has failed: if such a copy can't be removed either, the store closes until it is opened again, which sees what there is.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Current, Db, Generation, Key, Rewriting, Store, StoreError, Writes, keys};

/// A fresh store of small records takes about twice what is alive in it.
const WASTE: u64 = 3;

/// When to rewrite, and in what steps.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What a store may take on the disk (bytes) beside [`WASTE`] times what is alive.
    pub floor: u64,
    /// A slice of copying ends after so many bytes of rows.
    pub slice: usize,
    /// After one that was given up, the next is not tried before.
    pub pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        // A slice takes less than a millisecond.
        Self { floor: 64 << 20, slice: 128 << 10, pause: Duration::from_secs(60) }
    }
}

/// A copy on its way.
pub struct Rewrite {
    generation: Generation,
    db: Arc<dyn Db>,
    /// Every key before it is copied.
    cursor: Key,
    began: Instant,
    marked: bool,
}

impl Rewrite {
    /// Changes in the copy what a commit has changed, as far as it is copied.
    pub fn follow(&mut self, writes: &Writes) -> Result<(), StoreError> {
        let copied: Writes = writes.range(..self.cursor.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        if copied.is_empty() { Ok(()) } else { self.db.apply(&copied) }
    }

    /// Copies one slice; whether it was the last one.
    fn copy(&mut self, from: &dyn Db, most: usize) -> Result<bool, StoreError> {
        let (mut slice, mut size) = (Writes::new(), 0);
        from.scan(self.cursor.clone()..vec![u8::MAX; 64], &mut |key, value| {
            size += key.len() + value.len();
            if *key != keys::whole()[..] {
                // the copy gets its own
                slice.insert(key.to_vec(), Some(value.to_vec()));
            }
            size < most
        })?;
        if let Some((last, _)) = slice.last_key_value() {
            self.cursor.clone_from(last);
            self.cursor.push(0); // the first key behind it
            self.db.apply(&slice)?;
        }
        Ok(size < most)
    }
}

impl Store {
    /// Goes on with rewriting, or begins if the store takes much more than the `live` bytes in it; whether there is more to do at once.
    pub fn tend(&self, live: u64) -> bool {
        let mut rewriting = self.rewriting();
        let step = if rewriting.now.is_some() { self.step(&mut rewriting) } else { self.begin(&mut rewriting, live) };
        step.unwrap_or_else(|error| {
            self.give_up(&mut rewriting, &error);
            rewriting.not_before = Some(Instant::now() + self.pace.pause);
            false
        })
    }

    /// Bytes that the store takes on the disk.
    pub fn footprint(&self) -> Result<u64, StoreError> {
        self.disk.size(self.generation())
    }

    pub(super) fn generation(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    fn begin(&self, rewriting: &mut Rewriting, live: u64) -> Result<bool, StoreError> {
        let size = self.footprint()?;
        if rewriting.not_before.is_some_and(|at| Instant::now() < at) || size < self.pace.floor + WASTE * live || size < 2 * rewriting.fresh
        {
            return Ok(false);
        }
        tracing::info!(size, live, "the store has much waste: rewriting it");
        self.start(rewriting)?;
        Ok(true)
    }

    fn start(&self, rewriting: &mut Rewriting) -> Result<(), StoreError> {
        let generation = self.disk.generations()?.into_iter().fold(self.generation(), Generation::max) + 1;
        let db = self.disk.open(generation)?;
        rewriting.now = Some(Rewrite { generation, db, cursor: Key::new(), began: Instant::now(), marked: false });
        Ok(())
    }

    fn step(&self, rewriting: &mut Rewriting) -> Result<bool, StoreError> {
        let Some(rewrite) = &mut rewriting.now else { return Ok(false) };
        if !rewrite.copy(&*self.db()?, self.pace.slice)? {
            return Ok(true);
        }
        rewrite.db.sync()?;
        rewrite.marked = true;
        rewrite.db.apply(&[(keys::whole(), Some(Vec::new()))].into())?;
        rewrite.db.sync()?;
        let Some(Rewrite { generation, db, began, .. }) = rewriting.now.take() else { return Ok(false) };
        let former = std::mem::replace(&mut *self.current(), Current { generation, db: Some(db) });
        // Should its removal fail, it is known that it doesn't count any more.
        let left = former.db.map(|db| db.apply(&[(keys::left(), Some(Vec::new()))].into()).and_then(|()| db.sync()));
        if let Some(Err(error)) = left {
            tracing::warn!(%error, "the store that was rewritten can't be marked as left");
        }
        self.disk.remove(former.generation)?;
        rewriting.fresh = self.footprint()?;
        tracing::info!(size = rewriting.fresh, seconds = began.elapsed().as_secs_f64(), "the store is rewritten");
        Ok(false)
    }

    /// Ends a rewriting that is on its way, without its result.
    pub(super) fn give_up(&self, rewriting: &mut Rewriting, error: &StoreError) {
        let Some(Rewrite { generation, db, marked, .. }) = rewriting.now.take() else { return };
        tracing::warn!(%error, "rewriting the store is given up, and will be tried again");
        drop(db);
        if let Err(error) = self.disk.remove(generation) {
            tracing::warn!(%error, "what was copied can't be removed");
            if marked {
                self.current().db = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::super::model::Model;
    use super::*;

    fn all(store: &Store) -> Writes {
        let mut rows = Writes::new();
        store
            .scan(Key::new()..vec![u8::MAX], &mut |k, v| {
                rows.insert(k.to_vec(), Some(v.to_vec()));
                true
            })
            .unwrap();
        rows.remove(&keys::whole());
        rows
    }

    fn row(n: u32, value: &[u8]) -> (Key, Option<Vec<u8>>) {
        (n.to_be_bytes().to_vec(), Some(value.to_vec()))
    }

    /// A store with rows for many slices, about to be rewritten.
    fn wasteful(disk: &Arc<Model>) -> Store {
        let store = Store::on(disk.clone()).unwrap();
        store.commit(&(0..200).map(|n| row(n, &[7; 4096])).collect(), true).unwrap();
        let mut rewriting = store.rewriting();
        store.start(&mut rewriting).unwrap();
        drop(rewriting);
        store
    }

    #[test]
    fn inv8_what_is_committed_while_the_store_is_rewritten_is_in_the_new_one() {
        let disk = Arc::new(Model::default());
        let store = wasteful(&disk);
        let mut n = 0;
        while store.tend(0) {
            // Changed, removed and new, before the cursor and behind it.
            store.commit(&[row(n, b"changed"), row(199 - n, b"late"), (row(100 + n, b"").0, None)].into(), true).unwrap();
            store.commit(&[row(1_000 + n, b"new")].into(), true).unwrap();
            n += 1;
        }
        assert!(n > 3, "{n} slices");
        let expected = all(&store);
        assert_eq!(disk.generations().unwrap(), [1]);
        assert_eq!(expected.len(), 200, "as many went as came");
        disk.crash();
        drop(store);
        assert_eq!(all(&Store::on(disk).unwrap()), expected);
    }
}
