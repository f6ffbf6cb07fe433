//! The queue: an embedded write-ahead store of episodes with one lane per ordering key and sink.
//!
//! It knows lanes and bytes; it knows neither HTTP nor Graphiti. `keys` has the layout, `append` how episodes come in, `import` how those of
//! another queue do, `engine` what can happen to them then, `heads` which is the next of a lane, `batch` what may go together with it, `park`
//! which lanes wait for a dead letter, `seal` what of it nobody else can read, `holds` what may not begin yet, `notes` what is remembered
//! beside them, `commit` the one thread that writes, `store` the disk.

mod append;
mod batch;
mod check;
mod clear;
mod codec;
mod commit;
mod dead;
mod engine;
mod former;
mod heads;
mod holds;
mod import;
mod inspect;
mod keys;
mod ledger;
mod mend;
mod notes;
mod oldest;
mod park;
mod recover;
mod replay;
mod retention;
mod rows;
mod seal;
mod shared;
mod sinks;
mod space;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod times;
mod txn;
mod types;
pub mod verify;

use std::fs::File;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::append::Append;
use self::codec::CodecError;
use self::commit::Writer;
use self::engine::{Limits, SWEEP};
use self::import::Importing;
use self::notes::Writing;
use self::seal::Seals;
use self::shared::{Answer, Op, Reply, Shared};
use self::space::Space;
#[cfg(test)]
pub(crate) use self::store::model;
use self::store::{Store, StoreError};
use self::txn::{Txn, TxnError};
use crate::clock::{self, Clock};
use crate::config;
use crate::episode::Episode;
use crate::telemetry::metrics::Metrics;

pub use self::check::{Census, SinkCensus};
pub use self::engine::PAUSED_UNREADABLY;
pub use self::ledger::Ledger;
pub use self::replay::{Course, Replay};
pub use self::rows::{Deaths, Sent, Time};
pub use self::types::{
    AppendError, Appended, Attempt, Claim, ClaimRequest, Claims, Deleted, Filter, Finish, Import, Imported, Key, Lane, New, Note,
    Page, QueueError, ReadError, Select, Seq, SinkId, SinkSettings, SinkStats, Standing, State, Stats, Unique, View,
};

/// The handle that everyone shares; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<WriterSide>,
    /// In milliseconds.
    commit_wait: AtomicU64,
    /// How long (ms) the answer to a claim takes.
    #[cfg(test)]
    claims_take: AtomicU64,
    /// Held as long as the queue is open.
    _lock: Option<File>,
}

/// Who commits.
enum WriterSide {
    /// A thread, and what tells that it has ended.
    Thread(Option<(JoinHandle<()>, mpsc::Receiver<()>)>),
    #[cfg(test)]
    /// Whoever submits, on the spot: for simulations under tokio's paused clock, which runs ahead while it waits for a thread.
    Inline(Box<Writer>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        self.shared.close();
        let thread = match &mut *self.writer.lock().unwrap_or_else(PoisonError::into_inner) {
            WriterSide::Thread(thread) => thread.take(),
            #[cfg(test)]
            WriterSide::Inline(_) => None,
        };
        let Some((thread, end)) = thread else { return };
        // A call that hangs, and one more.
        if end.recv_timeout(2 * self.shared.store.limit()) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the disk does not answer: the queue is left as it is; what was acknowledged is safe");
        } else if thread.join().is_err() {
            tracing::error!("the queue's writer panicked");
        }
    }
}

impl Queue {
    /// Opens the queue, or creates it. What was under way when it was last open is ready again. Blocks for the disk.
    pub fn open(config: &config::Queue, sinks: &[config::Sink], metrics: &Metrics) -> Result<Self, QueueError> {
        let names: Vec<String> = sinks.iter().map(|s| s.name.clone()).collect();
        Self::open_for(config, &names, metrics)
    }

    fn open_for(config: &config::Queue, names: &[String], metrics: &Metrics) -> Result<Self, QueueError> {
        let path = &config.path;
        let lock = recover::lock(path)?;
        let writer = match prepare_in(config, names, metrics) {
            Err(error) if error.is_no_room() => {
                // What was put aside for this: enough to open the store, and to drain what waits.
                let given_back = Store::lighten(path).unwrap_or(false);
                tracing::error!(path = %path.display(), given_back, "the disk is full");
                let again = if given_back { prepare_in(config, names, metrics) } else { Err(error) };
                again.map_err(|error| if error.is_no_room() { QueueError::no_room(path) } else { error })
            }
            prepared => prepared,
        }?;
        Self::start(writer, config.commit_wait, Some(lock)).map_err(|source| QueueError::Directory { path: path.clone(), source })
    }

