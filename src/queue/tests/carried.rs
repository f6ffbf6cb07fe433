//! From one queue to another: whatever state episodes are in, they stand there as they stood here, in the same order.

use proptest::prelude::*;

use super::*;

/// What happens to the first claim that is to be had.
#[derive(Debug, Clone)]
enum Fate {
    Delivered,
    Dead,
    Retry(u64, bool),
    Accepted,
    Uncounted,
    /// The process ends while it is under way.
    Crash,
    /// It is under way still.
    Open,
}

#[derive(Debug, Clone)]
enum Step {
    Append { session: u8, both: bool, moved: u64 },
    Claim { sink: bool, fate: Fate },
    Redrive,
    Purge,
    Tick(u64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Delivered),
        2 => Just(Fate::Dead),
        2 => (0u64..5_000, any::<bool>()).prop_map(|(delay, doubt)| Fate::Retry(delay, doubt)),
        1 => Just(Fate::Accepted),
        1 => Just(Fate::Uncounted),
        1 => Just(Fate::Crash),
        1 => Just(Fate::Open),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3, any::<bool>(), 0u64..3).prop_map(|(session, both, moved)| Step::Append { session, both, moved }),
        8 => (any::<bool>(), fate()).prop_map(|(sink, fate)| Step::Claim { sink, fate }),
        1 => Just(Step::Redrive),
        1 => Just(Step::Purge),
        1 => (0u64..DAY).prop_map(Step::Tick),
    ]
}

fn line(claim: &Claim, error: Option<&str>) -> Attempt {
    let (outcome, error) = (if error.is_some() { "retry" } else { "delivered" }.to_owned(), error.map(str::to_owned));
    Attempt { at: START, attempt: claim.attempts, outcome, status: None, error, duration_ms: 3 }
}

/// A queue after these steps, and its time.
fn after(steps: &[Step]) -> (Bench, u64) {
    let mut bench = Bench::new(config());
    let (mut n, mut time) = (0, START);
    for step in steps {
        match step {
            Step::Append { session, both, moved } => {
                n += 1;
                let sinks: &[&str] = if *both { &["a", "b"] } else { &["a"] };
                bench.append_at(&session.to_string(), n, sinks, START + moved).unwrap();
            }
            Step::Claim { sink, fate } => {
                let Some(claim) = bench.claim(if *sink { "b" } else { "a" }, 1).into_iter().next() else { continue };
                let finish = match fate {
                    Fate::Delivered => Finish::Delivered { confirmed_in: None },
                    Fate::Dead => Finish::Dead { reason: "rejected" },
                    Fate::Retry(delay, doubt) => {
                        Finish::Retry { delay: *delay, sent: if *doubt { Sent::Began(time) } else { Sent::No } }
                    }
                    Fate::Accepted => {
                        bench.queue.accepted(claim);
                        Finish::Hold { sent: Sent::Accepted(time) }
                    }
                    Fate::Uncounted => Finish::Uncount,
                    Fate::Crash => {
                        bench.crash(time);
                        continue;
                    }
                    Fate::Open => continue,
                };
                let error = (*fate != Fate::Delivered).then_some("boom");
                bench.queue.finish(claim, finish, Some(line(&claim, error)));
            }
            Step::Redrive => drop(each_dead(&bench, Op::Redrive)),
            Step::Purge => drop(each_dead(&bench, Op::Purge)),
            Step::Tick(by) => {
                time += by;
                bench.reopen(time);
                bench.tidy();
            }
        }
    }
    (bench, time)
}

impl PartialEq for Fate {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// The first dead letter at `a`.
fn each_dead(bench: &Bench, op: fn(Vec<(SinkId, Seq)>, shared::Reply<u64>) -> Op) -> Option<u64> {
    let sink = bench.queue.sink_id("a")?;
    let chosen = inspect::select(&bench.queue.inner.shared, &bench.queue.names(), sink, &Select::default(), None).unwrap().0;
    now(bench.queue.ask(|r| op(chosen.into_iter().take(1).collect(), r)).unwrap()).ok()
}

/// Everything, in pages.
fn views(queue: &Queue, state: Option<State>) -> Vec<View> {
    let (mut all, mut filter) = (Vec::new(), Filter { state, limit: 3, ..Filter::default() });
    loop {
        let page = queue.list(&filter).unwrap();
        assert_eq!(page.unreadable, []);
        all.extend(page.episodes);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return all,
        }
    }
}

