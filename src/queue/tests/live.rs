//! Sinks and limits that change while the queue is open.

use super::*;

#[test]
fn inv8_a_sink_that_comes_while_the_queue_is_open_is_on_disk_like_any_other() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.queue.sink_id("c"), None);
    let id = now(bench.queue.add_sink("c")).unwrap();
    assert_eq!(now(bench.queue.add_sink("c")), Ok(id), "once");
    assert_ne!(Some(id), bench.queue.sink_id("b"));
    bench.append("s", 1, &["a", "c"]).unwrap();
    let claim = bench.claim("c", 1)[0];
    bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
    bench.append("s", 2, &["c"]).unwrap();

    bench.crash(START); // and it isn't configured any more
    assert_eq!(bench.queue.sink_id("c"), Some(id));
    assert_eq!((bench.sink("c").delivered, bench.sink("c").pending), (1, 1));
    assert_eq!(bench.claim("c", 1).len(), 1);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn a_sink_that_comes_has_its_bell() {
    let bench = Bench::new(config());
    let id = now(bench.queue.add_sink("c")).unwrap();
    let mut rung = std::pin::pin!(bench.queue.rung(id));
    let mut is_rung = || rung.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready();
    assert!(!is_rung());
    bench.append("s", 1, &["c"]).unwrap();
    assert!(is_rung());
}

#[test]
fn a_sink_that_the_disk_does_not_take_is_none() {
    let bench = Bench::new(config());
    bench.disk.fail(true);
    assert_eq!(now(bench.queue.add_sink("c")), Err(AppendError::Failed));
    assert_eq!(bench.queue.sink_id("c"), None);
    bench.disk.fail(false);
    bench.tidy();
    let id = now(bench.queue.add_sink("c")).unwrap();
    assert_eq!(bench.queue.sink_id("c"), Some(id));
    bench.append("s", 1, &["b", "c"]).unwrap();
    assert_eq!((bench.claim("b", 1).len(), bench.claim("c", 1).len()), (1, 1), "each has a number of its own");
}

#[test]
fn limits_hold_from_the_next_operation_on_and_touch_nothing_that_is_there() {
    let bench = Bench::new(config());
    for n in 1..=3 {
        bench.append("s", n, &["a"]).unwrap();
    }
    let small = config::Queue { max_episodes: 2, commit_wait: Duration::from_millis(7), ..config() };
    bench.queue.limit(&small);
    assert_eq!(bench.queue.commit_wait(), small.commit_wait);
    assert!(bench.queue.is_full());
    assert_eq!(bench.append("s", 4, &["a"]), Err(AppendError::Full));
    assert_eq!(bench.sink("a").pending, 3);
    bench.queue.limit(&config::Queue { min_free_disk: u64::MAX, ..config() });
    assert!(bench.queue.is_full(), "the disk has less than is to be free");
    bench.queue.limit(&config());
    bench.append("s", 4, &["a"]).unwrap();
}

#[test]
fn a_time_to_keep_holds_for_what_ends_from_then_on() {
    let mut bench = Bench::new(config());
    let deliver = |bench: &Bench, n| {
        bench.append("s", n, &["a"]).unwrap();
        bench.queue.finish(bench.claim("a", 1)[0], Finish::Delivered { confirmed_in: None }, None);
    };
    deliver(&bench, 1);
    bench.queue.limit(&config::Queue { keep_delivered: Duration::from_secs(60), ..config() });
    deliver(&bench, 2);
    bench.reopen(START + 3_600_000);
    bench.tidy();
    let kept = |n| bench.queue.episode(Uuid::from_u128(n)).unwrap().is_some();
    assert!(kept(1) && !kept(2));
}