    fn start(writer: Writer, commit_wait: Duration, lock: Option<File>) -> std::io::Result<Self> {
        let shared = writer.shared.clone();
        let (ended, end) = mpsc::channel();
        let thread = std::thread::Builder::new().name("queue-writer".into()).spawn(move || {
            let _ended = ended; // tells when the writer is gone
            writer.run();
        })?;
        let writer = Mutex::new(WriterSide::Thread(Some((thread, end))));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                writer,
                commit_wait: AtomicU64::new(clock::as_ms(commit_wait)),
                #[cfg(test)]
                claims_take: AtomicU64::new(0),
                _lock: lock,
            }),
        })
    }

    /// A queue without a writer thread: each operation is committed by whoever submits it.
    #[cfg(test)]
    pub(crate) fn inline(disk: Arc<model::Model>, config: &config::Queue, names: &[&str], clock: Clock) -> Self {
        let store = Store::on(disk).expect("a readable store");
        Self::inline_on(store, config, names, clock).expect("a readable store")
    }

    #[cfg(test)]
    fn inline_on(store: Store, config: &config::Queue, names: &[&str], clock: Clock) -> Result<Self, TxnError> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let writer = prepare(config, Arc::new(store), &names, clock, &Metrics::new())?;
        let shared = writer.shared.clone();
        let writer = Mutex::new(WriterSide::Inline(Box::new(writer)));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                writer,
                commit_wait: AtomicU64::new(clock::as_ms(config.commit_wait)),
                claims_take: AtomicU64::new(0),
                _lock: None,
            }),
        })
    }

    /// Takes nothing more, commits what it has, and returns when all of it is on stable storage. Blocks for the disk.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Hands episodes to the writer, which appends all of them, those aside that an earlier one with the same [`Unique`] key makes
    /// superfluous, or none. Does not block, except for encoding here in the caller. The future resolves once they are on stable storage
    /// (`durability = "sync"`) or in the store (`"interval"`). Dropping the future does not take them back.
    pub fn append(
        &self,
        new: &[New<'_>],
    ) -> Result<impl Future<Output = Result<Appended, AppendError>> + Send + use<>, AppendError> {
        if self.is_full() {
            return Err(AppendError::Full);
        }
        let new = new.iter().map(|new| Append::of(new, &self.inner.shared.seals)).collect::<Result<Vec<_>, _>>()?;
        self.ask(|reply| Op::Append(new, reply, Instant::now()))
    }

    /// The place of something that begins now, for [`New::place`]. Places that are never used are no harm. Takes no lock.
    pub fn reserve(&self) -> Seq {
        self.inner.shared.places.reserve()
    }

    /// Lets nothing behind `place` begin in these lanes, until it is released or until `until` (queue time, ms). What has begun goes on.
    /// In memory: what went on before a restart never ends. Holding a place again adds the lanes; the last `until` counts for all.
    pub fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, until: u64) {
        self.inner.shared.holds.hold(lanes, place, until, self.now());
    }

    /// What had this place has ended, appended or not. Call it after [`append`](Self::append): nothing begins in between then.
    pub fn release(&self, place: Seq) {
        self.inner.shared.release(place);
        #[cfg(test)]
        self.commit_inline();
    }

    /// The note with this key, unless it has expired. Reads the disk: call it off the async threads, if there are many.
    pub fn note(&self, key: Key) -> Option<Vec<u8>> {
        notes::read(&self.inner.shared.store, &self.inner.shared.seals, key, self.now()).unwrap_or_else(|error| {
            tracing::error!(%error, "a note can't be read");
            None
        })
    }

    /// Writes a note; on stable storage (as [`append`](Self::append) says) when the future resolves. Dropping the future does not take it
    /// back.
    pub fn write_note(&self, note: Note) -> Result<impl Future<Output = Result<(), AppendError>> + Send + use<>, AppendError> {
        let note = Writing::new(note, &self.inner.shared.seals)?;
        self.ask(|reply| Op::Note(note, reply))
    }

    /// Whether an append would be refused now: what `on_full = "reject"` asks before the upstream is called.
    pub fn is_full(&self) -> bool {
        self.inner.shared.is_full()
    }

    /// Longest time that a response's last byte waits for its commit.
    pub fn commit_wait(&self) -> Duration {
        Duration::from_millis(self.inner.commit_wait.load(Ordering::Relaxed))
    }

    /// Has `max_*`, `keep_*`, `min_free_disk` and `commit_wait` as given here from now on: an episode that has ended keeps the time that it
    /// has. Does not wait; what was submitted before is done under the former ones.
    pub fn limit(&self, config: &config::Queue) {
        self.inner.commit_wait.store(clock::as_ms(config.commit_wait), Ordering::Relaxed);
        let _ = self.submit(Op::Limit(Limits::of(config))); // a closed queue has no use for them
    }

    /// The queue's time (ms since the Unix epoch): the system's when it was opened, and never set back since.
    pub fn now(&self) -> u64 {
        self.inner.shared.clock.now_ms()
    }

    #[cfg(test)]
    fn writer(&self) -> std::sync::MutexGuard<'_, WriterSide> {
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn commit_inline(&self) {
        if let WriterSide::Inline(writer) = &mut *self.writer() {
            writer.commit_waiting();
        }
    }

    fn submit(&self, op: Op) -> Result<(), AppendError> {
        self.inner.shared.submit(op)?;
        #[cfg(test)]
        self.commit_inline();
        Ok(())
    }

    fn ask<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<Answer<T>, AppendError> {
        let (reply, answer) = shared::reply();
        self.submit(op(reply))?;
        Ok(answer)
    }
}

