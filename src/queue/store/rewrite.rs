//! Rewriting: what is alive goes to a fresh generation, and the old one is removed with all its waste.
//!
//! sled's files never shrink: of 200,000 episodes that came and went 689 MB stay, and one long-lived record in a hundred quadruples what a
//! moving backlog takes. So, when a generation takes much more than what is alive in it, the rows are copied to a new one, in order of their
//! keys, a slice between two commits. A cursor stands behind the last copied row: what a commit changes before it is changed in the copy
//! as well, what lies behind it will be copied later. When the cursor has reached the end, both hold the same; the copy is marked as whole and
//! synced, takes over, and the old generation goes.
//!
//! Until it is marked the old generation is all that counts: a crash leaves it whole, and the copy is a leftover that the next opening
//! removes. After a fault of the copy (no space, say) it is removed at once, and tried again later. The mark itself may be on the disk or not
//! when its sync has failed: if such a copy can't be removed either, the store closes until it is opened again, which sees what there is.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::guard::Call;
use super::{Current, Db, Generation, Key, Store, StoreError, Writes, keys};

/// Room that a copy needs beside twice what is alive: an empty store has a size, too.
const MARGIN: u64 = 4 << 20;

/// How long to leave the writer alone while the copy is synced.
const BREATH: Duration = Duration::from_millis(5);

/// When to rewrite, and in what steps.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// What a store may take on the disk (bytes), a fourth of it while the disk is low, ...
    pub floor: u64,
    /// ... beside so many times what is alive.
    pub times: u64,
    /// A slice of copying ends after so many bytes of rows.
    pub slice: usize,
    /// Slices are copied between two commits until they have taken this long. One for each commit would not be enough: under load as much
    /// is appended meanwhile, and the end of the copying would never come.
    pub visit: Duration,
    /// After so many bytes of rows the copy is synced, beside the commits. All of it at the end would be seconds in which nothing is
    /// committed.
    pub step: usize,
    /// After one that was given up, the next is not tried before.
    pub pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        // A fresh store of small records takes about twice what is alive in it; a slice takes less than a millisecond.
        Self {
            floor: 64 << 20,
            times: 3,
            slice: 128 << 10,
            visit: Duration::from_millis(4),
            step: 8 << 20,
            pause: Duration::from_secs(60),
        }
    }
}

/// Whether the store is being rewritten.
#[derive(Default)]
pub struct Rewriting {
    now: Option<Rewrite>,
    /// The highest number that a generation has had: an engine that was left behind may still believe in its directory.
    latest: Generation,
    not_before: Option<Instant>,
}

/// A copy on its way.
struct Rewrite {
    copy: Copy,
    /// Whether the cursor has reached the end.
    copied: bool,
    unsynced: usize,
    syncing: Option<Call<()>>,
    began: Instant,
    marked: bool,
}

/// What is copied so far.
#[derive(Clone)]
pub struct Copy {
    generation: Generation,
    db: Arc<dyn Db>,
    /// Every key before it is copied.
    cursor: Key,
}

impl Copy {
    /// Changes in the copy what a commit has changed, as far as it is copied.
    pub fn follow(&self, writes: &Writes) -> Result<(), StoreError> {
        let copied: Writes = writes.range(..self.cursor.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        if copied.is_empty() { Ok(()) } else { self.db.apply(&copied) }
    }

    /// Copies one slice; how many bytes, and where the next one begins, unless it was the last one.
    fn slice(&self, from: &dyn Db, most: usize) -> Result<(usize, Option<Key>), StoreError> {
        let (mut slice, mut size) = (Writes::new(), 0);
        from.scan(self.cursor.clone()..vec![u8::MAX; 64], &mut |key, value| {
            size += key.len() + value.len();
            if *key != keys::whole()[..] {
                // the copy gets its own
                slice.insert(key.to_vec(), Some(value.to_vec()));
            }
            size < most
        })?;
        if size < most {
            self.db.apply(&slice)?;
            return Ok((size, None));
        }
        let mut next = slice.last_key_value().map_or_else(Key::new, |(last, _)| last.clone());
        next.push(0); // the first key behind it
        self.db.apply(&slice)?;
        Ok((size, Some(next)))
    }
}

impl Rewriting {
    /// What commits have to follow in.
    pub fn copy(&self) -> Option<Copy> {
        self.now.as_ref().map(|rewrite| rewrite.copy.clone())
    }

