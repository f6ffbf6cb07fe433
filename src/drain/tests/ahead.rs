//! What is claimed in advance: that quick writes need not wait for claims, and that nothing of it is left where nothing may begin.

use super::*;
use crate::drain::ahead::STALE;

/// Milliseconds that a write takes, and a claim.
const WRITE: u64 = 20;
const CLAIM: u64 = 3;

const WORKERS: usize = 10;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn quick(_: &Delivery, _: usize) -> Act {
    Act::Take(ms(WRITE))
}

impl Bench {
    /// With a backlog, and claims that take their time.
    async fn quick(config: config::Sink, graph: &Arc<Graph>, lanes: usize, episodes: usize) -> Self {
        let bench = Self::new(config, graph);
        assert_eq!(bench.drain.pause("graph").await, Ok(true));
        for n in 1..=episodes {
            bench.append(n % lanes, n).await;
        }
        bench.queue.claims_take(CLAIM);
        assert_eq!(bench.drain.resume("graph").await, Ok(true));
        bench
    }

    fn claimed(&self) -> usize {
        usize::try_from(self.queue.stats().sinks[0].in_flight).unwrap()
    }

    fn at_work(&self) -> usize {
        self.drain.statuses().iter().map(|s| s.busy).sum()
    }

    async fn within(&self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + limit;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {} claimed, {:?}", self.claimed(), self.drain.statuses());
            tokio::time::sleep(ms(1)).await;
        }
    }

    /// All workers are at work, and there is something for those that end next.
    async fn until_some_are_ahead(&self) {
        self.within(secs(10), "nothing is claimed in advance", |b| b.at_work() == WORKERS && b.claimed() > WORKERS).await;
    }

    /// Nothing but what has begun is claimed, and what has begun is all that is counted.
    async fn assert_given_back(&self, within: Duration, why: &str) {
        self.within(within, why, |b| b.claimed() == b.at_work()).await;
        let page = self.queue.list(&Filter { limit: 10_000, ..Filter::default() }).unwrap();
        let counted: u32 = page.episodes.iter().map(|view| view.sinks[0].attempts).sum();
        assert_eq!(counted as usize, self.graph.deliveries.load(Ordering::Relaxed), "{why}: attempts, and calls");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_do_not_wait_for_claims_where_writes_are_quick() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 2 * WORKERS, 2_000).await;
    let began = Instant::now();
    bench.within(secs(60), "it is not drained", |b| b.count().pending == 0).await;
    let ideal = 2.0 * f64::from(u32::try_from(WRITE).unwrap()) * 100.0 / 1000.0;
    let took = began.elapsed().as_secs_f64();
    assert!(took <= 1.05 * ideal, "{took} s, and {ideal} at best");
    graph.assert_once_and_in_order(2_000);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_in_advance_for_a_slow_sink() {
    let graph = Graph::new(None, |_, _| Act::Take(secs(13)));
    let bench = Bench::quick(sink_config(WORKERS), &graph, 2 * WORKERS, 100).await;
    let end = Instant::now() + secs(100);
    while Instant::now() < end {
        assert!(bench.claimed() <= WORKERS);
        tokio::time::sleep(ms(7)).await;
    }
    bench.until_empty().await;
    graph.assert_once_and_in_order(100);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_pause_gives_back_what_is_claimed_in_advance_uncounted() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    bench.until_some_are_ahead().await;
    assert_eq!(bench.drain.pause("graph").await, Ok(true));
    bench.assert_given_back(ms(CLAIM + 2), "a pause").await;
    let made = graph.deliveries.load(Ordering::Relaxed);
    tokio::time::sleep(secs(60)).await;
    assert_eq!((bench.claimed(), graph.deliveries.load(Ordering::Relaxed)), (0, made));
    assert_eq!(bench.drain.resume("graph").await, Ok(true));
    bench.until_empty().await;
    graph.assert_once_and_in_order(2_000);
}

