//! What becomes of an episode that a sink does not take.

use std::collections::HashMap;

use super::*;

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
async fn retry_after_is_waited_for() {
    let graph = Graph::new(None, |_, n| if n == 0 { Act::Fail(Cause::Status(429), Some(secs(77))) } else { Act::Take(secs(1)) });
    let bench = Bench::new(sink_config(5), &graph);
    let began = Instant::now();
    bench.fill(1, 1).await;
    bench.until_empty().await;
    assert!((78..80).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
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
