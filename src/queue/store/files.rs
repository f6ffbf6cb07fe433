//! The disk as it is: the queue's directory.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the process that has the queue open; its pid |
//! | `store`, `store-1`, `store-2` … | a generation each; `store` is generation 0, all that there was in earlier versions |
//! | `gone-…` | a generation that is being removed |
//! | `copy-…` | one that is being made from another's files |
//! | `ballast` | room that is given back when the disk is full, so that what is waiting can still be drained |
//! | `probe` | written, synced and removed, to see whether the disk answers |
//! | `damaged-…` | a generation that is being salvaged |
//! | `quarantine/` | what was damaged, as it was found: nothing here touches it any more |
//! | `witness` | how far the store had come |

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::raw::{self, Raw};
use super::sled::Sled;
use super::{Db, Disk, Generation, Remains, Room, StoreError, Witness, keys};
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

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Removes a generation, after something has been done to each of its files.
    fn remove_after(&self, generation: Generation, last: impl Fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let gone = self.dir.join(format!("gone-{generation}"));
        let remove = || {
            fs::rename(self.generation(generation), &gone)?;
            self.sync_dir()?; // half of it must not come back as a generation
            for (file, _) in files(&gone)? {
                last(&file)?;
            }
            fs::remove_dir_all(&gone)
        };
        remove().map_err(StoreError::io("removing an old store"))
    }

    fn copy_files(&self, from: Generation, to: Generation) -> io::Result<()> {
        let (from, copy) = (self.generation(from), self.dir.join(format!("copy-{to}")));
        let before = stamps(&from)?;
        for (file, _) in files(&from)? {
            let target = copy.join(file.strip_prefix(&from).unwrap_or(&file));
            fs::create_dir_all(target.parent().unwrap_or(&copy))?;
            fs::copy(&file, &target)?;
            File::open(&target)?.sync_all()?;
        }
        if stamps(&from)? != before {
            return Err(io::Error::other("the files are still written"));
        }
        for dir in dirs(&copy)? {
            File::open(dir)?.sync_all()?;
        }
        fs::rename(&copy, self.generation(to))?;
        self.sync_dir()
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

    /// What a generation had come to before its end was torn: all that was synced, as it was after one of its commits. None if it is damaged.
    fn untorn(&self, generation: Generation, dir: &Path) -> Result<Option<Raw>, StoreError> {
        let Some(checked) = raw::check(dir, true, &|_| ())?.filter(|checked| checked.torn) else { return Ok(None) };
        let raw = Raw::open(dir, Some(checked.tip))?;
        let behind =
            self.witness().map(|witness| Ok::<_, StoreError>(Witness::of(&raw)?.behind(&witness).is_some())).transpose()?;
        // A copy without its mark is not all that there is, and who has marked it has left the one before it.
        let is_whole = generation == 0 || raw.get(&keys::whole())?.is_some();
        Ok((is_whole && !behind.unwrap_or(false)).then_some(raw))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.sync_dir()
    }

    /// Whether the engine would read everything of a generation that was on stable storage. It must not try otherwise: see [`raw`].
    fn admit(&self, dir: &Path) -> Result<(), StoreError> {
        let Some(checked) = raw::check(dir, true, &|_| ())? else { return Ok(()) };
        if let Some(faults) = checked.summary() {
            return Err(StoreError::Damaged(faults));
        }
        if checked.torn {
            return Err(StoreError::Damaged("its end is torn".to_owned()));
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
        // What a removal that failed has renamed must not come back, least of all when half of it is gone.
        self.sync_dir().map_err(StoreError::io("syncing the queue's directory"))?;
        for gone in self.names()?.iter().filter(|n| n.starts_with("gone-") || n.starts_with("copy-")) {
            // Or whoever is removing it does; it counts for nothing.
            let _ = fs::remove_dir_all(self.dir.join(gone));
        }
        self.list()
    }

    fn remove(&self, generation: Generation) -> Result<(), StoreError> {
        self.remove_after(generation, |_| Ok(()))
    }

    fn size(&self, generation: Generation) -> Result<u64, StoreError> {
        let size = || Ok(files(&self.generation(generation))?.iter().map(|(_, file)| allocated(file)).sum());
        size().map_err(StoreError::io("measuring the store"))
    }

    fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError> {
        self.copy_files(from, to).map_err(|source| {
            let _ = fs::remove_dir_all(self.dir.join(format!("copy-{to}"))); // else the next start does it
            StoreError::io("copying the store")(source)
        })
    }

    fn abandon(&self, generation: Generation) -> Result<(), StoreError> {
        self.remove_after(generation, |file| File::options().write(true).open(file)?.set_len(0))
    }

    fn probe(&self) -> Result<(), StoreError> {
        let path = self.dir.join("probe");
        let probe = || {
            let mut file = File::create(&path)?;
            file.write_all(&[0; 512])?;
            file.sync_data()?;
            fs::remove_file(&path)
        };
        probe().map_err(StoreError::io("writing to the queue's directory"))
    }

    fn room(&self) -> Result<Room, StoreError> {
        let room = || {
            let disk = rustix::fs::statvfs(&self.dir)?;
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            let used = files(&self.dir)?.iter().map(|(_, file)| allocated(file)).sum();
            Ok(Room { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks), used })
        };
        room().map_err(StoreError::io("looking at the queue's disk"))
    }

    fn ballast(&self, size: u64) -> Result<bool, StoreError> {
        let path = self.dir.join("ballast");
        let there = fs::metadata(&path).ok();
        let ballast = || match there {
            None if size == 0 => Ok(false),
            Some(there) if size > 0 && there.len() == size && allocated(&there) >= size => Ok(false),
            _ if size == 0 => fs::remove_file(&path).map(|()| true),
            _ => allocate(&path, size).map(|()| true).inspect_err(|_| drop(fs::remove_file(&path))),
        };
        ballast().map_err(StoreError::io("keeping room on the queue's disk"))
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
        if let Some(raw) = self.untorn(generation, &dir)? {
            return Ok(Remains { db: Some(Arc::new(raw)), lost: 0, exact: true });
        }
        let raw = Raw::open(&dir, None)?;
        let lost = raw.lost();
        Ok(Remains { db: Some(Arc::new(raw)), lost, exact: false })
    }

    fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
        let all = self.dir.join("quarantine");
        let time: String = clock::rfc3339(clock::now_ms()).chars().filter(char::is_ascii_alphanumeric).collect();
        let to = all.join(format!("{time}-store-{generation}"));
        let done = fs::create_dir_all(&all).and_then(|()| self.rename(&self.damaged(generation), &to));
        done.and_then(|()| File::open(&all)?.sync_all()).map_err(StoreError::io("setting the damaged store aside"))?;
        Ok(to.display().to_string())
    }

    fn discard(&self, generation: Generation) -> Result<(), StoreError> {
        let gone = self.dir.join(format!("gone-{generation}"));
        let done = self.rename(&self.damaged(generation), &gone).and_then(|()| fs::remove_dir_all(&gone));
        done.map_err(StoreError::io("removing a torn store"))
    }

    fn witness(&self) -> Option<Witness> {
        Witness::read(&self.dir)
    }

    fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
        witness.write(&self.dir)
    }
}

