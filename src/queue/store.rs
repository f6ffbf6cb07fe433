//! The store: an ordered map of bytes whose commits are atomic and, when asked, on stable storage.
//!
//! What holds it is a database, one at a time: the current *generation*. Generations lie on a [`Disk`] and are numbered. One that is made
//! from another gets its row [`keys::whole`] last, in a commit of its own, and the other one gets [`keys::left`] then, before it is removed:
//! the current one is the latest that is whole (generation 0 always is) and not left. So there is no pointer that could be lost or be wrong,
//! one generation counts at every instant, and a copy that a loss of power has made unreadable is known to be only a copy.
//!
//! - `sled`: one database, and what was measured about it.
//! - `commits`: their numbers, which tell after a loss of power what must be there.
//! - `files`: the disk, that is the queue's directory.
//! - `raw`: reading what sled has written without sled, around what is damaged.
//! - `read`: a store that nobody has open, read without changing anything.
//! - `salvage`: a damaged generation is set aside, and what can be read of it goes to a fresh one.
//! - `witness`: how one that lost its end is found out.
//! - `rewrite`: the rows that are alive go to a fresh generation while the queue serves, so that the disk comes down when the backlog does.
//! - `guard`: the thread on which the engine is called, and how long it may take.
//! - `heal`: after an error, or a call that does not return, it is opened anew from what is on the disk.
//! - `model`: a disk in memory for tests, which loses what was not synced, and fails when told to.

mod commits;
mod files;
pub(super) mod guard;
mod heal;
#[cfg(test)]
pub(crate) mod model;
mod raw;
mod read;
pub(super) mod rewrite;
mod salvage;
mod sled;
mod witness;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use self::commits::Commits;
use self::files::Files;
use self::guard::{Call, Guard};
use self::heal::Healing;
pub use self::read::Reading;
use self::rewrite::{Pace, Rewriting};
use self::salvage::Damage;
pub use self::salvage::Remains;
pub use self::witness::{Seen, Witness};
use super::keys::{self, Key};

/// The longest value (bytes) that stays inside sled's log.
pub const MAX_VALUE: usize = 4096;

/// Bytes of rows that are applied without a sync, roughly, and what one takes beside its key and its value. sled uses a segment of its log
/// (512 KiB) again once what it held was written elsewhere and another segment has been filled since. It may not be before that is synced: a
/// loss of power would take with it what was on stable storage long before. Rows take up to four times their bytes in the log.
pub const UNSYNCED: usize = 128 << 10;
const ROW: usize = 256;

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
    /// A call does not return.
    #[error("the disk, or the storage engine, does not answer")]
    Stuck,
    /// What is on the disk is not what the engine wrote, as far as the engine can tell.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// It is open for reading alone.
    #[error("open for reading alone")]
    ReadOnly,
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

    /// Whether there is no room on the disk.
    pub fn is_no_room(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
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

    /// Makes a generation from another's files, as they are, whoever has those open: all of it or nothing. It is an error if they change
    /// meanwhile.
    fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError>;

    /// [`remove`](Self::remove) for one that will stay open as long as the process lives: its space comes back all the same.
    fn abandon(&self, generation: Generation) -> Result<(), StoreError>;

    /// Returns once something small was written, is on stable storage, and is gone again.
    fn probe(&self) -> Result<(), StoreError>;

    /// How much room there is.
    fn room(&self) -> Result<Room, StoreError>;

    /// Puts so many bytes aside for bad times, or gives them back: 0. Whether that changed anything.
    fn ballast(&self, size: u64) -> Result<bool, StoreError>;

    /// Makes a damaged generation, that nobody has open, one that waits to be salvaged, and none of the generations any more.
    fn condemn(&self, generation: Generation) -> Result<(), StoreError>;

    /// Those that wait to be salvaged.
    fn condemned(&self) -> Result<Vec<Generation>, StoreError>;

    /// What is damaged in a generation that nobody has open, if anything is. Reads all of it, and changes nothing.
    fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError>;

    /// What can be read of a generation, condemned or not, that nobody has open. Changes nothing.
    fn remains(&self, generation: Generation) -> Result<Remains, StoreError>;

    /// Puts one that was condemned where nothing touches it any more; where that is.
    fn quarantine(&self, generation: Generation) -> Result<String, StoreError>;

    /// Removes one that was condemned.
    fn discard(&self, generation: Generation) -> Result<(), StoreError>;

    /// How far the store had come, as far as that is known.
    fn witness(&self) -> Option<Witness>;

    /// Notes how far the store has come.
    fn remember(&self, witness: &Witness) -> Result<(), StoreError>;
}

/// Bytes on a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// That can still be written.
    pub free: u64,
    /// That it has.
    pub total: u64,
    /// That the queue takes.
    pub used: u64,
}

/// The store of a queue. Reads come from any thread; everything else from one.
pub struct Store {
    disk: Arc<dyn Disk>,
    guard: Guard,
    pace: Pace,
    current: RwLock<Current>,
    side: Mutex<Side>,
    damage: Damage,
}

