//! The queue: an embedded write-ahead store of episodes with one lane per ordering key and sink.
//!
//! It knows lanes and bytes; it knows neither HTTP nor Graphiti. [`keys`] has the layout, [`engine`] what can happen to an episode,
//! [`commit`] the one thread that writes, [`store`] the disk.

mod codec;
mod commit;
mod engine;
mod inspect;
mod keys;
#[cfg(test)]
pub(crate) mod model;
mod recover;
mod rows;
mod space;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod txn;

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use self::commit::{Op, Reply, Shared, Writer};
use self::engine::{Append, Limits};
use self::rows::Record;
use self::space::Space;
use self::store::{Sled, Store, StoreError};
use self::txn::{Txn, TxnError};
use crate::clock::{self, Clock};
use crate::config;
use crate::episode::Episode;
use crate::telemetry::metrics::Metrics;

pub use self::rows::Sent;

/// A sink as the queue knows it: small, stable on disk, handed out once per name for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SinkId(pub u16);

/// The ordering key of a lane at one sink: 16 bytes of the SHA-256 of the key's text, so that no key is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane(pub [u8; 16]);

impl Lane {
    /// The lane of an ordering key.
    pub fn of(key: &str) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(key.as_bytes());
        let mut lane = [0; 16];
        lane.copy_from_slice(&digest[..16]);
        Self(lane)
    }
}

/// An episode's place in the order of capture; never reused.
pub type Seq = u64;

/// Why an episode could not be appended. The request it belongs to goes on all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `max_episodes`, `max_bytes` or `min_free_disk` is reached.
    #[error("the queue is full")]
    Full,
    /// The store doesn't take writes.
    #[error("the queue's store is not writable")]
    Failed,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another process has it.
    #[error("the queue at {} is in use by process {pid}: stop that one, or give this one another queue.path", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other's process id, as it wrote it down.
        pid: String,
    },
    /// The directory.
    #[error("the queue's directory {} can't be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The store.
    #[error("the queue at {} can't be opened: {source}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// The store's error.
        source: StoreError,
    },
    /// What is in the store.
    #[error("the queue at {} can't be read: {message}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// The handle that everyone shares; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<WriterSide>,
    commit_wait: Duration,
    /// Held as long as the queue is open.
    _lock: Option<File>,
}

/// Who commits.
enum WriterSide {
    /// A thread.
    Thread(Option<JoinHandle<()>>),
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
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the queue's writer panicked");
        }
    }
}

impl Queue {
    /// Opens the queue, or creates it. What was under way when it was last open is ready again. Blocks for the disk.
    pub fn open(config: &config::Queue, sinks: &[config::Sink], metrics: &Metrics) -> Result<Self, QueueError> {
        let path = &config.path;
        let lock = recover::lock(path)?;
        let store = Sled::open(&path.join("store")).map_err(|source| match source {
            StoreError::Locked => QueueError::Locked { path: path.clone(), pid: "unknown".into() },
            source => QueueError::Store { path: path.clone(), source },
        })?;
        let names: Vec<String> = sinks.iter().map(|s| s.name.clone()).collect();
        // Delays must not follow the system's clock when that is set: see the claim.
        let clock = Clock::steady_from(clock::now_ms());
        let writer = prepare(config, Arc::new(store), &names, clock, metrics).map_err(|e| match e {
            TxnError::Store(source) => QueueError::Store { path: path.clone(), source },
            TxnError::Codec(e) => QueueError::Unreadable { path: path.clone(), message: e.to_string() },
        })?;
        let shared = writer.shared.clone();
        let thread = std::thread::Builder::new()
            .name("queue-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| QueueError::Directory { path: path.clone(), source })?;
        let writer = Mutex::new(WriterSide::Thread(Some(thread)));
        Ok(Self { inner: Arc::new(Inner { shared, writer, commit_wait: config.commit_wait, _lock: Some(lock) }) })
    }

    /// A queue without a writer thread: each operation is committed by whoever submits it.
    #[cfg(test)]
    pub(crate) fn inline(store: Arc<dyn Store>, config: &config::Queue, names: &[&str], clock: Clock) -> Self {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let writer = prepare(config, store, &names, clock, &Metrics::new()).expect("a readable store");
        let shared = writer.shared.clone();
        let writer = Mutex::new(WriterSide::Inline(Box::new(writer)));
        Self { inner: Arc::new(Inner { shared, writer, commit_wait: config.commit_wait, _lock: None }) }
    }

    /// Takes nothing more, commits what it has, and returns when all of it is on stable storage. Blocks for the disk.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Hands an episode to the writer, for the lanes given. Does not block, except for encoding here in the caller.
    /// The future resolves once the episode is on stable storage (`durability = "sync"`) or in the store (`"interval"`). Dropping the
    /// future does not take the episode back.
    pub fn append(
        &self,
        episode: &Episode,
        lanes: &[(SinkId, Lane)],
    ) -> Result<impl Future<Output = Result<(), AppendError>> + Send + use<>, AppendError> {
        if self.is_full() {
            return Err(AppendError::Full);
        }
        let encode = || {
            let record = Record {
                id: episode.id,
                captured_at: episode.captured_at,
                lanes: lanes.to_vec(),
                episode: codec::encode(episode)?,
            };
            codec::encode(&record)
        };
        let record = encode().map_err(|error| {
            tracing::error!(%error, id = %episode.id, "an episode can't be encoded");
            AppendError::Failed
        })?;
        let append = Append { id: episode.id, captured_at: episode.captured_at, lanes: lanes.to_vec(), record };
        self.ask(|reply| Op::Append(append, reply, Instant::now()))
    }

    /// Whether an append would be refused now: what `on_full = "reject"` asks before the upstream is called.
    pub fn is_full(&self) -> bool {
        self.inner.shared.is_full()
    }

    /// Longest time that a response's last byte waits for its commit.
    pub fn commit_wait(&self) -> Duration {
        self.inner.commit_wait
    }

    /// The id of a sink that is or was configured.
    pub fn sink_id(&self, name: &str) -> Option<SinkId> {
        self.inner.shared.sinks.iter().find(|s| s.name == name).map(|s| s.id)
    }

    /// The queue's time (ms since the Unix epoch): the system's when it was opened, and never set back since.
    pub fn now(&self) -> u64 {
        self.inner.shared.clock.now_ms()
    }

    #[cfg(test)]
    fn writer(&self) -> std::sync::MutexGuard<'_, WriterSide> {
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, op: Op) -> Result<(), AppendError> {
        self.inner.shared.submit(op)?;
        #[cfg(test)]
        if let WriterSide::Inline(writer) = &mut *self.writer() {
            writer.commit_waiting();
        }
        Ok(())
    }

