//! Places: reserved when something begins, filled when it ends.

use super::*;

fn deliver(bench: &Bench, claim: Claim) {
    bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
}

#[test]
fn inv5_an_episode_is_delivered_at_its_place_and_not_when_it_was_appended() {
    let bench = Bench::new(config());
    let places: Vec<Seq> = (0..3).map(|_| bench.queue.reserve()).collect();
    for place in places.iter().rev() {
        bench.put("s", *place, &["a"]);
    }
    bench.append("s", 99, &["a"]).unwrap();
    let mut delivered = Vec::new();
    while let [claim] = bench.claim("a", 9)[..] {
        delivered.push(claim.seq);
        deliver(&bench, claim);
    }
    assert_eq!(delivered, [places[0], places[1], places[2], 4], "one without a place comes behind all others");
    let listed = bench.queue.list(&Filter { limit: 9, ..Filter::default() }).unwrap();
    assert_eq!(listed.episodes.iter().map(|v| v.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn inv5_an_earlier_place_becomes_the_next_one_and_what_is_in_flight_stays_in_flight() {
    let bench = Bench::new(config());
    let early = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    bench.append("s", 3, &["a"]).unwrap();
    let second = bench.claim("a", 9)[0];
    bench.put("s", early, &["a"]);
    assert!(bench.claim("a", 9).is_empty(), "one attempt of a lane at a time");
    deliver(&bench, second);
    let next: Vec<Seq> = std::iter::repeat_with(|| bench.claim("a", 9)).take(2).flatten().map(|c| c.seq).collect();
    assert_eq!(next, [early]);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv6_an_earlier_place_does_not_wait_for_a_later_one_to_be_retried() {
    let bench = Bench::new(config());
    let early = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    bench.queue.finish(bench.claim("a", 9)[0], Finish::Retry { delay: 60_000, sent: Sent::No }, None);
    assert!(bench.claim("a", 9).is_empty());
    bench.put("s", early, &["a"]);
    let claim = bench.claim("a", 9)[0];
    assert_eq!(claim.seq, early);
    deliver(&bench, claim);
    let answer = now(bench.queue.claim(claim.sink, request(9))).unwrap();
    assert_eq!((answer.claims.len(), answer.next_due), (0, Some(START + 60_000)), "the later one keeps its delay");
}

#[test]
fn inv5_a_place_is_used_once_also_after_a_crash() {
    let mut bench = Bench::new(config());
    let (used, unused) = (bench.queue.reserve(), bench.queue.reserve());
    let last = bench.queue.reserve();
    bench.put("s", last, &["a"]);
    bench.put("s", used, &["a"]);
    bench.crash(START);
    assert!(bench.queue.reserve() > last);
    // A place that is taken, and one that nobody was given: neither may cost another episode its place.
    let lanes = bench.lanes("s", &["a"]);
    for (n, place) in [(50, used), (51, 1_000)] {
        let episode = episode("s", n);
        let new = New { place: Some(place), ..New::of(&episode, &lanes) };
        assert_eq!(bench.append_new(&new), Ok(None));
        assert!(bench.queue.episode(Uuid::from_u128(u128::from(n))).unwrap().unwrap().seq > last);
    }
    assert!(bench.queue.episode(Uuid::from_u128(u128::from(used))).unwrap().is_some());
    assert!(bench.queue.episode(Uuid::from_u128(u128::from(unused))).unwrap().is_none());
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv8_the_oldest_that_waits_is_known_when_an_older_place_is_filled_late() {
    let mut bench = Bench::new(config());
    let late = bench.queue.reserve();
    for n in 2..400 {
        bench.append_at("s", n, &["a"], START + n).unwrap();
    }
    for _ in 0..300 {
        deliver(&bench, bench.claim("a", 1)[0]);
    }
    let oldest = |bench: &Bench| bench.queue.stats().sinks[0].oldest_pending;
    assert_eq!(oldest(&bench), Some(START + 302));
    bench.put("t", late, &["a"]);
    assert_eq!(oldest(&bench), Some(START));
    bench.crash(START);
    assert_eq!(oldest(&bench), Some(START), "the mark on disk went back as well");
    let claim = bench.claim("a", 9).into_iter().find(|c| c.seq == late).unwrap();
    bench.append("u", 1_000, &["a"]).unwrap();
    deliver(&bench, claim);
    bench.append("u", 1_001, &["a"]).unwrap();
    bench.append("u", 1_002, &["a"]).unwrap();
    assert_eq!(oldest(&bench), Some(START + 302), "it walks over what was delivered, a bounded way each time");
}

#[test]
fn one_that_was_deleted_is_not_the_oldest_for_ever() {
    let bench = Bench::new(config());
    for n in 1..=3 {
        bench.append_at("s", n, &["a"], START + n).unwrap();
    }
    assert_eq!(bench.queue.stats().sinks[0].oldest_pending, Some(START + 1));
    assert_eq!(now(bench.queue.delete(Uuid::from_u128(1))), Ok(Deleted::Gone));
    assert_eq!(bench.queue.stats().sinks[0].oldest_pending, Some(START + 2));
}

#[test]
fn event_times_of_a_lane_increase_even_when_the_clock_does_not() {
    let bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.append("s", 2, &["a"]).unwrap();
    let claim = bench.claim("a", 9)[0];
    assert_eq!(claim.at, EVENT);
    deliver(&bench, claim);
    let claim = bench.claim("a", 9)[0];
    assert_eq!(claim.at, EVENT + 1);
    deliver(&bench, claim);
    bench.append("s", 3, &["a"]).unwrap();
    assert_eq!(bench.claim("a", 9)[0].at, EVENT + 2, "also when the lane has run empty");
}

#[test]
fn the_time_that_an_exchange_names_is_the_events_unless_its_lane_is_further() {
    let bench = Bench::new(config());
    let lanes = bench.lanes("s", &["a"]);
    let append = |n, occurred_at| {
        let episode = Episode { occurred_at, ..episode("s", n) };
        bench.append_new(&New::of(&episode, &lanes)).unwrap();
    };
    let yesterday = EVENT - DAY.cast_signed();
    append(1, Some(-5));
    append(2, Some(-9));
    append(3, Some(yesterday));
    append(4, Some(yesterday - 1));
    append(5, Some(-1));
    append(6, None);
    let mut times = Vec::new();
    while let [claim] = bench.claim("a", 9)[..] {
        times.push(claim.at);
        deliver(&bench, claim);
    }
    assert_eq!(times, [-5, -4, yesterday, yesterday + 1, yesterday + 2, EVENT]);
}

#[test]
fn event_times_increase_in_the_order_of_sending_and_stay_for_every_attempt() {
    let mut bench = Bench::new(config());
    let early = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    let later = bench.claim("a", 9)[0];
    bench.queue.finish(later, Finish::Retry { delay: 0, sent: Sent::No }, None);
    bench.put("s", early, &["a"]);
    let first = bench.claim("a", 9)[0];
    assert_eq!((first.seq, first.at > later.at), (early, true), "sent behind the one that was sent already");
    bench.crash(START);
    let again = bench.claim("a", 9)[0];
    assert_eq!((again.seq, again.at), (early, first.at));
    deliver(&bench, again);
    let again = bench.claim("a", 9)[0];
    assert_eq!((again.seq, again.at), (2, later.at));
}

#[test]
fn an_attempt_that_reached_nobody_gives_its_event_time_up_to_whom_was_sent_before_it() {
    let bench = Bench::new(config());
    let early = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    let probe = || {
        let claim = bench.claim("a", 9)[0];
        bench.queue.finish(claim, Finish::Uncount, None);
        claim.at
    };
    assert_eq!((probe(), probe()), (EVENT, EVENT), "an outage alone moves nothing");
    bench.put("s", early, &["a"]);
    let first = bench.claim("a", 9)[0];
    deliver(&bench, first);
    assert!(bench.claim("a", 9)[0].at > first.at);
}

#[test]
fn an_attempt_in_doubt_keeps_its_event_time_whatever_became_of_the_next_attempt() {
    let bench = Bench::new(config());
    let sink = bench.queue.sink_id("a").unwrap();
    let early = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    let (unheard, asker) = oneshot::channel();
    drop(asker);
    bench.queue.submit(Op::Claim(sink, request(9), unheard)).unwrap();
    let again = bench.claim("a", 9)[0];
    assert_ne!(again.sent, Sent::No);
    assert_eq!(now(bench.queue.begin(again)), Ok(Some(2)));
    bench.queue.finish(again, Finish::Uncount, None);
    bench.put("s", early, &["a"]);
    deliver(&bench, bench.claim("a", 9)[0]);
    let last = bench.claim("a", 9)[0];
    assert_eq!((last.seq, last.at), (2, again.at));
}

#[test]
fn a_lanes_clock_outlives_the_receipts_as_long_as_the_lane_has_work() {
    let mut bench = Bench::new(config());
    for n in 1..=2 {
        bench.append("s", n, &["a"]).unwrap();
    }
    deliver(&bench, bench.claim("a", 9)[0]);
    bench.reopen(START + 2 * DAY);
    bench.tidy();
    assert_eq!(bench.queue.episode(Uuid::from_u128(1)).unwrap(), None, "its receipt has expired");
    assert_eq!(bench.claim("a", 9)[0].at, EVENT + 1);
}

#[test]
fn a_dead_letter_of_old_age_that_is_put_back_gets_its_attempts() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.reopen(START + DAY);
    let sink = bench.queue.sink_id("a").unwrap();
    let request = ClaimRequest { max_age: DAY, ..request(9) };
    let claim = now(bench.queue.claim(sink, request)).unwrap().claims[0];
    assert_eq!(claim.exhausted, Some("max_age"));
    bench.queue.finish(claim, Finish::Dead { reason: "max_age" }, None);
    assert_eq!(now(bench.queue.ask(|r| Op::Redrive(vec![(sink, 1)], r)).unwrap()), Ok(1));
    let claim = now(bench.queue.claim(sink, request)).unwrap().claims[0];
    assert_eq!((claim.exhausted, claim.attempts, claim.at), (None, 1, EVENT));
}
