//! What the writer shares with everyone: the operations that wait for it, and how things stand.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::append::{Append, Places};
use super::engine::Engine;
use super::holds::Holds;
use super::notes::Writing;
use super::seal::Seals;
use super::store::Store;
use super::{AppendError, Appended, Attempt, Claim, ClaimRequest, Claims, Deleted, Finish, Seq, SinkId, Stats};
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
}

impl Op {
    /// Bytes that it brings along.
    fn len(&self) -> usize {
        match self {
            Self::Append(new, ..) => new.iter().map(Append::len).sum(),
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
    pub(super) in_flight: RwLock<HashSet<(SinkId, Seq)>>,
    pub sinks: Vec<Doorbell>,
}

/// Tells a sink's scheduler that there may be work.
pub struct Doorbell {
    pub id: SinkId,
    pub name: String,
    pub ring: Notify,
}

#[derive(Default)]
struct Buffer {
    ops: Vec<Op>,
    bytes: usize,
    parked: bool,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves plain data behind, never a half-made change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(engine: &Engine, sinks: Vec<(SinkId, String)>, clock: Clock) -> Self {
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
            sinks: sinks.into_iter().map(|(id, name)| Doorbell { id, name, ring: Notify::new() }).collect(),
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

    pub fn is_in_flight(&self, sink: SinkId, seq: Seq) -> bool {
        self.in_flight.read().unwrap_or_else(PoisonError::into_inner).contains(&(sink, seq))
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
            std::mem::take(&mut buffer.parked)
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
        if self.holds.is_felt(place) && std::mem::take(&mut lock(&self.buffer).parked) {
            self.wake.notify_one();
        }
    }

    /// Tells the schedulers of these sinks that there may be work.
    pub fn ring(&self, sinks: impl Fn(SinkId) -> bool) {
        for bell in self.sinks.iter().filter(|s| sinks(s.id)) {
            bell.ring.notify_one();
        }
    }

    /// Takes nothing more; the writer commits what it has and ends.
    pub fn close(&self) {
        lock(&self.buffer).closed = true;
        self.wake.notify_all();
    }

    /// The next batch; none when closed and empty. Empty after `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Option<Vec<Op>> {
        let mut buffer = lock(&self.buffer);
        if buffer.ops.is_empty() && !buffer.closed {
            buffer.parked = true;
            let waited = self.wake.wait_timeout_while(buffer, timeout, |b| b.parked && !b.closed);
            buffer = waited.unwrap_or_else(PoisonError::into_inner).0;
            buffer.parked = false;
        }
        if buffer.ops.is_empty() && buffer.closed {
            return None;
        }
        let mut ops = std::mem::take(&mut buffer.ops);
        if ops.len() > BATCH {
            buffer.ops = ops.split_off(BATCH);
        }
        buffer.bytes = buffer.ops.iter().map(Op::len).sum();
        Some(ops)
    }
}
