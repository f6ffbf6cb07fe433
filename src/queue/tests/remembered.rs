//! Unique keys, notes, and appends of several episodes.

use super::*;

fn key(text: &str) -> Key {
    Key::of("test", [text])
}

fn unique(text: &str, ms: u64) -> Unique {
    Unique { key: key(text), until: START + ms }
}

fn note(text: &str, value: &[u8], ms: u64) -> Note {
    Note { key: key(text), value: value.to_vec(), until: START + ms }
}

fn id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

/// Appends episodes `from..`, one for each.
fn append<const N: usize>(bench: &Bench, from: u64, with: [(Option<Unique>, Option<Note>); N]) -> Result<Appended, AppendError> {
    let episodes: Vec<Episode> = (from..).take(N).map(|n| episode("s", n)).collect();
    let lanes = bench.lanes("s", &["a"]);
    let new = episodes.iter().zip(with).map(|(e, (unique, note))| New { unique, note, ..New::of(e, &lanes) });
    now(bench.queue.append(&new.collect::<Vec<_>>())?)
}

#[test]
fn inv4_an_episode_with_a_key_that_is_taken_is_left_out_until_the_key_expires() {
    let mut bench = Bench::new(config());
    assert_eq!(append(&bench, 1, [(Some(unique("k", 60_000)), None)]), Ok(vec![None]));
    bench.crash(START + 59_999);
    assert_eq!(
        append(&bench, 2, [(Some(unique("k", 120_000)), None), (Some(unique("other", 120_000)), None)]),
        Ok(vec![Some(id(1)), None])
    );
    assert!(bench.queue.episode(id(2)).unwrap().is_none());
    assert_eq!(bench.sink("a").captured, 2);
    bench.crash(START + 60_000);
    assert_eq!(append(&bench, 4, [(Some(unique("k", 180_000)), None)]), Ok(vec![None]), "expired, although nobody tidied yet");
    assert_eq!(bench.queue.check(), Vec::<String>::new());
    bench.tidy();
    assert_eq!(
        append(&bench, 5, [(Some(unique("k", 180_000)), None)]),
        Ok(vec![Some(id(4))]),
        "the former one's expiry is not its own"
    );
}