    /// A number for a new generation.
    pub fn next(&mut self, current: Generation) -> Generation {
        self.latest = self.latest.max(current) + 1;
        self.latest
    }

    /// Ends it as it is. Whoever opens the directory next removes what is there.
    pub fn forget(&mut self) -> Option<Arc<dyn Db>> {
        self.now.take().map(|rewrite| rewrite.copy.db)
    }
}

impl Store {
    /// Goes on with rewriting, or begins if the store takes much more than the `live` bytes in it, and a copy of them fits into `spare`
    /// bytes; sooner if the disk is low. When to come again, if that is soon.
    pub fn tend(&self, live: u64, spare: u64, low: bool) -> Option<Duration> {
        let side = &mut *self.side();
        let rewriting = &mut side.rewriting;
        let step = if rewriting.now.is_some() { self.step(rewriting, live) } else { self.begin(rewriting, live, spare, low) };
        step.unwrap_or_else(|error| {
            self.give_up(rewriting, &error);
            rewriting.not_before = Some(Instant::now() + self.pace.pause);
            None
        })
    }

    /// Bytes that the store takes on the disk.
    pub fn footprint(&self) -> Result<u64, StoreError> {
        let (disk, generation) = (self.disk.clone(), self.generation());
        self.guard.run(move || disk.size(generation))
    }