#[tokio::test(start_paused = true)]
async fn inv6_what_makes_the_sink_stop_gives_back_what_is_claimed_in_advance_uncounted() {
    let cases = [
        ("the breaker opens", Cause::Status(500), None, "open"),
        ("it wants to be left alone", Cause::Status(429), Some(secs(200)), "running"),
        ("it is misconfigured", Cause::Status(401), None, "paused"),
    ];
    for (why, cause, wish, state) in cases {
        let graph = Graph::new(None, quick);
        let breaker = Breaker::in_a_row(if wish.is_some() { 0 } else { 3 }, secs(60));
        let bench = Bench::quick(config::Sink { breaker, ..sink_config(WORKERS) }, &graph, 40, 2_000).await;
        bench.until_some_are_ahead().await;
        graph.behave(move |_, _| Act::Fail(cause, wish));
        bench.within(ms(2 * WRITE), why, |b| b.at_work() == 0).await;
        tokio::time::sleep(ms(CLAIM + 2)).await;
        assert_eq!((bench.claimed(), bench.drain.statuses()[0].state), (0, state), "{why}");
        let made = graph.deliveries.load(Ordering::Relaxed);
        let page = bench.queue.list(&Filter { limit: 10_000, ..Filter::default() }).unwrap();
        let counted: u32 = page.episodes.iter().map(|view| view.sinks[0].attempts).sum();
        // A refused configuration is not counted.
        let free = if state == "paused" { page.episodes.iter().filter(|v| v.sinks[0].last_error.is_some()).count() } else { 0 };
        assert_eq!(counted as usize + free, made, "{why}");
        tokio::time::sleep(secs(50)).await;
        assert_eq!((bench.claimed(), graph.deliveries.load(Ordering::Relaxed)), (0, made), "{why}: until it is tried again");
        graph.behave(quick);
        bench.until_empty().await;
        graph.assert_once_and_in_order(2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn inv6_while_a_probe_is_under_way_nothing_else_is_claimed() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    bench.until_some_are_ahead().await;
    graph.behave(|_, _| Act::Fail(Cause::Status(500), None));
    bench.until(|b| b.drain.statuses()[0].state == "open" && b.at_work() == 0).await;
    graph.behave(|_, _| Act::Take(secs(20)));
    bench.until(|b| b.at_work() == 1).await;
    for _ in 0..19_000 {
        assert_eq!((bench.at_work(), bench.claimed()), (1, 1));
        tokio::time::sleep(ms(1)).await;
    }
    graph.behave(quick);
    bench.until_empty().await;
    graph.assert_once_and_in_order(2_000);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_stop_gives_back_what_is_claimed_in_advance_uncounted() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    bench.until_some_are_ahead().await;
    bench.drain.stop().await;
    assert_eq!(bench.at_work(), 0);
    bench.assert_given_back(Duration::ZERO, "a stop").await;
}

#[tokio::test(start_paused = true)]
async fn inv6_a_sink_that_is_set_up_anew_or_goes_gives_back_what_is_claimed_in_advance_uncounted() {
    let sinks = |graph: &Arc<Graph>, config: config::Sink| vec![(config, graph.clone() as Arc<dyn Sink>)];
    let rate = config::Rate { per_second: 1.0, burst: 1 };
    for (why, config) in [
        ("another rate", Some(config::Sink { rate, ..sink_config(WORKERS) })),
        ("another time-out", Some(config::Sink { timeout: secs(60), ..sink_config(WORKERS) })),
        ("it goes", None),
    ] {
        let graph = Graph::new(None, quick);
        let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
        bench.until_some_are_ahead().await;
        graph.behave(|_, _| Act::Take(secs(600)));
        bench.drain.drain_to(config.map(|config| sinks(&graph, config)).unwrap_or_default());
        bench.within(ms(CLAIM + 2), why, |b| b.claimed() <= WORKERS).await;
        bench.drain.drain_to(sinks(&graph, sink_config(WORKERS)));
        graph.behave(quick);
        bench.until_empty().await;
        graph.assert_once_and_in_order(2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn inv6_what_does_not_begin_soon_is_given_back() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    bench.until_some_are_ahead().await;
    graph.behave(|_, _| Act::Take(secs(600)));
    tokio::time::sleep(ms(2 * WRITE)).await;
    assert!(bench.claimed() > WORKERS, "it was to begin");
    bench.assert_given_back(STALE, "a sink that has become slow").await;
    tokio::time::sleep(secs(100)).await;
    assert_eq!(bench.claimed(), WORKERS, "and is not claimed anew");
    graph.behave(quick);
    bench.until_empty().await;
    graph.assert_once_and_in_order(2_000);
}

#[tokio::test(start_paused = true)]
async fn inv4_inv6_what_was_claimed_in_advance_when_the_process_died_is_looked_up_and_has_lost_one_attempt_at_most() {
    let graph = Graph::new(None, quick);
    let mut bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    for _ in 0..5 {
        bench.until_some_are_ahead().await;
        bench = bench.crash().await;
        bench.queue.claims_take(CLAIM);
    }
    bench.until_empty().await;
    assert_eq!((bench.count().delivered, bench.count().dead), (2_000, 0));
    let page = bench.queue.list(&Filter { limit: 10_000, ..Filter::default() }).unwrap();
    assert!(page.episodes.iter().all(|view| view.sinks[0].attempts <= 1 + 5), "one for each time that the process died");
    graph.assert_once_and_in_order(2_000);
}

#[tokio::test(start_paused = true)]
async fn inv6_lanes_take_turns_and_a_higher_priority_passes_all_but_what_is_claimed_already() {
    let graph = Graph::new(None, quick);
    let bench = Bench::quick(sink_config(WORKERS), &graph, 40, 2_000).await;
    bench.until_some_are_ahead().await;
    let (before, claimed) = (graph.deliveries.load(Ordering::Relaxed), bench.claimed());
    let urgent = crate::episode::Episode { captured_at: bench.queue.now(), ..episode("urgent", 10_000) };
    let lanes = [(bench.queue.sink_id("graph").unwrap(), Lane::of("urgent"))];
    bench.queue.append(&[New { priority: 3, ..New::of(&urgent, &lanes) }]).unwrap().await.unwrap();
    bench.until_empty().await;
    let called = graph.calls.lock().unwrap().clone();
    let at = called.iter().position(|call| call[0] == 10_000).unwrap();
    // And what the claim brings that is under way just then.
    assert!(at - before <= claimed - WORKERS + WORKERS, "{at} is its turn; {before} had begun, {claimed} were claimed");
    let mut turns = vec![0_u32; 40];
    for call in called.iter().filter(|call| call[0] != 10_000) {
        turns[usize::try_from(call[0]).unwrap() % 40] += 1;
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        assert!(most - least <= 2, "{turns:?}");
    }
}