/// The writer of the queue in its directory.
fn prepare_in(config: &config::Queue, names: &[String], metrics: &Metrics) -> Result<Writer, QueueError> {
    let path = &config.path;
    let store = Store::open(path).map_err(|source| match source {
        StoreError::Locked => QueueError::Locked { path: path.clone(), pid: "unknown".into() },
        source => QueueError::Store { path: path.clone(), source },
    })?;
    // Delays must not follow the system's clock when that is set: see the claim.
    let clock = Clock::steady_from(clock::now_ms());
    prepare(config, Arc::new(store), names, clock, metrics).map_err(|e| match e {
        TxnError::Store(source) => QueueError::Store { path: path.clone(), source },
        TxnError::Codec(CodecError::Key(key)) => QueueError::Key { path: path.clone(), key: key.to_string() },
        TxnError::Codec(e) => QueueError::Unreadable { path: path.clone(), message: e.to_string() },
    })
}

fn prepare(
    config: &config::Queue,
    store: Arc<Store>,
    names: &[String],
    clock: Clock,
    metrics: &Metrics,
) -> Result<Writer, TxnError> {
    let limits = Limits::of(config);
    let seals = Arc::new(Seals::new(&config.encryption_keys));
    let mut engine = recover::load(store, seals, limits)?;
    engine.settle_keys()?;
    recover::name_sinks(&mut engine, names)?;
    let shared = Arc::new(Shared::new(&engine, clock));
    let space = Space::new(engine.store.clone(), config.path.clone(), limits);
    Ok(Writer::new(shared, engine, config.durability, space, metrics.clone()))
}

/// What the drain uses.
impl Queue {
    /// Claims lanes that are due. Their attempts are on disk when the answer comes.
    pub async fn claim(&self, sink: SinkId, request: ClaimRequest) -> Result<Claims, AppendError> {
        let claims = self.ask(|reply| Op::Claim(sink, request, reply))?.await;
        #[cfg(test)]
        match self.inner.claims_take.load(Ordering::Relaxed) {
            0 => {}
            takes => tokio::time::sleep(Duration::from_millis(takes)).await,
        }
        claims
    }

    /// Has the answer to each claim take so long (ms), once it is on disk.
    #[cfg(test)]
    pub(crate) fn claims_take(&self, takes: u64) {
        self.inner.claims_take.store(takes, Ordering::Relaxed);
    }

    /// Counts one more attempt of a claimed episode, on disk when the answer comes: how many that makes; none if it is gone.
    pub async fn begin(&self, claim: Claim) -> Result<Option<u32>, AppendError> {
        self.ask(|reply| Op::Begin(claim, reply))?.await
    }

    /// Notes that the sink took it. Does not wait.
    pub fn accepted(&self, claim: Claim) {
        let _ = self.submit(Op::Accepted(claim)); // a closed queue: it will be looked up
    }

    /// Ends a claim. Does not wait: what is submitted afterwards sees it done.
    pub fn finish(&self, claim: Claim, finish: Finish, line: Option<Attempt>) {
        let _ = self.submit(Op::Finish(claim, finish, line)); // a closed queue: it will be looked up
    }

    /// Tells the queue how a sink is configured: until then, and after a restart again, nothing lingers and nothing is parked anew. Lanes that
    /// are parked at a sink that no longer parks go on when the answer comes; where that failed, ask again.
    pub async fn configure(&self, sink: SinkId, settings: SinkSettings) -> Result<(), AppendError> {
        // In slices, so that a million parked lanes are not one batch.
        while self.ask(|reply| Op::Configure(sink, settings, reply))?.await? >= SWEEP as u64 {}
        Ok(())
    }

