//! A store that nobody has open, read without the engine: nothing is changed, whatever state it is in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::raw::{self, Checked, Raw};
use super::{Current, Db, Disk, Store, StoreError, Witness, counts};

/// A store, and what was seen on the way to it.
pub struct Reading {
    /// What can be read of it; none if there is no store.
    pub store: Option<Store>,
    /// Where it lies.
    pub dir: PathBuf,
    /// What can't be read, a sentence each (the first ones), and all of it.
    pub faults: Vec<String>,
    /// All of it.
    pub count: usize,
    /// What was damaged and has been set aside, or is about to be.
    pub quarantined: Vec<PathBuf>,
}

impl Reading {
    /// Reads a queue's directory. `progress` is called with bytes read.
    pub fn of(dir: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Self, StoreError> {
        let files = Arc::new(Files::new(dir));
        let mut quarantined = files.quarantined();
        let condemned = files.condemned()?;
        quarantined.extend(condemned.iter().map(|g| files.damaged(*g)));
        let mut generations = files.list()?;
        generations.sort_unstable();
        let mut found = None;
        for generation in generations.into_iter().rev() {
            let dir = files.generation(generation);
            let checked = raw::check(&dir, false, progress)?.unwrap_or_else(Checked::missing);
            // Up to where the engine would read, unless it would not read at all.
            let tip = (checked.count == 0).then_some(checked.tip);
            let db: Option<Arc<dyn Db>> = if dir.join("db").exists() { Some(Arc::new(Raw::open(&dir, tip)?)) } else { None };
            let counts = db.as_deref().map_or(Ok(false), |db| counts(generation, db))?;
            if counts || found.is_none() {
                found = Some((generation, dir, checked, db));
            }
            if counts {
                break;
            }
        }
        let Some((generation, place, checked, db)) = found else {
            return Ok(Self { store: None, dir: dir.to_owned(), faults: Vec::new(), count: 0, quarantined });
        };
        let Checked { mut faults, mut count, .. } = checked;
        if let (Some(witness), Some(db)) = (Witness::read(dir), &db)
            && let Some(why) = Witness::of(&**db)?.behind(&witness)
        {
            faults.push(format!("it is older than it was: {why}"));
            count += 1;
        }
        let store = db.map(|db| Store::with(files, Current { generation, db: Some(db) }));
        Ok(Self { store, dir: place, faults, count, quarantined })
    }
}
