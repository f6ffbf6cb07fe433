//! What the writer shares with everyone: the operations that wait for it, and how things stand.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::append::{Append, Places};
use super::engine::{Engine, Limits};
use super::holds::Holds;
use super::import::Importing;
use super::notes::Writing;
use super::replay::{self, Replay};
use super::seal::Seals;
use super::sinks::Sinks;
use super::store::Store;
use super::{
    AppendError, Appended, Attempt, Claim, ClaimRequest, Claims, Deleted, Finish, Imported, Seq, SinkId, SinkSettings, Stats,
};
use crate::clock::Clock;

/// Bytes of episodes and notes that may wait for the writer.
const BUFFER: usize = 64 << 20;

/// Operations in one batch, at most.
const BATCH: usize = 1024;

/// A commit that takes longer marks the queue as degraded, and new episodes are refused at once instead of piling up behind it.
const STUCK_MS: u64 = 5_000;

/// Where the answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// Where the answer goes, and where it comes from.
pub fn reply<T>() -> (Reply<T>, Answer<T>) {
    let (reply, answer) = oneshot::channel();
    (reply, Answer(answer))
}

/// What the writer will answer once the batch is committed. Dropping it takes nothing back.
pub struct Answer<T>(oneshot::Receiver<Result<T, AppendError>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(AppendError::Failed)))
    }
}

/// What the writer is asked to do.
pub enum Op {
    Append(Vec<Append>, Reply<Appended>, Instant),
    Import(Vec<Importing>, Reply<Imported>),
    Note(Writing, Reply<()>),
    /// In its turn, so that no claim from before sees the release and not yet what was appended ahead of it.
    Release(Seq),
    Claim(SinkId, ClaimRequest, Reply<Claims>),
    Begin(Claim, Reply<Option<u32>>),
    Accepted(Claim),
    Finish(Claim, Finish, Option<Attempt>),
    Redrive(Vec<(SinkId, Seq)>, Reply<u64>),
    Purge(Vec<(SinkId, Seq)>, Reply<u64>),
    Delete(Uuid, Reply<Deleted>),
    Pause(SinkId, Option<String>, Reply<()>),
    Replay(SinkId, replay::Ask, Reply<Option<Replay>>),
    Clear(SinkId, Reply<u64>),
    Configure(SinkId, SinkSettings, Reply<u64>),
    /// A sink that may be new.
    Name(String, Reply<SinkId>),
    /// From now on.
    Limit(Limits),
}

impl Op {
    /// Bytes that it brings along.
    pub fn len(&self) -> usize {
        match self {
            Self::Append(new, ..) => new.iter().map(Append::len).sum(),
            Self::Import(new, _) => new.iter().map(Importing::len).sum(),
            Self::Note(note, _) => note.text.len(),
            _ => 0,
        }
    }
}

/// What the writer shares with everyone.
pub struct Shared {
    pub store: Arc<Store>,
    pub seals: Arc<Seals>,
    pub clock: Clock,
    pub places: Arc<Places>,
    pub holds: Holds,
    buffer: Mutex<Buffer>,
    wake: Condvar,
    pub(super) full: AtomicBool,
    pub(super) failing: AtomicBool,
    /// When the commit under way began (ms), 0 when there is none.
    pub(super) committing: AtomicU64,
    pub(super) stats: RwLock<Arc<Stats>>,
    /// What is claimed, and how many lines of history it had then.
    pub(super) in_flight: RwLock<HashMap<(SinkId, Seq), u32>>,
    pub sinks: Sinks,
}

#[derive(Default)]
struct Buffer {
    ops: Vec<Op>,
    bytes: usize,
    /// How many of them bring any, and so have a request that waits.
    brought: usize,
    /// The writer sleeps until there are operations, and so many that bring something; none: it is awake.
    sleeps: Option<usize>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves plain data behind, never a half-made change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(engine: &Engine, clock: Clock) -> Self {
        let sinks = Sinks::default();
        engine.sinks.iter().for_each(|(id, sink)| sinks.add(*id, &sink.name));
        Self {
            store: engine.store.clone(),
            seals: engine.seals.clone(),
            clock,
            places: engine.places.clone(),
            holds: Holds::default(),
            buffer: Mutex::default(),
            wake: Condvar::new(),
            full: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            committing: AtomicU64::new(0),
            stats: RwLock::default(),
            in_flight: RwLock::default(),
            sinks,
        }
    }

    /// Whether an append would be refused now.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether the store doesn't take writes: the last commit failed, or one hangs.
    pub fn is_degraded(&self) -> bool {
        let since = self.committing.load(Ordering::Relaxed);
        self.failing.load(Ordering::Relaxed) || (since != 0 && self.clock.now_ms().saturating_sub(since) > STUCK_MS)
    }