    pub(super) fn generation(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    fn begin(&self, rewriting: &mut Rewriting, live: u64, spare: u64, low: bool) -> Result<Option<Duration>, StoreError> {
        if rewriting.not_before.is_some_and(|at| Instant::now() < at) || spare < 2 * live + MARGIN {
            return Ok(None);
        }
        let size = self.footprint()?;
        let floor = if low { self.pace.floor / 4 } else { self.pace.floor };
        if size < floor + self.pace.times * live + 2 * self.unexplained()? {
            return Ok(None);
        }
        tracing::info!(size, live, "the store has much waste: rewriting it");
        self.start(rewriting)?;
        Ok(Some(Duration::ZERO))
    }

    /// What the present generation took when it was fresh beyond what was said to be alive then, as its mark says: what
    /// rewriting can't make smaller is not to be rewritten again and again.
    fn unexplained(&self) -> Result<u64, StoreError> {
        let mark = self.get(&keys::whole())?;
        Ok(mark.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    fn start(&self, rewriting: &mut Rewriting) -> Result<(), StoreError> {
        let (disk, generation) = (self.disk.clone(), rewriting.next(self.generation()));
        let db = self.guard.run(move || disk.open(generation))?;
        let copy = Copy { generation, db, cursor: Key::new() };
        rewriting.now = Some(Rewrite { copy, copied: false, unsynced: 0, syncing: None, began: Instant::now(), marked: false });
        Ok(())
    }

    fn step(&self, rewriting: &mut Rewriting, live: u64) -> Result<Option<Duration>, StoreError> {
        let Some(rewrite) = &mut rewriting.now else { return Ok(None) };
        if let Some(syncing) = rewrite.syncing.take() {
            let Some(synced) = syncing.wait(Duration::ZERO) else {
                rewrite.syncing = Some(syncing);
                return Ok(Some(BREATH));
            };
            synced?;
        }
        if rewrite.copied {
            return self.finish(rewriting, live).map(|()| None);
        }
        let began = Instant::now();
        let mut full = false;
        while !full {
            let (from, copy, most) = (self.db()?, rewrite.copy.clone(), self.pace.slice);
            let (size, next) = self.guard.run(move || copy.slice(&*from, most))?;
            rewrite.copied = next.is_none();
            rewrite.copy.cursor = next.unwrap_or_else(|| vec![u8::MAX; 64]);
            rewrite.unsynced += size;
            full = rewrite.copied || rewrite.unsynced >= self.pace.step;
            if began.elapsed() >= self.pace.visit {
                break;
            }
        }
        if full {
            let db = rewrite.copy.db.clone();
            rewrite.unsynced = 0;
            rewrite.syncing = Some(self.guard.beside(move || db.sync())?);
        }
        Ok(Some(Duration::ZERO))
    }

    /// The copy takes over.
    fn finish(&self, rewriting: &mut Rewriting, live: u64) -> Result<(), StoreError> {
        let Some(rewrite) = &mut rewriting.now else { return Ok(()) };
        rewrite.marked = true;
        let (disk, from, to) = (self.disk.clone(), self.db()?, rewrite.copy.clone());
        let explained = self.pace.times * live;
        let size = self.guard.run(move || {
            to.db.sync()?;
            let size = disk.size(to.generation)?;
            let unexplained = size.saturating_sub(explained);
            to.db.apply(&[(keys::whole(), Some(unexplained.to_be_bytes().to_vec()))].into())?;
            to.db.sync()?;
            // Should its removal fail, it is known that it doesn't count any more.
            if let Err(error) = from.apply(&[(keys::left(), Some(Vec::new()))].into()).and_then(|()| from.sync()) {
                tracing::warn!(%error, "the store that was rewritten can't be marked as left");
            }
            Ok(size)
        })?;
        let Some(Rewrite { copy: Copy { generation, db, .. }, began, .. }) = rewriting.now.take() else { return Ok(()) };
        let former = std::mem::replace(&mut *self.current(), Current { generation, db: Some(db) });
        tracing::info!(size, seconds = began.elapsed().as_secs_f64(), "the store is rewritten");
        // Gigabytes take their time to go.
        let disk = self.disk.clone();
        self.guard.beside(move || {
            drop(former.db);
            disk.remove(former.generation)
                .inspect_err(|error| tracing::warn!(%error, "the store that was rewritten can't be removed"))
        })?;
        Ok(())
    }

    /// Ends a rewriting that is on its way, without its result.
    pub(super) fn give_up(&self, rewriting: &mut Rewriting, error: &StoreError) {
        let Some(Rewrite { copy: Copy { generation, db, .. }, marked, .. }) = rewriting.now.take() else { return };
        tracing::warn!(%error, "rewriting the store is given up, and will be tried again");
        let disk = self.disk.clone();
        let removed = self.guard.run(move || {
            drop(db);
            disk.remove(generation)
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "what was copied can't be removed");
            if marked {
                self.let_go(self.current().db.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::super::Disk;
    use super::super::files::Files;
    use super::super::model::Model;
    use super::*;

    fn all(store: &Store) -> Writes {
        let mut rows = Writes::new();
        store
            .scan(Key::new()..vec![u8::MAX], &mut |k, v| {
                rows.insert(k.to_vec(), Some(v.to_vec()));
                true
            })
            .unwrap();
        rows.retain(|key, _| *key != keys::whole() && *key != keys::commits());
        rows
    }

    fn row(n: u32, value: &[u8]) -> (Key, Option<Vec<u8>>) {
        (n.to_be_bytes().to_vec(), Some(value.to_vec()))
    }

    /// A store with rows for many slices, about to be rewritten, one of them at a visit.
    fn wasteful(disk: &Arc<Model>) -> Store {
        let store = Store::paced(disk.clone(), Pace { visit: Duration::ZERO, ..Pace::default() }).unwrap();
        store.commit((0..200).map(|n| row(n, &[7; 4096])).collect(), true).unwrap();
        store.start(&mut store.side().rewriting).unwrap();
        store
    }

    #[test]
    fn inv8_what_is_committed_while_the_store_is_rewritten_is_in_the_new_one() {
        let disk = Arc::new(Model::default());
        let store = wasteful(&disk);
        let mut n = 0;
        while store.tend(0, u64::MAX, false).is_some() {
            // Changed, removed and new, before the cursor and behind it.
            store.commit([row(n, b"changed"), row(199 - n, b"late"), (row(100 + n, b"").0, None)].into(), true).unwrap();
            store.commit([row(1_000 + n, b"new")].into(), true).unwrap();
            n += 1;
        }
        assert!(n > 3, "{n} slices");
        let expected = all(&store);
        assert_eq!(disk.generations().unwrap(), [1]);
        assert_eq!(expected.len(), 200, "as many went as came");
        disk.crash();
        drop(store);
        assert_eq!(all(&Store::on(disk).unwrap()), expected);
    }

    #[test]
    fn inv9_rewriting_comes_to_an_end_although_more_than_a_slice_is_appended_at_each_commit() {
        let pace = Pace { slice: 16 << 10, visit: Duration::from_secs(60), ..Pace::default() };
        let store = Store::paced(Arc::new(Model::default()), pace).unwrap();
        store.commit((0..200).map(|n| row(n, &[7; 4096])).collect(), true).unwrap();
        store.start(&mut store.side().rewriting).unwrap();
        for commit in 0.. {
            assert!(commit < 10, "it runs after what is appended");
            if store.tend(0, u64::MAX, false).is_none() {
                break;
            }
            store.commit((0..10).map(|n| row(1_000 + commit * 10 + n, &[7; 4096])).collect(), true).unwrap();
        }
        assert_eq!(store.generation(), 1);
    }

    /// On the engine itself: many rows that came and went, some that stayed. Rewritten as soon as it is worth a megabyte.
    fn real(dir: &Path) -> Store {
        let pace = Pace { floor: 1 << 20, slice: 8 << 10, visit: Duration::ZERO, step: 32 << 10, ..Pace::default() };
        Store::paced(Arc::new(Files::new(dir)), pace).unwrap()
    }

    /// Bytes of what stays.
    fn fill(store: &Store) -> u64 {
        for n in 0..20 {
            store.commit((0..100).map(|k| row(n * 100 + k, &[7; 2048])).collect(), false).unwrap();
        }
        store.commit((0..1800).map(|k| (row(k, b"").0, None)).collect(), true).unwrap();
        200 * 2048
    }

    fn rewrite(store: &Store, live: u64) {
        while store.tend(live, u64::MAX, false).is_some() {}
    }

    #[test]
    fn inv9_the_disk_comes_down_and_what_is_fresh_is_not_rewritten_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = real(dir.path());
        let live = fill(&store);
        let (before, rows) = (store.footprint().unwrap(), all(&store));
        assert!(before > 5 * live, "{before}");
        rewrite(&store, live);
        assert_eq!(store.generation(), 1);
        let after = store.footprint().unwrap();
        assert!(after < (1 << 20) + 3 * live, "{before} {after}");
        rewrite(&store, live);
        assert_eq!((store.generation(), all(&store)), (1, rows), "{after}");
        // It is small again while it is being rewritten, and comes down after all.
        store.commit((1800..2000).map(|k| (row(k, b"").0, None)).collect(), true).unwrap();
        store.commit((0..1000).map(|k| row(k, &[7; 1024])).collect(), true).unwrap();
        rewrite(&store, 1_100_000);
        assert_eq!(store.generation(), 1, "that much is no waste");
        store.commit((0..1000).map(|k| (row(k, b"").0, None)).collect(), true).unwrap();
        rewrite(&store, 0);
        assert_eq!(store.generation(), 2);
        assert!(store.footprint().unwrap() < 1 << 20);
    }

    #[test]
    fn inv9_what_rewriting_cannot_make_smaller_is_not_rewritten_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = real(dir.path());
        store.commit((0..1000).map(|k| row(k, &[7; 2048])).collect(), true).unwrap();
        for _ in 0..3 {
            // As if nothing of it were alive.
            rewrite(&store, 0);
            rewrite(&store, 0);
            drop(store);
            store = real(dir.path());
        }
        rewrite(&store, 0);
        assert_eq!(store.generation(), 1);
        assert_eq!(Files::new(dir.path()).generations().unwrap(), [1]);
    }

    #[test]
    fn inv8_a_process_that_dies_while_it_rewrites_leaves_a_whole_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = real(dir.path());
        let live = fill(&store);
        let mut slices = 0;
        for n in 0.. {
            for _ in 0..slices {
                if store.tend(live, u64::MAX, false).is_none() {
                    break;
                }
            }
            store.commit([row(10_000 + n, b"late"), (row(1800 + n, b"").0, None)].into(), true).unwrap();
            let expected = all(&store);
            // What the directory would be like, had the process been killed.
            let killed = tempfile::tempdir().unwrap();
            let copied = Command::new("cp").arg("-r").arg(dir.path()).arg(killed.path()).status().unwrap();
            assert!(copied.success());
            let copy = killed.path().join(dir.path().file_name().unwrap());
            assert_eq!(all(&real(&copy)), expected, "after {slices} slices");
            drop(store);
            store = real(dir.path());
            assert_eq!(all(&store), expected, "after {slices} slices");
            if store.generation() > 0 {
                break;
            }
            slices += 7;
        }
        assert!(slices > 28, "{slices}: dead in the middle of it as well");
    }

    #[test]
    fn a_copy_that_does_not_fit_is_not_begun_and_a_low_disk_is_tidied_up_sooner() {
        let dir = tempfile::tempdir().unwrap();
        let store = real(dir.path());
        let live = fill(&store);
        assert_eq!(store.tend(live, 2 * live + MARGIN - 1, false), None);
        let half = (store.footprint().unwrap() - (1 << 19)) / Pace::default().times; // alive, were half a floor wasted
        assert_eq!(store.tend(half, u64::MAX, false), None);
        assert!(store.tend(half, u64::MAX, true).is_some());
    }
}