    fn ask<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<Answer<T>, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.submit(op(reply))?;
        Ok(Answer(answer))
    }
}

/// What the writer will answer once the batch is committed. Dropping it takes nothing back.
struct Answer<T>(oneshot::Receiver<Result<T, AppendError>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(AppendError::Failed)))
    }
}

fn prepare(
    config: &config::Queue,
    store: Arc<dyn Store>,
    names: &[String],
    clock: Clock,
    metrics: &Metrics,
) -> Result<Writer, TxnError> {
    let limits = Limits {
        max_episodes: config.max_episodes,
        max_bytes: config.max_bytes,
        keep_delivered: clock::as_ms(config.keep_delivered),
        keep_dead: clock::as_ms(config.keep_dead),
    };
    let mut engine = recover::load(store, limits)?;
    recover::name_sinks(&mut engine, names)?;
    let sinks = engine.sinks.iter().map(|(id, sink)| (*id, sink.name.clone())).collect();
    let shared = Arc::new(Shared::new(&engine, sinks, clock));
    let space = Space::new(config.path.clone(), config.min_free_disk);
    Ok(Writer::new(shared, engine, config.durability, space, metrics.clone()))
}

/// What a scheduler asks for.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest {
    /// Lanes, at most.
    pub max: usize,
    /// Only episodes whose latest attempt is in doubt.
    pub in_doubt: bool,
    /// Attempts after which no further one is made.
    pub max_attempts: u32,
    /// Age (ms since the event) after which no further attempt is made.
    pub max_age: u64,
    /// The longest delay (ms) that a retry can have: what is due later than that is due.
    pub longest_delay: u64,
}

/// What a scheduler gets.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Heads of lanes. Each must be given to [`Queue::finish`].
    pub claims: Vec<Claim>,
    /// When the next lane is due (queue time), if one waits for a time.
    pub next_due: Option<u64>,
}

/// The right to make an attempt: nobody else makes one in this lane until it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The sink.
    pub sink: SinkId,
    /// The lane.
    pub lane: Lane,
    /// The episode.
    pub seq: Seq,
    /// Attempts begun; the one that this claim is for is among them if `sent` is [`Sent::No`] and it isn't exhausted.
    pub attempts: u32,
    /// The time of the event, strictly increasing within a lane (ms).
    pub at: u64,
    /// What was known of an earlier attempt when it was claimed. Anything but [`Sent::No`]: look it up before sending.
    pub sent: Sent,
    /// Why no further attempt may be made.
    pub exhausted: Option<&'static str>,
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It is there.
    Delivered {
        /// Time (ms) from sending to confirmation, where it was confirmed.
        confirmed_in: Option<u64>,
    },
    /// Not now.
    Retry {
        /// Milliseconds until it is due.
        delay: u64,
        /// What is known of the attempt.
        sent: Sent,
    },
    /// Nothing changes but what is known of the attempt: it keeps its place among the lanes that are due.
    Hold {
        /// What is known of the attempt.
        sent: Sent,
    },
    /// The sink is at fault and certainly did not take it: the attempt is not counted, and it keeps its place.
    Uncount,
    /// The sink gave up on it.
    Dead {
        /// `rejected`, `max_attempts`, `max_age`, `unreadable`.
        reason: &'static str,
    },
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// An attempt is in flight: it stays.
    InFlight,
    /// There is no such episode.
    Unknown,
}

