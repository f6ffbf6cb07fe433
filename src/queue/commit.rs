//! The writer: one thread that takes whatever has gathered, makes one batch of it, commits it, and only then answers.
//!
//! Under load a batch gathers while the one before it is being synced; nobody wakes the writer then. When it is idle, the first operation
//! wakes it. The buffer is bounded by bytes: beyond [`BUFFER`] the queue refuses, and the request goes on without it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::engine::{Append, Engine};
use super::space::Space;
use super::store::Store;
use super::txn::{Txn, TxnError};
use super::{AppendError, Attempt, Claim, ClaimRequest, Claims, Deleted, Finish, Seq, SinkId, Stats};
use super::{keys, recover};
use crate::clock::Clock;
use crate::config::Durability;
use crate::telemetry::metrics::Metrics;

/// Bytes of episodes that may wait for the writer.
const BUFFER: usize = 64 << 20;

/// Operations in one batch, at most.
const BATCH: usize = 1024;

/// How often an idle writer looks at expiry and at free disk space.
const TICK: Duration = Duration::from_secs(1);

/// A commit that takes longer marks the queue as degraded, and new episodes are refused at once instead of piling up behind it.
const STUCK_MS: u64 = 5_000;

/// Where the answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// What the writer is asked to do.
pub enum Op {
    Append(Append, Reply<()>, Instant),
    Claim(SinkId, ClaimRequest, Reply<Claims>),
    Begin(Claim, Reply<Option<u32>>),
    Accepted(Claim),
    Finish(Claim, Finish, Option<Attempt>),
    Redrive(Vec<(SinkId, Seq)>, Reply<u64>),
    Purge(Vec<(SinkId, Seq)>, Reply<u64>),
    Delete(Uuid, Reply<Deleted>),
    Pause(SinkId, Option<String>, Reply<()>),
}

/// What an operation came to, until its batch is committed.
enum Outcome {
    Append(Result<(), AppendError>),
    Claims(Claims),
    Begun(Option<u32>),
    Count(u64),
    Deleted(Deleted),
    Done,
}

/// What the writer shares with everyone.
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    buffer: Mutex<Buffer>,
    wake: Condvar,
    full: AtomicBool,
    failing: AtomicBool,
    /// When the commit under way began (ms), 0 when there is none.
    committing: AtomicU64,
    stats: RwLock<Arc<Stats>>,
    in_flight: RwLock<HashSet<(SinkId, Seq)>>,
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
            clock,
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
        let bytes = match &op {
            Op::Append(append, ..) => append.record.len(),
            _ => 0,
        };
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

    /// Takes nothing more; the writer commits what it has and ends.
    pub fn close(&self) {
        lock(&self.buffer).closed = true;
        self.wake.notify_all();
    }

    /// The next batch; none when closed and empty. Empty after `timeout`.
    fn take(&self, timeout: Duration) -> Option<Vec<Op>> {
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
        let left = buffer.ops.iter().map(|op| if let Op::Append(a, ..) = op { a.record.len() } else { 0 }).sum();
        buffer.bytes = left;
        Some(ops)
    }
}

