//! Holds: a later episode waits for an exchange that began earlier and goes on.

use super::*;

fn sink(bench: &Bench) -> SinkId {
    bench.queue.sink_id("a").unwrap()
}

fn claims(bench: &Bench, max: usize) -> Claims {
    now(bench.queue.claim(sink(bench), request(max))).unwrap()
}

fn seqs(claims: &Claims) -> Vec<Seq> {
    claims.claims.iter().map(|c| c.seq).collect()
}

/// Whether the sink's doorbell rang since it was last asked.
fn rang(bench: &Bench) -> bool {
    let rung = std::pin::pin!(bench.queue.rung(sink(bench)));
    rung.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[test]
fn inv5_the_later_of_two_that_overlap_waits_for_the_end_of_the_earlier() {
    let bench = Bench::new(config());
    let (first, second) = (bench.queue.reserve(), bench.queue.reserve());
    bench.queue.hold(&bench.lanes("s", &["a", "b"]), first, START + 60_000);
    bench.queue.hold(&bench.lanes("s", &["a", "b"]), second, START + 60_000);
    bench.put("s", second, &["a"]);
    bench.queue.release(second);
    let answer = claims(&bench, 9);
    assert_eq!((seqs(&answer), answer.next_due), (vec![], Some(START + 60_000)));
    assert!(rang(&bench), "for the append");
    bench.put("s", first, &["a"]);
    bench.queue.release(first);
    assert!(rang(&bench));
    let answer = claims(&bench, 9);
    assert_eq!(seqs(&answer), [first]);
    bench.queue.finish(answer.claims[0], Finish::Delivered { confirmed_in: None }, None);
    assert_eq!(seqs(&claims(&bench, 9)), [second]);
}

#[test]
fn inv5_a_release_without_an_episode_lets_the_later_one_go_and_rings() {
    let bench = Bench::new(config());
    let first = bench.queue.reserve();
    bench.queue.hold(&bench.lanes("s", &["a"]), first, START + 60_000);
    bench.append("s", 2, &["a"]).unwrap();
    assert!(claims(&bench, 9).claims.is_empty());
    assert!(rang(&bench));
    assert!(!rang(&bench));
    bench.queue.release(first);
    assert!(rang(&bench), "nobody else would wake the sink");
    assert_eq!(seqs(&claims(&bench, 9)), [2]);
}

#[test]
fn inv5_a_claim_that_was_in_the_line_before_does_not_see_the_release_of_what_comes_behind_it() {
    let bench = Bench::new(config());
    let (first, lanes) = (bench.queue.reserve(), bench.lanes("s", &["a"]));
    bench.queue.hold(&lanes, first, START + 60_000);
    bench.append("s", 2, &["a"]).unwrap();
    let (early, answer) = oneshot::channel();
    let (appending, _) = oneshot::channel();
    let new = Append::of(&New { place: Some(first), ..New::of(&episode("s", first), &lanes) }, &Seals::new(&[])).unwrap();
    let shared = &bench.queue.inner.shared;
    shared.submit(Op::Claim(sink(&bench), request(9), early)).unwrap();
    shared.submit(Op::Append(vec![new], appending, Instant::now())).unwrap();
    bench.queue.release(first); // the writer takes all three at once
    assert!(now(answer).unwrap().unwrap().claims.is_empty());
    assert_eq!(seqs(&claims(&bench, 9)), [first]);
}

#[test]
fn inv6_a_hold_blocks_no_other_lane_no_other_sink_and_nothing_before_its_place() {
    let bench = Bench::new(config());
    bench.append("s", 1, &["a", "b"]).unwrap();
    let place = bench.queue.reserve();
    bench.queue.hold(&bench.lanes("s", &["a"]), place, START + 60_000);
    bench.append("s", 3, &["a", "b"]).unwrap();
    bench.append("t", 4, &["a"]).unwrap();
    let answer = claims(&bench, 9);
    assert_eq!(seqs(&answer), [1, 4]);
    for claim in answer.claims.into_iter().chain(bench.claim("b", 9)) {
        bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
    }
    assert!(claims(&bench, 9).claims.is_empty());
    assert_eq!(bench.claim("b", 9)[0].seq, 3);
}

#[test]
fn inv6_any_number_of_held_lanes_lets_the_lane_behind_them_through() {
    let bench = Bench::new(config());
    let place = bench.queue.reserve();
    for n in 2..50 {
        bench.queue.hold(&bench.lanes(&format!("held {n}"), &["a"]), place, START + 60_000);
        bench.append(&format!("held {n}"), n, &["a"]).unwrap();
    }
    bench.append("free", 50, &["a"]).unwrap();
    assert_eq!(seqs(&claims(&bench, 1)), [50]);
}

#[test]
fn inv6_what_is_in_flight_when_a_hold_comes_goes_on() {
    let bench = Bench::new(config());
    let place = bench.queue.reserve();
    bench.append("s", 2, &["a"]).unwrap();
    let claim = claims(&bench, 9).claims[0];
    bench.queue.hold(&bench.lanes("s", &["a"]), place, START + 60_000);
    assert_eq!(now(bench.queue.begin(claim)), Ok(Some(2)));
    bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
    assert_eq!(bench.sink("a").delivered, 1);
}

#[test]
fn inv6_holds_do_not_survive_the_process() {
    let mut bench = Bench::new(config());
    let place = bench.queue.reserve();
    bench.queue.hold(&bench.lanes("s", &["a"]), place, START + 60_000);
    bench.append("s", 2, &["a"]).unwrap();
    bench.crash(START);
    assert_eq!(seqs(&claims(&bench, 9)), [2]);
}

#[tokio::test(start_paused = true)]
async fn inv6_a_hold_ends_by_itself_at_its_time_and_the_scheduler_knows_when() {
    let mut bench = Bench::new(config());
    bench.queue = Queue::inline(bench.disk.clone(), &bench.config, &["a", "b"], Clock::steady_from(START));
    let (first, second) = (bench.queue.reserve(), bench.queue.reserve());
    bench.queue.hold(&bench.lanes("s", &["a"]), first, START + 1_000);
    bench.queue.hold(&bench.lanes("s", &["a"]), second, START + 3_000);
    bench.append("s", 3, &["a"]).unwrap();
    for until in [1_000, 3_000] {
        let answer = claims(&bench, 9);
        assert_eq!((seqs(&answer), answer.next_due), (vec![], Some(START + until)));
        let left = START + until - bench.queue.now();
        tokio::time::advance(Duration::from_millis(left)).await;
    }
    assert_eq!(seqs(&claims(&bench, 9)), [3]);
    assert!(bench.queue.inner.shared.holds.is_empty(), "what ended is not kept");
    // One that nobody ever asks for goes with the next look around.
    bench.queue.hold(&bench.lanes("t", &["a"]), first, START + 4_000);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!bench.queue.inner.shared.holds.is_empty());
    bench.tidy();
    assert!(bench.queue.inner.shared.holds.is_empty());
}