/// An episode as it goes to another queue.
fn import(view: &View, to: &Queue) -> Import {
    let lane = Lane::of(&view.episode.session);
    let sinks = view.sinks.iter().map(|standing| (to.sink_id(&standing.sink).unwrap(), lane, waiting(standing)));
    Import { episode: view.episode.clone(), sinks: sinks.collect() }
}

/// What was under way is in doubt, and a time that was given for nothing is none.
fn waiting(standing: &Standing) -> Standing {
    let mut standing = standing.clone();
    standing.time = standing.time.elsewhere(standing.sent);
    if standing.state == State::InFlight {
        assert_ne!(standing.sent, Sent::No);
        standing.state = State::Pending;
    }
    standing
}

fn carry(views: &[View], to: &Queue) -> Vec<bool> {
    let slices = views.chunks(4).map(|slice| slice.iter().map(|view| import(view, to)).collect());
    let each = slices.flat_map(|slice: Vec<Import>| {
        let imported = now(to.import(slice).unwrap()).unwrap();
        assert!(!imported.full);
        imported.taken
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn inv5_inv8_any_queue_stands_elsewhere_as_it_stood(steps in prop::collection::vec(step(), 1..60), sealed: bool) {
        let (from, time) = after(&steps);
        let before = views(&from.queue, None);
        let keys = sealed.then(|| config::encryption::SealingKey::new([1; 32])).into_iter().collect();
        let mut to = Bench::new(config::Queue { encryption_keys: keys, ..config() });
        to.reopen(time);
        to.append("0", 1_000, &["a"]).unwrap(); // was there before
        prop_assert_eq!(carry(&before, &to.queue), vec![true; before.len()]);
        prop_assert_eq!(to.queue.check(), Vec::<String>::new());

        // The same episodes in the same order, and each where it stood.
        let after = views(&to.queue, None);
        prop_assert_eq!(after.len(), before.len() + 1);
        for (view, was) in after[1..].iter().zip(&before) {
            prop_assert_eq!(&view.episode, &was.episode);
            prop_assert_eq!(&view.sinks, &was.sinks.iter().map(waiting).collect::<Vec<_>>());
        }
        let count = |state| before.iter().flat_map(|v| &v.sinks).filter(|s| waiting(s).state == state).count() as u64;
        let ledger = to.queue.stats().ledger;
        prop_assert_eq!(ledger.gap(), 0);
        prop_assert_eq!((ledger.delivered, ledger.dead), (count(State::Delivered), count(State::Dead)));
        prop_assert_eq!((ledger.purged, ledger.expired), (count(State::Purged), count(State::Expired)));
        prop_assert_eq!(ledger.pending, count(State::Pending) + 1);

        // A second time all are there, also in a slice with themselves.
        prop_assert_eq!(carry(&before, &to.queue), vec![false; before.len()]);
        prop_assert_eq!(to.queue.stats().ledger, ledger);

        // A crash takes nothing back.
        to.crash(time);
        prop_assert_eq!(views(&to.queue, None).len(), after.len());

        let ids = ["a", "b"].map(|sink| (sink, to.queue.sink_id(sink).unwrap()));
        let to_id = |name: &str| ids.iter().find(|(known, _)| *known == name).unwrap().1;
        // All of it can be delivered, in order and with times that go forward, and then nothing stays behind.
        // One that its sink may have seen keeps its time, whatever was sent here before.
        let kept = |claim: &Claim| {
            let view = after.iter().find(|view| view.seq == claim.seq).unwrap();
            let time = view.sinks.iter().find(|s| to_id(&s.sink) == claim.sink).unwrap().time;
            matches!(time, Time::Sent(_)) || claim.sent != Sent::No
        };
        let mut sent: std::collections::BTreeMap<_, (Seq, i64)> = std::collections::BTreeMap::new();
        for round in 0.. {
            prop_assert!(round < 200, "what is pending can't be claimed");
            let claims: Vec<_> = ["a", "b"].iter().flat_map(|sink| to.claim(sink, 9)).collect();
            for claim in claims {
                let at = (claim.sink, claim.lane);
                if let Some((seq, time)) = sent.insert(at, (claim.seq, claim.at)) {
                    prop_assert!(seq < claim.seq, "out of order");
                    prop_assert!(time < claim.at || kept(&claim), "a time goes back");
                }
                to.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
            }
            if to.queue.stats().ledger.pending == 0 {
                break;
            }
            to.reopen(time + 10_000);
        }
        prop_assert_eq!(to.queue.check(), Vec::<String>::new());
        for days in [1, 32, 64, 96] {
            to.reopen(time + days * DAY + 20_000);
            to.tidy();
        }
        prop_assert_eq!(to.tables(), if sealed { "kmnsz" } else { "mnsz" });
        prop_assert_eq!(to.queue.stats().bytes, 0);
    }

    #[test]
    fn a_page_of_one_state_has_what_stands_so(steps in prop::collection::vec(step(), 1..40)) {
        let (from, _) = after(&steps);
        let all = views(&from.queue, None);
        for state in [State::Pending, State::InFlight, State::Delivered, State::Dead, State::Purged] {
            let expected: Vec<_> = all.iter().filter(|v| v.sinks.iter().any(|s| s.state == state)).cloned().collect();
            prop_assert_eq!(views(&from.queue, Some(state)), expected);
        }
    }
}

#[test]
fn inv4_what_may_have_reached_its_sink_is_looked_up_before_it_is_sent() {
    let from = Bench::new(config());
    for (n, session) in [(1, "certain"), (2, "open"), (3, "accepted")] {
        from.append(session, n, &["a"]).unwrap();
    }
    for claim in from.claim("a", 9) {
        match claim.seq {
            1 => from.queue.finish(claim, Finish::Retry { delay: 0, sent: Sent::No }, None),
            2 => {}
            _ => from.queue.accepted(claim),
        }
    }
    let to = Bench::new(config());
    carry(&views(&from.queue, None), &to.queue);
    let sent: Vec<_> = to.claim("a", 9).into_iter().map(|claim| (claim.seq, claim.sent, claim.attempts)).collect();
    assert_eq!(sent.len(), 3);
    for at in [(1, Sent::No, 2), (2, Sent::Began(START), 1), (3, Sent::Accepted(START), 1)] {
        assert!(sent.contains(&at), "{at:?} is not in {sent:?}");
    }
}

#[test]
fn inv9_an_import_ends_where_there_is_no_room() {
    let from = Bench::new(config());
    for n in 1..=5 {
        from.append("s", n, &["a"]).unwrap();
    }
    from.queue.finish(from.claim("a", 1)[0], Finish::Delivered { confirmed_in: None }, None);
    let to = Bench::new(config::Queue { max_episodes: 2, ..config() });
    let all: Vec<_> = views(&from.queue, None).iter().map(|view| import(view, &to.queue)).collect();
    let imported = now(to.queue.import(all.clone()).unwrap()).unwrap();
    assert_eq!((imported.taken, imported.full), (vec![true; 3], true), "a receipt is no pending episode");
    assert_eq!(to.queue.check(), Vec::<String>::new());
    to.queue.finish(to.claim("a", 1)[0], Finish::Delivered { confirmed_in: None }, None);
    let imported = now(to.queue.import(all).unwrap()).unwrap();
    assert_eq!((imported.taken, imported.full), (vec![false, false, false, true], true), "it goes on where it ended");
}

#[test]
fn inv9_a_page_ends_by_its_bytes() {
    let bench = Bench::new(config());
    for n in 1..=6 {
        let long = Episode { messages: vec![Message::new("user", "x".repeat(1_500_000))], ..episode("s", n) };
        bench.append_new(&New::of(&long, &bench.lanes("s", &["a"]))).unwrap();
    }
    let page = bench.queue.list(&Filter { limit: 99, ..Filter::default() }).unwrap();
    assert_eq!((page.episodes.len(), page.next), (3, Some(3)));
    assert_eq!(views(&bench.queue, None).len(), 6);
}

#[test]
fn inv8_a_record_that_cannot_be_read_is_not_passed_over_in_silence() {
    let bench = Bench::new(config());
    for n in 1..=3 {
        bench.append("s", n, &["a"]).unwrap();
    }
    bench.store().commit([(keys::chunk(2, 0), Some(vec![1, 2, 3]))].into(), true).unwrap();
    let page = bench.queue.list(&Filter { limit: 99, ..Filter::default() }).unwrap();
    assert_eq!(page.episodes.iter().map(|v| v.seq).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(page.unreadable.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
}
