//! A disk that runs full, one that stops answering, and an engine that does.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::super::store::guard::Guard;
use super::super::store::rewrite::Pace;
use super::super::store::{Db, Disk, Generation, Remains, Room, Visit, Writes};
use super::*;

const LONG: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// The model with what stops a real one: a call that hangs, a lock on what is open, an end to its room.
#[derive(Default)]
struct Hard {
    model: Model,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The call that hangs, of this generation and of those before it.
    hang: Option<(Hang, Generation)>,
    /// How many hang now.
    hanging: usize,
    /// Who has which generation open.
    open: HashMap<Generation, std::sync::Weak<Open>>,
    free: u64,
    ballast: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { hang: None, hanging: 0, open: HashMap::new(), free: 1 << 40, ballast: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hang {
    Apply,
    /// It is applied, and does not return all the same.
    AfterApply,
    Sync,
    Get,
    /// Everything of every generation, the probe too.
    All,
}

struct Open {
    disk: Arc<Hard>,
    generation: Generation,
    db: Arc<dyn Db>,
    /// After an error nothing works any more.
    dead: Mutex<bool>,
}

impl Hard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn hang(&self, hang: Option<(Hang, Generation)>) {
        self.state().hang = hang;
        self.changed.notify_all();
    }

    /// Hangs here as long as it is told to.
    fn pass(&self, here: Hang, generation: Generation) {
        let hangs = |state: &State| state.hang.is_some_and(|(hang, of)| hang == Hang::All || hang == here && generation <= of);
        let mut state = self.state();
        if hangs(&state) {
            state.hanging += 1;
            self.changed.notify_all();
            state = self.changed.wait_while(state, |state| hangs(state)).unwrap();
            state.hanging -= 1;
            self.changed.notify_all();
        }
    }

    fn wait_for_hanging(&self, many: usize) {
        drop(self.changed.wait_while(self.state(), |state| state.hanging != many).unwrap());
    }

    fn take(&self, bytes: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.free < bytes {
            return Err(StoreError::io("the model")(std::io::ErrorKind::StorageFull.into()));
        }
        state.free -= bytes;
        Ok(())
    }
}

/// The disk, shared.
struct Shelf(Arc<Hard>);

impl Disk for Shelf {
    fn open(&self, generation: Generation) -> Result<Arc<dyn Db>, StoreError> {
        if self.0.state().open.get(&generation).is_some_and(|open| open.strong_count() > 0) {
            return Err(StoreError::Locked);
        }
        self.0.take(1)?; // an engine writes when it is opened
        let open =
            Arc::new(Open { disk: self.0.clone(), generation, db: self.0.model.open(generation)?, dead: Mutex::default() });
        self.0.state().open.insert(generation, Arc::downgrade(&open));
        Ok(open)
    }

    fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        self.0.model.generations()
    }

    fn remove(&self, generation: Generation) -> Result<(), StoreError> {
        self.0.model.remove(generation)
    }

    fn size(&self, generation: Generation) -> Result<u64, StoreError> {
        self.0.model.size(generation)
    }

    fn copy(&self, from: Generation, to: Generation) -> Result<(), StoreError> {
        self.0.model.copy(from, to)
    }

    fn abandon(&self, generation: Generation) -> Result<(), StoreError> {
        self.0.model.abandon(generation)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.0.pass(Hang::All, 0);
        Ok(())
    }

    fn room(&self) -> Result<Room, StoreError> {
        let free = self.0.state().free;
        Ok(Room { free, total: 1 << 40, used: 7 })
    }

    fn ballast(&self, size: u64) -> Result<bool, StoreError> {
        let mut state = self.0.state();
        state.free = state.free + state.ballast - size;
        Ok(std::mem::replace(&mut state.ballast, size) != size)
    }

    fn condemn(&self, generation: Generation) -> Result<(), StoreError> {
        self.0.model.condemn(generation)
    }

    fn condemned(&self) -> Result<Vec<Generation>, StoreError> {
        self.0.model.condemned()
    }

    fn examine(&self, generation: Generation) -> Result<Option<String>, StoreError> {
        self.0.model.examine(generation)
    }

    fn remains(&self, generation: Generation) -> Result<Remains, StoreError> {
        self.0.model.remains(generation)
    }

    fn quarantine(&self, generation: Generation) -> Result<String, StoreError> {
        self.0.model.quarantine(generation)
    }

    fn discard(&self, generation: Generation) -> Result<(), StoreError> {
        self.0.model.discard(generation)
    }

    fn witness(&self) -> Option<Witness> {
        self.0.model.witness()
    }

    fn remember(&self, witness: &Witness) -> Result<(), StoreError> {
        self.0.model.remember(witness)
    }
}

impl Open {
    fn working<T>(&self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let dead = *self.dead.lock().unwrap();
        let done = if dead { Err(StoreError::io("the engine")(std::io::ErrorKind::StorageFull.into())) } else { call() };
        *self.dead.lock().unwrap() = done.is_err();
        done
    }
}

