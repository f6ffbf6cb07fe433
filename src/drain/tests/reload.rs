//! Settings and sinks that change while episodes are under way.

use super::*;

const WRITE: u64 = 13;

fn slow() -> Arc<Graph> {
    Graph::new(None, |_, _| Act::Take(secs(WRITE)))
}

/// Panics once, with an attempt in flight.
struct Panics(AtomicUsize);

impl Sink for Panics {
    fn kind(&self) -> &'static str {
        "graphiti"
    }

    fn deliver<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(async {
            tokio::time::sleep(secs(WRITE)).await;
            assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "told to panic");
            Ok(Receipt::Delivered)
        })
    }

    fn look_up<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(async { Ok(Presence::Absent) })
    }

    fn follow(&self) -> Option<Follow> {
        None
    }
}

/// A graph of another type.
struct Other(Arc<Graph>);

impl Sink for Other {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        self.0.deliver(delivery)
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        self.0.look_up(delivery)
    }

    fn follow(&self) -> Option<Follow> {
        self.0.follow()
    }
}

impl Bench {
    fn drain_to(&self, config: config::Sink, graph: &Arc<Graph>) {
        self.drain.drain_to(vec![(config, graph.clone() as Arc<dyn Sink>)]);
    }

    fn busy(&self) -> usize {
        self.drain.statuses().iter().map(|s| s.busy).sum()
    }

