//! A database on sled, and sled nowhere else.
//!
//! sled 0.34.7, and not the 1.0 alpha: filling 1,000,000 x 2 KB takes the alpha 2.1 GB of memory, 0.34.7 85 MB. What was measured about 0.34.7
//! and is minded here:
//! - `flush()` is no fsync on Linux (it is `sync_file_range`). It survives kill -9, but not lost power, unless the file that it writes is
//!   synced as well: [`Sled`] keeps a descriptor of its own on that file and calls `fdatasync` after each flush.
//! - It writes its settings (`conf`) once, does not sync them, and can't be opened without them: they are synced here.
//! - Values that outgrow its log are put into files of their own that nobody syncs. So no value here is above
//!   [`MAX_VALUE`](super::MAX_VALUE).
//! - After an error of the disk a handle is of no use any more, also when the disk is fine again; opening the directory anew recovers all
//!   that was synced. Hence [`Store::reopen`](super::Store::reopen).
//! - It panics where it meets bytes that it can't have written: here that is an error.
//! - `cache_capacity` is 1 GB unless set.

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Db, Key, StoreError, Visit, Writes};

/// Memory that sled may use for pages.
const CACHE: u64 = 32 << 20;

/// More than sled takes at once for a segment of its log (512 KiB).
const SEGMENT: usize = 1 << 20;

/// [`Db`] on sled, in a directory of its own.
pub struct Sled {
    db: sled::Db,
    /// A descriptor of our own on the file that sled writes.
    log: File,
    /// A sync has failed. The system tells that once, forgets what it could not write, and the next sync would succeed without it.
    lost: AtomicBool,
}

impl Sled {
    /// Opens or creates it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        keep_segments();
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .flush_every_ms(None) // `sync` says when
            .mode(sled::Mode::HighThroughput);
        let db = caught(|| Ok(config.open()?))?;
        let log = File::open(dir.join("db")).map_err(StoreError::io("opening the store's log"))?;
        File::open(dir.join("conf")).and_then(|c| c.sync_all()).map_err(StoreError::io("syncing the store's settings"))?;
        // The directory entries of a new store must be as durable as its first record.
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::io("syncing the store's directory"))?;
        }
        Ok(Self { db, log, lost: AtomicBool::new(false) })
    }
}

/// Has glibc keep the memory of sled's segments for the next ones. It would get each anew from the system, and have it cleared page by page:
/// a quarter of what the writer does. The largest piece that was ever freed is its limit for that, and as sled's segments are aligned they
/// stay just above it. Other allocators don't mind.
fn keep_segments() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(SEGMENT)));
}

/// sled's panics are errors.
fn caught<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(StoreError::Damaged(text.unwrap_or("the storage engine panicked").to_owned()))
    })
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            // What sled says when it can't get the lock on its file.
            sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => Self::Locked,
            sled::Error::Io(source) => Self::Io { what: "the storage engine", source },
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl Db for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        caught(|| Ok(self.db.get(key)?.map(|v| v.to_vec())))
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        caught(|| {
            for entry in self.db.range(range) {
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
        caught(|| Ok(self.db.apply_batch(batch)?))
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        let synced = caught(|| {
            self.db.flush()?;
            self.log.sync_data().map_err(StoreError::io("syncing the store's log"))
        });
        self.lost.store(synced.is_err(), Ordering::Relaxed);
        synced
    }
}
