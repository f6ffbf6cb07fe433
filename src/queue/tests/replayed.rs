//! Replays, and a sink that is cleared. That any schedule of them keeps order and ledger is the simulation's.

use super::*;
use crate::config::encryption::SealingKey;

impl Bench {
    fn id(&self, sink: &str) -> SinkId {
        self.queue.sink_id(sink).unwrap()
    }

    /// Delivers all that is pending, in the order in which it may be; the episodes.
    fn deliver(&self, sink: &str) -> Vec<Seq> {
        let mut order = Vec::new();
        loop {
            let claims = self.claim(sink, 9);
            if claims.is_empty() {
                return order;
            }
            for claim in claims {
                order.push(claim.seq);
                let outcome =
                    Attempt { at: START, attempt: 1, outcome: "delivered".into(), status: None, error: None, duration_ms: 1 };
                self.queue.finish(claim, Finish::Delivered { confirmed_in: None }, Some(outcome));
            }
        }
    }

    /// Begins a replay and brings it to its end; how many episodes that were.
    fn replay(&self, sink: &str, session: Option<&str>, since: u64) -> u64 {
        let begun = now(self.queue.begin_replay(self.id(sink), session.map(str::to_owned), since)).unwrap();
        assert!(begun.is_some_and(|r| r.course == Course::Running));
        self.go_on(sink)
    }

    /// A slice of a replay, if one is under way.
    fn slice(&self, sink: &str) -> Option<Replay> {
        // What reads the disk elsewhere needs a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.queue.replay_on(self.id(sink), |e| Some(Lane::of(&e.session)))).unwrap()
    }

    fn go_on(&self, sink: &str) -> u64 {
        loop {
            let replay = self.slice(sink).unwrap();
            if replay.course != Course::Running {
                assert_eq!(self.queue.check(), Vec::<String>::new());
                return replay.count;
            }
        }
    }

    fn history(&self, n: u64, sink: usize) -> Vec<(String, u32)> {
        let view = self.queue.episode(Uuid::from_u128(u128::from(n))).unwrap().unwrap();
        view.sinks[sink].history.iter().map(|line| (line.outcome.clone(), line.attempt)).collect()
    }
}

#[test]
fn inv5_what_a_sink_has_had_comes_again_in_its_order_and_with_its_time() {
    let bench = Bench::new(config());
    for n in 1..=6 {
        bench.append(if n % 2 == 0 { "s" } else { "t" }, n, &["a"]).unwrap();
    }
    let first = bench.deliver("a");
    let before = bench.sink("a");
    assert_eq!(bench.replay("a", None, 0), 6);
    let ledger = bench.sink("a");
    assert_eq!((ledger.captured, ledger.delivered, ledger.pending, ledger.gap()), (6, 0, 6, 0));
    let claims = bench.claim("a", 9);
    let times: Vec<i64> = claims.iter().map(|c| c.at).collect();
    assert_eq!(
        (times, claims[0].sent, claims[0].attempts),
        (vec![EVENT, EVENT], Sent::No, 1),
        "the first of each lane, as it was"
    );
    for claim in claims {
        bench.queue.finish(claim, Finish::Retry { delay: 0, sent: Sent::No }, None);
    }
    let again = bench.deliver("a");
    let of = |order: &[Seq], odd| order.iter().copied().filter(|seq| seq % 2 == odd).collect::<Vec<_>>();
    assert_eq!((of(&again, 0), of(&again, 1)), (of(&first, 0), of(&first, 1)));
    assert_eq!(bench.sink("a"), before);
    assert_eq!(bench.history(1, 0), [("delivered".to_owned(), 1), ("replayed".to_owned(), 0), ("delivered".to_owned(), 1)]);
}

#[test]
fn a_replay_takes_a_session_or_what_was_captured_since_and_neither_the_dead_nor_the_purged() {
    let bench = Bench::new(config());
    for n in 1..=4 {
        bench.append_at(if n < 3 { "s" } else { "t" }, n, &["a"], START + n).unwrap();
    }
    let claims = bench.claim("a", 9);
    bench.queue.finish(claims[0], Finish::Dead { reason: "rejected" }, None);
    bench.queue.finish(claims[1], Finish::Delivered { confirmed_in: None }, None);
    bench.deliver("a");
    assert_eq!(bench.replay("a", Some("s"), 0), 1, "one of the session's two is a dead letter");
    assert_eq!(bench.deliver("a"), [2]);
    assert_eq!(bench.replay("a", None, START + 4), 1);
    assert_eq!(bench.deliver("a"), [4]);
    assert_eq!((bench.sink("a").dead, bench.replay("a", None, START + 5)), (1, 0));
}

