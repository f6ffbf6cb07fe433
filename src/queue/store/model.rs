//! A disk in memory for tests that behaves badly when told to, and always in the same way.
//!
//! What can go wrong with it is what can go wrong with sled on a disk:
//! - The power is lost. A batch is there or not, never half of it; of those that weren't synced the first few may have been written.
//! - The process dies: whoever opens the disk next finds all that was applied.
//! - A call fails ([`Fault`]), at any point of any operation, with its effect or without; once, or until it is mended. After that, too, an
//!   opening finds all that was synced, and of the rest the first few batches.
//! - A call doesn't return in time: that handle is of no use any more.
//! - The disk is full. A generation is a log: it takes what was ever written to it, and gives it back when it is removed.
//! - A generation whose removal failed may be gone and come back when the power is lost.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Db, Disk, Generation, Key, Remains, Room, StoreError, Visit, Witness, Writes};

type Map = BTreeMap<Key, Vec<u8>>;

/// The model; clones are the same disk.
#[derive(Clone, Default)]
pub struct Model {
    state: Arc<Mutex<State>>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each can be without the others")]
pub struct Fault {
    /// So many calls go well before.
    pub after: u8,
    /// Calls that read fail too.
    pub reads: bool,
    /// The first call that fails has its effect all the same.
    pub effect: bool,
    /// The handle that was called is of no use from then on.
    pub wedge: bool,
    /// All calls fail from then on, until it is mended.
    pub lasting: bool,
    /// How much of what was not synced the next opening finds: of 255 parts.
    pub keep: u8,
}

#[derive(Default)]
struct State {
    generations: BTreeMap<Generation, Log>,
    /// Their removal has failed, and whether it was made durable is not known.
    undead: BTreeMap<Generation, Log>,
    fault: Option<Fault>,
    /// Bytes that are free, if there is a limit.
    room: Option<usize>,
    condemned: BTreeMap<Generation, Log>,
    quarantined: Vec<Generation>,
    witness: Option<Witness>,
}

/// What a generation holds.
#[derive(Clone, Default)]
struct Log {
    synced: Map,
    unsynced: Vec<Writes>,
    /// Both together.
    applied: Map,
    /// Bytes ever written.
    size: usize,
    /// A write has failed: of what wasn't synced, how much the next opening finds.
    kept: Option<u8>,
    /// What the engine stumbles over.
    damaged: Option<Key>,
}

/// A generation that is open.
struct Open {
    state: Arc<Mutex<State>>,
    generation: Generation,
    wedged: AtomicBool,
}

impl Model {
    /// The power is lost; of what was not synced nothing remains.
    pub fn crash(&self) {
        self.power(0);
    }

    /// The power is lost; of what was not synced, `keep` of 255 parts had been written.
    pub fn power(&self, keep: u8) {
        let mut state = lock(&self.state);
        let undead = std::mem::take(&mut state.undead);
        state.generations.extend(undead);
        for log in state.generations.values_mut() {
            log.keep(keep);
        }
    }

    /// From now on every write fails (or works again).
    pub fn fail(&self, failing: bool) {
        let fault = Fault { after: 0, reads: false, effect: false, wedge: false, lasting: true, keep: 0 };
        lock(&self.state).fault = failing.then_some(fault);
    }

    /// Something will go wrong.
    pub fn will(&self, fault: Fault) {
        lock(&self.state).fault = Some(fault);
    }

    /// The disk has room for so many bytes more.
    pub fn fill(&self, room: usize) {
        lock(&self.state).room = Some(room);
    }

    /// From now on nothing goes wrong.
    pub fn mend(&self) {
        let mut state = lock(&self.state);
        (state.fault, state.room) = (None, None);
    }

    /// Whether something can go wrong.
    pub fn is_bad(&self) -> bool {
        let state = lock(&self.state);
        state.fault.is_some() || state.room.is_some()
    }

