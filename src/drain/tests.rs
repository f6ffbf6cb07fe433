//! The drain against a graph that misbehaves, under tokio's paused clock: hours pass in milliseconds.

mod ahead;
mod batch;
mod confirm;
mod gate;
mod isolation;
mod lanes;
mod pace;
mod reload;
mod retry;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::config::{Breaker, Graphiti, OrderBy, Retry, SinkKind};
use crate::queue::model::Model;
use crate::queue::tests::{config as queue_config, episode};
use crate::queue::{Filter, Lane, New, Select, State};
use crate::sink::{BatchError, Cause, Delivery, Follow, Presence, Receipt, SinkError};

const START: u64 = 1_767_225_600_000;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the graph does with the next delivery.
type Plan = Box<dyn FnMut(&Delivery, usize) -> Act + Send>;

enum Act {
    /// Takes it; it appears after this long (from now).
    Take(Duration),
    /// Takes it and forgets it.
    Forget,
    /// Fails without effect.
    Fail(Cause, Option<Duration>),
    /// The connection breaks before it is there.
    Lose,
    /// Takes it, and the answer gets lost.
    TakeAndFail(Duration),
    /// Panics.
    Panic,
}

struct Graph {
    plan: Mutex<Plan>,
    /// When each copy of an episode appears, in the order of arrival.
    stored: Mutex<Vec<(Instant, Uuid, String, i64)>>,
    deliveries: AtomicUsize,
    look_ups: AtomicUsize,
    follow: Option<Follow>,
    settle: Mutex<Duration>,
    /// What each call that sent something had in it.
    calls: Mutex<Vec<Vec<u128>>>,
}