#[test]
fn inv8_a_sink_that_came_later_gets_what_never_went_to_it_and_the_limits_count_it_once() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.append("s", 2, &["a"]).unwrap();
    bench.queue.finish(bench.claim("a", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    assert_eq!(bench.replay("b", None, 0), 2);
    assert_eq!(bench.queue.stats().episodes, 2);
    assert_eq!((bench.sink("b").captured, bench.sink("b").pending), (2, 2));
    bench.crash(START);
    assert_eq!(bench.deliver("a"), [2]);
    assert_eq!((bench.queue.stats().episodes, bench.queue.check()), (2, vec![]), "b waits for both");
    assert_eq!(bench.deliver("b"), [1, 2]);
    assert_eq!((bench.queue.stats().episodes, bench.queue.stats().ledger.gap()), (0, 0));
    assert_eq!(bench.history(2, 1), [("replayed".to_owned(), 0), ("delivered".to_owned(), 1)]);
    bench.reopen(START + 2 * DAY);
    bench.tidy();
    assert_eq!((bench.queue.stats().bytes, bench.tables()), (0, "mnsz".to_owned()));
}

#[test]
fn inv8_a_replay_goes_on_where_it_was_and_brings_nothing_twice() {
    let mut bench = Bench::new(config());
    for n in 1..=600 {
        bench.append(&n.to_string(), n, &["a"]).unwrap();
    }
    bench.deliver("a");
    let sink = bench.id("a");
    now(bench.queue.begin_replay(sink, None, 0)).unwrap().unwrap();
    let some = bench.slice("a").unwrap();
    assert!(some.course == Course::Running && some.count > 0 && some.count < 600, "{some:?}");
    bench.deliver("a");
    assert!(now(bench.queue.begin_replay(sink, None, 0)).unwrap().is_none(), "one is under way");
    bench.crash(START);
    bench.append("new", 601, &["a"]).unwrap();
    bench.deliver("a");
    assert_eq!(bench.go_on("a"), 600, "all of them, and not the one that came later");
    assert_eq!(bench.deliver("a").len() as u64, 600 - some.count);
    assert!(now(bench.queue.cancel_replay(sink)).unwrap().is_none() && !bench.tables().contains('j'));
}

#[test]
fn inv10_the_session_of_a_replay_is_sealed_and_keeps_the_queue_shut() {
    let with =
        |keys: &[u8]| config::Queue { encryption_keys: keys.iter().map(|n| SealingKey::new([*n; 32])).collect(), ..config() };
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.config = with(&[1]);
    bench.reopen(START);
    now(bench.queue.begin_replay(bench.id("a"), Some("kanari7z".to_owned()), 0)).unwrap().unwrap();
    let mut said = false;
    let look = |_: &[u8], value: &[u8]| {
        said |= value.windows(8).any(|w| w == b"kanari7z");
        true
    };
    bench.store().scan(Vec::new()..vec![u8::MAX], &mut { look }).unwrap();
    assert!(!said);
    let open = |bench: &Bench, keys| {
        let store = Store::on(bench.disk.clone()).unwrap();
        Queue::inline_on(store, &with(keys), &["a", "b"], Clock::Fixed(START)).map(drop)
    };
    assert!(open(&bench, &[2]).is_err(), "without the key nobody knows what is to be replayed");
    bench.reopen(START);
    let replay = bench.queue.stats().sinks[0].replay.clone().unwrap();
    assert_eq!(replay.session.as_deref(), Some("kanari7z"));
    now(bench.queue.cancel_replay(bench.id("a"))).unwrap().unwrap();
    assert!(open(&bench, &[2]).is_ok());
}

#[test]
fn inv8_a_cleared_sink_keeps_what_is_in_flight_and_all_that_others_have() {
    let bench = Bench::new(config());
    for n in 1..=4 {
        bench.append(&n.to_string(), n, &["a", "b"]).unwrap();
    }
    let claims = bench.claim("a", 2);
    bench.queue.finish(claims[0], Finish::Dead { reason: "rejected" }, None);
    assert_eq!(now(bench.queue.clear(bench.id("a"))).unwrap(), 3, "two that wait and a dead letter");
    let (a, b) = (bench.sink("a"), bench.sink("b"));
    assert_eq!((a.purged, a.pending, a.dead, a.gap(), b.pending), (3, 1, 0, 0, 4));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    bench.queue.finish(claims[1], Finish::Delivered { confirmed_in: None }, None);
    assert_eq!(bench.deliver("b").len(), 4);
}
