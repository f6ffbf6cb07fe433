//! The writer: one thread that takes whatever has gathered, makes one batch of it, commits it, and only then answers.
//!
//! Under load a batch gathers while the one before it is being synced; nobody wakes the writer then. When it is idle, the first operation
//! wakes it; where several requests waited before, it gives those a moment to come back. The buffer is bounded by bytes: beyond that the
//! queue refuses, and the request goes on without it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::import::Importing;
use super::replay::Replay;
use super::shared::{Op, Shared};
use super::space::Space;
use super::store::{StoreError, UNSYNCED};
use super::txn::{Txn, TxnError};
use super::{AppendError, Appended, Claim, Claims, Deleted, Imported, Ledger, Seq, SinkId, Stats, keys, recover};
use crate::config::Durability;
use crate::telemetry::metrics::Metrics;

/// How often an idle writer looks at expiry and at free disk space.
const TICK: Duration = Duration::from_secs(1);

/// Requests that waited together, at least, before the writer waits for as many to come back.
const SIBLINGS: usize = 4;

/// The longest that it waits for them, and which part of the time that their commit took.
const PATIENCE: Duration = Duration::from_millis(1);
const PART: u32 = 2;

/// What an operation came to, until its batch is committed.
enum Outcome {
    Append(Result<Appended, AppendError>),
    Imported(Imported),
    Noted(Result<(), AppendError>),
    Claims(Claims),
    Begun(Option<u32>),
    Count(u64),
    Deleted(Deleted),
    Replay(Option<Replay>),
    Named(SinkId),
    Done,
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
    /// Memory has to be read from the store again before anything is committed.
    stale: bool,
    tidied: Instant,
    /// How many requests to gather, and how long: see [`gathering`].
    gather: (usize, Duration),
    /// When the witness was last written, and how far the queue had come.
    witnessed: Option<(Instant, Ledger)>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, engine: Engine, durability: Durability, space: Space, metrics: Metrics) -> Self {
        let mut writer = Self {
            shared,
            engine,
            durability,
            space,
            metrics,
            unsynced: None,
            stale: false,
            tidied: Instant::now(),
            gather: (0, Duration::ZERO),
            witnessed: None,
        };
        let store = writer.engine.store.clone();
        if let Err(error) = writer.engine.advance_oldest(&Txn::new(&store)) {
            tracing::error!(%error, "the oldest pending episode can't be found");
        }
        writer.publish();
        writer
    }

    /// Runs until the queue is closed; everything taken by then is committed.
    pub fn run(mut self) {
        let tick = match self.durability {
            Durability::Sync => TICK,
            Durability::Interval(interval) => interval.min(TICK),
        };
        let mut rest = tick;
        while let Some(ops) = self.shared.take(rest, self.gather) {
            let (waited, began) = (ops.iter().filter(|op| op.len() > 0).count(), Instant::now());
            self.commit(ops);
            self.gather = gathering(waited, began.elapsed());
            if rest < tick || self.tidied.elapsed() >= TICK {
                rest = self.tidy().unwrap_or(tick).min(tick);
            }
        }
        match self.engine.store.sync() {
            Ok(()) => {
                self.unsynced = None;
                self.witnessed = None;
                self.bear_witness();
            }
            Err(error) => tracing::error!(%error, "the last sync of the queue failed"),
        }
    }

    /// Commits what has gathered, here and now.
    #[cfg(test)]
    pub fn commit_waiting(&mut self) {
        if let Some(ops) = self.shared.take(Duration::ZERO, (0, Duration::ZERO)) {
            self.commit(ops);
        }
    }

    /// All that has gathered, in as few batches as [may be](batches).
    pub fn commit(&mut self, ops: Vec<Op>) {
        if ops.is_empty() {
            return self.sync_if_due();
        }
        for ops in batches(ops) {
            self.commit_batch(ops);
        }
    }

    /// One batch: all transitions, one commit, then the answers.
    fn commit_batch(&mut self, ops: Vec<Op>) {
        let claims: Vec<Claim> = match self.try_commit(&ops) {
            Ok(outcomes) => {
                self.shared.failing.store(false, Ordering::Relaxed);
                return self.answer(ops.into_iter().zip(outcomes.into_iter().map(Ok)));
            }
            Err((error, claims)) => {
                tracing::error!(%error, operations = ops.len(), "a commit failed");
                self.failed(&error);
                claims
            }
        };
        self.roll_back(&claims, &ops);
        // One operation that trips over damaged rows must not take the others of its batch with it.
        if ops.len() > 1 && !self.shared.failing.load(Ordering::Relaxed) {
            for op in ops {
                self.commit_batch(vec![op]);
            }
            return;
        }
        self.answer(ops.into_iter().map(|op| (op, Err(AppendError::Failed))));
    }

    fn try_commit(&mut self, ops: &[Op]) -> Result<Vec<Outcome>, (TxnError, Vec<Claim>)> {
        let store = self.engine.store.clone();
        if store.is_stuck() {
            return Err((StoreError::Stuck.into(), Vec::new())); // a read may hang as well
        }
        self.read_again().map_err(|error| (error, Vec::new()))?;
        let now = self.shared.clock.now_ms();
        self.shared.committing.store(now.max(1), Ordering::Relaxed);
        let mut claimed = Vec::new();
        let mut all = || -> Result<Vec<Outcome>, TxnError> {
            let mut txn = Txn::new(&store);
            let mut outcomes = Vec::with_capacity(ops.len());
            for op in ops {
                let outcome = step(&mut self.engine, &self.shared, self.space.is_low(), &mut txn, op, now)?;
                if let Outcome::Claims(c) = &outcome {
                    claimed.extend_from_slice(&c.claims);
                }
                outcomes.push(outcome);
            }
            self.engine.advance_oldest(&txn)?;
            let writes = self.engine.close(txn)?;
            let sync = self.durability == Durability::Sync;
            if !writes.is_empty() {
                store.commit(writes, sync)?;
                self.unsynced = if sync { None } else { self.unsynced.or_else(|| Some(Instant::now())) };
            } else if sync && self.unsynced.is_some() {
                store.sync()?;
                self.unsynced = None;
            }
            Ok(outcomes)
        };
        let outcomes = all();
        self.shared.committing.store(0, Ordering::Relaxed);
        if outcomes.is_err() {
            // It may be there all the same: nobody must rely on it before it is on stable storage.
            self.unsynced.get_or_insert_with(Instant::now);
        }
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
                sink.claimed.remove(claim);
            }
        }
        self.stale = true;
        if self.engine.store.is_stuck() {
            return; // a read may hang, or see half of what is applied yet
        }
        if let Err(error) = self.read_again() {
            tracing::error!(%error, "the queue can't be read after a failed commit");
        }
        self.publish();
    }

    fn read_again(&mut self) -> Result<(), TxnError> {
        if self.stale {
            recover::reload(&mut self.engine)?;
            self.stale = false;
        }
        Ok(())
    }

    fn sync_if_due(&mut self) {
        let Durability::Interval(interval) = self.durability else { return };
        if self.shared.failing.load(Ordering::Relaxed) {
            return;
        }
        if self.unsynced.is_some_and(|since| since.elapsed() >= interval) {
            match self.engine.store.sync() {
                Ok(()) => {
                    self.unsynced = None;
                    self.bear_witness();
                }
                Err(error) => {
                    tracing::error!(%error, "a sync of the queue failed");
                    self.failed(&error.into());
                }
            }
        }
    }

    /// After an error of the store nothing is taken until it has been opened anew.
    fn failed(&mut self, error: &TxnError) {
        let TxnError::Store(error) = error else { return self.shared.failing.store(false, Ordering::Relaxed) };
        self.shared.failing.store(true, Ordering::Relaxed);
        if error.is_no_room() {
            self.space.give_way();
        }
    }

    /// Writes down how far the queue has come, about once a second, if it has come further. Only what is on stable storage: what the witness
    /// tells must never be more than what a loss of power leaves.
    fn bear_witness(&mut self) {
        let recently = self.witnessed.is_some_and(|(at, _)| at.elapsed() < TICK);
        let mut total = Ledger::default();
        self.engine.sinks.values().for_each(|sink| total.add(&sink.row.ledger));
        if self.unsynced.is_some() || recently || self.witnessed.is_some_and(|(_, seen)| seen == total) {
            return;
        }
        match self.engine.store.bear_witness() {
            Ok(()) => self.witnessed = Some((Instant::now(), total)),
            Err(error) => tracing::warn!(%error, "how far the queue has come can't be written down"),
        }
    }

    /// Lets expire what has to, looks at the disk, rewrites the store a bit; when there is more to do, if that is soon.
    pub fn tidy(&mut self) -> Option<Duration> {
        self.tidied = Instant::now();
        self.space.look();
        if self.engine.store.is_stuck() || self.engine.store.is_damaged() {
            self.shared.failing.store(true, Ordering::Relaxed);
        }
        if self.shared.failing.load(Ordering::Relaxed) && !self.reopen() {
            return None;
        }
        self.bear_witness();
        let now = self.shared.clock.now_ms();
        self.shared.holds.expire(now);
        let store = self.engine.store.clone();
        let mut txn = Txn::new(&store);
        let more = self.read_again().and_then(|()| {
            let more = self.engine.expire(&mut txn, now)?;
            let more = self.engine.forget(&mut txn, now)? || more;
            self.engine.advance_oldest(&txn)?;
            let writes = self.engine.close(txn)?;
            if !writes.is_empty() {
                store.commit(writes, false)?; // made stable with the next batch: an expiry that is lost happens again
                self.unsynced.get_or_insert_with(Instant::now);
            }
            Ok(more)
        });
        match more {
            Ok(more) => {
                let soon = store.tend(self.engine.meta.bytes, self.space.spare(), self.space.is_low());
                let freed = std::mem::take(&mut self.engine.freed);
                self.shared.sinks.ring(|sink| freed.contains(&sink));
                self.publish();
                if more { Some(Duration::ZERO) } else { soon }
            }
            Err(error) => {
                tracing::error!(%error, "expired episodes could not be removed");
                self.failed(&error);
                self.roll_back(&[], &[]);
                None
            }
        }
    }

    /// After an error of the store: opens it anew; whether it works again.
    fn reopen(&mut self) -> bool {
        if !self.space.can_open() {
            return false;
        }
        let store = self.engine.store.clone();
        self.stale = true;
        let reopened = store.reopen().map_err(TxnError::from).and_then(|()| self.read_again());
        // The first write shows whether it really works.
        let works = reopened.and_then(|()| {
            let mut txn = Txn::new(&store);
            txn.put(keys::meta(), &self.engine.meta)?;
            Ok(store.commit(txn.into_writes(), true)?)
        });
        self.unsynced = None;
        match works {
            Ok(()) => {
                tracing::info!("the queue works again: capturing");
                self.shared.failing.store(false, Ordering::Relaxed);
                true
            }
            Err(TxnError::Store(StoreError::Stuck)) => false,
            Err(error) => {
                tracing::error!(%error, "the queue could not be opened again");
                self.failed(&error);
                false
            }
        }
    }

    /// Tells everyone how things stand.
    fn publish(&mut self) {
        self.shared.full.store(self.engine.is_full() || self.space.is_low(), Ordering::Relaxed);
        let stats = Stats::of(&self.engine, &self.space);
        *self.shared.stats.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(stats);
    }

    fn answer(&mut self, done: impl Iterator<Item = (Op, Result<Outcome, AppendError>)>) {
        self.publish();
        let mut rung: HashSet<SinkId> = std::mem::take(&mut self.engine.freed).into_iter().collect();
        for (op, outcome) in done {
            match (op, outcome) {
                (Op::Append(new, reply, began), outcome) => {
                    self.metrics.queue_commit.observe(began.elapsed().as_secs_f64());
                    rung.extend(new.iter().flat_map(|n| &n.lanes).map(|(sink, _)| *sink));
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Append(result)) => result,
                        Ok(_) | Err(_) => Err(AppendError::Failed),
                    });
                }
                (Op::Import(new, reply), outcome) => {
                    rung.extend(new.iter().flat_map(Importing::sinks));
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Imported(imported)) => Ok(imported),
                        _ => Err(AppendError::Failed),
                    });
                }
                (Op::Note(_, reply), outcome) => drop(reply.send(match outcome {
                    Ok(Outcome::Noted(result)) => result,
                    Ok(_) | Err(_) => Err(AppendError::Failed),
                })),
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
                (Op::Release(place), Err(_)) => rung.extend(self.shared.holds.release(place)), // it may not have come to that
                (Op::Accepted(_) | Op::Release(_), _) => {}
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
                (Op::Purge(_, reply) | Op::Clear(_, reply) | Op::Configure(_, _, reply), outcome) => {
                    let _ = reply.send(count(&outcome));
                }
                (Op::Delete(_, reply), outcome) => {
                    rung.extend(self.shared.sinks.all().iter().map(|s| s.id)); // a lane may have a new head
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Deleted(deleted)) => Ok(deleted),
                        _ => Err(AppendError::Failed),
                    });
                }
                (Op::Pause(_, _, reply), outcome) => drop(reply.send(outcome.map(|_| ()))),
                (Op::Replay(sink, _, reply), outcome) => {
                    rung.insert(sink);
                    let _ = reply.send(match outcome {
                        Ok(Outcome::Replay(now)) => Ok(now),
                        _ => Err(AppendError::Failed),
                    });
                }
                (Op::Name(name, reply), outcome) => drop(reply.send(match outcome {
                    Ok(Outcome::Named(id)) => {
                        self.shared.sinks.add(id, &name);
                        Ok(id)
                    }
                    _ => Err(AppendError::Failed),
                })),
                // In any case: they are nothing that the disk has.
                (Op::Limit(limits), _) => {
                    self.engine.limits = limits;
                    self.space.limit(limits);
                    self.publish();
                }
            }
        }
        self.shared.sinks.ring(|sink| rung.contains(&sink));
    }

    fn in_flight(&self, change: impl FnOnce(&mut HashSet<(SinkId, Seq)>)) {
        change(&mut self.shared.in_flight.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody heard of these claims: the asker went away. They are free again; their attempt stays counted.
    fn unclaim(&mut self, claims: &[Claim]) {
        for claim in claims {
            if let Some(sink) = self.engine.sinks.get_mut(&claim.sink) {
                sink.claimed.remove(claim);
            }
        }
        self.in_flight(|set| set.retain(|at| !claims.iter().any(|c| (c.sink, c.seq) == *at)));
        self.publish();
    }
}

/// After a batch for which so many requests waited, and which took so long: how many to wait for before the next one, and how long, counted
/// from the answers on.
///
/// Who waited together comes back together, each a little after the one before. If the first made a batch by itself, the others would wait
/// for its sync before theirs begins: twice the syncs, and half the records of each. After a request that was alone, and after a pause, nobody is waited for.
fn gathering(waited: usize, took: Duration) -> (usize, Duration) {
    if waited < SIBLINGS { (0, Duration::ZERO) } else { (waited, PATIENCE.min(took / PART)) }
}

fn count(outcome: &Result<Outcome, AppendError>) -> Result<u64, AppendError> {
    match outcome {
        Ok(Outcome::Count(n)) => Ok(*n),
        Ok(_) | Err(_) => Err(AppendError::Failed),
    }
}

fn step(engine: &mut Engine, shared: &Shared, disk_low: bool, txn: &mut Txn<'_>, op: &Op, now: u64) -> Result<Outcome, TxnError> {
    Ok(match op {
        Op::Append(..) if disk_low => Outcome::Append(Err(AppendError::Full)),
        Op::Append(new, ..) => Outcome::Append(engine.append(txn, new, now)?),
        Op::Import(..) if disk_low => Outcome::Imported(Imported { full: true, ..Imported::default() }),
        Op::Import(new, _) => Outcome::Imported(engine.import(txn, new, now)?),
        Op::Note(..) if disk_low => Outcome::Noted(Err(AppendError::Full)),
        Op::Note(note, _) => Outcome::Noted(engine.note(txn, note, now)?),
        Op::Release(place) => {
            // Who claims upon this comes after the present batch.
            let waited = shared.holds.release(*place);
            shared.sinks.ring(|sink| waited.contains(&sink));
            Outcome::Done
        }
        Op::Claim(sink, request, _) => Outcome::Claims(engine.claim(txn, *sink, *request, &shared.holds, now)?),
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
                n += u64::from(engine.purge(txn, sink, seq, now)?);
            }
            Outcome::Count(n)
        }
        Op::Replay(sink, ask, _) => Outcome::Replay(engine.replay(txn, *sink, ask, now)?),
        Op::Clear(sink, _) => Outcome::Count(engine.clear(txn, *sink, now)?),
        Op::Delete(id, _) => Outcome::Deleted(engine.delete(txn, *id, now)?),
        Op::Pause(sink, reason, _) => {
            engine.pause(txn, *sink, reason.clone())?;
            Outcome::Done
        }
        Op::Configure(sink, settings, _) => Outcome::Count(engine.configure(txn, *sink, *settings, now)?),
        Op::Name(name, _) => Outcome::Named(engine.name_sink(txn, name)?),
        Op::Limit(_) => Outcome::Done,
    })
}

