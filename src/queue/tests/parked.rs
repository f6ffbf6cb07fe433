//! Parked lanes, and deaths.

use super::*;
use crate::queue::{mend, shared};

fn sink(bench: &Bench) -> SinkId {
    bench.queue.sink_id("a").unwrap()
}

fn configure(bench: &Bench, park: bool) {
    now(bench.queue.configure(sink(bench), SinkSettings { linger: 0, park })).unwrap();
}

/// Of session `s` 1 is a dead letter, 2 and 3 wait; 4 of session `t` waits too.
fn parked() -> Bench {
    let bench = Bench::new(config());
    configure(&bench, true);
    for (n, session) in [(1, "s"), (2, "s"), (3, "s"), (4, "t")] {
        bench.append(session, n, &["a"]).unwrap();
    }
    die(&bench, 1);
    bench
}

fn seqs(claims: &[Claim]) -> Vec<Seq> {
    claims.iter().map(|c| c.seq).collect()
}

/// The episode at this place is claimed, alone, and dies.
fn die(bench: &Bench, seq: Seq) {
    for claim in bench.claim("a", 9) {
        let finish = if claim.seq == seq { Finish::Dead { reason: "rejected" } } else { Finish::Uncount };
        let line = Attempt { at: START, attempt: 1, outcome: "dead".into(), status: None, error: None, duration_ms: 1 };
        bench.queue.finish(claim, finish, (claim.seq == seq).then_some(line));
    }
}

fn delivered(bench: &Bench) -> Vec<Seq> {
    let mut all = Vec::new();
    loop {
        let claims = bench.claim("a", 9);
        if claims.is_empty() {
            return all;
        }
        all.extend(seqs(&claims));
        for claim in claims {
            bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        }
    }
}

fn ask(bench: &Bench, op: fn(Vec<(SinkId, Seq)>, shared::Reply<u64>) -> Op, seq: Seq) {
    assert_eq!(now(bench.queue.ask(|reply| op(vec![(sink(bench), seq)], reply)).unwrap()), Ok(1));
}

fn standing(bench: &Bench, n: u128) -> Standing {
    bench.queue.episode(Uuid::from_u128(n)).unwrap().unwrap().sinks.remove(0)
}