    /// From now on the row with this key can't be read, in no generation that there is now.
    pub fn damage(&self, key: &[u8]) {
        for log in lock(&self.state).generations.values_mut() {
            log.damaged = Some(key.to_vec());
        }
    }

    /// What was set aside.
    pub fn quarantined(&self) -> Vec<Generation> {
        lock(&self.state).quarantined.clone()
    }

    /// Lets a test look at what there is without anything going wrong meanwhile.
    pub fn aside<T>(&self, look: impl FnOnce() -> T) -> T {
        let bad = |fault, room| {
            let mut state = lock(&self.state);
            (std::mem::replace(&mut state.fault, fault), std::mem::replace(&mut state.room, room))
        };
        let (fault, room) = bad(None, None);
        let seen = look();
        bad(fault, room);
        seen
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Makes a call, or whatever becomes of it.
    fn call<T>(
        &mut self,
        read: bool,
        act: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> (Result<T, StoreError>, Option<Fault>) {
        match &mut self.fault {
            Some(fault) if fault.reads || !read => {
                if fault.after > 0 {
                    fault.after -= 1;
                    return (act(self), None);
                }
                let now = *fault;
                fault.effect = false;
                if !now.lasting {
                    self.fault = None;
                }
                if now.effect {
                    let _ = act(self);
                }
                (Err(failed(ErrorKind::Other)), Some(now))
            }
            _ => (act(self), None),
        }
    }
}

fn failed(kind: ErrorKind) -> StoreError {
    StoreError::io("the model")(Error::from(kind))
}

impl Log {
    fn write(&mut self, writes: &Writes) {
        put(&mut self.applied, writes);
        self.unsynced.push(writes.clone());
        self.size += size(writes);
    }

    fn sync(&mut self) {
        for writes in self.unsynced.drain(..) {
            put(&mut self.synced, &writes);
        }
    }

    /// Forgets the last batches that were not synced.
    fn keep(&mut self, parts: u8) {
        self.unsynced.truncate((self.unsynced.len() * usize::from(parts) + 127) / 255);
        self.sync();
        self.applied = self.synced.clone();
        self.kept = None;
    }
}

fn put(map: &mut Map, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn size(writes: &Writes) -> usize {
    writes.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum()
}

impl Log {
    fn check(&self, key: &[u8]) -> Result<(), StoreError> {
        if self.damaged.as_deref() == Some(key) { Err(StoreError::Damaged("a page can't be read".into())) } else { Ok(()) }
    }
}

impl Disk for Model {
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
        let open = |state: &mut State| {
            let log = state.generations.entry(generation).or_default();
            if let Some(kept) = log.kept {
                log.keep(kept);
            }
            Ok(())
        };
        lock(&self.state).call(false, open).0?;
        Ok(Arc::new(Open { state: self.state.clone(), generation, wedged: AtomicBool::new(false) }))
    }

    fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        let list = |state: &mut State| {
            state.undead.clear();
            Ok(state.generations.keys().copied().collect())
        };
        lock(&self.state).call(true, list).0
    }

    fn remove(&self, generation: Generation) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        let mut gone = None;
        let (done, _) = state.call(false, |state| {
            gone = state.generations.remove(&generation);
            if let (Some(log), Some(room)) = (&gone, &mut state.room) {
                *room += log.size;
            }
            Ok(())
        });
        if done.is_err() {
            state.undead.extend(gone.map(|log| (generation, log)));
        }
        done
    }

    fn size(&self, generation: Generation) -> Result<u64, StoreError> {
        let size = |state: &mut State| Ok(state.generations.get(&generation).map_or(0, |log| log.size as u64));
        lock(&self.state).call(true, size).0
    }

    fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError> {
        let copy = |state: &mut State| {
            let mut copy = state.generations.get(&from).cloned().ok_or(StoreError::Closed)?;
            copy.keep(0);
            state.generations.insert(to, copy);
            Ok(())
        };
        lock(&self.state).call(false, copy).0
    }

    fn abandon(&self, generation: Generation) -> Result<(), StoreError> {
        self.remove(generation)
    }