/// Bytes that a file takes, holes aside.
fn allocated(file: &Metadata) -> u64 {
    file.blocks() * 512
}

/// A file with all its blocks.
fn allocate(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => io::copy(&mut io::Read::take(io::repeat(0), size), &mut file).map(drop)?,
        allocated => allocated?,
    }
    file.sync_all()
}

/// All files below a directory. One that goes meanwhile is not among them.
fn files(dir: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut files = Vec::new();
    for dir in dirs(dir)? {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let entry = entry?;
            if let Ok(file) = entry.metadata()
                && file.is_file()
            {
                files.push((entry.path(), file));
            }
        }
    }
    Ok(files)
}

/// A directory and all those below it.
fn dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = vec![dir.to_owned()];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            dirs.extend(self::dirs(&entry.path()).unwrap_or_default());
        }
    }
    Ok(dirs)
}

/// What tells whether files have been written to.
fn stamps(dir: &Path) -> io::Result<Vec<(PathBuf, u64, i64, i64)>> {
    let mut stamps: Vec<_> =
        files(dir)?.into_iter().map(|(path, file)| (path, file.len(), file.mtime(), file.mtime_nsec())).collect();
    stamps.sort();
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::super::{Store, Writes};
    use super::*;

    fn row(value: &[u8]) -> Writes {
        [(b"a".to_vec(), Some(value.to_vec()))].into()
    }

    #[test]
    fn a_commit_is_there_after_reopening_and_a_second_opener_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let writes: Writes = [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))].into();
        store.commit(writes, true).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked)));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.commit([(b"a".to_vec(), None)].into(), false).unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
    }

    #[test]
    fn inv8_a_copy_of_the_files_of_an_open_engine_has_all_that_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Files::new(dir.path());
        let wedged = disk.open(0).unwrap();
        wedged.apply(&row(b"1")).unwrap();
        wedged.sync().unwrap();
        disk.copy(0, 1).unwrap();
        let copy = disk.open(1).unwrap();
        assert_eq!(copy.get(b"a").unwrap(), Some(b"1".to_vec()));

        // The one that was left behind writes on, and takes nothing but what it writes.
        let held = File::open(dir.path().join("store/db")).unwrap();
        assert!(held.metadata().unwrap().blocks() > 0);
        disk.abandon(0).unwrap();
        assert_eq!((held.metadata().unwrap().blocks(), disk.generations().unwrap()), (0, vec![1]));
        let _ = wedged.apply(&row(b"2")).and_then(|()| wedged.sync());
        copy.sync().unwrap();
        assert_eq!(copy.get(b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn inv8_files_that_are_written_while_they_are_copied_are_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Files::new(dir.path());
        drop(disk.open(0).unwrap());
        let (copied, writes) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = File::create(dir.path().join("store/another")).unwrap();
                while !copied.load(Ordering::Relaxed) {
                    file.write_all(b"late").unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
            while writes.load(Ordering::Relaxed) == 0 {}
            let copy = disk.copy(0, 1);
            copied.store(true, Ordering::Relaxed);
            let error = copy.unwrap_err();
            assert!(error.to_string().contains("still written"), "{error}");
        });
        assert_eq!(disk.generations().unwrap(), [0]);
        assert!(!dir.path().join("copy-1").exists());
    }

    #[test]
    fn the_ballast_has_all_its_blocks_and_a_probe_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Files::new(dir.path());
        assert!(disk.ballast(1 << 20).unwrap());
        assert!(!disk.ballast(1 << 20).unwrap(), "it is there");
        assert!(disk.room().unwrap().used >= 1 << 20);
        assert!(disk.ballast(2 << 20).unwrap(), "of another size");
        assert!(allocated(&fs::metadata(dir.path().join("ballast")).unwrap()) >= 2 << 20);
        assert!(disk.ballast(0).unwrap() && !disk.ballast(0).unwrap());
        disk.probe().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