/// What the drain uses.
impl Queue {
    /// Claims lanes that are due. Their attempts are on disk when the answer comes.
    pub async fn claim(&self, sink: SinkId, request: ClaimRequest) -> Result<Claims, AppendError> {
        self.ask(|reply| Op::Claim(sink, request, reply))?.await
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

    /// Resolves when there may be something to claim for a sink. Cancel safe.
    pub async fn rung(&self, sink: SinkId) {
        match self.inner.shared.sinks.iter().find(|s| s.id == sink) {
            Some(bell) => bell.ring.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The episode of a claim; none if it can't be read. Reads the disk: call it off the async threads.
    pub fn read(&self, seq: Seq) -> Option<Episode> {
        let txn = Txn::new(&*self.inner.shared.store);
        let read = || Ok::<_, TxnError>(engine::read_record(&txn, seq)?.map(|(r, _)| codec::decode(&r.episode)).transpose()?);
        read().unwrap_or_else(|error| {
            tracing::error!(seq, %error, "an episode can't be read");
            None
        })
    }

    /// Pauses a sink (with the reason that `status` shows) or lifts the pause; on disk when the answer comes.
    pub async fn pause(&self, sink: SinkId, reason: Option<String>) -> Result<(), AppendError> {
        self.ask(|reply| Op::Pause(sink, reason, reply))?.await
    }
}

/// Where an episode stands at one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting: for its turn in the lane, or for its next attempt.
    Pending,
    /// An attempt is under way.
    InFlight,
    /// It is there: the sink confirmed it.
    Delivered,
    /// The sink gave up on it.
    Dead,
    /// An operator removed it.
    Purged,
    /// A dead letter that outlived `keep_dead`.
    Expired,
}

/// One attempt as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended (ms since the Unix epoch; RFC 3339 in JSON).
    pub at: u64,
    /// Its number, from 1.
    pub attempt: u32,
    /// `delivered`, `retry`, `dead`, `paused`, `stalled`.
    pub outcome: String,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// An episode at one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The sink's name.
    pub sink: String,
    /// Where it stands.
    pub state: State,
    /// Attempts begun.
    pub attempts: u32,
    /// The next attempt is not before this time, for a pending one that waits.
    pub next_attempt_at: Option<u64>,
    /// When it was confirmed.
    pub delivered_at: Option<u64>,
    /// When it was delivered, died, was purged or expired.
    pub ended_at: Option<u64>,
    /// Why it is a dead letter: `rejected`, `max_attempts`, `max_age`.
    pub reason: Option<String>,
    /// The last attempt's error.
    pub last_error: Option<String>,
    /// The attempts, oldest first (bounded: the first and the newest).
    pub history: Vec<Attempt>,
}

/// An episode with all that the queue knows about it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its place.
    pub seq: Seq,
    /// The record.
    pub episode: Episode,
    /// One per sink that it goes to.
    pub sinks: Vec<Standing>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only episodes that stand so at one of their sinks (at `sink`, if given).
    pub state: Option<State>,
    /// Only this session.
    pub session: Option<String>,
    /// Only episodes of this sink.
    pub sink: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Continue behind this place.
    pub after: Option<Seq>,
}

/// A page of a listing, in the order of capture.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The episodes.
    pub episodes: Vec<View>,
    /// Where the next page starts; none at the end. A page may be short, even empty, and still have one: each call reads a bounded
    /// number of records.
    pub next: Option<Seq>,
}

/// Which dead letters to redrive or purge. Empty lists and nones select everything that the others allow.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// These episodes.
    pub ids: Vec<Uuid>,
    /// At this sink.
    pub sink: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// Dead for this reason.
    pub reason: Option<String>,
}

/// The counters that must always balance, one per episode and sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Appended.
    pub captured: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Removed by an operator.
    pub purged: u64,
    /// Dead letters that outlived `keep_dead`.
    pub expired: u64,
    /// Waiting or in flight.
    pub pending: u64,
}

