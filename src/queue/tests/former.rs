//! Queues that earlier offramps left behind.

use std::collections::BTreeMap;

use super::*;

/// All rows of a queue that offramp wrote when episodes and waiting rows had version 1: a line each, key and value in hexadecimal digits.
///
/// At sink `a`, session `s`: 1 delivered, 2 dead, 3 failed once (retry due at once), 4 never tried and longer than one piece; session `t`:
/// 5 in doubt, due in a minute; session `u`: 6 delivered, its lane empty. Sink `b` is paused, and 5 waits there.
const VERSION_1: &str = include_str!("version1.hex");

/// The same for episodes, sinks and waiting rows of version 2. Sink `a`, session `s`: 1 delivered, 2 dead, 3 failed once, 4 never tried and
/// longer than one piece; session `t`: 5 in doubt at both sinks. Sink `b` is paused. 4 has a unique key, and there is a note.
const VERSION_2: &str = include_str!("version2.hex");

/// The same for the versions of today: see `rows`. As [`VERSION_2`], but 2 died twice, and 3 has the priority 2; session `u` is
/// parked for 6, and 7 waits there.
const VERSION_3: &str = include_str!("version3.hex");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn version_1() -> Bench {
    queue_of(VERSION_1)
}

fn queue_of(rows: &str) -> Bench {
    let mut bench = Bench::new(config());
    let rows = rows.lines().map(|line| line.split_once(' ').unwrap()).map(|(k, v)| (bytes(k), Some(bytes(v))));
    bench.store().commit(rows.collect(), true).unwrap();
    bench.reopen(START + 60_000);
    bench
}