    /// Resolves when there may be something to claim for a sink. Cancel safe.
    pub async fn rung(&self, sink: SinkId) {
        match self.inner.shared.sinks.find(|s| s.id == sink) {
            Some(bell) => bell.ring.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The episodes of claims, as [`read`](Self::read) has each, read off the async threads, one after the other. A bug that panics is an
    /// episode that can't be read.
    pub async fn fetch(&self, places: Vec<Seq>) -> Result<Vec<Result<Option<Episode>, ReadError>>, ReadError> {
        let queue = self.clone();
        let read = move || {
            let panicked = |_| Err(ReadError::Unreadable("reading it panicked".to_owned()));
            places.iter().map(|seq| catch_unwind(AssertUnwindSafe(|| queue.read(*seq))).unwrap_or_else(panicked)).collect()
        };
        #[cfg(test)]
        if let WriterSide::Inline(_) = &*self.writer() {
            return Ok(read()); // a simulation's time must not depend on a thread
        }
        tokio::task::spawn_blocking(read).await.map_err(|e| ReadError::Store(e.to_string()))
    }

    /// The episode of a claim; none if it is gone. Reads the disk: call it off the async threads.
    pub fn read(&self, seq: Seq) -> Result<Option<Episode>, ReadError> {
        let Shared { store, seals, .. } = &*self.inner.shared;
        let txn = Txn::new(store);
        let read = || {
            let record = engine::read_record(&txn, seq)?;
            Ok::<_, TxnError>(record.map(|(record, _)| seals.decode(&record.episode, &keys::id(record.id))).transpose()?)
        };
        read().map_err(|error| {
            tracing::error!(seq, %error, "an episode can't be read");
            error.into()
        })
    }

    /// Pauses a sink (with the reason that `status` shows) or lifts the pause; on disk when the answer comes.
    pub async fn pause(&self, sink: SinkId, reason: Option<String>) -> Result<(), AppendError> {
        self.ask(|reply| Op::Pause(sink, reason, reply))?.await
    }
}

impl Queue {
    /// Counters: from memory, no disk access.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::clone(&self.inner.shared.stats());
        if self.inner.shared.is_degraded() {
            stats.state = "degraded";
        }
        stats
    }

    /// One episode. Reads the disk: call it off the async threads.
    pub fn episode(&self, id: Uuid) -> Result<Option<View>, ReadError> {
        let shared = &self.inner.shared;
        let txn = Txn::new(&shared.store);
        let found = inspect::place(&txn, id).and_then(|seq| match seq {
            Some(seq) => Ok(inspect::view(shared, &txn, &self.names(), seq)?.map(|(view, _)| view)),
            None => Ok(None),
        });
        found.map_err(|error| {
            tracing::error!(%id, %error, "an episode can't be read");
            error.into()
        })
    }

    /// A page of episodes. Reads the disk: call it off the async threads.
    pub fn list(&self, filter: &Filter) -> Result<Page, ReadError> {
        inspect::page(&self.inner.shared, &self.names(), filter).map_err(|error| {
            tracing::error!(%error, "the queue can't be listed");
            error.into()
        })
    }

    /// Hands episodes of another queue to the writer, which puts them behind all others, in their order. Those whose id is here are passed
    /// over. Does not block, except for encoding here in the caller. The future resolves when [`append`](Self::append)'s would.
    pub fn import(
        &self,
        new: Vec<Import>,
    ) -> Result<impl Future<Output = Result<Imported, AppendError>> + Send + use<>, AppendError> {
        let new = new.into_iter().map(|new| Importing::of(new, &self.inner.shared.seals)).collect::<Result<Vec<_>, _>>()?;
        self.ask(|reply| Op::Import(new, reply))
    }

    /// Removes one episode at every sink, whatever its state, unless an attempt is in flight.
    pub async fn delete(&self, id: Uuid) -> Result<Deleted, AppendError> {
        self.ask(|reply| Op::Delete(id, reply))?.await
    }

    /// Reads the whole queue and says in a sentence each what is not in order. Reads the disk: call it off the async threads, and while
    /// nobody writes.
    pub fn check(&self) -> Vec<String> {
        let load = || {
            check::check(
                &recover::load(self.inner.shared.store.clone(), self.inner.shared.seals.clone(), Limits::none())?,
                &|_| (),
            )
            .map(|c| c.faults)
        };
        load().unwrap_or_else(|error: TxnError| vec![error.to_string()])
    }

    fn names(&self) -> impl Fn(SinkId) -> String {
        let shared = self.inner.shared.clone();
        move |id| shared.sinks.find(|s| s.id == id).map_or_else(|| format!("#{}", id.0), |s| s.name.clone())
    }
}