impl Graph {
    fn new(follow: Option<Follow>, plan: impl FnMut(&Delivery, usize) -> Act + Send + 'static) -> Arc<Self> {
        let zero = AtomicUsize::new;
        Arc::new(Self {
            plan: Mutex::new(Box::new(plan)),
            stored: Mutex::default(),
            deliveries: zero(0),
            look_ups: zero(0),
            follow,
            settle: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    fn behave(&self, plan: impl FnMut(&Delivery, usize) -> Act + Send + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    /// What it does with each delivery of a call.
    fn called(&self, deliveries: &[Delivery]) -> Vec<Act> {
        self.calls.lock().unwrap().push(deliveries.iter().map(|d| d.episode.id.as_u128()).collect());
        let mut plan = self.plan.lock().unwrap();
        deliveries.iter().map(|d| plan(d, self.deliveries.fetch_add(1, Ordering::Relaxed))).collect()
    }

    fn store(&self, delivery: &Delivery, after: Duration) {
        let e = &delivery.episode;
        self.stored.lock().unwrap().push((Instant::now() + after, e.id, e.session.clone(), delivery.at));
    }

    /// Each episode once, and within each session in the order of its number and with increasing times.
    fn assert_once_and_in_order(&self, episodes: usize) {
        let mut stored = self.stored.lock().unwrap().clone();
        stored.sort_by_key(|(at, ..)| *at);
        let mut sessions: BTreeMap<String, Vec<(u128, i64)>> = BTreeMap::new();
        for (_, id, session, at) in stored {
            sessions.entry(session).or_default().push((id.as_u128(), at));
        }
        assert_eq!(sessions.values().map(Vec::len).sum::<usize>(), episodes, "lost or doubled: {sessions:?}");
        for (session, seen) in sessions {
            assert!(seen.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{session}: {seen:?}");
        }
    }
}

fn failure(cause: Cause, retry_after: Option<Duration>, ambiguous: bool) -> SinkError {
    SinkError { cause, message: format!("told to fail: {cause:?}"), retry_after, ambiguous }
}

impl Sink for Graph {
    fn kind(&self) -> &'static str {
        "graphiti"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        let act = self.called(std::slice::from_ref(delivery)).remove(0);
        Box::pin(async move {
            let fail = |cause, retry_after, ambiguous| Err(failure(cause, retry_after, ambiguous));
            match act {
                Act::Take(after) if self.follow.is_none() => {
                    tokio::time::sleep(after).await;
                    self.store(delivery, Duration::ZERO);
                    Ok(Receipt::Delivered)
                }
                Act::Take(after) => {
                    self.store(delivery, after);
                    Ok(Receipt::Accepted)
                }
                Act::Forget => Ok(Receipt::Accepted),
                Act::Fail(cause, retry_after) => fail(cause, retry_after, false),
                Act::Lose => fail(Cause::Timeout, None, true),
                Act::TakeAndFail(after) => {
                    self.store(delivery, after);
                    fail(Cause::Timeout, None, true)
                }
                Act::Panic => panic!("told to panic"),
            }
        })
    }

    fn deliver_batch<'a>(&'a self, deliveries: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, BatchError>> {
        Box::pin(batch::take(self, deliveries))
    }

    fn batches(&self) -> bool {
        true
    }

    fn settle(&self) -> Duration {
        *self.settle.lock().unwrap()
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let there = self.stored.lock().unwrap().iter().any(|(at, id, ..)| *id == delivery.episode.id && *at <= now);
        Box::pin(async move { Ok(if there { Presence::Present } else { Presence::Absent }) })
    }

    fn follow(&self) -> Option<Follow> {
        self.follow
    }
}

const FOLLOW: Follow = Follow { timeout: Duration::from_secs(900), poll: Duration::from_secs(1) };

pub(super) fn sink_config(workers: usize) -> config::Sink {
    let mut retry_on = config::status::RetryOn { connect: true, timeout: true, ..Default::default() };
    retry_on.status.add_class(5);
    retry_on.status.add_code(429);
    let mut pause_on = config::status::StatusSet::default();
    pause_on.add_code(401);
    config::Sink {
        name: "graph".into(),
        kind: SinkKind::Graphiti(Graphiti {
            url: String::new(),
            confirm: config::Confirm { read_back: true, timeout: FOLLOW.timeout, poll: FOLLOW.poll },
            format: config::GraphitiFormat::Turn,
        }),
        workers,
        order_by: OrderBy::Session,
        connect_timeout: secs(2),
        timeout: secs(120),
        retry: Retry { max_attempts: 10, initial: secs(1), max: secs(300), full_jitter: true, max_age: secs(86_400) },
        retry_on,
        pause_on,
        breaker: Breaker::in_a_row(5, secs(60)),
        rate: config::Rate { per_second: 0.0, burst: 1 },
        adaptive: false,
        batch: config::Batch { max_items: 1, linger: Duration::ZERO },
        on_dead: config::OnDead::Continue,
        headers: Vec::new(),
    }
}

struct Bench {
    store: Arc<Model>,
    queue: Queue,
    drain: Drain,
    config: config::Sink,
    graph: Arc<Graph>,
}

impl Bench {
    fn new(config: config::Sink, graph: &Arc<Graph>) -> Self {
        let store = Arc::new(Model::default());
        Self::on(store, config, graph, START)
    }

    fn on(store: Arc<Model>, config: config::Sink, graph: &Arc<Graph>, now: u64) -> Self {
        let queue = Queue::inline(store.clone(), &queue_config(), &["graph"], Clock::steady_from(now));
        let drain = Drain::start(&queue, vec![(config.clone(), graph.clone() as Arc<dyn Sink>)], &Metrics::new());
        Self { store, queue, drain, config, graph: graph.clone() }
    }

    /// kill -9, and another start.
    async fn crash(self) -> Self {
        let now = self.queue.now();
        for task in self.drain.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
        drop(self.drain);
        tokio::task::yield_now().await; // what is aborted is dropped, and writes nothing more
        self.store.crash();
        Self::on(self.store, self.config, &self.graph, now)
    }

    async fn append(&self, session: usize, n: usize) {
        let messages = vec![crate::episode::Message::new("user", "hi")];
        let captured_at = self.queue.now();
        let e = crate::episode::Episode { captured_at, messages, ..episode(&format!("s{session}"), n as u64) };
        let lanes = [(self.queue.sink_id("graph").unwrap(), Lane::of(&e.session))];
        self.queue.append(&[New::of(&e, &lanes)]).unwrap().await.unwrap();
    }

    async fn fill(&self, sessions: usize, episodes: usize) {
        for n in 1..=episodes {
            self.append(n % sessions, n).await;
            tokio::time::sleep(Duration::from_millis(1)).await; // each is older than the next
        }
    }

    fn count(&self) -> crate::queue::Ledger {
        let ledger = self.queue.stats().ledger;
        assert_eq!(ledger.gap(), 0);
        ledger
    }

    /// Waits (for hours of paused time, at most) until `done`.
    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + secs(48 * 3600);
        while !done(self) {
            assert!(Instant::now() < limit, "{:?} {:?}", self.count(), self.drain.statuses());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_empty(&self) {
        self.until(|b| b.count().pending == 0).await;
        assert_eq!(self.queue.check(), Vec::<String>::new());
    }
}
