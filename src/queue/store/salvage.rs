//! Salvage: a generation that is damaged is set aside whole, and what can be read of it goes to a fresh one.
//!
//! 1. The generation is *condemned*: renamed, so that it is no generation any more.
//! 2. A fresh one gets every row that can still be read, but for those that follow from others; [`mend`] makes these anew, and the ledger.
//! 3. The fresh one is marked as whole, like one that is made by rewriting. From here on it counts.
//! 4. What was condemned goes to `quarantine/`, every byte as it was found.
//!
//! One whose end is only torn, by a loss of power, goes the same way to a fresh one, but there is nothing to mend and nothing to keep: what it
//! had come to before the tear is copied row by row.
//!
//! Whenever the process ends in between, the next opening finds the condemned one and goes on: from 2 if there is no later whole generation,
//! else from 4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::super::keys;
use super::super::mend::{self, mend};
use super::super::txn::TxnError;
use super::{Current, Db, Disk, Generation, Store, StoreError, Writes, counts};

/// Bytes of rows that are copied in one go.
const SLICE: usize = 128 << 10;

/// Slices between two syncs: what is not synced is in memory.
const SYNC: usize = 64;

/// What can be read of a generation.
#[derive(Default)]
pub struct Remains {
    /// Its rows; none if there is nothing.
    pub db: Option<Arc<dyn Db>>,
    /// Changes that could be read, and not be given to any row.
    pub lost: u64,
    /// They are all that there was after one of its commits, with everything that was synced: only the end was torn.
    pub exact: bool,
}

/// What the engine has said of damage.
#[derive(Default)]
pub struct Damage {
    /// Since it was opened.
    now: AtomicBool,
    /// How often it has been opened again because of that.
    again: AtomicU32,
}

impl Damage {
    /// Takes note of what the engine says.
    pub fn heed<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.inspect_err(|error| self.note(error))
    }

    pub fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::Damaged(_)) {
            self.now.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has met damage since it was opened.
    pub fn is_there(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }

    /// It is opened again: for how often that was because of damage.
    pub fn again(&self) -> u32 {
        if self.is_there() { self.again.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 }
    }

    /// It has been opened again.
    pub fn is_over(&self) {
        self.now.store(false, Ordering::Relaxed);
    }
}

/// Opens the store after an error; `damage`: how often that was because of damage. The engine calls damage what may be an error of the
/// system that it did not bear: so once it is only opened again, and then what it wrote must be damaged indeed.
pub fn find_again(disk: &Arc<dyn Disk>, generation: Generation, damage: u32) -> Result<Current, StoreError> {
    if damage > 1
        && let Some(why) = disk.examine(generation)?
    {
        return salvage(disk, generation, &why);
    }
    match Current::find(disk) {
        // A panic keeps the engine's own lock for the rest of the process. Nobody else can have it.
        Err(StoreError::Locked) if damage > 0 => match disk.examine(generation)? {
            Some(why) => salvage(disk, generation, &why),
            None => Err(StoreError::Locked),
        },
        found => found,
    }
}

/// Salvages a generation that nobody has open; the one that takes its place.
pub fn salvage(disk: &Arc<dyn Disk>, generation: Generation, why: &str) -> Result<Current, StoreError> {
    tracing::warn!(generation, why, "the queue's store can't be opened as it is: what can be read goes to a fresh one");
    disk.condemn(generation)?;
    resume(disk, generation, why)?;
    Current::find(disk)
}

