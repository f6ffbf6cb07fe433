//! When nothing may begin: the breaker, pauses, and what a sink asks for.

use super::*;

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
    bench.until(|b| b.count().delivered >= 5).await;
    assert!(began.elapsed() < secs(300), "{:?}", began.elapsed());
    bench.until_empty().await;
    graph.assert_once_and_in_order(6);
}

#[tokio::test(start_paused = true)]
async fn inv8_a_misconfigured_sink_is_paused_and_loses_nothing() {
    let graph = Graph::new(Some(FOLLOW), |_, _| Act::Fail(Cause::Status(401), None));
    let bench = Bench::new(sink_config(5), &graph);
    bench.fill(10, 30).await;
    bench.until(|b| b.drain.statuses()[0].state == "paused" && b.drain.statuses()[0].busy == 0).await;
    assert!(bench.drain.statuses()[0].reason.as_ref().unwrap().contains("401"));
    assert_eq!(bench.count().pending, 30);
    let bench = bench.crash().await;
    let made = graph.deliveries.load(Ordering::Relaxed);
    assert!(made <= 5);
    tokio::time::sleep(secs(59)).await;
    assert_eq!(bench.drain.statuses()[0].state, "paused", "also after a restart");
    assert!(bench.drain.statuses()[0].reason.as_ref().unwrap().ends_with("; tried again at 2026-01-01T00:01:00.000Z"));
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), made);
    tokio::time::sleep(secs(3600)).await;
    let probes = graph.deliveries.load(Ordering::Relaxed) - made;
    assert_eq!(probes, 13, "after 60, 120 and 240 s, then every 300 s");
    assert_eq!(bench.drain.statuses()[0].state, "paused");
    graph.behave(|_, _| Act::Take(secs(13)));
    tokio::time::sleep(secs(301)).await;
    assert_eq!(bench.drain.statuses()[0].state, "running", "by itself");
    bench.until_empty().await;
    graph.assert_once_and_in_order(30);
    let view = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!(view.sinks[0].attempts, 1, "what the configuration did is not counted");
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_is_never_probed_and_not_lifted_by_what_is_under_way() {
    let graph = Graph::new(None, |_, n| if n == 0 { Act::Take(secs(13)) } else { Act::Fail(Cause::Status(401), None) });
    let bench = Bench::new(sink_config(2), &graph);
    bench.fill(3, 3).await;
    assert_eq!(bench.drain.pause("graph").await, Ok(true));
    let bench = bench.crash().await;
    tokio::time::sleep(secs(24 * 3600)).await;
    assert_eq!(bench.drain.statuses()[0].reason.as_deref(), Some(PAUSED_BY_OPERATOR));
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 2);
    graph.behave(|_, _| Act::Take(secs(1)));
    assert_eq!(bench.drain.resume("graph").await, Ok(true));
    assert_eq!(bench.drain.resume("nobody").await, Ok(false));
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_paused_sink_that_finds_nobody_leaves_it_paused_and_one_that_finds_other_trouble_does_not() {
    let graph = Graph::new(None, |_, n| Act::Fail(if n == 0 { Cause::Status(401) } else { Cause::Connect }, None));
    let bench = Bench::new(sink_config(1), &graph);
    bench.fill(1, 1).await;
    tokio::time::sleep(secs(48 * 3600)).await; // it is too old by then, and still no dead letter: nothing was tried
    assert_eq!(bench.drain.statuses()[0].state, "paused");
    assert_eq!(bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap().sinks[0].attempts, 0);
    let made = graph.deliveries.load(Ordering::Relaxed);
    graph.behave(move |_, n| if n == made { Act::Fail(Cause::Status(500), None) } else { Act::Take(secs(1)) });
    bench.until(|b| b.drain.statuses()[0].state == "running").await;
    assert_eq!(bench.count().pending, 1, "the 500 is a failure like any other");
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_asks_to_be_left_alone_is_left_alone_by_all_lanes() {
    let graph = Graph::new(None, |_, n| match n {
        0 => Act::Fail(Cause::Status(429), Some(secs(40))),
        _ => Act::Take(secs(1)),
    });
    let bench = Bench::new(sink_config(1), &graph);
    bench.fill(5, 5).await;
    tokio::time::sleep(secs(39)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), 1);
    bench.until_empty().await;
    graph.behave(|_, n| if n == 6 { Act::Fail(Cause::Status(503), Some(secs(86_400))) } else { Act::Take(secs(1)) });
    for n in 6..=10 {
        bench.append(n % 5, n).await;
    }
    let began = Instant::now();
    bench.until_empty().await;
    assert!((300..310).contains(&began.elapsed().as_secs()), "no longer than retry.max: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stops_what_an_attempt_under_way_would_send_again() {
    // The first is taken and lost. While it is looked for, others appear, so it is lost for sure; but nobody is there any more.
    let graph = Graph::new(Some(FOLLOW), |_, n| match n {
        0 => Act::Forget,
        1..=3 => Act::Take(secs(10)),
        _ => Act::Fail(Cause::Connect, None),
    });
    let bench = Bench::new(config::Sink { breaker: Breaker::in_a_row(2, secs(600)), ..sink_config(5) }, &graph);
    bench.fill(6, 6).await;
    bench.until(|b| b.drain.statuses()[0].state == "open").await;
    let made = graph.deliveries.load(Ordering::Relaxed);
    tokio::time::sleep(secs(500)).await;
    assert_eq!(graph.deliveries.load(Ordering::Relaxed), made);
    let first = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert_eq!(first.sinks[0].attempts, 1);
    graph.behave(|_, _| Act::Take(secs(10)));
    bench.until_empty().await;
    graph.assert_once_and_in_order(6);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_half_the_time_opens_the_breaker_by_its_share() {
    let graph = Graph::new(None, |_, n| if n % 2 == 0 { Act::Fail(Cause::Status(500), None) } else { Act::Take(secs(1)) });
    let breaker = Breaker { failure_rate: 0.4, window: secs(60), min_attempts: 20, ..Breaker::in_a_row(0, secs(60)) };
    let bench = Bench::new(config::Sink { breaker, ..sink_config(5) }, &graph);
    bench.fill(40, 40).await;
    bench.until(|b| b.drain.statuses()[0].state == "open").await;
    assert!((20..=26).contains(&graph.deliveries.load(Ordering::Relaxed)));
    graph.behave(|_, _| Act::Take(secs(1)));
    bench.until_empty().await;
}