impl Db for Open {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.pass(Hang::Get, self.generation);
        self.db.get(key)
    }

    fn scan(&self, range: Range<Vec<u8>>, visit: Visit<'_>) -> Result<(), StoreError> {
        self.db.scan(range, visit)
    }

    fn apply(&self, writes: &Writes) -> Result<(), StoreError> {
        self.disk.pass(Hang::Apply, self.generation);
        self.working(|| {
            self.disk.take(writes.iter().map(|(k, v)| (k.len() + v.as_ref().map_or(0, Vec::len)) as u64).sum())?;
            self.db.apply(writes)
        })?;
        self.disk.pass(Hang::AfterApply, self.generation);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.pass(Hang::Sync, self.generation);
        self.working(|| self.db.sync())
    }
}

struct Trial {
    disk: Arc<Hard>,
    bench: Bench,
}

impl Trial {
    fn new(config: config::Queue) -> Self {
        let disk = Arc::new(Hard::default());
        let pace = Pace { floor: 0, times: 3, slice: 4096, visit: Duration::ZERO, step: 8192, pause: Duration::ZERO };
        let store = Store::guarded(Arc::new(Shelf(disk.clone())), Guard::new(), pace).unwrap();
        store.set_limit(LONG);
        let queue = Queue::inline_on(store, &config, &["a", "b"], Clock::Fixed(START)).unwrap();
        Self { disk, bench: Bench { disk: Arc::default(), queue, config } }
    }

    /// An append whose commit hangs in that generation: it is answered all the same.
    fn append_hangs(&self, n: u64, hang: Hang, generation: Generation) {
        let hanging = self.disk.state().hanging;
        self.disk.hang(Some((hang, generation)));
        self.bench.store().set_limit(Duration::ZERO);
        assert_eq!(self.bench.append("s", n, &["a"]), Err(AppendError::Failed));
        self.disk.wait_for_hanging(hanging + 1);
        self.bench.store().set_limit(LONG);
        assert_eq!(self.state(), "degraded");
        let refused = self.bench.queue.append(&[New::of(&episode("s", 99), &[])]);
        assert!(refused.is_err(), "at once, without a commit");
    }

    /// One look of the writer.
    fn tick(&self) {
        let WriterSide::Inline(writer) = &mut *self.bench.queue.writer() else { unreachable!() };
        writer.space.look_anew();
        writer.tidy();
    }

    /// An engine that was just let go may still hold its lock.
    fn tick_until(&self, state: &str) {
        let began = Instant::now();
        while self.state() != state {
            assert!(began.elapsed() < LONG, "it stays {}", self.state());
            self.tick();
        }
    }

    fn state(&self) -> &'static str {
        self.bench.queue.stats().state
    }

    fn ids(&self) -> Vec<u128> {
        let page = self.bench.queue.list(&Filter { limit: 100, ..Filter::default() }).unwrap();
        page.episodes.iter().map(|view| view.episode.id.as_u128()).collect()
    }

    fn assert_in_order(&self) {
        assert_eq!(self.bench.queue.check(), Vec::<String>::new());
    }
}

#[test]
fn inv3_inv8_a_disk_that_hangs_is_waited_for_and_what_was_refused_is_there_whole_or_not_at_all() {
    for hang in [Hang::Apply, Hang::AfterApply, Hang::Sync] {
        let trial = Trial::new(config());
        trial.bench.append("s", 1, &["a"]).unwrap();
        trial.append_hangs(2, hang, 0);
        trial.disk.hang(Some((Hang::All, 0)));
        trial.bench.store().set_limit(Duration::ZERO);
        trial.tick();
        trial.disk.wait_for_hanging(2); // the probe as well
        trial.tick();
        trial.tick();
        assert_eq!((trial.state(), trial.disk.state().hanging), ("degraded", 2), "{hang:?}");
        trial.disk.hang(None);
        trial.disk.wait_for_hanging(0);
        trial.bench.store().set_limit(LONG);
        trial.tick_until("ok");
        assert_eq!(trial.disk.model.generations().unwrap(), [0], "it was the disk, not the engine");
        trial.bench.append("s", 3, &["a"]).unwrap();
        let ids = trial.ids();
        assert!(ids == [1, 2, 3] || ids == [1, 3], "{hang:?}: {ids:?}");
        trial.assert_in_order();
    }
}

#[test]
fn inv8_an_engine_that_does_not_return_is_left_behind_and_nothing_acknowledged_with_it() {
    for hang in [Hang::Apply, Hang::AfterApply, Hang::Sync] {
        let trial = Trial::new(config());
        trial.bench.append("s", 1, &["a"]).unwrap();
        let claim = trial.bench.claim("a", 1)[0];
        trial.append_hangs(2, hang, 0);
        trial.tick();
        assert_eq!(trial.state(), "degraded", "it may only be slow");
        trial.tick_until("ok");
        assert_eq!((trial.state(), trial.disk.model.generations().unwrap()), ("ok", vec![1]), "{hang:?}");
        trial.bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        trial.bench.append("s", 3, &["a"]).unwrap();
        assert_eq!(trial.ids(), [1, 3], "{hang:?}");
        // Late, and too late.
        trial.disk.hang(None);
        trial.disk.wait_for_hanging(0);
        trial.bench.append("s", 4, &["a"]).unwrap();
        assert_eq!(trial.ids(), [1, 3, 4], "{hang:?}");
        assert_eq!(trial.bench.sink("a").delivered, 1);
        trial.assert_in_order();
    }
}