    fn probe(&self) -> Result<(), StoreError> {
        lock(&self.state).call(false, |_| Ok(())).0
    }

    fn room(&self) -> Result<Room, StoreError> {
        Ok(Room { free: 1 << 40, total: 1 << 40, used: 0 })
    }

    fn ballast(&self, _size: u64) -> Result<bool, StoreError> {
        lock(&self.state).call(false, |_| Ok(false)).0
    }

    fn condemn(&self, generation: Generation) -> Result<(), StoreError> {
        let condemn = |state: &mut State| {
            let log = state.generations.remove(&generation);
            state.condemned.extend(log.map(|log| (generation, log)));
            Ok(())
        };
        lock(&self.state).call(false, condemn).0
    }

    fn condemned(&self) -> Result<Vec<Generation>, StoreError> {
        Ok(lock(&self.state).condemned.keys().copied().collect())
    }

    fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError> {
        let damaged = lock(&self.state).generations.get(&generation).is_some_and(|log| log.damaged.is_some());
        Ok(damaged.then(|| "a page can't be read".to_owned()))
    }

    fn remains(&self, generation: Generation) -> Result<Remains, StoreError> {
        let state = lock(&self.state);
        let Some(mut log) = state.condemned.get(&generation).or_else(|| state.generations.get(&generation)).cloned() else {
            return Ok(Remains::default());
        };
        let lost = log.damaged.take().and_then(|key| log.applied.remove(&key)).map_or(0, |_| 1);
        let copy = State { generations: [(generation, log)].into(), ..State::default() };
        let db = Open { state: Arc::new(Mutex::new(copy)), generation, wedged: AtomicBool::new(false) };
        Ok(Remains { db: Some(Arc::new(db)), lost, exact: false })
    }

    fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
        let quarantine = |state: &mut State| {
            state.condemned.remove(&generation);
            state.quarantined.push(generation);
            Ok("the model's quarantine".to_owned())
        };
        lock(&self.state).call(false, quarantine).0
    }

    fn discard(&self, generation: Generation) -> Result<(), StoreError> {
        let discard = |state: &mut State| {
            state.condemned.remove(&generation);
            Ok(())
        };
        lock(&self.state).call(false, discard).0
    }

    fn witness(&self) -> Option<Witness> {
        lock(&self.state).witness.clone()
    }

    fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
        let remember = |state: &mut State| {
            state.witness = Some(witness.clone());
            Ok(())
        };
        lock(&self.state).call(false, remember).0
    }
}

impl Open {
    fn call<T>(
        &self,
        read: bool,
        act: impl FnOnce(&mut Log, &mut Option<usize>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.wedged.load(Ordering::Relaxed) {
            return Err(failed(ErrorKind::TimedOut));
        }
        let mut state = lock(&self.state);
        let (done, fault) = state.call(read, |state| {
            let log = state.generations.get_mut(&self.generation).ok_or(StoreError::Closed)?;
            act(log, &mut state.room)
        });
        if let Some(fault) = fault {
            self.wedged.store(fault.wedge, Ordering::Relaxed);
            if let Some(log) = state.generations.get_mut(&self.generation).filter(|_| fault.wedge || !read) {
                log.kept = Some(fault.keep);
            }
        }
        done
    }
}

impl Db for Open {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(true, |log, _| log.check(key).map(|()| log.applied.get(key).cloned()))
    }

    fn scan(&self, range: Range<Key>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.call(true, |log, _| {
            if range.start < range.end {
                for (k, v) in log.applied.range(range) {
                    log.check(k)?;
                    if !visit(k, v) {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn apply(&self, writes: &Writes) -> Result<(), StoreError> {
        self.call(false, |log, room| {
            if let Some(room) = room {
                *room = room.checked_sub(size(writes)).ok_or_else(|| failed(ErrorKind::StorageFull))?;
            }
            log.write(writes);
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.call(false, |log, _| {
            log.sync();
            Ok(())
        })
    }
}
