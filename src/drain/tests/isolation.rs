//! What fails holds up nobody else.

use super::*;

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
async fn inv6_a_sink_that_panics_keeps_no_lane() {
    let graph = Graph::new(None, |_, n| if n < 2 { Act::Panic } else { Act::Take(secs(1)) });
    let bench = Bench::new(sink_config(2), &graph);
    bench.fill(3, 6).await;
    bench.until_empty().await;
    graph.assert_once_and_in_order(6);
}

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

#[tokio::test(start_paused = true)]
async fn inv6_one_sink_that_hangs_does_not_hold_up_another() {
    let mut took = Vec::new();
    for hangs in [false, true] {
        let graph = Graph::new(None, |_, _| Act::Take(secs(1)));
        let queue = Queue::inline(Arc::new(Model::default()), &queue_config(), &["graph", "other"], Clock::steady_from(START));
        let other: Arc<dyn Sink> = if hangs { Arc::new(Hanging) } else { Graph::new(None, |_, _| Act::Take(secs(1))) };
        let config = config::Sink { name: "other".into(), ..sink_config(5) };
        let drain = Drain::start(&queue, vec![(config, other), (sink_config(5), graph.clone())], &Metrics::new());
        let ids = ["graph", "other"].map(|n| queue.sink_id(n).unwrap());
        for n in 1..=20 {
            let e = episode("s", n);
            queue.append(&[New::of(&e, &ids.map(|id| (id, Lane::of("s"))))]).unwrap().await.unwrap();
        }
        let began = Instant::now();
        while queue.stats().sinks[0].ledger.delivered < 20 {
            assert!(began.elapsed() < secs(30));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        took.push(began.elapsed());
        assert!(!hangs || queue.stats().sinks[1].ledger.pending == 20);
        drain.stop().await; // in spite of the hanging attempt
    }
    assert_eq!(took[0], took[1], "the same time, to the millisecond");
}

#[tokio::test(start_paused = true)]
async fn inv6_a_sink_that_never_answers_is_given_up_on_and_goes_on_when_it_does() {
    let queue = Queue::inline(Arc::new(Model::default()), &queue_config(), &["graph"], Clock::steady_from(START));
    let lanes = [(queue.sink_id("graph").unwrap(), Lane::of("s"))];
    queue.append(&[New::of(&episode("s", 1), &lanes)]).unwrap().await.unwrap();
    let config = config::Sink { timeout: secs(20), ..sink_config(1) };
    let drain = Drain::start(&queue, vec![(config, Arc::new(Hanging) as Arc<dyn Sink>)], &Metrics::new());
    tokio::time::sleep(secs(24)).await;
    assert_eq!(drain.statuses()[0].busy, 1);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(drain.statuses()[0].failed_attempts_total, 1, "given up; it may be looked up by now");
    let view = queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert!(matches!(view.sinks[0].sent, crate::queue::Sent::Began(_)), "it may have had its effect: {view:?}");
    // The look-ups end too: the lane is claimed again and again.
    tokio::time::sleep(secs(3 * 3600)).await;
    assert!(drain.statuses()[0].failed_attempts_total > 3, "{:?}", drain.statuses());
}

/// The longest time from capture to delivery of what isn't in `s0`, which does as `act` says.
async fn longest_lag(act: fn() -> Act) -> u64 {
    let graph = Graph::new(None, move |d, _| if d.episode.session == "s0" { act() } else { Act::Take(secs(2)) });
    let bench = Bench::new(config::Sink { breaker: Breaker::in_a_row(0, secs(60)), ..sink_config(5) }, &graph);
    for n in 1..=100 {
        bench.append(n % 5, n).await;
        tokio::time::sleep(Duration::from_millis(600)).await; // less than five workers can do
    }
    bench.until_empty().await;
    let views = (1..=100_u128).filter_map(|n| bench.queue.episode(Uuid::from_u128(n)).unwrap());
    let others = views.filter(|v| v.episode.session != "s0");
    others.map(|v| v.sinks[0].delivered_at.unwrap() - v.episode.captured_at).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn inv6_a_poisoned_lane_leaves_the_lag_of_the_others_as_it_is() {
    let well = longest_lag(|| Act::Take(secs(2))).await;
    assert_eq!(longest_lag(|| Act::Fail(Cause::Status(500), None)).await, well);
    assert_eq!(longest_lag(|| Act::Fail(Cause::Status(422), None)).await, well);
    assert_eq!(longest_lag(|| Act::Lose).await, well);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_tenant_with_a_long_backlog_costs_the_others_one_turn() {
    // One worker for all of them; the tenant's episodes are all older.
    let graph = Graph::new(None, |_, _| Act::Take(Duration::from_millis(100)));
    let bench = Bench::new(sink_config(1), &graph);
    for n in 1..=3_000 {
        bench.append(0, n).await;
    }
    for n in 1..=30 {
        bench.append(n % 3 + 1, 3_000 + n).await;
        tokio::time::sleep(secs(1)).await;
    }
    assert!(bench.count().pending > 2_000, "the tenant still waits");
    for n in 3_001..=3_030_u128 {
        let view = bench.queue.episode(Uuid::from_u128(n)).unwrap().unwrap();
        let lag = view.sinks[0].delivered_at.map(|at| at - view.episode.captured_at);
        assert!(lag.is_some_and(|ms| ms <= 300), "{n}: {lag:?}");
    }
}