#[test]
fn inv9_no_more_than_four_engines_are_left_behind() {
    let trial = Trial::new(config());
    for generation in 0..5 {
        trial.bench.append("s", 1 + generation, &["a"]).unwrap();
        trial.append_hangs(100 + generation, Hang::Sync, generation);
        let last = generation == 4;
        for _ in 0..10 {
            trial.tick();
        }
        assert_eq!(trial.state(), if last { "degraded" } else { "ok" });
        assert_eq!(trial.disk.model.generations().unwrap(), [if last { generation } else { generation + 1 }]);
    }
    trial.disk.hang(None);
    trial.disk.wait_for_hanging(0);
    trial.tick_until("ok");
    trial.bench.append("s", 6, &["a"]).unwrap();
    assert!((1..=6).all(|id| trial.ids().contains(&id)), "{:?}", trial.ids());
    trial.assert_in_order();
}

#[test]
fn inv3_inv8_a_full_disk_is_drained_and_capture_goes_on_when_there_is_room() {
    let trial = Trial::new(config::Queue { min_free_disk: 64 * MIB, ..config() });
    assert_eq!(trial.disk.state().ballast, 16 * MIB);
    trial.bench.append("s", 1, &["a"]).unwrap();
    let enough = std::mem::replace(&mut trial.disk.state().free, 10);
    assert_eq!(trial.bench.append("s", 2, &["a"]), Err(AppendError::Failed));
    assert_eq!((trial.state(), trial.disk.state().ballast), ("degraded", 0));
    trial.tick_until("full");
    assert_eq!(trial.bench.append("s", 2, &["a"]), Err(AppendError::Full));
    trial.bench.queue.finish(trial.bench.claim("a", 1)[0], Finish::Delivered { confirmed_in: None }, None);
    assert_eq!((trial.bench.sink("a").delivered, trial.state()), (1, "full"));
    trial.disk.state().free = 64 * MIB;
    trial.tick();
    assert_eq!((trial.state(), trial.disk.state().ballast), ("ok", 0), "room for the ballast is not yet there");
    trial.disk.state().free = enough;
    trial.tick();
    assert_eq!(trial.disk.state().ballast, 16 * MIB);
    trial.bench.append("s", 2, &["a"]).unwrap();
    assert_eq!(trial.ids(), [1, 2]);
    trial.assert_in_order();
}

#[test]
fn inv3_a_queue_on_a_disk_that_does_not_answer_is_closed_in_time() {
    for hang in [Hang::Get, Hang::Apply, Hang::Sync] {
        let disk = Arc::new(Hard::default());
        let store = Arc::new(Store::guarded(Arc::new(Shelf(disk.clone())), Guard::new(), Pace::default()).unwrap());
        let writer = prepare(&config(), store.clone(), &["a".into()], Clock::Fixed(START), &Metrics::new()).unwrap();
        store.set_limit(Duration::from_millis(200));
        let queue = Queue::start(writer, Duration::ZERO, None).unwrap();
        disk.hang(Some((hang, 0)));
        let lanes = [(queue.sink_id("a").unwrap(), Lane::of("s"))];
        let answer = queue.append(&[New { place: Some(queue.reserve()), ..New::of(&episode("s", 1), &lanes) }]).unwrap();
        disk.wait_for_hanging(1);
        queue.close();
        drop(answer);
        disk.hang(None);
    }
}

#[test]
fn inv3_inv8_rewriting_that_finds_no_room_harms_nothing_and_one_that_hangs_is_healed() {
    let trial = Trial::new(config());
    for n in 1..=3 {
        trial.bench.append("s", n, &["a"]).unwrap();
    }
    let store = trial.bench.store();
    let begin = || {
        assert!(store.tend(0, u64::MAX, false).is_some());
        assert!(store.tend(0, u64::MAX, false).is_some());
    };
    begin();
    let enough = std::mem::replace(&mut trial.disk.state().free, 10);
    while store.tend(0, u64::MAX, false).is_some() {}
    assert_eq!(trial.disk.model.generations().unwrap(), [0]);
    trial.disk.state().free = enough;
    trial.bench.append("s", 4, &["a"]).unwrap();

    begin();
    let copy = trial.disk.model.generations().unwrap()[1];
    assert_eq!(copy, 2, "a number is used once");
    trial.append_hangs(5, Hang::Apply, copy);
    trial.tick_until("ok");
    assert_eq!(trial.disk.model.generations().unwrap(), [3]);
    trial.disk.hang(None);
    trial.disk.wait_for_hanging(0);
    trial.bench.append("s", 6, &["a"]).unwrap();
    assert_eq!(trial.ids(), [1, 2, 3, 4, 6]);
    trial.assert_in_order();
}
