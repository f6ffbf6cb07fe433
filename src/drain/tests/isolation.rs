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
