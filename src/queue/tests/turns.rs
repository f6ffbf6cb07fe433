//! Lanes take turns: how long one waits for the others, what a priority is worth, and what lingers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// What a step of priority is worth (ms).
const STEP: u64 = 600_000;

/// A queue whose time the test tells.
struct Told {
    bench: Bench,
    time: &'static AtomicU64,
    next: u64,
}

impl Told {
    fn new() -> Self {
        let (mut bench, time) = (Bench::new(config()), &*Box::leak(Box::new(AtomicU64::new(START))));
        bench.queue = Queue::inline(bench.disk.clone(), &bench.config, &["a", "b"], Clock::Told(time));
        Self { bench, time, next: 1 }
    }

    fn pass(&self, ms: u64) -> u64 {
        self.time.fetch_add(ms, Ordering::Relaxed) + ms
    }

    fn append(&mut self, lane: u8, priority: u8) -> Seq {
        let seq = self.next;
        self.next += 1;
        let short = Episode { messages: vec![Message::new("user", "hi")], ..episode(&lane.to_string(), seq) };
        let lanes = self.bench.lanes(&lane.to_string(), &["a"]);
        assert_eq!(self.bench.append_new(&New { priority, ..New::of(&short, &lanes) }), Ok(None));
        seq
    }

    /// Delivers what the only worker gets.
    fn deliver(&self) -> Option<Claim> {
        let claim = self.bench.claim("a", 1).into_iter().next()?;
        self.bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        Some(claim)
    }
}

