//! The store: an ordered map of bytes whose commits are atomic and, when asked, on stable storage. sled and nothing else.
//!
//! sled 0.34.7, and not the 1.0 alpha: filling 1,000,000 x 2 KB takes the alpha 2.1 GB of memory, 0.34.7 85 MB. What was measured about 0.34.7
//! and is minded here:
//! - `flush()` is no fsync on Linux (it is `sync_file_range`). It survives kill -9, but not lost power, unless the file that it writes is
//!   synced as well: [`Sled`] keeps a descriptor of its own on that file and calls `fdatasync` after each flush.
//! - Values that outgrow its log are put into files of their own that nobody syncs. So no value here is above [`MAX_VALUE`].
//! - After an error of the disk a handle is of no use any more, also when the disk is fine again; opening the directory anew recovers all
//!   that was synced. Hence [`Store::reopen`].
//! - `cache_capacity` is 1 GB unless set.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::keys::Key;

/// The longest value (bytes) that stays inside sled's log.
pub const MAX_VALUE: usize = 4096;

/// Memory that sled may use for pages.
const CACHE: u64 = 32 << 20;

/// What a commit changes: a value is put, none is removed.
pub type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// What a scan calls for each entry; `false` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("locked by another process")]
    Locked,
    /// It could not be opened again after an error.
    #[error("not open since its last error")]
    Closed,
    /// The engine.
    #[error("the storage engine failed: {0}")]
    Engine(String),
    /// The system.
    #[error("{what} failed: {source}")]
    Io {
        /// Which step.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// An ordered map of bytes. Reads come from any thread, commits from one. Every call may block.
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries of a range in order.
    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError>;

    /// Applies all of `writes` or none of them. Not yet on stable storage.
    fn apply(&self, writes: &Writes) -> Result<(), StoreError>;

    /// Returns once everything applied so far is on stable storage.
    fn sync(&self) -> Result<(), StoreError>;

    /// Starts afresh from what is on the disk, after an error. What was not synced may be gone.
    fn reopen(&self) -> Result<(), StoreError>;
}

/// [`Store`] on sled.
pub struct Sled {
    dir: PathBuf,
    /// None while, or because, it could not be opened again.
    open: RwLock<Option<Open>>,
}

struct Open {
    db: sled::Db,
    /// A descriptor of our own on the file that sled writes.
    log: File,
}

impl Sled {
    /// Opens or creates the store in a directory of its own.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { dir: dir.to_owned(), open: RwLock::new(Some(Open::new(dir)?)) })
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        work(open.as_ref().ok_or(StoreError::Closed)?)
    }
}

impl Open {
    fn new(dir: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .flush_every_ms(None) // `sync` says when
            .mode(sled::Mode::HighThroughput);
        let db = config.open()?;
        let io = |what| move |source| StoreError::Io { what, source };
        let log = File::open(log_path(dir)).map_err(io("opening the store's log"))?;
        // The directory entries of a new store must be as durable as its first record.
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(dir).and_then(|d| d.sync_all()).map_err(io("syncing the store's directory"))?;
        }
        Ok(Self { db, log })
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("db")
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            // What sled says when it can't get the lock on its file.
            sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => Self::Locked,
            other => Self::Engine(other.to_string()),
        }
    }
}

impl Store for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|open| Ok(open.db.get(key)?.map(|v| v.to_vec())))
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.with(|open| {
            for entry in open.db.range(range) {
                let (key, value) = entry?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, writes: &Writes) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.with(|open| Ok(open.db.apply_batch(batch)?))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.with(|open| {
            open.db.flush()?;
            open.log.sync_data().map_err(|source| StoreError::Io { what: "syncing the store's log", source })
        })
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = None; // gives the engine's lock on the directory back
        *open = Some(Open::new(&self.dir)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_there_after_reopening_and_a_second_opener_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Sled::open(&path).unwrap();
        let writes: Writes = [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))].into();
        store.apply(&writes).unwrap();
        store.sync().unwrap();
        assert!(matches!(Sled::open(&path), Err(StoreError::Locked)));
        drop(store);
        let store = Sled::open(&path).unwrap();
        store.apply(&[(b"a".to_vec(), None)].into()).unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
    }
}
