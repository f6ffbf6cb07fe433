//! The disk as it is: the queue's directory.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the process that has the queue open; its pid |
//! | `store`, `store-1`, `store-2` … | a generation each; `store` is generation 0, all that there was in earlier versions |
//! | `gone-…` | a generation that is being removed |
//! | `damaged-…` | a generation that is being salvaged |
//! | `quarantine/` | what was damaged, as it was found: nothing here touches it any more |
//! | `witness` | how far the store had come |

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::raw::{self, Raw};
use super::sled::Sled;
use super::{Db, Disk, Generation, Remains, StoreError, Witness};
use crate::clock;

/// [`Disk`] in a directory.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn generation(&self, generation: Generation) -> PathBuf {
        self.dir.join(if generation == 0 { "store".to_owned() } else { format!("store-{generation}") })
    }

    /// All that there are. Changes nothing.
    pub fn list(&self) -> Result<Vec<Generation>, StoreError> {
        let number = |name: &String| if name == "store" { Some(0) } else { name.strip_prefix("store-")?.parse().ok() };
        Ok(self.names()?.iter().filter_map(number).collect())
    }

    /// What was set aside for good.
    pub fn quarantined(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.join("quarantine")).into_iter().flatten().flatten();
        let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        all.sort();
        all
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = fs::read_dir(&self.dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(StoreError::io("listing the queue's directory"))?;
        Ok(entries.iter().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    pub fn damaged(&self, generation: Generation) -> PathBuf {
        self.dir.join(format!("damaged-{generation}"))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        fs::rename(from, to)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Whether the engine would read everything of a generation that was on stable storage. It must not try otherwise: see [`raw`].
    fn admit(&self, dir: &Path) -> Result<(), StoreError> {
        let Some(checked) = raw::check(dir, true, &|_| ())? else { return Ok(()) };
        if let Some(faults) = checked.summary() {
            return Err(StoreError::Damaged(faults));
        }
        // Torn at its end, as a crash leaves it, or is what lies behind the tear more than that?
        if checked.beyond > 0
            && let Some(witness) = self.witness()
            && let Some(why) = Witness::of(&Raw::open(dir, Some(checked.tip))?)?.behind(&witness)
        {
            return Err(StoreError::Damaged(why));
        }
        Ok(())
    }
}

impl Disk for Files {
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
        let dir = self.generation(generation);
        self.admit(&dir)?;
        Ok(Arc::new(Sled::open(&dir)?))
    }

    fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        for gone in self.names()?.iter().filter(|n| n.starts_with("gone-")) {
            fs::remove_dir_all(self.dir.join(gone)).map_err(StoreError::io("removing an old store"))?;
        }
        self.list()
    }

    fn remove(&self, generation: Generation) -> Result<(), StoreError> {
        let gone = self.dir.join(format!("gone-{generation}"));
        let remove = || {
            fs::rename(self.generation(generation), &gone)?;
            File::open(&self.dir)?.sync_all()?; // half of it must not come back as a generation
            fs::remove_dir_all(&gone)
        };
        remove().map_err(StoreError::io("removing an old store"))
    }

    fn size(&self, generation: Generation) -> Result<u64, StoreError> {
        let size = || {
            let mut size = 0;
            for entry in fs::read_dir(self.generation(generation))? {
                size += entry?.metadata()?.blocks() * 512;
            }
            Ok(size)
        };
        size().map_err(StoreError::io("measuring the store"))
    }

    fn condemn(&self, generation: Generation) -> Result<(), StoreError> {
        let done = self.rename(&self.generation(generation), &self.damaged(generation));
        done.map_err(StoreError::io("setting the damaged store aside"))
    }

    fn condemned(&self) -> Result<Vec<Generation>, StoreError> {
        Ok(self.names()?.iter().filter_map(|name| name.strip_prefix("damaged-")?.parse().ok()).collect())
    }

    fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError> {
        Ok(raw::check(&self.generation(generation), false, &|_| ())?.and_then(|checked| checked.summary()))
    }

    fn remains(&self, generation: Generation) -> Result<Remains, StoreError> {
        let dir = Some(self.damaged(generation)).filter(|dir| dir.exists()).unwrap_or_else(|| self.generation(generation));
        // Without its log there is nothing to read.
        if !dir.join("db").exists() {
            return Ok(Remains::default());
        }
        let raw = Raw::open(&dir, None)?;
        let lost = raw.lost();
        Ok(Remains { db: Some(Arc::new(raw)), lost })
    }

    fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
        let all = self.dir.join("quarantine");
        let time: String = clock::rfc3339(clock::now_ms()).chars().filter(char::is_ascii_alphanumeric).collect();
        let to = all.join(format!("{time}-store-{generation}"));
        let done = fs::create_dir_all(&all).and_then(|()| self.rename(&self.damaged(generation), &to));
        done.and_then(|()| File::open(&all)?.sync_all()).map_err(StoreError::io("setting the damaged store aside"))?;
        Ok(to.display().to_string())
    }

    fn witness(&self) -> Option<Witness> {
        Witness::read(&self.dir)
    }

    fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
        witness.write(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, Writes};
    use super::*;

    #[test]
    fn a_commit_is_there_after_reopening_and_a_second_opener_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let writes: Writes = [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))].into();
        store.commit(&writes, true).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked)));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.commit(&[(b"a".to_vec(), None)].into(), false).unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
    }
}
