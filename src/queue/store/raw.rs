//! Reading the engine's files without the engine.
//!
//! sled reads nothing of a file in which something is wrong, or less than there is, and writes while it opens. Of 231 queues with one flipped
//! bit in the log it opened 35 with all that was in them, 37 with less and without a word, and panicked at 159; of 79 whose log was cut off
//! it opened 62 as empty ones, and had overwritten the rest. What it could not read was there: one message of thousands was damaged.
//! So the file is checked before sled opens it ([`check`]), and what is damaged is read here, message by message, each with its own
//! checksum, around what can't be read ([`Raw`]). Nothing here writes.
//!
//! The format is that of 0.34.7, to which `Cargo.toml` pins it; a test compares what both read.

mod check;
mod log;
mod pages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::check::Checked;
use self::log::Lsn;
use self::pages::{Known, Page, Pages};
use super::{Db, Key, StoreError, Visit, Writes};

/// Bytes of pages that are kept in memory for further keys.
const KEPT: usize = 32 << 20;

/// Bytes that a row takes in memory beside its key and its value, roughly.
const ROW: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks the files of a database: all of them or, with `fresh`, what the engine reads when it opens them. None if there are none.
pub fn check(dir: &Path, fresh: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<Checked>, StoreError> {
    let file = match File::open(dir.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("reading the store's log")(error)),
    };
    let from = if fresh { snapshot(dir).map_err(StoreError::io("listing the store's files"))? } else { 0 };
    check::check(&file, from, progress).map(Some).map_err(StoreError::io("reading the store's log"))
}

/// Up to where the engine has written down where each page is.
fn snapshot(dir: &Path) -> std::io::Result<Lsn> {
    let mut latest = 0;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let lsn = name.to_str().and_then(|n| n.strip_prefix("snap.")).and_then(|n| Lsn::from_str_radix(n, 16).ok());
        latest = latest.max(lsn.unwrap_or(0));
    }
    Ok(latest)
}

/// A database that is read only, without the engine.
pub struct Raw {
    file: File,
    pages: Pages,
    /// What the late pages know, values aside.
    late: BTreeSet<Key>,
    kept: Mutex<Kept>,
}

type Rows = Arc<BTreeMap<Key, Known>>;

#[derive(Default)]
struct Kept {
    rows: BTreeMap<u64, Rows>,
    /// The first one goes first; with its size.
    order: VecDeque<(u64, usize)>,
    size: usize,
}

impl Raw {
    /// Reads what is in the file up to `tip`, or all that can be read.
    pub fn open(dir: &Path, tip: Option<Lsn>) -> Result<Self, StoreError> {
        let open = || {
            let file = File::open(dir.join("db"))?;
            let pages = Pages::read(&file, tip)?;
            let mut late = BTreeSet::new();
            for page in &pages.late {
                late.extend(page.rows(&file)?.into_keys());
            }
            Ok(Self { file, pages, late, kept: Mutex::default() })
        };
        open().map_err(StoreError::io("reading the store's log"))
    }

    /// Changes that can't be given to any row.
    pub fn lost(&self) -> u64 {
        self.pages.lost
    }

    fn rows(&self, page: &Page) -> Result<Rows, StoreError> {
        let id = page.since().unsigned_abs();
        if let Some(rows) = lock(&self.kept).rows.get(&id) {
            return Ok(rows.clone());
        }
        let rows = Arc::new(page.rows(&self.file).map_err(StoreError::io("reading the store's log"))?);
        let size = rows.iter().map(|(key, (_, value))| key.len() + value.as_ref().map_or(0, Vec::len) + ROW).sum();
        let mut kept = lock(&self.kept);
        if kept.rows.insert(id, rows.clone()).is_none() {
            kept.order.push_back((id, size));
            kept.size += size;
        }
        while kept.size > KEPT
            && let Some((oldest, size)) = kept.order.pop_front()
        {
            kept.rows.remove(&oldest);
            kept.size -= size;
        }
        Ok(rows)
    }

    /// The main page that a key belongs to.
    fn page(&self, key: &[u8]) -> Option<&Page> {
        let at = self.pages.main.partition_point(|page| *page.lo <= *key);
        self.pages.main[..at].last().filter(|page| page.has(key))
    }

    /// What `page` knows of a key, its value aside: from when, and whether it is there.
    fn value(&self, page: &Page, key: &[u8]) -> Result<Known, StoreError> {
        Ok(self.rows(page)?.get(key).cloned().unwrap_or((page.since(), None)))
    }
}

impl Db for Raw {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut known: Option<Known> = None;
        for page in self.page(key).into_iter().chain(self.pages.late.iter().filter(|page| page.has(key))) {
            let here = self.value(page, key)?;
            if known.as_ref().is_none_or(|known| known.0 < here.0) {
                known = Some(here);
            }
        }
        Ok(known.and_then(|known| known.1))
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        if range.start >= range.end {
            return Ok(());
        }
        let first = self.pages.main.partition_point(|page| *page.lo <= *range.start).saturating_sub(1);
        let mut late = self.late.range(range.clone()).peekable();
        for page in &self.pages.main[first..] {
            if *page.lo >= *range.end {
                break;
            }
            // Not kept: a scan comes by once, and must not drive out what the keys in between are looked up in.
            let rows = page.rows(&self.file).map_err(StoreError::io("reading the store's log"))?;
            let disputed = self.pages.late.iter().any(|other| other.overlaps(page));
            for (key, (_, value)) in rows.range(range.clone()) {
                while let Some(key) = late.next_if(|late| *late < key) {
                    if self.get(key)?.is_some_and(|value| !visit(key, &value)) {
                        return Ok(());
                    }
                }
                late.next_if_eq(&key);
                let value = if disputed { self.get(key)? } else { value.clone() };
                if value.is_some_and(|value| !visit(key, &value)) {
                    return Ok(());
                }
            }
        }
        for key in late {
            if self.get(key)?.is_some_and(|value| !visit(key, &value)) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, _: &Writes) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly)
    }

    fn sync(&self) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly)
    }
}
