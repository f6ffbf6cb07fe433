//! A database on sled, and sled nowhere else.
//!
//! sled 0.34.7, and not the 1.0 alpha: filling 1,000,000 x 2 KB takes the alpha 2.1 GB of memory, 0.34.7 85 MB. What was measured about 0.34.7
//! and is minded here:
//! - `flush()` is no fsync on Linux (it is `sync_file_range`). It survives kill -9, but not lost power, unless the file that it writes is
//!   synced as well: [`Sled`] keeps a descriptor of its own on that file and calls `fdatasync` after each flush.
//! - It writes its settings (`conf`) once, does not sync them, and can't be opened without them: they are synced here.
//! - What is left of a snapshot that it was writing when it was killed, or when the disk was full, it takes for the latest one the next time, and
//!   calls the database corrupt. So leftovers go before it opens.
//! - Values that outgrow its log are put into files of their own that nobody syncs. So no value here is above
//!   [`MAX_VALUE`](super::MAX_VALUE).
//! - After an error of the disk a handle is of no use any more, also when the disk is fine again; opening the directory anew recovers all
//!   that was synced. Hence [`Store::reopen`](super::Store::reopen).
//! - It panics where it meets bytes that it can't have written: here that is an error, and the panic is not shown. Nothing waits for ever,
//!   nothing is aborted: not once in 700 damaged queues.
//! - Before it opens anything, [`raw`](super::raw) looks whether it may.
//! - `cache_capacity` is 1 GB unless set.

use std::cell::Cell;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Db, Key, StoreError, Visit, Writes};

/// Memory that sled may use for pages; twice while a store is rewritten. With twice as much commits were no faster.
const CACHE: u64 = 16 << 20;

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
        for leftover in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if leftover.file_name().to_string_lossy().ends_with(".generating") {
                std::fs::remove_file(leftover.path()).map_err(StoreError::io("removing what is left of a snapshot"))?;
            }
        }
        // What a process that was killed had not synced yet is about to be read, and counts from now on: also for what the engine notes down.
        match File::open(dir.join("db")).and_then(|log| log.sync_data()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::io("syncing the store's log")(error)),
            _ => {}
        }
        let mut tries = 0;
        let db = loop {
            match caught(|| Ok(config.open()?)) {
                // An engine that was just let go may hold its lock for a moment.
                Err(StoreError::Locked) if tries < 10 => std::thread::sleep(Duration::from_millis(50)),
                opened => break opened?,
            }
            tries += 1;
        };
        let log = File::open(dir.join("db")).map_err(StoreError::io("opening the store's log"))?;
        File::open(dir.join("conf")).and_then(|c| c.sync_all()).map_err(StoreError::io("syncing the store's settings"))?;
        log.sync_data().map_err(StoreError::io("syncing the store's log"))?;
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

thread_local! {
    /// This thread is inside the engine.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// sled's panics are errors.
fn caught<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    keep_quiet();
    let before = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(StoreError::Damaged(format!("the storage engine gave up: {}", text.unwrap_or("it did not say why"))))
    })
}

/// Calls what is ours from within the engine.
fn outside<T>(call: impl FnOnce() -> T) -> T {
    let before = INSIDE.replace(false);
    let done = call();
    INSIDE.set(before);
    done
}

/// The engine's panics, here and on its own threads, are told as errors; all others go where they went before.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if INSIDE.get() || std::thread::current().name().is_some_and(|name| name.starts_with("sled-")) {
                tracing::debug!(%panic, "the storage engine panicked");
            } else {
                before(panic);
            }
        }));
    });
}

/// What it says once one of its threads has panicked, whichever database that was for: for the rest of the process.
const BROKEN: &str = "IO thread unexpectedly panicked";

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            // What sled says when it can't get the lock on its file.
            sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => Self::Locked,
            // Where it reads what it has written there is an end too early only if it was cut off.
            sled::Error::Io(e)
                if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput) =>
            {
                Self::Damaged(e.to_string())
            }
            sled::Error::Io(source) => Self::Io { what: "the storage engine", source },
            sled::Error::ReportableBug(text) if text.contains(BROKEN) => {
                Self::Io { what: "the storage engine", source: std::io::Error::other("its threads have ended: restart offramp") }
            }
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
                if !outside(|| visit(&key, &value)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv8_a_snapshot_that_was_being_written_when_the_process_died_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let row = || (b"a".to_vec(), Some(b"1".to_vec()));
        let db = Sled::open(dir.path()).unwrap();
        db.apply(&[row()].into()).unwrap();
        db.sync().unwrap();
        drop(db);
        std::fs::write(dir.path().join("snap.FFFFFFFFFFFFFFFE.generating"), "").unwrap();
        assert_eq!(Sled::open(dir.path()).unwrap().get(b"a").unwrap(), row().1);
    }
}
