//! The store: an ordered map of bytes whose commits are atomic and, when asked, on stable storage.
//!
//! What holds it is a database, one at a time: the current *generation*. Generations lie on a [`Disk`] and are numbered. One that is made
//! from another gets its row [`keys::whole`] last, in a commit of its own, and the other one gets [`keys::left`] then, before it is removed:
//! the current one is the latest that is whole (generation 0 always is) and not left. So there is no pointer that could be lost or be wrong,
//! one generation counts at every instant, and a copy that a loss of power has made unreadable is known to be only a copy.
//!
//! - `sled`: one database, and what was measured about it.
//! - `files`: the disk, that is the queue's directory.
//! - `rewrite`: the rows that are alive go to a fresh generation while the queue serves, so that the disk comes down when the backlog does.
//! - `model`: a disk in memory for tests, which loses what was not synced, and fails when told to.

mod files;
#[cfg(test)]
pub(crate) mod model;
pub(super) mod rewrite;
mod sled;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use self::files::Files;
use self::rewrite::{Pace, Rewrite};
use super::keys::{self, Key};

/// The longest value (bytes) that stays inside sled's log.
pub const MAX_VALUE: usize = 4096;

/// What a commit changes: a value is put, none is removed.
pub type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// What a scan calls for each entry; `false` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// The number of a generation. They only ever go up.
pub type Generation = u64;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("locked by another process")]
    Locked,
    /// It could not be opened again after an error.
    #[error("not open since its last error")]
    Closed,
    /// What is on the disk is not what the engine wrote, as far as the engine can tell.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The system.
    #[error("{what} failed: {source}")]
    Io {
        /// Which step.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl StoreError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// One database. Reads come from any thread, writes from one. Every call may block.
pub trait Db: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries of a range in order.
    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError>;

    /// Applies all of `writes` or none of them. Not yet on stable storage.
    fn apply(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Returns once everything applied so far is on stable storage.
    fn sync(&self) -> Result<(), StoreError>;
}

/// Where databases lie. Every call may block.
pub trait Disk: Send + Sync {
    /// Opens a generation, or creates it.
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError>;

    /// All that there are, leftovers included. What is not among them doesn't come back after a loss of power, also if its removal failed.
    fn generations(&self) -> Result<Vec<Generation>, StoreError>;

    /// Removes one, whoever still has it open. It doesn't come back after a loss of power.
    fn remove(&self, generation: Generation) -> Result<(), StoreError>;

    /// Bytes that a generation takes on the disk.
    fn size(&self, generation: Generation) -> Result<u64, StoreError>;
}

/// The store of a queue. Reads come from any thread; everything else from one.
pub struct Store {
    disk: Arc<dyn Disk>,
    current: RwLock<Current>,
    rewrite: Mutex<Rewriting>,
    pace: Pace,
}

struct Current {
    generation: Generation,
    /// None while, or because, it could not be opened again.
    db: Option<Arc<dyn Db>>,
}

/// Whether the store is being rewritten.
#[derive(Default)]
struct Rewriting {
    now: Option<Rewrite>,
    /// What the present generation took when it was fresh.
    fresh: u64,
    not_before: Option<Instant>,
}

impl Store {
    /// Opens or creates the store in a queue's directory.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::on(Arc::new(Files::new(dir)))
    }

    /// Opens or creates the store on a disk. Of what an interrupted rewriting left, nothing stays.
    pub fn on(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::paced(disk, Pace::default())
    }

    pub(super) fn paced(disk: Arc<dyn Disk>, pace: Pace) -> Result<Self, StoreError> {
        let current = Current::find(&*disk)?;
        Ok(Self { disk, current: RwLock::new(current), rewrite: Mutex::default(), pace })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db()?.get(key)
    }

    /// Visits the entries of a range in order.
    pub fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.db()?.scan(range, visit)
    }

    /// Applies all of `writes` or none of them; with `sync` they are on stable storage when this returns.
    pub fn commit(&self, writes: &Writes, sync: bool) -> Result<(), StoreError> {
        let mut rewriting = self.rewriting();
        let commit = || {
            let db = self.db()?;
            db.apply(writes)?;
            if sync { db.sync() } else { Ok(()) }
        };
        let done = commit();
        let followed = match (&done, &mut rewriting.now) {
            (Ok(()), Some(rewrite)) => rewrite.follow(writes),
            (Err(_), _) => Err(StoreError::Closed), // who knows what is in there now
            (Ok(()), None) => Ok(()),
        };
        if let Err(error) = followed {
            self.give_up(&mut rewriting, &error);
        }
        done
    }

    /// Returns once everything committed so far is on stable storage.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db()?.sync()
    }

    /// Starts afresh from what is on the disk, after an error. What was not synced may be gone.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.give_up(&mut self.rewriting(), &StoreError::Closed);
        let mut current = self.current();
        current.db = None; // gives the engine's lock on the directory back
        *current = Current::find(&*self.disk)?;
        Ok(())
    }

    fn db(&self) -> Result<Arc<dyn Db>, StoreError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.db.clone().ok_or(StoreError::Closed)
    }

    fn current(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn rewriting(&self) -> MutexGuard<'_, Rewriting> {
        self.rewrite.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// The latest generation that is whole and not left; the others go.
    fn find(disk: &dyn Disk) -> Result<Self, StoreError> {
        let mut generations = disk.generations()?;
        if generations.is_empty() {
            return Ok(Self { generation: 0, db: Some(disk.open(0)?) });
        }
        generations.sort_unstable();
        let mut damaged = None;
        for &generation in generations.iter().rev() {
            match open_whole(disk, generation) {
                Ok(None) => {}
                Ok(Some(db)) => {
                    for other in generations.iter().filter(|g| **g != generation) {
                        disk.remove(*other)?;
                    }
                    return Ok(Self { generation, db: Some(db) });
                }
                // A copy that never became whole may be in any state. If it is more than that, the one before it was left.
                Err(StoreError::Damaged(error)) => damaged = damaged.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Damaged(damaged.unwrap_or_else(|| format!("none of the generations {generations:?} is whole"))))
    }
}

/// A generation, if it counts.
fn open_whole(disk: &dyn Disk, generation: Generation) -> Result<Option<Arc<dyn Db>>, StoreError> {
    let db = disk.open(generation)?;
    let whole = generation == 0 || db.get(&keys::whole())?.is_some();
    Ok(if whole && db.get(&keys::left())?.is_none() { Some(db) } else { None })
}

#[cfg(test)]
mod tests {
    use super::model::Model;
    use super::*;

    /// A disk on which some generations can't be opened.
    struct Broken(Model, Vec<Generation>);

    impl Disk for Broken {
        fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
            if self.1.contains(&generation) {
                return Err(StoreError::Damaged("as told".into()));
            }
            self.0.open(generation)
        }

        fn generations(&self) -> Result<Vec<Generation>, StoreError> {
            self.0.generations()
        }

        fn remove(&self, generation: Generation) -> Result<(), StoreError> {
            self.0.remove(generation)
        }

        fn size(&self, generation: Generation) -> Result<u64, StoreError> {
            self.0.size(generation)
        }
    }

    fn put(model: &Model, generation: Generation, key: Key) {
        let db = model.open(generation).unwrap();
        db.apply(&[(key, Some(Vec::new()))].into()).unwrap();
        db.sync().unwrap();
    }

    fn found(model: &Model, broken: &[Generation]) -> Result<Generation, String> {
        match Store::on(Arc::new(Broken(model.clone(), broken.to_vec()))) {
            Ok(store) => Ok(store.generation()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn inv8_the_generation_that_counts_is_found_whatever_state_a_copy_is_in() {
        let model = Model::default();
        assert_eq!(found(&model, &[]), Ok(0), "a new one");
        put(&model, 0, b"row".to_vec());
        put(&model, 1, b"row".to_vec());
        assert_eq!(found(&model, &[1]), Ok(0), "a copy that can't be read is only a copy");
        assert_eq!(model.generations().unwrap(), [0], "and goes");
        put(&model, 1, b"row".to_vec());
        assert_eq!(found(&model, &[]), Ok(0), "a copy that is not whole");
        put(&model, 3, keys::whole());
        assert!(found(&model, &[0]).is_ok_and(|g| g == 3));
        put(&model, 4, keys::whole());
        put(&model, 3, keys::left());
        assert!(found(&model, &[4]).unwrap_err().contains("as told"), "what was left is not gone back to");
        assert_eq!(model.generations().unwrap(), [3, 4], "and nothing is removed then");
        assert_eq!(found(&model, &[]), Ok(4));
        put(&model, 9, b"row".to_vec());
        model.remove(4).unwrap();
        assert!(found(&model, &[]).unwrap_err().contains("none of the generations [9] is whole"));
    }
}