    pub fn stats(&self) -> Arc<Stats> {
        self.stats.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an episode with so many lines of history is claimed. A claim's end can be read before this hears of it; and of what it began
    /// with an error of the disk may have taken lines away.
    pub fn is_in_flight(&self, sink: SinkId, seq: Seq, lines: u32) -> bool {
        self.in_flight.read().unwrap_or_else(PoisonError::into_inner).get(&(sink, seq)).is_some_and(|then| lines <= *then)
    }

    /// Hands an operation to the writer.
    pub fn submit(&self, op: Op) -> Result<(), AppendError> {
        let bytes = op.len();
        let wake = {
            let mut buffer = lock(&self.buffer);
            if buffer.closed || (bytes > 0 && (buffer.bytes + bytes > BUFFER || self.is_degraded())) {
                return Err(AppendError::Failed);
            }
            buffer.ops.push(op);
            buffer.bytes += bytes;
            buffer.brought += usize::from(bytes > 0);
            let brought = buffer.brought;
            buffer.sleeps.take_if(|wanted| brought >= *wanted).is_some()
        };
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Ends the hold of a place once everything submitted before is done. Wakes the writer only if somebody waits for that.
    pub fn release(&self, place: Seq) {
        if !self.holds.has(place) {
            return;
        }
        lock(&self.buffer).ops.push(Op::Release(place));
        // Asked afterwards: a claim that meets the hold from now on has the release behind it in the line.
        if self.holds.is_felt(place) && lock(&self.buffer).sleeps.take().is_some() {
            self.wake.notify_one();
        }
    }

    /// Takes nothing more; the writer commits what it has and ends.
    pub fn close(&self) {
        lock(&self.buffer).closed = true;
        self.wake.notify_all();
    }

    /// The next batch; none when closed and empty. Empty after `timeout`. If there are operations within the time that `gather` says, it
    /// waits for the rest of that time, until so many bring something.
    pub(super) fn take(&self, timeout: Duration, gather: (usize, Duration)) -> Option<Vec<Op>> {
        let (began, (wanted, patience)) = (Instant::now(), gather);
        let mut buffer = lock(&self.buffer);
        if buffer.ops.is_empty() {
            buffer = self.sleep(buffer, 0, timeout);
        }
        if !buffer.ops.is_empty() && buffer.brought < wanted {
            buffer = self.sleep(buffer, wanted, patience.saturating_sub(began.elapsed()));
        }
        if buffer.ops.is_empty() && buffer.closed {
            return None;
        }
        let mut ops = std::mem::take(&mut buffer.ops);
        if ops.len() > BATCH {
            buffer.ops = ops.split_off(BATCH);
        }
        buffer.bytes = buffer.ops.iter().map(Op::len).sum();
        buffer.brought = buffer.ops.iter().filter(|op| op.len() > 0).count();
        Some(ops)
    }

    /// Sleeps until there are operations and so many of them bring something, until the queue is closed, or until time is up.
    fn sleep<'a>(&self, mut buffer: MutexGuard<'a, Buffer>, wanted: usize, timeout: Duration) -> MutexGuard<'a, Buffer> {
        buffer.sleeps = Some(wanted);
        let slept = self.wake.wait_timeout_while(buffer, timeout, |b| b.sleeps.is_some() && !b.closed);
        buffer = slept.unwrap_or_else(PoisonError::into_inner).0;
        buffer.sleeps = None;
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::model::Model;
    use super::super::{Key, Note, recover};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shared() -> Arc<Shared> {
        let limits = Limits::none();
        let store = Arc::new(Store::on(Arc::new(Model::default())).unwrap());
        let engine = recover::load(store, Arc::new(Seals::new(&[])), limits).unwrap();
        Arc::new(Shared::new(&engine, Clock::steady_from(0)))
    }

    fn note(shared: &Shared) {
        let note = Note { key: Key::of("test", []), value: vec![1], until: 1 };
        shared.submit(Op::Note(Writing::new(note, &shared.seals).unwrap(), reply().0)).unwrap();
    }

    #[test]
    fn a_batch_waits_for_as_many_as_are_wanted() {
        let (shared, began) = (shared(), Instant::now());
        let taken = std::thread::spawn({
            let shared = shared.clone();
            move || shared.take(LONG, (3, LONG)).unwrap().len()
        });
        for _ in 0..3 {
            note(&shared);
        }
        assert_eq!(taken.join().unwrap(), 3);
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn a_batch_waits_no_longer_than_it_may() {
        let shared = shared();
        note(&shared);
        assert_eq!(shared.take(LONG, (3, Duration::from_millis(1))).unwrap().len(), 1);
        note(&shared);
        assert_eq!(shared.take(LONG, (0, LONG)).unwrap().len(), 1);
    }

    #[test]
    fn closing_ends_the_wait_for_others() {
        let (shared, began) = (shared(), Instant::now());
        note(&shared);
        shared.close();
        assert_eq!(shared.take(LONG, (3, LONG)).unwrap().len(), 1);
        assert!(shared.take(LONG, (3, LONG)).is_none() && began.elapsed() < LONG);
    }
}
