//! Sinks that promise, and what may or may not have arrived.

use super::*;

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
