//! The drain against a graph that misbehaves, under tokio's paused clock: hours pass in milliseconds.

mod batch;

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
    /// Takes it, and the answer gets lost.
    TakeAndFail(Duration),
    /// Panics.
    Panic,
}

struct Graph {
    plan: Mutex<Plan>,
    /// When each copy of an episode appears, in the order of arrival.
    stored: Mutex<Vec<(Instant, Uuid, String, u64)>>,
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
        let mut sessions: BTreeMap<String, Vec<(u128, u64)>> = BTreeMap::new();
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

fn sink_config(workers: usize) -> config::Sink {
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
    fn crash(self) -> Self {
        let now = self.queue.now();
        for task in self.drain.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
        drop(self.drain);
        self.store.crash();
        Self::on(self.store, self.config, &self.graph, now)
    }

    async fn append(&self, session: usize, n: usize) {
        let e = crate::episode::Episode { captured_at: self.queue.now(), ..episode(&format!("s{session}"), n as u64) };
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

#[tokio::test(start_paused = true)]
async fn the_drain_takes_what_the_backend_needs_and_no_more() {
    // The seed case: 13 s a write. N·t/W = 100 · 13 / 10 = 130 s.
    let graph = Graph::new(None, |_, _| Act::Take(secs(13)));
    let bench = Bench::new(sink_config(10), &graph);
    let began = Instant::now();
    bench.fill(20, 100).await;
    bench.until_empty().await;
    assert!(began.elapsed().as_secs_f64() <= 1.05 * 130.0, "{:?}", began.elapsed());
    graph.assert_once_and_in_order(100);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_poisoned_lane_ends_at_max_attempts_and_holds_up_nobody() {
    let graph = Graph::new(Some(FOLLOW), |d, _| match d.episode.session.as_str() {
        "s0" => Act::Fail(Cause::Status(500), None),
        _ => Act::Take(secs(13)),
    });
    let sink = sink_config(5);
    // Without jitter: drawn short ten times, the delays of the poisoned lane could be over before the others are done.
    let retry = config::Retry { full_jitter: false, ..sink.retry };
    let config = config::Sink { breaker: Breaker::in_a_row(0, secs(60)), retry, ..sink };
    let bench = Bench::new(config, &graph);
    bench.fill(5, 20).await;
    bench.until(|b| b.count().delivered == 16).await;
    assert_eq!(bench.count().dead, 0, "the others are done while the poisoned lane still retries");
    bench.until_empty().await;
    assert_eq!((bench.count().dead, bench.count().delivered), (4, 16));
    let page = bench.queue.list(&Filter { state: Some(State::Dead), limit: 100, ..Filter::default() }).unwrap();
    for view in &page.episodes {
        let at = &view.sinks[0];
        assert_eq!((at.attempts, at.history.len(), at.reason.as_deref()), (10, 10, Some("max_attempts")));
        assert_eq!(at.history[9].status, Some(500));
    }
    // Redriven, they go back to their places.
    graph.behave(|_, _| Act::Take(secs(1)));
    assert_eq!(bench.queue.redrive(Select { sink: Some("graph".into()), ..Select::default() }).await, Ok(4));
    bench.until_empty().await;
    graph.assert_once_and_in_order(20);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_dead_letter_at_once() {
    let graph = Graph::new(None, |_, n| if n == 0 { Act::Fail(Cause::Status(422), None) } else { Act::Take(secs(1)) });
    let bench = Bench::new(sink_config(1), &graph);
    bench.fill(1, 2).await;
    bench.until_empty().await;
    let view = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!((view.sinks[0].state, view.sinks[0].reason.as_deref()), (State::Dead, Some("rejected")));
    assert_eq!(view.sinks[0].attempts, 1);
    assert_eq!(bench.count().delivered, 1, "the lane goes on");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_costs_no_attempt() {
    let graph = Graph::new(None, |_, _| Act::Fail(Cause::Connect, None));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(20, 40).await;
    bench.until(|b| b.drain.statuses()[0].state == "open").await;
    let made = graph.deliveries.load(Ordering::Relaxed);
    assert!(made < 5 + 5, "{made}: five in a row open it, and those that had begun");
    tokio::time::sleep(secs(50)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), made);
    // After open_for: one probe, and it opens again.
    tokio::time::sleep(secs(20)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), made + 1);
    graph.behave(|_, _| Act::Take(secs(1)));
    bench.until_empty().await;
    graph.assert_once_and_in_order(40);
    assert_eq!(bench.drain.statuses()[0].state, "running");
}

#[tokio::test(start_paused = true)]
async fn inv8_an_outage_of_hours_makes_no_dead_letter() {
    let graph = Graph::new(None, |_, _| Act::Fail(Cause::Connect, None));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(1, 3).await;
    tokio::time::sleep(secs(10 * 3600)).await;
    assert!(graph.deliveries.load(Ordering::Relaxed) > 500, "a probe a minute");
    graph.behave(|_, _| Act::Take(secs(1)));
    bench.until_empty().await;
    assert_eq!(bench.count().dead, 0);
    graph.assert_once_and_in_order(3);
}

#[tokio::test(start_paused = true)]
async fn inv6_an_episode_that_is_waited_for_does_not_keep_the_breaker_from_closing() {
    // The first is taken and never appears; the five after it are refused, which opens the breaker.
    let graph = Graph::new(Some(FOLLOW), |_, n| match n {
        0 => Act::Forget,
        1..=5 => Act::Fail(Cause::Status(503), None),
        _ => Act::Take(secs(13)),
    });
    let bench = Bench::new(sink_config(6), &graph);
    bench.fill(6, 6).await;
    let began = Instant::now();
    bench.until(|b| b.count().delivered == 5).await;
    assert!(began.elapsed() < secs(300), "{:?}", began.elapsed());
    bench.until_empty().await;
    graph.assert_once_and_in_order(6);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let graph = Graph::new(None, |_, n| if n == 0 { Act::Fail(Cause::Status(429), Some(secs(77))) } else { Act::Take(secs(1)) });
    let bench = Bench::new(sink_config(5), &graph);
    let began = Instant::now();
    bench.fill(1, 1).await;
    bench.until_empty().await;
    assert!((78..80).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn inv8_a_misconfigured_sink_is_paused_and_loses_nothing() {
    let graph = Graph::new(Some(FOLLOW), |_, _| Act::Fail(Cause::Status(401), None));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(10, 30).await;
    bench.until(|b| b.drain.statuses()[0].state == "paused" && b.drain.statuses()[0].busy == 0).await;
    assert!(bench.drain.statuses()[0].reason.as_ref().unwrap().contains("401"));
    assert_eq!(bench.count().pending, 30);
    let bench = bench.crash();
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(bench.drain.statuses()[0].state, "paused", "also after a restart");
    assert!(graph.deliveries.load(Ordering::Relaxed) <= 5);
    graph.behave(|_, _| Act::Take(secs(13)));
    assert_eq!(bench.drain.resume("graph").await, Ok(true));
    assert_eq!(bench.drain.resume("nobody").await, Ok(false));
    bench.until_empty().await;
    graph.assert_once_and_in_order(30);
    let view = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!(view.sinks[0].attempts, 1, "what the configuration did is not counted");
}

#[tokio::test(start_paused = true)]
async fn inv7_a_sink_that_accepts_and_forgets_is_stalled_and_gets_one_at_a_time() {
    let graph = Graph::new(Some(FOLLOW), |_, _| Act::Forget);
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(10, 30).await;
    bench.until(|b| b.drain.statuses()[0].state == "stalled").await;
    assert_eq!(bench.count().delivered, 0, "202 is no delivery");
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 5, "nothing more is poured in");
    tokio::time::sleep(secs(119)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 6, "one is sent again, to see");
    let oldest = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!(oldest.sinks[0].attempts, 2, "the oldest");
    assert_eq!(oldest.sinks[0].history[0].outcome, "stalled");
    // The backend is restarted.
    graph.behave(|_, _| Act::Take(secs(13)));
    bench.until(|b| b.drain.statuses()[0].state == "running").await;
    bench.until_empty().await;
    graph.assert_once_and_in_order(30);
}

#[tokio::test(start_paused = true)]
async fn inv4_what_appears_after_a_stall_is_not_sent_again() {
    // Nothing appears for 20 minutes, then everything does.
    let graph = Graph::new(Some(FOLLOW), |_, _| Act::Take(secs(1_200)));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(5, 5).await;
    bench.until(|b| b.drain.statuses()[0].state == "stalled").await;
    bench.until(|b| b.drain.statuses()[0].state == "running").await;
    bench.until_empty().await;
    // Only the oldest was sent again, now and then, to see whether the sink lives: the one that may be doubled.
    let attempts = |n| bench.queue.episode(Uuid::from_u128(n)).unwrap().unwrap().sinks[0].attempts;
    assert_eq!([2, 3, 4, 5].map(attempts), [1; 4]);
    assert!((2..=3).contains(&attempts(1)), "{}", attempts(1));
}

#[tokio::test(start_paused = true)]
async fn inv4_an_ambiguous_end_is_looked_up_before_it_is_sent_again() {
    let graph = Graph::new(Some(FOLLOW), |_, n| if n % 3 == 0 { Act::TakeAndFail(secs(13)) } else { Act::Take(secs(13)) });
    let config = config::Sink { breaker: Breaker::in_a_row(0, secs(60)), ..sink_config(5) };
    let bench = Bench::new(config, &graph);
    bench.fill(10, 50).await;
    bench.until_empty().await;
    graph.assert_once_and_in_order(50);
}

#[tokio::test(start_paused = true)]
async fn inv4_one_lost_among_others_is_sent_again() {
    let graph = Graph::new(Some(FOLLOW), |_, n| if n == 3 { Act::Forget } else { Act::Take(secs(13)) });
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(10, 50).await;
    bench.until_empty().await;
    graph.assert_once_and_in_order(50);
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 51);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_sink_that_panics_keeps_no_lane() {
    let graph = Graph::new(None, |_, n| if n < 2 { Act::Panic } else { Act::Take(secs(1)) });
    let bench = Bench::new(sink_config(2), &graph);
    bench.fill(3, 6).await;
    bench.until_empty().await;
    graph.assert_once_and_in_order(6);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_a_dead_letter() {
    let graph = Graph::new(None, |_, _| Act::Fail(Cause::Status(503), None));
    let retry = Retry { max_attempts: 1_000_000, max_age: secs(3600), ..sink_config(1).retry };
    let bench = Bench::new(config::Sink { retry, ..sink_config(1) }, &graph);
    bench.fill(1, 1).await;
    let began = Instant::now();
    bench.until_empty().await;
    assert!((3600..4600).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let at = &bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap().sinks[0];
    assert_eq!(at.reason.as_deref(), Some("max_age"));
    assert!(at.last_error.is_some(), "what the last attempt met is what an operator asks: {at:?}");
}

#[tokio::test(start_paused = true)]
async fn inv6_one_sink_that_hangs_does_not_hold_up_another() {
    struct Hanging;
    impl Sink for Hanging {
        fn kind(&self) -> &'static str {
            "file"
        }
        fn deliver<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
            Box::pin(std::future::pending())
        }
        fn look_up<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
            Box::pin(std::future::pending())
        }
        fn follow(&self) -> Option<Follow> {
            None
        }
    }
    let graph = Graph::new(None, |_, _| Act::Take(secs(1)));
    let queue = Queue::inline(Arc::new(Model::default()), &queue_config(), &["graph", "hangs"], Clock::steady_from(START));
    let hanging = config::Sink { name: "hangs".into(), ..sink_config(5) };
    let sinks: Vec<(_, Arc<dyn Sink>)> = vec![(hanging, Arc::new(Hanging)), (sink_config(5), graph.clone())];
    let drain = Drain::start(&queue, sinks, &Metrics::new());
    let ids = ["graph", "hangs"].map(|n| queue.sink_id(n).unwrap());
    for n in 1..=20 {
        let e = episode("s", n);
        queue.append(&[New::of(&e, &ids.map(|id| (id, Lane::of("s"))))]).unwrap().await.unwrap();
    }
    let began = Instant::now();
    while queue.stats().sinks[0].ledger.delivered < 20 {
        assert!(began.elapsed() < secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(queue.stats().sinks[1].ledger.pending, 20);
    drain.stop().await; // in spite of the hanging attempt
}

/// Any mixture of faults and crashes: each episode once and in order, nothing lost. A seed that fails is printed.
#[tokio::test(start_paused = true)]
async fn inv4_inv5_inv8_any_mixture_of_faults_and_crashes_ends_well() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut luck = rng.fork();
        let graph = Graph::new(Some(FOLLOW), move |_, _| match luck.u32(0..20) {
            0 => Act::Fail(Cause::Connect, None),
            1 => Act::Fail(Cause::Status(429), Some(secs(luck.u64(0..30)))),
            2 => Act::Fail(Cause::Status(500), None),
            3 => Act::TakeAndFail(Duration::from_millis(luck.u64(5_000..20_000))),
            4 => Act::Forget,
            _ => Act::Take(Duration::from_millis(luck.u64(5_000..20_000))),
        });
        let retry = Retry { max_attempts: 1_000, ..sink_config(1).retry };
        let mut bench = Bench::new(config::Sink { retry, ..sink_config(rng.usize(1..8)) }, &graph);
        for n in 1..=60 {
            bench.append(rng.usize(0..7), n).await;
            if rng.u32(0..10) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.u64(0..60_000))).await;
                bench = bench.crash();
            }
        }
        println!("seed {seed}");
        bench.until_empty().await;
        graph.assert_once_and_in_order(60);
        assert_eq!(bench.count().delivered, 60);
    }
}

#[tokio::test(start_paused = true)]
async fn inv6_attempts_are_exact_over_restarts() {
    // The process dies in every attempt: max_attempts still ends it.
    struct Fatal(AtomicUsize, Mutex<HashMap<Uuid, usize>>);
    impl Sink for Fatal {
        fn kind(&self) -> &'static str {
            "file"
        }
        fn deliver<'a>(&'a self, d: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
            *self.1.lock().unwrap().entry(d.episode.id).or_default() += 1;
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }
        fn look_up<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
            Box::pin(async { Ok(Presence::Absent) })
        }
        fn follow(&self) -> Option<Follow> {
            None
        }
    }
    let sink = Arc::new(Fatal(AtomicUsize::new(0), Mutex::default()));
    let store = Arc::new(Model::default());
    for start in 0..12 {
        let queue = Queue::inline(store.clone(), &queue_config(), &["graph"], Clock::steady_from(START));
        if start == 0 {
            let lanes = [(queue.sink_id("graph").unwrap(), Lane::of("s"))];
            queue.append(&[New::of(&episode("s", 1), &lanes)]).unwrap().await.unwrap();
        }
        let drain = Drain::start(&queue, vec![(sink_config(1), sink.clone() as Arc<dyn Sink>)], &Metrics::new());
        let made = sink.0.load(Ordering::Relaxed);
        while sink.0.load(Ordering::Relaxed) == made && queue.stats().ledger.dead == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for task in drain.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
        store.crash();
    }
    assert_eq!(sink.1.lock().unwrap()[&Uuid::from_u128(1)], 10);
    let queue = Queue::inline(store, &queue_config(), &["graph"], Clock::steady_from(START));
    assert_eq!(queue.stats().ledger.dead, 1);
}