impl Ledger {
    fn add(&mut self, other: &Self) {
        self.captured += other.captured;
        self.delivered += other.delivered;
        self.dead += other.dead;
        self.purged += other.purged;
        self.expired += other.expired;
        self.pending += other.pending;
    }

    /// captured − (delivered + dead + purged + expired + pending): 0, always.
    pub fn gap(&self) -> i64 {
        let out = self.delivered + self.dead + self.purged + self.expired + self.pending;
        i64::try_from(i128::from(self.captured) - i128::from(out)).unwrap_or(i64::MAX)
    }
}

/// Counters of the queue as a whole.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// `ok`, `full` or `degraded`.
    pub state: &'static str,
    /// Less than `min_free_disk` is free.
    pub disk_low: bool,
    /// Episodes with a sink that still waits for them.
    pub episodes: u64,
    /// Bytes of stored episodes.
    pub bytes: u64,
    /// Of all sinks together.
    pub ledger: Ledger,
    /// Per sink.
    pub sinks: Vec<SinkStats>,
}

/// Counters of one sink.
#[derive(Debug, Clone, Default)]
pub struct SinkStats {
    /// Its name.
    pub name: String,
    /// Its part of the ledger.
    pub ledger: Ledger,
    /// Claimed and not finished.
    pub in_flight: u64,
    /// Receipts kept.
    pub delivered_kept: u64,
    /// Capture time (ms) of the oldest pending episode.
    pub oldest_pending: Option<u64>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// The longest time (ms) from a sending to its confirmation so far.
    pub longest_confirm_ms: u64,
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
    pub fn episode(&self, id: Uuid) -> Option<View> {
        let shared = &self.inner.shared;
        let txn = Txn::new(&*shared.store);
        let found = inspect::place(&txn, id).and_then(|seq| match seq {
            Some(seq) => inspect::view(shared, &txn, &self.names(), seq),
            None => Ok(None),
        });
        found.unwrap_or_else(|error| {
            tracing::error!(%id, %error, "an episode can't be read");
            None
        })
    }

    /// A page of episodes. Reads the disk: call it off the async threads.
    pub fn list(&self, filter: &Filter) -> Page {
        inspect::page(&self.inner.shared, &self.names(), filter).unwrap_or_else(|error| {
            tracing::error!(%error, "the queue can't be listed");
            Page::default()
        })
    }

    /// Puts dead letters back, each at its original place in its lane; how many there were.
    pub async fn redrive(&self, select: Select) -> Result<u64, AppendError> {
        self.each_dead_letter(select, Op::Redrive).await
    }

    /// Removes dead letters for good; how many there were.
    pub async fn purge(&self, select: Select) -> Result<u64, AppendError> {
        self.each_dead_letter(select, Op::Purge).await
    }

    /// Removes one episode at every sink, whatever its state, unless an attempt is in flight.
    pub async fn delete(&self, id: Uuid) -> Result<Deleted, AppendError> {
        self.ask(|reply| Op::Delete(id, reply))?.await
    }

    /// Reads the whole queue and says in a sentence each what is not in order. Reads the disk: call it off the async threads, and while
    /// nobody writes.
    pub fn check(&self) -> Vec<String> {
        let load = || {
            let limits = Limits { max_episodes: 0, max_bytes: 0, keep_delivered: 0, keep_dead: 0 };
            recover::check(&recover::load(self.inner.shared.store.clone(), limits)?)
        };
        load().unwrap_or_else(|error: TxnError| vec![error.to_string()])
    }

    /// In slices, so that a million dead letters are neither one batch nor one list.
    async fn each_dead_letter(&self, select: Select, op: fn(Vec<(SinkId, Seq)>, Reply<u64>) -> Op) -> Result<u64, AppendError> {
        let mut count = 0;
        for bell in self.inner.shared.sinks.iter().filter(|s| select.sink.as_ref().is_none_or(|n| *n == s.name)) {
            let mut after = None;
            loop {
                let (queue, select, sink) = (self.clone(), select.clone(), bell.id);
                let slice = tokio::task::spawn_blocking(move || {
                    inspect::select(&queue.inner.shared, &queue.names(), sink, &select, after)
                });
                let (chosen, next) = slice.await.map_err(|_| AppendError::Failed)?.map_err(|error| {
                    tracing::error!(%error, "the dead letters can't be read");
                    AppendError::Failed
                })?;
                if !chosen.is_empty() {
                    count += self.ask(|reply| op(chosen, reply))?.await?;
                }
                match next {
                    Some(_) => after = next,
                    None => break,
                }
            }
        }
        Ok(count)
    }

    fn names(&self) -> impl Fn(SinkId) -> String {
        let shared = self.inner.shared.clone();
        move |id| shared.sinks.iter().find(|s| s.id == id).map_or_else(|| format!("#{}", id.0), |s| s.name.clone())
    }
}