/// Whether the sink's doorbell rang since it was last asked.
fn rang(bench: &Bench) -> bool {
    let rung = std::pin::pin!(bench.queue.rung(sink(bench)));
    rung.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[test]
fn inv5_a_parked_lane_waits_for_its_dead_letter_over_a_crash_and_holds_up_nobody_else() {
    let mut bench = parked();
    bench.crash(START + DAY);
    bench.append("s", 5, &["a"]).unwrap();
    assert_eq!(delivered(&bench), [4]);
    let waits = standing(&bench, 2);
    assert_eq!((waits.state, waits.parked_by, waits.next_attempt_at), (State::Pending, Some(Uuid::from_u128(1)), None));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    ask(&bench, Op::Redrive, 1);
    assert_eq!(standing(&bench, 2).parked_by, None);
    assert_eq!(delivered(&bench), [1, 2, 3, 5]);
    assert!(!bench.tables().contains('g'));
}

#[test]
fn inv5_a_parked_lane_without_work_is_parked_for_what_comes() {
    let bench = Bench::new(config());
    configure(&bench, true);
    bench.append("s", 1, &["a"]).unwrap();
    die(&bench, 1);
    let (early, late) = (bench.queue.reserve(), bench.queue.reserve());
    bench.put("s", late, &["a"]);
    bench.put("s", early, &["a"]);
    assert!(delivered(&bench).is_empty());
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    ask(&bench, Op::Purge, 1);
    assert_eq!(delivered(&bench), [early, late], "the one that was the first for a while goes on as well");
}

#[test]
fn inv5_a_lane_that_waits_for_two_dead_letters_waits_for_both() {
    let bench = parked();
    // As one of several that are under way in a lane at once would leave it.
    let third = Claim {
        sink: sink(&bench),
        lane: Lane::of("s"),
        seq: 3,
        attempts: 1,
        at: EVENT,
        sent: Sent::No,
        lines: 0,
        exhausted: None,
    };
    bench.queue.finish(third, Finish::Dead { reason: "rejected" }, None);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    ask(&bench, Op::Purge, 1);
    assert_eq!((delivered(&bench), standing(&bench, 2).parked_by), (vec![4], Some(Uuid::from_u128(3))));
    ask(&bench, Op::Purge, 3);
    assert_eq!(delivered(&bench), [2]);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv6_whatever_becomes_of_the_dead_letter_the_lane_goes_on_and_the_sink_is_told() {
    let purged: fn(&mut Bench) = |bench| ask(bench, Op::Purge, 1);
    let deleted: fn(&mut Bench) = |bench| {
        assert_eq!(now(bench.queue.delete(Uuid::from_u128(1))), Ok(Deleted::Gone));
    };
    let expired: fn(&mut Bench) = |bench| {
        bench.reopen(START + 40 * DAY);
        configure(bench, true);
        bench.tidy();
    };
    let continued: fn(&mut Bench) = |bench| configure(bench, false);
    for freed in [purged, deleted, expired, continued] {
        let mut bench = parked();
        assert_eq!(delivered(&bench), [4]);
        assert!(rang(&bench));
        freed(&mut bench);
        assert!(rang(&bench), "nobody else would wake the sink");
        assert_eq!(bench.queue.check(), Vec::<String>::new());
        assert_eq!(delivered(&bench), [2, 3]);
        assert!(!bench.tables().contains('g'));
    }
}

#[test]
fn inv9_any_number_of_parked_lanes_goes_on_in_slices() {
    let bench = Bench::new(config());
    configure(&bench, true);
    let lanes = 2 * engine::SWEEP as u64 + 3;
    for n in 1..=lanes {
        bench.append(&n.to_string(), 2 * n, &["a"]).unwrap();
        bench.append(&n.to_string(), 2 * n + 1, &["a"]).unwrap();
    }
    for claim in bench.claim("a", usize::MAX) {
        bench.queue.finish(claim, Finish::Dead { reason: "rejected" }, None);
    }
    assert!(bench.claim("a", usize::MAX).is_empty());
    configure(&bench, false);
    assert_eq!(bench.claim("a", usize::MAX).len() as u64, lanes);
}

#[test]
fn a_lane_goes_on_where_dead_letters_do_not_park_it() {
    let bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.append("s", 2, &["a"]).unwrap();
    die(&bench, 1);
    assert_eq!(standing(&bench, 2).parked_by, None);
    assert_eq!(delivered(&bench), [2]);
}

/// What mending leaves of a queue whose rows are these.
fn mended(bench: &Bench, keep: impl Fn(&[u8]) -> bool) -> Bench {
    let mut rows = store::Writes::new();
    bench
        .store()
        .scan(Vec::new()..vec![u8::MAX], &mut |key, value| {
            if !mend::MADE.contains(&key[0]) && keep(key) {
                rows.insert(key.to_vec(), Some(value.to_vec()));
            }
            true
        })
        .unwrap();
    let mut mended = Bench::new(config());
    let store = Store::on(mended.disk.clone()).unwrap();
    store.commit(rows, true).unwrap();
    mend::mend(&store, None).unwrap();
    drop(store);
    mended.reopen(START);
    mended
}

#[test]
fn inv8_a_queue_that_was_mended_has_its_parked_lanes_and_no_lane_waits_for_a_dead_letter_that_is_lost() {
    let bench = mended(&parked(), |_| true);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    assert_eq!(delivered(&bench), [4]);
    ask(&bench, Op::Purge, 1);
    assert_eq!(delivered(&bench), [2, 3]);
    // The dead letter's row is lost: it waits again. The lane's row is lost: it goes on.
    for (lost, goes_on) in [(b't', vec![1, 2, 3]), (b'g', vec![2, 3])] {
        let bench = mended(&parked(), |key| key[0] != lost);
        let faults = bench.queue.check();
        assert!(faults.iter().all(|fault| fault.contains("are missing")), "{faults:?}");
        let sent = delivered(&bench);
        assert_eq!(sent.into_iter().filter(|seq| *seq != 4).collect::<Vec<_>>(), goes_on);
    }
}

#[test]
fn check_tells_of_lanes_that_are_parked_for_nothing_and_of_those_that_should_be() {
    let bench = parked();
    let (sink, lane) = (sink(&bench), Lane::of("s"));
    bench.store().commit([(keys::park(sink, lane, 1), None)].into(), true).unwrap();
    assert!(bench.queue.check().iter().any(|fault| fault.contains("is parked for no dead letter")));
    bench.store().commit([(keys::park(sink, lane, 3), Some(Vec::new()))].into(), true).unwrap();
    assert!(bench.queue.check().iter().any(|fault| fault.contains("parked for what is no dead letter, at 3")));
}

#[test]
fn deaths_are_counted_over_all_redrives_and_each_redrive_is_told() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    die(&bench, 1);
    let once = standing(&bench, 1);
    assert_eq!(once.deaths, Deaths { count: 1, first: START, last: START });
    bench.reopen(START + DAY);
    ask(&bench, Op::Redrive, 1);
    assert_eq!(standing(&bench, 1).deaths, once.deaths, "it is alive, and died once");
    die(&bench, 1);
    let twice = standing(&bench, 1);
    assert_eq!(twice.deaths, Deaths { count: 2, first: START, last: START + DAY });
    let told: Vec<_> = twice.history.iter().map(|line| (line.outcome.as_str(), line.attempt, line.at)).collect();
    assert_eq!(told, [("dead", 1, START), ("redriven", 0, START + DAY), ("dead", 1, START)]);
}

#[test]
fn inv5_what_the_queue_was_told_of_a_sink_outlives_a_commit_that_fails() {
    let bench = Bench::new(config());
    configure(&bench, true);
    bench.disk.fail(true);
    assert_eq!(bench.append("s", 9, &["a"]), Err(AppendError::Failed));
    bench.disk.fail(false);
    assert!(now(bench.queue.pause(SinkId(1), None)).is_ok(), "any commit that works ends it");
    let (first, second) = (bench.queue.reserve(), bench.queue.reserve());
    bench.put("s", first, &["a"]);
    bench.put("s", second, &["a"]);
    die(&bench, first);
    assert_eq!(standing(&bench, second.into()).parked_by, Some(Uuid::from_u128(first.into())));
    assert!(delivered(&bench).is_empty());
}