/// The writer's own side.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub engine: Engine,
    pub durability: Durability,
    pub space: Space,
    pub metrics: Metrics,
    /// When the oldest write that isn't synced yet was made.
    unsynced: Option<Instant>,
    tidied: Instant,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, engine: Engine, durability: Durability, space: Space, metrics: Metrics) -> Self {
        let mut writer = Self { shared, engine, durability, space, metrics, unsynced: None, tidied: Instant::now() };
        let store = writer.engine.store.clone();
        if let Err(error) = writer.engine.advance_oldest(&Txn::new(&*store)) {
            tracing::error!(%error, "the oldest pending episode can't be found");
        }
        writer.publish();
        writer
    }

    /// Runs until the queue is closed; everything taken by then is committed.
    pub fn run(mut self) {
        let mut more = false;
        let tick = match self.durability {
            Durability::Sync => TICK,
            Durability::Interval(interval) => interval.min(TICK),
        };
        while let Some(ops) = self.shared.take(if more { Duration::ZERO } else { tick }) {
            self.commit(ops);
            if more || self.tidied.elapsed() >= TICK {
                more = self.tidy();
            }
        }
        if let Err(error) = self.engine.store.sync() {
            tracing::error!(%error, "the last sync of the queue failed");
        }
    }

    /// Commits what has gathered, here and now.
    #[cfg(test)]
    pub fn commit_waiting(&mut self) {
        if let Some(ops) = self.shared.take(Duration::ZERO) {
            self.commit(ops);
        }
    }

    /// One batch: all transitions, one commit, then the answers.
    pub fn commit(&mut self, ops: Vec<Op>) {
        if ops.is_empty() {
            return self.sync_if_due();
        }
        let claims: Vec<Claim> = match self.try_commit(&ops) {
            Ok(outcomes) => {
                self.shared.failing.store(false, Ordering::Relaxed);
                return self.answer(ops.into_iter().zip(outcomes.into_iter().map(Ok)));
            }
            Err((error, claims)) => {
                tracing::error!(%error, operations = ops.len(), "a commit failed");
                self.shared.failing.store(matches!(error, TxnError::Store(_)), Ordering::Relaxed);
                claims
            }
        };
        self.roll_back(&claims, &ops);
        // One operation that trips over damaged rows must not take the others of its batch with it.
        if ops.len() > 1 && !self.shared.failing.load(Ordering::Relaxed) {
            for op in ops {
                self.commit(vec![op]);
            }
            return;
        }
        self.answer(ops.into_iter().map(|op| (op, Err(AppendError::Failed))));
    }

    fn try_commit(&mut self, ops: &[Op]) -> Result<Vec<Outcome>, (TxnError, Vec<Claim>)> {
        let now = self.shared.clock.now_ms();
        self.shared.committing.store(now.max(1), Ordering::Relaxed);
        let store = self.engine.store.clone();
        let mut claimed = Vec::new();
        let mut all = || -> Result<Vec<Outcome>, TxnError> {
            let mut txn = Txn::new(&*store);
            let mut outcomes = Vec::with_capacity(ops.len());
            for op in ops {
                let outcome = step(&mut self.engine, self.space.is_low(), &mut txn, op, now)?;
                if let Outcome::Claims(c) = &outcome {
                    claimed.extend_from_slice(&c.claims);
                }
                outcomes.push(outcome);
            }
            self.engine.advance_oldest(&txn)?;
            let writes = self.engine.close(txn)?;
            if !writes.is_empty() {
                store.apply(&writes)?;
                self.unsynced.get_or_insert_with(Instant::now);
            }
            Ok(outcomes)
        };
        let outcomes = all().and_then(|outcomes| {
            if self.durability == Durability::Sync && self.unsynced.is_some() {
                store.sync()?;
                self.unsynced = None;
            }
            Ok(outcomes)
        });
        self.shared.committing.store(0, Ordering::Relaxed);
        let outcomes = outcomes.map_err(|e| (e, claimed));
        self.sync_if_due();
        outcomes
    }

    /// Memory follows the disk again. What the failed batch claimed is free again, and so is what it would have finished: its rows tell
    /// that an attempt is in doubt, so it will be looked up.
    fn roll_back(&mut self, claimed: &[Claim], ops: &[Op]) {
        let finished = ops.iter().filter_map(|op| if let Op::Finish(claim, ..) = op { Some(claim) } else { None });
        for claim in claimed.iter().chain(finished) {
            if let Some(sink) = self.engine.sinks.get_mut(&claim.sink) {
                sink.claimed.remove(&claim.lane);
            }
        }
        if let Err(error) = recover::reload(&mut self.engine) {
            tracing::error!(%error, "the queue can't be read after a failed commit");
        }
        self.publish();
    }

    fn sync_if_due(&mut self) {
        let Durability::Interval(interval) = self.durability else { return };
        if self.unsynced.is_some_and(|since| since.elapsed() >= interval) {
            match self.engine.store.sync() {
                Ok(()) => self.unsynced = None,
                Err(error) => tracing::error!(%error, "a sync of the queue failed"),
            }
        }
    }

    /// Lets expire what has to, looks at the disk; whether there is more to do at once.
    pub fn tidy(&mut self) -> bool {
        self.tidied = Instant::now();
        self.space.look();
        if self.shared.failing.load(Ordering::Relaxed) && !self.reopen() {
            return false;
        }
        let now = self.shared.clock.now_ms();
        let store = self.engine.store.clone();
        let mut txn = Txn::new(&*store);
        let more = self.engine.expire(&mut txn, now).and_then(|more| {
            self.engine.advance_oldest(&txn)?;
            let writes = self.engine.close(txn)?;
            if !writes.is_empty() {
                store.apply(&writes)?; // made stable with the next batch: an expiry that is lost happens again
                self.unsynced.get_or_insert_with(Instant::now);
            }
            Ok(more)
        });
        self.publish();
        more.unwrap_or_else(|error| {
            tracing::error!(%error, "expired episodes could not be removed");
            self.roll_back(&[], &[]);
            false
        })
    }

    /// After a commit that failed: opens the store anew, once the disk has room; whether it works again.
    fn reopen(&mut self) -> bool {
        if self.space.is_low() {
            return false;
        }
        let store = self.engine.store.clone();
        let reopened = store.reopen().map_err(TxnError::from).and_then(|()| recover::reload(&mut self.engine));
        // The first write shows whether it really works.
        let works = reopened.and_then(|()| {
            let mut txn = Txn::new(&*store);
            txn.put(keys::meta(), &self.engine.meta)?;
            store.apply(&txn.into_writes())?;
            Ok(store.sync()?)
        });
        self.unsynced = None;
        match works {
            Ok(()) => {
                tracing::info!("the queue works again: capturing");
                self.shared.failing.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the queue could not be opened again");
                false
            }
        }
    }

    /// Tells everyone how things stand.
    fn publish(&mut self) {
        self.shared.full.store(self.engine.is_full() || self.space.is_low(), Ordering::Relaxed);
        let stats = Stats::of(&self.engine, self.space.is_low());
        *self.shared.stats.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(stats);
    }

    fn answer(&mut self, done: impl Iterator<Item = (Op, Result<Outcome, AppendError>)>) {
        self.publish();
        let mut rung = HashSet::new();
        for (op, outcome) in done {
            match (op, outcome) {
                (Op::Append(append, reply, began), outcome) => {
                    self.metrics.queue_commit.observe(began.elapsed().as_secs_f64());
                    rung.extend(append.lanes.iter().map(|(sink, _)| *sink));
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Append(result)) => result,
                        Ok(_) | Err(_) => Err(AppendError::Failed),
                    });
                }
                (Op::Claim(sink, _, reply), Ok(Outcome::Claims(claims))) => {
                    self.in_flight(|set| set.extend(claims.claims.iter().map(|c| (sink, c.seq))));
                    if let Err(Ok(unheard)) = reply.send(Ok(claims)) {
                        self.unclaim(&unheard.claims);
                    }
                }
                (Op::Claim(_, _, reply), _) => drop(reply.send(Err(AppendError::Failed))),
                (Op::Begin(_, reply), outcome) => drop(reply.send(match outcome {
                    Ok(Outcome::Begun(attempts)) => Ok(attempts),
                    _ => Err(AppendError::Failed),
                })),
                (Op::Accepted(_), _) => {}
                (Op::Finish(claim, ..), _) => {
                    self.in_flight(|set| {
                        set.remove(&(claim.sink, claim.seq));
                    });
                    rung.insert(claim.sink);
                }
                (Op::Redrive(which, reply), outcome) => {
                    rung.extend(which.iter().map(|(sink, _)| *sink));
                    let _ = reply.send(count(&outcome));
                }
                (Op::Purge(_, reply), outcome) => drop(reply.send(count(&outcome))),
                (Op::Delete(_, reply), outcome) => {
                    rung.extend(self.shared.sinks.iter().map(|s| s.id)); // a lane may have a new head
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Deleted(deleted)) => Ok(deleted),
                        _ => Err(AppendError::Failed),
                    });
                }
                (Op::Pause(_, _, reply), outcome) => drop(reply.send(outcome.map(|_| ()))),
            }
        }
        for sink in self.shared.sinks.iter().filter(|s| rung.contains(&s.id)) {
            sink.ring.notify_one();
        }
    }

    fn in_flight(&self, change: impl FnOnce(&mut HashSet<(SinkId, Seq)>)) {
        change(&mut self.shared.in_flight.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody heard of these claims: the asker went away. They are free again; their attempt stays counted.
    fn unclaim(&mut self, claims: &[Claim]) {
        for claim in claims {
            if let Some(sink) = self.engine.sinks.get_mut(&claim.sink) {
                sink.claimed.remove(&claim.lane);
            }
        }
        self.in_flight(|set| set.retain(|at| !claims.iter().any(|c| (c.sink, c.seq) == *at)));
    }
}

fn count(outcome: &Result<Outcome, AppendError>) -> Result<u64, AppendError> {
    match outcome {
        Ok(Outcome::Count(n)) => Ok(*n),
        Ok(_) | Err(_) => Err(AppendError::Failed),
    }
}

fn step(engine: &mut Engine, disk_low: bool, txn: &mut Txn<'_>, op: &Op, now: u64) -> Result<Outcome, TxnError> {
    Ok(match op {
        Op::Append(..) if disk_low => Outcome::Append(Err(AppendError::Full)),
        Op::Append(append, ..) => Outcome::Append(engine.append(txn, append, now)?),
        Op::Claim(sink, request, _) => Outcome::Claims(engine.claim(txn, *sink, *request, now)?),
        Op::Begin(claim, _) => Outcome::Begun(Engine::begin(txn, claim, now)?),
        Op::Accepted(claim) => {
            Engine::accepted(txn, claim, now)?;
            Outcome::Done
        }
        Op::Finish(claim, finish, line) => {
            engine.finish(txn, claim, *finish, line.as_ref(), now)?;
            Outcome::Done
        }
        Op::Redrive(which, _) => {
            let mut n = 0;
            for &(sink, seq) in which {
                n += u64::from(engine.redrive(txn, sink, seq, now)?);
            }
            Outcome::Count(n)
        }
        Op::Purge(which, _) => {
            let mut n = 0;
            for &(sink, seq) in which {
                n += u64::from(engine.purge(txn, sink, seq)?);
            }
            Outcome::Count(n)
        }
        Op::Delete(id, _) => Outcome::Deleted(engine.delete(txn, *id, now)?),
        Op::Pause(sink, reason, _) => {
            engine.pause(txn, *sink, reason.clone())?;
            Outcome::Done
        }
    })
}