#[test]
fn inv8_a_queue_of_version_1_is_in_order_and_all_of_it_is_read() {
    let bench = version_1();
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    let stats = bench.queue.stats();
    assert_eq!((stats.ledger.captured, stats.ledger.delivered, stats.ledger.dead, stats.ledger.pending), (7, 2, 1, 4));
    assert_eq!(stats.sinks[1].paused.as_deref(), Some("operator"));
    let listed = bench.queue.list(&Filter { limit: 99, ..Filter::default() }).unwrap().episodes;
    assert_eq!(listed.iter().map(|v| v.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for view in &listed {
        let n = view.seq;
        let question = if n == 4 { "4 ".repeat(2_100) } else { format!("question {n}") };
        let e = &view.episode;
        assert_eq!(e.messages, [Message::new("user", question), Message::new("assistant", format!("answer {n}"))]);
        assert_eq!((e.group(), e.user.as_deref(), e.captured_at, e.time()), ("g", Some("u"), START, EVENT));
        assert_eq!((e.metadata.as_str(), e.request.traceparent.as_deref()), (r#"{"channel":"test"}"#, Some("00-1")));
        assert_eq!((e.occurred_at, e.original.as_ref(), e.sha256), (None, None, crate::episode::Digests::default()));
    }
    let dead = &listed[1].sinks[0];
    assert_eq!((dead.state, dead.reason.as_deref(), dead.attempts), (State::Dead, Some("rejected"), 1));
    assert_eq!(dead.history[0].error.as_deref(), Some("HTTP 500"));
}

#[test]
fn inv5_a_queue_of_version_1_goes_on_where_it_was() {
    let mut bench = version_1();
    let sink = bench.queue.sink_id("a").unwrap();
    let select = Select { sink: Some("a".into()), ..Select::default() };
    let chosen = inspect::select(&bench.queue.inner.shared, &bench.queue.names(), sink, &select, None).unwrap().0;
    assert_eq!(now(bench.queue.ask(|r| Op::Redrive(chosen, r)).unwrap()), Ok(1));
    assert_eq!(bench.queue.reserve(), 7);
    bench.append("s", 8, &["a"]).unwrap();
    bench.append("u", 9, &["a"]).unwrap();
    bench.put("t", 7, &["a"]);
    let mut sent: BTreeMap<Lane, Vec<(Seq, i64)>> = BTreeMap::new();
    loop {
        let claims = bench.claim("a", 9);
        if claims.is_empty() {
            break;
        }
        for claim in claims {
            assert_eq!(claim.sent != Sent::No, [2, 5].contains(&claim.seq), "5 is in doubt, and so is what was put back");
            sent.entry(claim.lane).or_default().push((claim.seq, claim.at));
            bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
            assert_eq!(bench.queue.check(), Vec::<String>::new());
        }
    }
    // 2, 3 and 4 keep the times that they were given then; 8 and 9 come behind those of their lanes.
    assert_eq!(sent[&Lane::of("s")], [(2, EVENT + 1), (3, EVENT + 2), (4, EVENT + 3), (8, EVENT + 4)]);
    assert_eq!(sent[&Lane::of("t")], [(5, EVENT), (7, EVENT + 1)]);
    assert_eq!(sent[&Lane::of("u")], [(9, EVENT + 1)]);
    let at_b = bench.claim("b", 9)[0];
    assert_eq!((at_b.seq, at_b.at, at_b.attempts), (5, EVENT, 1));
    bench.queue.finish(at_b, Finish::Delivered { confirmed_in: None }, None);
    bench.reopen(START + 40 * DAY);
    bench.tidy();
    assert_eq!(bench.queue.stats().ledger.gap(), 0);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

/// What is in [`VERSION_2`] and [`VERSION_3`].
fn episode_2(n: u64) -> Episode {
    let session = ["s", "t", "u"][[5, 6].iter().filter(|first| n >= **first).count()];
    let text = if n == 4 { "4 ".repeat(2_100) } else { format!("question {n}") };
    Episode {
        messages: vec![Message::new("user", text), Message::new("assistant", format!("answer {n}"))],
        occurred_at: Some(EVENT - n.cast_signed()),
        sha256: crate::episode::Digests { request: Some([1; 32]), response: None },
        original: Some(crate::episode::Original {
            target: "/run?a=b".into(),
            headers: vec![("accept".into(), serde_bytes::ByteBuf::from(b"text/plain".to_vec()))],
            body: b"body".to_vec(),
        }),
        ..episode(session, n)
    }
}

#[test]
fn inv8_a_queue_of_version_2_is_in_order_and_all_of_it_is_read() {
    let bench = queue_of(VERSION_2);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    let stats = bench.queue.stats();
    assert_eq!((stats.ledger.captured, stats.ledger.delivered, stats.ledger.dead, stats.ledger.pending), (6, 1, 1, 4));
    assert_eq!(stats.sinks[1].paused.as_deref(), Some("operator"));
    let listed = bench.queue.list(&Filter { limit: 99, ..Filter::default() }).unwrap().episodes;
    assert_eq!(listed.iter().map(|v| v.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for view in &listed {
        assert_eq!(view.episode, episode_2(view.seq));
    }
    let dead = &listed[1].sinks[0];
    assert_eq!((dead.state, dead.reason.as_deref(), dead.attempts), (State::Dead, Some("rejected"), 1));
    assert_eq!(dead.deaths, Deaths { count: 1, first: dead.ended_at.unwrap(), last: dead.ended_at.unwrap() });
    assert_eq!(dead.history[0].error.as_deref(), Some("HTTP 500"));
    assert_eq!(bench.queue.note(Key::of("n", ["a"])).as_deref(), Some(&b"note"[..]));
    let claims = bench.claim("a", 9);
    assert_eq!(claims.iter().map(|c| (c.seq, c.sent != Sent::No)).collect::<BTreeMap<_, _>>(), [(3, false), (5, true)].into());
}

#[test]
fn inv8_a_queue_of_version_3_is_in_order_and_all_of_it_is_read() {
    let bench = queue_of(VERSION_3);
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    let stats = bench.queue.stats();
    assert_eq!((stats.ledger.captured, stats.ledger.delivered, stats.ledger.dead, stats.ledger.pending), (8, 1, 2, 5));
    let listed = bench.queue.list(&Filter { limit: 99, ..Filter::default() }).unwrap().episodes;
    assert_eq!(listed.iter().map(|v| v.episode.clone()).collect::<Vec<_>>(), (1..=7).map(episode_2).collect::<Vec<_>>());
    let at_a = |n: usize| &listed[n - 1].sinks[0];
    assert_eq!((at_a(2).state, at_a(2).attempts), (State::Dead, 1));
    assert_eq!(at_a(2).deaths, Deaths { count: 2, first: START, last: START + 1_000 });
    assert_eq!(at_a(2).history.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(), ["dead", "redriven", "dead"]);
    assert_eq!((at_a(3).priority, at_a(3).deaths, at_a(4).priority), (2, Deaths::default(), 0));
    assert_eq!((at_a(6).deaths.count, at_a(7).parked_by), (1, Some(Uuid::from_u128(6))));
    let claims = bench.claim("a", 9);
    assert_eq!(claims.iter().map(|c| (c.seq, c.sent != Sent::No)).collect::<BTreeMap<_, _>>(), [(3, false), (5, true)].into());
}