/// On the real store, with the writer's own thread: exchanges of three sessions that begin in turn and end in any order.
#[test]
fn inv5_nothing_overtakes_what_began_before_it_whoever_ends_first() {
    const EACH: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let config = config::Queue { path: dir.path().into(), ..config() };
    let queue = Queue::open_for(&config, &["a".to_owned()], &Metrics::new()).unwrap();
    let (id, sessions) = (queue.sink_id("a").unwrap(), ["x", "y", "z"]);
    let began = std::sync::Mutex::new(());
    let mut claimed: std::collections::BTreeMap<Lane, Vec<Seq>> = std::collections::BTreeMap::new();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (queue, began) = (queue.clone(), &began);
            scope.spawn(move || {
                let mut under_way = Vec::new();
                for n in 0..EACH {
                    let session = sessions[usize::try_from(n % 3).unwrap()];
                    let lanes = [(id, Lane::of(session))];
                    {
                        let _one_by_one = began.lock().unwrap();
                        let place = queue.reserve();
                        queue.hold(&lanes, place, u64::MAX);
                        under_way.push((place, session, lanes));
                    }
                    if n % 4 == thread || n + 1 == EACH {
                        // The last to begin ends first.
                        while let Some((place, session, lanes)) = under_way.pop() {
                            let episode = episode(session, place);
                            let commit = queue.append(&[New { place: Some(place), ..New::of(&episode, &lanes) }]).unwrap();
                            queue.release(place);
                            drop(commit); // takes nothing back
                        }
                    }
                }
            });
        }
        let drained = async {
            let mut count = 0;
            while count < 4 * EACH {
                for claim in queue.claim(id, request(2)).await.unwrap().claims {
                    claimed.entry(claim.lane).or_default().push(claim.seq);
                    queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
                    count += 1;
                }
                if count < 4 * EACH {
                    queue.rung(id).await; // nothing else wakes it: a release that doesn't ring would be the end
                }
            }
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(drained);
    });
    assert!(claimed.values().all(|seqs| seqs.is_sorted()), "{claimed:?}");
    queue.close();
    assert!(queue.inner.shared.holds.is_empty());
    assert_eq!(queue.check(), Vec::<String>::new());
}