    async fn until_busy(&self, busy: usize) {
        self.until(|b| b.busy() == busy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_workers_begin_at_once_and_fewer_once_those_at_work_are_done() {
    let graph = slow();
    let bench = Bench::new(sink_config(1), &graph);
    bench.fill(30, 30).await;
    bench.until_busy(1).await;
    bench.drain_to(sink_config(10), &graph);
    bench.until_busy(10).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 10, "the one that was at work went on");
    bench.drain_to(sink_config(2), &graph);
    assert_eq!(bench.drain.statuses()[0].workers, 2);
    let began = Instant::now();
    bench.until_empty().await;
    // The ten at work, then two at a time.
    let ideal = secs(WRITE) + secs(WRITE) * 20 / 2;
    let took = began.elapsed() + secs(1);
    assert!(took > ideal && took < ideal + secs(6), "{took:?}");
    graph.assert_once_and_in_order(30);
}

#[tokio::test(start_paused = true)]
async fn inv5_an_attempt_in_flight_ends_with_the_sink_that_it_began_with() {
    let (former, graph) = (slow(), slow());
    let bench = Bench::new(sink_config(5), &former);
    bench.fill(5, 20).await;
    bench.until_busy(5).await;
    bench.drain_to(config::Sink { timeout: secs(60), ..sink_config(5) }, &graph);
    bench.until_empty().await;
    let (there, here) = (former.stored.lock().unwrap().clone(), graph.stored.lock().unwrap().clone());
    assert_eq!((there.len(), here.len()), (5, 15));
    graph.stored.lock().unwrap().extend(there);
    graph.assert_once_and_in_order(20);
}

#[tokio::test(start_paused = true)]
async fn inv8_a_sink_that_goes_finishes_what_is_in_flight_keeps_the_rest_and_may_come_back() {
    let graph = slow();
    let bench = Bench::new(sink_config(4), &graph);
    bench.fill(8, 20).await;
    bench.until_busy(4).await;
    bench.drain.drain_to(Vec::new());
    assert!(bench.drain.statuses().is_empty());
    tokio::time::sleep(secs(3600)).await;
    assert_eq!((bench.count().delivered, bench.count().pending), (4, 16), "longer than a stop would have waited");
    assert_eq!(bench.queue.stats().sinks[0].in_flight, 0);

    bench.drain_to(sink_config(4), &graph);
    bench.until_empty().await;
    graph.assert_once_and_in_order(20);
}

#[tokio::test(start_paused = true)]
async fn inv5_a_sink_of_another_type_goes_on_where_the_former_ends() {
    let (former, graph) = (slow(), slow());
    let bench = Bench::new(sink_config(4), &former);
    bench.fill(4, 20).await;
    bench.until_busy(4).await;
    bench.drain.drain_to(vec![(sink_config(4), Arc::new(Other(graph.clone())))]);
    let status = &bench.drain.statuses()[0];
    assert_eq!((status.kind, status.busy, status.attempts_total), ("http", 0, 0));
    let gauge = bench.drain.metrics.sink_workers_busy.with_label_values(&["graph"]);
    assert_eq!(gauge.get(), 4, "the former's attempts are in flight");
    bench.until_empty().await;
    assert_eq!(gauge.get(), 0);
    let there = former.stored.lock().unwrap().clone();
    assert_eq!(there.len(), 4);
    graph.stored.lock().unwrap().extend(there);
    graph.assert_once_and_in_order(20);
}

#[tokio::test(start_paused = true)]
async fn breaker_pause_and_counters_outlive_new_settings() {
    let graph = Graph::new(None, |_, _| Act::Fail(Cause::Connect, None));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(5, 5).await;
    let state = |bench: &Bench| bench.drain.statuses()[0].state;
    bench.until(|b| state(b) == "open").await;
    let attempts = bench.drain.statuses()[0].attempts_total;
    graph.behave(|_, _| Act::Take(secs(1)));
    bench.drain_to(sink_config(6), &graph);
    assert_eq!((state(&bench), bench.drain.statuses()[0].attempts_total), ("open", attempts));
    // It is left alone no longer than the new settings say.
    let began = Instant::now();
    bench.drain_to(config::Sink { breaker: Breaker::in_a_row(5, secs(2)), ..sink_config(6) }, &graph);
    bench.until(|b| state(b) == "running").await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());

    assert_eq!(bench.drain.pause("graph").await, Ok(true));
    bench.drain_to(sink_config(7), &graph);
    assert_eq!(state(&bench), "paused");
    bench.drain.drain_to(vec![(sink_config(7), Arc::new(Other(graph.clone())))]);
    assert_eq!(state(&bench), "paused", "the queue remembers it");
    assert_eq!(bench.drain.resume("graph").await, Ok(true));
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_sink_that_has_gone() {
    let graph = Graph::new(None, |_, _| Act::Take(secs(600)));
    let bench = Bench::new(sink_config(2), &graph);
    bench.fill(2, 2).await;
    bench.until_busy(2).await;
    bench.drain.drain_to(Vec::new());
    let began = Instant::now();
    bench.drain.stop().await;
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    assert_eq!(bench.count().pending, 2);
}

#[tokio::test(start_paused = true)]
async fn inv6_an_attempt_that_panics_after_its_sink_has_gone_gives_its_lane_back() {
    let sink = Arc::new(Panics(AtomicUsize::new(0)));
    let bench = Bench::new(sink_config(1), &slow());
    bench.drain.drain_to(vec![(sink_config(2), sink.clone())]);
    bench.append(0, 1).await;
    bench.until_busy(1).await;
    bench.drain.drain_to(Vec::new());
    bench.until(|b| b.queue.stats().sinks[0].in_flight == 0).await;
    assert_eq!((sink.0.load(Ordering::Relaxed), bench.count().pending), (1, 1));
    bench.drain.drain_to(vec![(sink_config(2), sink.clone())]);
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn another_rate_holds_from_the_next_attempt_on() {
    let graph = Graph::new(None, |_, _| Act::Take(secs(1)));
    let slow = config::Rate { per_second: 0.1, burst: 1 };
    let bench = Bench::new(config::Sink { rate: slow, ..sink_config(10) }, &graph);
    bench.fill(20, 20).await;
    tokio::time::sleep(secs(25)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 3);
    let began = Instant::now();
    bench.drain_to(config::Sink { rate: config::Rate { per_second: 0.0, burst: 1 }, adaptive: true, ..sink_config(10) }, &graph);
    bench.until_empty().await;
    assert!(began.elapsed() < secs(12), "{:?}", began.elapsed());
    bench.drain_to(config::Sink { rate: slow, adaptive: true, ..sink_config(2) }, &graph);
    for n in 21..=25 {
        bench.append(n, n).await;
    }
    let began = Instant::now();
    bench.until_empty().await;
    assert!(began.elapsed() > secs(38), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_parked_goes_on_once_the_sink_no_longer_parks() {
    let graph = Graph::new(None, |_, n| if n == 0 { Act::Fail(Cause::Unfit, None) } else { Act::Take(secs(1)) });
    let bench = Bench::new(config::Sink { on_dead: config::OnDead::Park, ..sink_config(1) }, &graph);
    bench.fill(1, 3).await;
    bench.until(|b| b.count().dead == 1).await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(bench.count().pending, 2);
    bench.drain_to(sink_config(1), &graph);
    bench.until_empty().await;
}