/// Salvages a generation that is condemned, or ends doing so.
pub fn resume(disk: &Arc<dyn Disk>, condemned: Generation, why: &str) -> Result<(), StoreError> {
    let mut done = false;
    let mut latest = condemned;
    for generation in disk.generations()? {
        latest = latest.max(generation);
        if generation > condemned {
            if is_current(&**disk, generation)? {
                done = true;
            } else {
                disk.remove(generation)?;
            }
        }
    }
    if done {
        let place = disk.quarantine(condemned)?;
        tracing::warn!(place, "the salvaging of a damaged store, interrupted earlier, is done");
        return Ok(());
    }
    let remains = disk.remains(condemned)?;
    if remains.exact {
        make(disk, latest + 1, |db| copy(&remains, db, |key| *key != keys::whole()[..]))?;
        disk.discard(condemned)?;
        tracing::warn!(
            why,
            "the end of the queue's store was torn, by a loss of power: all that was synced is there, in a fresh store"
        );
        return Ok(());
    }
    let mend::Mended { records, unreadable, revived, missing } = make(disk, latest + 1, |db| {
        copy(&remains, db, |key| keys::is_row(key) && !mend::MADE.contains(&key[0]))?;
        let witness = disk.witness();
        let store = Store::with(disk.clone(), Current { generation: latest + 1, db: Some(db.clone()) });
        mend(&store, witness.as_ref()).map_err(|error| match error {
            TxnError::Store(error) => error,
            TxnError::Codec(error) => StoreError::io("encoding a row")(std::io::Error::other(error)),
        })
    })?;
    drop(remains);
    let place = disk.quarantine(condemned)?;
    tracing::error!(
        why,
        salvaged = records,
        unreadable,
        revived,
        missing,
        place,
        "the queue's store was damaged; what could be read of it is in a fresh one, and the damaged one is kept as it was found. Check the \
         disk. `missing` (per sink, by the ledger) are gone, and offramp_ledger_gap counts them until `offramp verify --write-off` accepts \
         the loss. When nothing more is wanted of the damaged one, remove its directory"
    );
    Ok(())
}

/// Salvages the generation that counts, where none of `generations` can be opened as one that does: those in `damaged`, latest first,
/// because they are damaged.
pub fn latest(
    disk: &Arc<dyn Disk>,
    generations: &[Generation],
    damaged: Vec<(Generation, String)>,
) -> Result<Current, StoreError> {
    let mut last = generations.last().map(|g| (*g, format!("none of the generations {generations:?} is whole")));
    for (generation, why) in damaged {
        let counts = is_current(&**disk, generation)?;
        last = Some((generation, why));
        if counts {
            break;
        }
    }
    match last {
        Some((generation, why)) => salvage(disk, generation, &why),
        None => Err(StoreError::Closed),
    }
}

/// Whether a generation that is not open counts, as far as that can be read.
fn is_current(disk: &dyn Disk, generation: Generation) -> Result<bool, StoreError> {
    match disk.remains(generation)?.db {
        Some(db) => counts(generation, &*db),
        None => Ok(false),
    }
}

/// Makes a fresh generation with what `fill` puts into it.
fn make<T>(
    disk: &Arc<dyn Disk>,
    generation: Generation,
    fill: impl FnOnce(&Arc<dyn Db>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let db = disk.open(generation)?;
    let made = fill(&db)?;
    db.sync()?;
    db.apply(&[(keys::whole(), Some(Vec::new()))].into())?;
    db.sync()?;
    Ok(made)
}

/// Copies what can be read, as far as it is wanted.
fn copy(remains: &Remains, db: &Arc<dyn Db>, wanted: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
    if remains.lost > 0 {
        tracing::warn!(changes = remains.lost, "changes of rows can be read, but not which rows they are for");
    }
    let Some(from) = &remains.db else { return Ok(()) };
    let (mut slice, mut size, mut slices, mut done) = (Writes::new(), 0, 0, Ok(()));
    from.scan(vec![0]..vec![u8::MAX], &mut |key, value| {
        if wanted(key) {
            size += key.len() + value.len();
            slice.insert(key.to_vec(), Some(value.to_vec()));
        }
        if size >= SLICE {
            slices += 1;
            done = db.apply(&slice).and_then(|()| if slices % SYNC == 0 { db.sync() } else { Ok(()) });
            (slice, size) = (Writes::new(), 0);
        }
        done.is_ok()
    })?;
    done?;
    db.apply(&slice)
}