struct Current {
    generation: Generation,
    /// None while, or because, it could not be opened again.
    db: Option<Arc<dyn Db>>,
}

/// The side of the one thread that writes.
#[derive(Default)]
struct Side {
    rewriting: Rewriting,
    healing: Option<Healing>,
    /// How often the disk has answered while a call did not return.
    probes: u32,
    commits: Commits,
    /// Bytes applied since the last sync.
    unsynced: usize,
}

impl Store {
    /// Opens or creates the store in a queue's directory.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::guarded(Arc::new(Files::new(dir)), Guard::new(), Pace::default())
    }

    /// Removes what was put aside for a full disk from a queue's directory: the store may open then. Whether there was something.
    pub fn lighten(dir: &Path) -> Result<bool, StoreError> {
        Files::new(dir).ballast(0)
    }

    /// Opens or creates the store on a disk; without a thread of its own.
    #[cfg(test)]
    pub fn on(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::paced(disk, Pace::default())
    }

    #[cfg(test)]
    pub(super) fn paced(disk: Arc<dyn Disk>, pace: Pace) -> Result<Self, StoreError> {
        Self::guarded(disk, Guard::inline(), pace)
    }

    /// How long a call may take.
    pub fn limit(&self) -> Duration {
        self.guard.limit()
    }

    #[cfg(test)]
    pub fn set_limit(&self, limit: Duration) {
        self.guard.set_limit(limit);
    }

    /// Of what an interrupted rewriting left, nothing stays.
    pub(super) fn guarded(disk: Arc<dyn Disk>, guard: Guard, pace: Pace) -> Result<Self, StoreError> {
        let current = Current::find(&disk)?;
        let store = Self { guard, pace, ..Self::with(disk, current) };
        store.side().commits = store.read(Commits::of)?;
        Ok(store)
    }

    /// One that is open already, without a thread of its own.
    fn with(disk: Arc<dyn Disk>, current: Current) -> Self {
        Self {
            disk,
            guard: Guard::inline(),
            pace: Pace::default(),
            current: RwLock::new(current),
            side: Mutex::default(),
            damage: Damage::default(),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.damage.heed(self.read(|db| db.get(key)))
    }

    /// Visits the entries of a range in order.
    pub fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.damage.heed(self.read(|db| db.scan(range, visit)))
    }

    /// Applies all of `writes` or none of them; with `sync` they are on stable storage when this returns, and without it where more than
    /// [`UNSYNCED`] would not be. [`StoreError::Stuck`]: they
    /// may be applied yet; nothing else is before [`reopen`](Self::reopen).
    pub fn commit(&self, mut writes: Writes, sync: bool) -> Result<(), StoreError> {
        let mut side = self.side();
        let db = self.db()?;
        let copy = side.rewriting.copy();
        side.commits.latest += 1;
        writes.insert(keys::commits(), Some(side.commits.row()));
        side.unsynced += writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len) + ROW).sum::<usize>();
        let sync = sync || side.unsynced > UNSYNCED;
        // One call and not three: to hand it over costs as much as a small commit.
        let done = self.guard.run(move || {
            db.apply(&writes)?;
            if sync {
                db.sync()?;
            }
            Ok(copy.map(|copy| copy.follow(&writes)))
        });
        match done {
            Ok(followed) => {
                if sync {
                    side.synced();
                }
                if let Some(Err(error)) = followed {
                    self.give_up(&mut side.rewriting, &error);
                }
                Ok(())
            }
            Err(error) => {
                self.damage.note(&error);
                self.give_up(&mut side.rewriting, &StoreError::Closed); // who knows what is in there now
                Err(error)
            }
        }
    }

    /// Returns once everything committed so far is on stable storage.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut side = self.side();
        let db = self.db()?;
        self.damage.heed(self.guard.run(move || db.sync()))?;
        side.synced();
        Ok(())
    }

    /// How much room there is. Where the writer writes, or while nobody does.
    pub fn room(&self) -> Result<Room, StoreError> {
        let disk = self.disk.clone();
        self.guard.run(move || disk.room())
    }

    /// Puts so many bytes aside for bad times, or gives them back: 0. Whether that changed anything.
    pub fn ballast(&self, size: u64) -> Result<bool, StoreError> {
        let disk = self.disk.clone();
        self.guard.run(move || disk.ballast(size))
    }

    /// A reader may have a database that has been abandoned meanwhile: what it says then tells nothing.
    fn read<T>(&self, read: impl FnOnce(&dyn Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db()?;
        read(&*db).map_err(|error| match self.db() {
            Ok(current) if Arc::ptr_eq(&db, &current) => error,
            _ => StoreError::Closed,
        })
    }

    /// Whether the engine has met damage since it was opened: to be opened again.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_there()
    }

    /// Writes down how far the queue has come, from what is in the store: to be called when all of it is on stable storage.
    pub fn bear_witness(&self) -> Result<(), StoreError> {
        let (disk, witness) = (self.disk.clone(), self.damage.heed(self.read(Witness::of))?);
        self.guard.run(move || disk.remember(&witness))
    }

    fn db(&self) -> Result<Arc<dyn Db>, StoreError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.db.clone().ok_or(StoreError::Closed)
    }

    fn current(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Side {
    fn synced(&mut self) {
        self.commits.synced = self.commits.latest;
        self.unsynced = 0;
    }
}

impl Current {
    /// The latest generation that is whole and not left; the others go. Where it is damaged it is salvaged.
    fn find(disk: &Arc<dyn Disk>) -> Result<Self, StoreError> {
        for condemned in disk.condemned()? {
            salvage::resume(disk, condemned, "it was being salvaged when the process ended")?;
        }
        let mut generations = disk.generations()?;
        if generations.is_empty() {
            disk.open(0)?;
            generations.push(0);
        }
        generations.sort_unstable();
        let mut damaged = Vec::new();
        for &generation in generations.iter().rev() {
            match open_whole(&**disk, generation) {
                Ok(None) => {}
                Ok(Some(db)) => {
                    for other in generations.iter().filter(|g| **g != generation) {
                        disk.remove(*other)?;
                    }
                    return Ok(Self { generation, db: Some(db) });
                }
                // A copy that never became whole may be in any state. If it is more than that, the one before it was left.
                Err(StoreError::Damaged(why)) => damaged.push((generation, why)),
                Err(error) => return Err(error),
            }
        }
        salvage::latest(disk, &generations, damaged)
    }
}

/// A generation, if it counts. One that is older than it was already is damaged.
fn open_whole(disk: &dyn Disk, generation: Generation) -> Result<Option<Arc<dyn Db>>, StoreError> {
    let db = disk.open(generation)?;
    if !counts(generation, &*db)? {
        return Ok(None);
    }
    let Some(witness) = disk.witness() else { return Ok(Some(db)) };
    match Witness::of(&*db)?.behind(&witness) {
        Some(why) => Err(StoreError::Damaged(why)),
        None => Ok(Some(db)),
    }
}

/// Whether a generation is whole and not left.
fn counts(generation: Generation, db: &dyn Db) -> Result<bool, StoreError> {
    Ok((generation == 0 || db.get(&keys::whole())?.is_some()) && db.get(&keys::left())?.is_none())
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

        fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError> {
            self.0.copy(from, to)
        }

        fn abandon(&self, generation: Generation) -> Result<(), StoreError> {
            self.0.abandon(generation)
        }

        fn probe(&self) -> Result<(), StoreError> {
            self.0.probe()
        }

        fn room(&self) -> Result<Room, StoreError> {
            self.0.room()
        }

        fn ballast(&self, size: u64) -> Result<bool, StoreError> {
            self.0.ballast(size)
        }

        fn condemn(&self, generation: Generation) -> Result<(), StoreError> {
            self.0.condemn(generation)
        }

        fn condemned(&self) -> Result<Vec<Generation>, StoreError> {
            self.0.condemned()
        }

        fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError> {
            self.0.examine(generation)
        }

        fn remains(&self, generation: Generation) -> Result<Remains, StoreError> {
            self.0.remains(generation)
        }

        fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
            self.0.quarantine(generation)
        }

        fn discard(&self, generation: Generation) -> Result<(), StoreError> {
            self.0.discard(generation)
        }

        fn witness(&self) -> Option<Witness> {
            self.0.witness()
        }

        fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
            self.0.remember(witness)
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
        assert_eq!(found(&model, &[4]), Ok(5), "what was left is not gone back to");
        assert_eq!(
            (model.generations().unwrap(), model.quarantined()),
            (vec![5], vec![4]),
            "and what can't be opened is salvaged"
        );
        put(&model, 9, b"row".to_vec());
        assert_eq!(found(&model, &[5, 9]), Ok(10), "a copy is no more than that although both can't be opened");
        assert_eq!(model.quarantined(), [4, 5]);
        put(&model, 12, b"row".to_vec());
        model.remove(10).unwrap();
        assert_eq!(found(&model, &[]), Ok(13), "a copy that there is nothing else of is better than nothing");
    }

    #[test]
    fn inv2_more_than_may_be_unsynced_is_synced_whoever_asks() {
        let disk = Arc::new(Model::default());
        let store = Store::on(disk.clone()).unwrap();
        let row = |n: u8| -> Writes { [(vec![b'e', n], Some(vec![n; 4000]))].into() };
        for n in 0..40 {
            store.commit(row(n), false).unwrap();
        }
        disk.crash();
        drop(store);
        let store = Store::on(disk).unwrap();
        let there = (0..40).filter(|n| store.get(&[b'e', *n]).unwrap().is_some()).count();
        assert!((UNSYNCED / 8000..40).contains(&there), "{there}");
    }
}
