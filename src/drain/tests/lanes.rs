//! Lanes that wait: behind a dead letter, or for company.

use super::*;

#[tokio::test(start_paused = true)]
async fn inv5_where_dead_letters_park_their_lane_the_rest_of_it_waits_for_the_redrive() {
    let unfit = |d: &Delivery, _| match d.episode.id.as_u128() {
        1 => Act::Fail(Cause::Unfit, None),
        _ => Act::Take(secs(1)),
    };
    let graph = Graph::new(None, unfit);
    let bench = Bench::new(config::Sink { on_dead: config::OnDead::Park, ..sink_config(5) }, &graph);
    bench.fill(2, 4).await;
    bench.until(|b| (b.count().dead, b.count().delivered) == (1, 2)).await;
    let bench = bench.crash().await;
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(bench.count().pending, 1);
    graph.behave(|_, _| Act::Take(secs(1)));
    assert_eq!(bench.queue.redrive(Select::default()).await, Ok(1));
    bench.until_empty().await;
    graph.assert_once_and_in_order(4);
}

#[tokio::test(start_paused = true)]
async fn what_lingers_is_sent_when_its_time_has_come() {
    let graph = Graph::new(None, |_, _| Act::Take(secs(1)));
    let batch = config::Batch { max_items: 1, linger: secs(30) };
    let bench = Bench::new(config::Sink { batch, ..sink_config(5) }, &graph);
    tokio::time::sleep(secs(1)).await; // until the queue has heard of it
    let began = Instant::now();
    bench.append(0, 1).await;
    bench.until_empty().await;
    assert!((30.9..=31.5).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
}