#[test]
fn inv6_a_new_lane_waits_for_one_delivery_of_a_lane_with_a_long_backlog_and_not_for_all_of_it() {
    let mut queue = Told::new();
    for _ in 0..500 {
        queue.append(0, 0);
    }
    queue.pass(1);
    let first = queue.append(1, 0);
    let second = queue.append(1, 0);
    let mut turns = Vec::new();
    for _ in 0..4 {
        queue.pass(1);
        turns.push(queue.deliver().unwrap().seq);
    }
    assert_eq!(turns, [1, first, 2, second]);
    assert_eq!(queue.bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv6_turns_outlive_the_process() {
    let mut queue = Told::new();
    for _ in 0..9 {
        queue.append(0, 0);
    }
    queue.pass(1);
    let other = queue.append(1, 0);
    queue.pass(1);
    assert_eq!(queue.deliver().unwrap().seq, 1);
    queue.bench.crash(START + 10);
    assert_eq!(queue.bench.claim("a", 1)[0].seq, other);
}

#[test]
fn inv6_a_higher_priority_drains_first_and_what_waited_for_longer_than_it_is_worth_comes_before_it() {
    let mut queue = Told::new();
    let low = queue.append(0, 0);
    queue.pass(1);
    let (high, again) = (queue.append(1, 1), queue.append(1, 1));
    queue.pass(1);
    assert_eq!(queue.deliver().unwrap().seq, high);
    queue.pass(STEP);
    assert_eq!(queue.deliver().unwrap().seq, again, "it was its turn before");
    let late = queue.append(2, 1);
    assert_eq!([queue.deliver().unwrap().seq, queue.deliver().unwrap().seq], [low, late]);
}

#[test]
fn inv6_the_delay_of_a_retry_is_kept_whatever_the_priority() {
    let mut queue = Told::new();
    queue.append(0, 100);
    let claim = queue.bench.claim("a", 1)[0];
    queue.bench.queue.finish(claim, Finish::Retry { delay: 5_000, sent: Sent::No }, None);
    queue.pass(4_999);
    assert_eq!(queue.deliver(), None);
    queue.pass(1);
    assert!(queue.deliver().is_some());
}

#[test]
fn what_is_appended_lingers_and_what_has_a_priority_does_not() {
    let mut queue = Told::new();
    let sink = queue.bench.queue.sink_id("a").unwrap();
    now(queue.bench.queue.configure(sink, SinkSettings { linger: 500, park: false })).unwrap();
    let first = queue.append(0, 0);
    let urgent = queue.append(1, 1);
    assert_eq!(queue.deliver().unwrap().seq, urgent);
    let answer = now(queue.bench.queue.claim(sink, request(9))).unwrap();
    assert_eq!((answer.claims.len(), answer.next_due), (0, Some(START + 500)));
    queue.pass(499);
    let second = queue.append(0, 0);
    queue.pass(1);
    assert_eq!(queue.deliver().unwrap().seq, first);
    assert_eq!(queue.deliver(), None, "the second one lingers for itself");
    queue.pass(499);
    assert_eq!(queue.deliver().unwrap().seq, second);
    assert_eq!(queue.bench.queue.check(), Vec::<String>::new());
}

#[derive(Debug, Clone)]
enum Step {
    Append { lane: u8, priority: u8, count: usize },
    Deliver(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..6, 0u8..3, 1usize..8).prop_map(|(lane, priority, count)| Step::Append { lane, priority, count }),
        3 => (1usize..12).prop_map(Step::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One worker. Each lane has one priority, so that a lane passes another for good only for its own sake.
    #[test]
    fn inv6_nobody_passes_a_lane_twice_but_who_is_worth_it_and_not_for_longer_than_that(
        steps in prop::collection::vec(step(), 1..40),
        pace in prop_oneof![1u64..1_000, 100_000u64..1_000_000],
    ) {
        let mut queue = Told::new();
        // Of each lane its priority, and of each that waits what is left, since when it is ready, and who passed it how often.
        let mut priorities: BTreeMap<Lane, u8> = BTreeMap::new();
        let mut waits: BTreeMap<Lane, (usize, u64, BTreeMap<Lane, u32>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append { lane, priority, count } => {
                    let now = queue.pass(pace);
                    let of = Lane::of(&lane.to_string());
                    let priority = *priorities.entry(of).or_insert(priority);
                    for _ in 0..count {
                        queue.append(lane, priority);
                    }
                    waits.entry(of).or_insert((0, now, BTreeMap::new())).0 += count;
                }
                Step::Deliver(count) => {
                    for _ in 0..count {
                        let now = queue.pass(pace);
                        let Some(claim) = queue.deliver() else { break };
                        let (left, since, _) = waits.remove(&claim.lane).unwrap();
                        let mine = priorities[&claim.lane];
                        for (other, (_, ready, passed)) in &mut waits {
                            let worth = STEP * u64::from(mine.saturating_sub(priorities[other]));
                            let times = passed.entry(claim.lane).or_default();
                            *times += 1;
                            prop_assert!(since <= *ready + worth, "it passed one that had waited for longer than it is worth");
                            prop_assert!(worth > 0 || *times <= 1, "a lane without a higher priority had two turns");
                        }
                        if left > 1 {
                            waits.insert(claim.lane, (left - 1, now, BTreeMap::new()));
                        }
                    }
                }
            }
        }
        prop_assert_eq!(queue.bench.queue.check(), Vec::<String>::new());
    }
}

#[test]
fn inv6_in_advance_only_what_has_another_attempt_is_claimed_and_nothing_behind_what_has_not() {
    let mut queue = Told::new();
    let id = queue.bench.queue.sink_id("a").unwrap();
    let claim =
        |queue: &Told, max, ahead| now(queue.bench.queue.claim(id, ClaimRequest { ahead, ..request(max) })).unwrap().claims;
    let places = |claims: &[Claim]| claims.iter().map(|claim| claim.seq).collect::<Vec<_>>();
    let first = queue.append(0, 0);
    queue.pass(1);
    let tried = queue.append(1, 0);
    for _ in 0..2 {
        queue.pass(1);
        for claim in claim(&queue, 9, 0) {
            let in_vain = Finish::Retry { delay: 0, sent: Sent::No };
            queue.bench.queue.finish(claim, if claim.seq == tried { in_vain } else { Finish::Uncount }, None);
        }
    }
    queue.pass(1);
    let last = queue.append(2, 0);
    let ahead = claim(&queue, 0, 9);
    assert_eq!(places(&ahead), [first], "the next in line has one attempt left");
    assert_eq!(places(&claim(&queue, 1, 9)), [tried, last], "which is for a worker that is free");
    queue.bench.queue.finish(ahead[0], Finish::Uncount, None);
    let again = claim(&queue, 1, 0);
    assert_eq!(
        (places(&again), again[0].attempts),
        (vec![first], 1),
        "what is given back was never counted, and keeps its place"
    );
}