/// Operations that bring more than what is [committed without a sync](UNSYNCED) are several batches.
fn batches(mut ops: Vec<Op>) -> Vec<Vec<Op>> {
    let mut batches = Vec::new();
    let mut from = ops.len();
    let mut bytes = 0;
    // From the end: what is split off is not moved again.
    while from > 0 {
        from -= 1;
        bytes += ops[from].len();
        if bytes > UNSYNCED && from + 1 < ops.len() {
            batches.push(ops.split_off(from + 1));
            bytes = ops[from].len();
        }
    }
    batches.push(ops);
    batches.reverse();
    batches
}

#[cfg(test)]
mod tests {
    use super::super::notes::Writing;
    use super::super::seal::Seals;
    use super::super::{Key, Note};
    use super::*;

    #[test]
    fn inv2_what_is_committed_at_once_is_no_more_than_may_be_lost_at_once() {
        let of = |lengths: &[usize]| {
            let note = |length: &usize| {
                let note = Note { key: Key::of("test", []), value: vec![1; *length], until: 1 };
                Op::Note(Writing::new(note, &Seals::new(&[])).unwrap(), crate::queue::shared::reply().0)
            };
            let ops = lengths.iter().map(note).chain([Op::Release(1)]).collect();
            batches(ops).iter().map(Vec::len).collect::<Vec<_>>()
        };
        let half = UNSYNCED / 2;
        assert_eq!(of(&[]), [1]);
        assert_eq!(of(&[1, 2, 3]), [4]);
        assert_eq!(of(&[half, half, half, half]), [1, 1, 1, 2]);
        assert_eq!(of(&[half, half - 1000, 10 * half, 1, 1]), [2, 1, 3]);
    }

    #[test]
    fn a_lone_request_waits_for_nobody_and_siblings_wait_for_each_other_a_part_of_their_commit() {
        let ms = Duration::from_millis;
        assert_eq!(gathering(1, ms(1)), (0, ms(0)));
        assert_eq!(gathering(SIBLINGS, ms(1)), (SIBLINGS, ms(1) / PART));
        assert_eq!(gathering(100, ms(60_000)), (100, PATIENCE));
    }
}
