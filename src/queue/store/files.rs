//! The disk as it is: the queue's directory.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the process that has the queue open; its pid |
//! | `store`, `store-1`, `store-2` … | a generation each; `store` is generation 0, all that there was in earlier versions |
//! | `gone-…` | a generation that is being removed |

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sled::Sled;
use super::{Db, Disk, Generation, StoreError};

/// [`Disk`] in a directory.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn generation(&self, generation: Generation) -> PathBuf {
        self.dir.join(if generation == 0 { "store".to_owned() } else { format!("store-{generation}") })
    }
}

impl Disk for Files {
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
        Ok(Arc::new(Sled::open(&self.generation(generation))?))
    }

    fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        // What a removal that failed has renamed must not come back, least of all when half of it is gone.
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        let entries = synced.and_then(|()| fs::read_dir(&self.dir)?.collect::<Result<Vec<_>, _>>());
        let entries = entries.map_err(StoreError::io("listing the queue's directory"))?;
        let names: Vec<String> = entries.iter().filter_map(|e| e.file_name().into_string().ok()).collect();
        for gone in names.iter().filter(|n| n.starts_with("gone-")) {
            fs::remove_dir_all(self.dir.join(gone)).map_err(StoreError::io("removing an old store"))?;
        }
        let number = |name: &String| if name == "store" { Some(0) } else { name.strip_prefix("store-")?.parse().ok() };
        Ok(names.iter().filter_map(number).collect())
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