#[test]
fn inv4_a_key_is_taken_within_one_append_too_and_outlives_its_episode() {
    let mut bench = Bench::new(config());
    let three = [(Some(unique("k", 3 * DAY)), None), (Some(unique("k", 3 * DAY)), None), (None, None)];
    assert_eq!(append(&bench, 1, three), Ok(vec![None, Some(id(1)), None]));
    for _ in 0..2 {
        bench.queue.finish(bench.claim("a", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    }
    bench.reopen(START + 2 * DAY);
    bench.tidy();
    assert!(bench.queue.episode(id(1)).unwrap().is_none(), "even its receipt is gone");
    assert_eq!(append(&bench, 9, [(Some(unique("k", 5 * DAY)), None)]), Ok(vec![Some(id(1))]));
}

#[test]
fn inv9_expired_keys_and_notes_leave_nothing_behind_and_each_tidying_is_bounded() {
    let mut bench = Bench::new(config());
    for n in 0..600 {
        let name = n.to_string();
        append(&bench, n + 1, [(Some(unique(&name, 1_000)), (n % 2 == 0).then(|| note(&name, b"x", 1_000)))]).unwrap();
    }
    let kept = note("kept", b"kept", DAY);
    now(bench.queue.write_note(kept.clone()).unwrap()).unwrap();
    bench.reopen(START + 1_000);
    let WriterSide::Inline(writer) = &mut *bench.queue.writer() else { unreachable!() };
    let mut rounds = 1;
    while writer.tidy().is_some() {
        rounds += 1;
    }
    assert!(rounds >= 900 / engine::SWEEP, "{rounds}");
    let names = |prefix: Vec<u8>| {
        let mut n = 0;
        bench
            .store()
            .scan(prefix.clone()..keys::end_of(&prefix), &mut |_, _| {
                n += 1;
                true
            })
            .unwrap();
        n
    };
    assert_eq!((names(keys::uniques()), names(keys::notes()), names(keys::fadings())), (0, 1, 1));

    assert_eq!(bench.queue.note(kept.key), Some(kept.value));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv9_an_append_that_has_no_room_for_all_takes_none_nor_its_keys_nor_its_notes() {
    let bench = Bench::new(config::Queue { max_episodes: 3, ..config() });
    let four = || ["1", "2", "3", "4"].map(|k| (Some(unique(k, DAY)), Some(note(k, b"x", DAY))));
    assert_eq!(append(&bench, 1, four()), Err(AppendError::Full));
    assert_eq!((bench.sink("a").captured, bench.queue.stats().bytes, bench.tables().as_str()), (0, 0, "mnsz"));
    assert_eq!(append(&bench, 1, [(Some(unique("4", DAY)), None)]), Ok(vec![None]));
    let left_out = Ok(vec![None, None, Some(id(1))]);
    assert_eq!(
        append(&bench, 5, ["1", "2", "4"].map(|k| (Some(unique(k, DAY)), None))),
        left_out,
        "one that is left out takes no room"
    );
    let room = config::Queue { max_bytes: 20_000, ..config() };
    let bench = Bench::new(room);
    assert_eq!(append(&bench, 1, [(None, Some(note("big", &vec![0; 19_000], DAY)))]), Err(AppendError::Full));
    assert_eq!(append(&bench, 1, [(None, None)]), Ok(vec![None]));
    assert_eq!(now(bench.queue.write_note(note("big", &vec![0; 19_000], DAY)).unwrap()), Err(AppendError::Full));
}

#[test]
fn inv2_an_append_that_the_store_fails_leaves_no_part_of_itself() {
    let mut bench = Bench::new(config());
    bench.disk.fail(true);
    let two = || ["1", "2"].map(|k| (Some(unique(k, DAY)), Some(note(k, b"x", DAY))));
    assert_eq!(append(&bench, 1, two()), Err(AppendError::Failed));
    bench.disk.fail(false);
    bench.crash(START);
    assert_eq!((bench.queue.note(key("1")), bench.sink("a").captured), (None, 0));
    assert_eq!(append(&bench, 1, two()), Ok(vec![None, None]));
    assert_eq!(bench.queue.note(key("1")).as_deref(), Some(&b"x"[..]));
}

#[test]
fn inv2_a_note_is_there_after_a_crash_until_it_expires_whatever_its_length() {
    let mut bench = Bench::new(config());
    let long: Vec<u8> = (0..1_200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for value in [&b""[..], b"short", &long, &long[..5_000]] {
        now(bench.queue.write_note(note("n", value, 1_000)).unwrap()).unwrap();
        bench.crash(START + 999);
        assert_eq!(bench.queue.note(key("n")).as_deref(), Some(value));
        assert_eq!(bench.queue.note(key("another")), None);
        assert_eq!(bench.queue.check(), Vec::<String>::new());
    }
    let mut longest = 0;
    bench
        .store()
        .scan(Vec::new()..vec![u8::MAX], &mut |_, value| {
            longest = longest.max(value.len());
            true
        })
        .unwrap();
    assert!(longest <= store::MAX_VALUE, "no value may outgrow the store's log");
    bench.crash(START + 1_000);
    assert_eq!(bench.queue.note(key("n")), None);
    bench.tidy();
    assert_eq!((bench.tables().as_str(), bench.queue.stats().bytes), ("mnsz", 0));
}

#[test]
fn a_note_beyond_all_measure_is_refused() {
    let bench = Bench::new(config());
    let mut huge = note("n", b"", DAY);
    huge.value = vec![0; notes::MAX_NOTE + 1];
    assert_eq!(bench.queue.write_note(huge).err(), Some(AppendError::Failed));
}

#[test]
fn a_note_comes_with_its_episode_or_not_at_all() {
    let bench = Bench::new(config());
    append(&bench, 1, [(Some(unique("k", DAY)), Some(note("first", b"1", DAY)))]).unwrap();
    append(&bench, 2, [(Some(unique("k", DAY)), Some(note("second", b"2", DAY)))]).unwrap();
    assert_eq!(bench.queue.note(key("first")).as_deref(), Some(&b"1"[..]));
    assert_eq!(bench.queue.note(key("second")), None);
}

#[test]
fn inv6_a_key_a_note_and_a_clock_that_are_damaged_are_written_over() {
    let bench = Bench::new(config());
    append(&bench, 1, [(Some(unique("k", DAY)), Some(note("n", b"1", DAY)))]).unwrap();
    bench.queue.finish(bench.claim("a", 9)[0], Finish::Delivered { confirmed_in: None }, None);
    let (sink, lane) = bench.lanes("s", &["a"])[0];
    let damaged = [keys::unique(key("k")), keys::note(key("n")), keys::clock(sink, lane)];
    bench.store().commit(damaged.into_iter().map(|k| (k, Some(b"damage".to_vec()))).collect(), true).unwrap();
    assert_eq!(bench.queue.note(key("n")), None);
    assert!(!bench.queue.check().is_empty());
    assert_eq!(append(&bench, 2, [(Some(unique("k", DAY)), Some(note("n", b"2", DAY)))]), Ok(vec![None]));
    assert_eq!(bench.claim("a", 9).len(), 1);
    assert_eq!(bench.queue.note(key("n")).as_deref(), Some(&b"2"[..]));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}
