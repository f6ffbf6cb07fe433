//! What becomes of a queue whose store is damaged, step by step.

use std::fs;
use std::path::Path;

use super::super::store::Witness;
use super::super::verify::{Verified, verify, write_off};
use super::damage::{copy, open, wait};
use super::*;

const COUNT: u64 = 60;

/// A queue of 60 episodes that wait, in a directory.
fn queue_in(dir: &Path) {
    let queue = open(dir).unwrap();
    let sink = queue.sink_id("a").unwrap();
    for n in 1..=COUNT {
        let episode = episode(&format!("s{}", n % 7), n);
        wait(queue.append(&[New::of(&episode, &[(sink, Lane::of(&episode.session))])]).unwrap()).unwrap();
    }
}

/// Overwrites something in the middle of the log.
fn damage(dir: &Path) {
    let log = dir.join("store/db");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0x55);
    fs::write(log, bytes).unwrap();
}

fn verified(dir: &Path) -> Verified {
    verify(&config::Queue { path: dir.to_owned(), ..config() }, &|_| ()).unwrap()
}

/// All files and what is in them.
fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    super::damage::files(dir).into_iter().map(|path| (path.strip_prefix(dir).unwrap().into(), fs::read(path).unwrap())).collect()
}

/// Each episode that can be read, by its id.
fn readable(dir: &Path) -> Vec<Uuid> {
    let queue = open(dir).unwrap();
    let listed = queue.list(&Filter { limit: 1_000, ..Filter::default() }).unwrap();
    listed.episodes.into_iter().map(|view| view.episode.id).collect()
}

#[test]
fn inv8_a_damaged_store_is_kept_as_it_was_and_the_queue_goes_on_with_what_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    queue_in(dir.path());
    damage(dir.path());
    let damaged = files(&dir.path().join("store"));
    let found = verified(dir.path());
    assert!(found.damaged > 0 && !found.is_sound(), "{found:?}");
    assert_eq!(files(&dir.path().join("store")), damaged, "verify changes nothing");

    let there = readable(dir.path()).len() as u64;
    assert!((COUNT - 2..=COUNT).contains(&there), "{there} of {COUNT}: one message of the log was overwritten");
    let found = verified(dir.path());
    assert_eq!((found.damaged, found.quarantined.len()), (0, 1));
    assert!(found.quarantined[0].to_str().unwrap().contains("quarantine/2"), "{:?}", found.quarantined);
    assert_eq!(files(&found.quarantined[0]), damaged, "every byte as it was found");
    let census = found.census.unwrap();
    assert_eq!((census.records, census.sinks[0].pending), (there, census.sinks[0].ledger.pending));
}

#[test]
fn inv8_a_salvage_that_is_interrupted_ends_in_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    queue_in(&base);
    damage(&base);
    let salvaged = dir.path().join("salvaged");
    copy(&base, &salvaged);
    let expected = readable(&salvaged);

    let started = |name: &str| {
        let at = dir.path().join(name);
        copy(&base, &at);
        fs::rename(at.join("store"), at.join("damaged-0")).unwrap();
        at
    };
    let condemned = started("condemned");
    let half = started("half");
    copy(&base.join("store"), &half.join("store-1")); // whatever it is, it is not whole
    let whole = started("whole");
    copy(&salvaged.join("store-1"), &whole.join("store-1"));
    for at in [condemned, half, whole] {
        assert_eq!(readable(&at), expected, "{at:?}");
        let found = verified(&at);
        assert_eq!((found.damaged, found.quarantined.len()), (0, 1), "{at:?}");
        assert!(!at.join("damaged-0").exists());
    }
}

#[test]
fn inv8_a_store_that_went_back_is_found_out_and_the_loss_can_be_accepted() {
    let dir = tempfile::tempdir().unwrap();
    queue_in(dir.path());
    let old = dir.path().join("old");
    copy(&dir.path().join("store"), &old);
    let queue = open(dir.path()).unwrap();
    let sink = queue.sink_id("a").unwrap();
    for n in COUNT + 1..=COUNT + 10 {
        let episode = episode("late", n);
        wait(queue.append(&[New::of(&episode, &[(sink, Lane::of("late"))])]).unwrap()).unwrap();
    }
    drop(queue);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::rename(old, dir.path().join("store")).unwrap();
    assert!(verified(dir.path()).damage[0].contains("its next place is 61, it was 71 already"));

    let queue = open(dir.path()).unwrap();
    assert_eq!((queue.stats().ledger.gap(), queue.stats().ledger.pending), (10, COUNT));
    assert_eq!(queue.reserve(), COUNT + 11, "a place is not used twice");
    let config = config::Queue { path: dir.path().to_owned(), ..config() };
    assert!(matches!(verify(&config, &|_| ()), Err(QueueError::Locked { pid, .. }) if pid == std::process::id().to_string()));
    drop(queue);
    assert!(!verified(dir.path()).is_sound());
    assert_eq!(write_off(&config).unwrap(), 10);
    let found = verified(dir.path());
    assert!(found.is_sound(), "{found:?}");
    assert_eq!(found.census.unwrap().sinks[0].ledger.purged, 10);
    assert_eq!(open(dir.path()).unwrap().stats().ledger.gap(), 0);
}

#[test]
fn an_error_of_the_system_is_no_damage_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    queue_in(dir.path());
    let log = dir.path().join("store/db");
    fs::rename(&log, dir.path().join("store/db.away")).unwrap();
    fs::create_dir(&log).unwrap(); // reading it fails
    let said = open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(said.contains(dir.path().to_str().unwrap()) && said.contains("reading the store's log failed"), "{said}");
    assert!(!dir.path().join("quarantine").exists());
    fs::remove_dir(&log).unwrap();
    fs::rename(dir.path().join("store/db.away"), &log).unwrap();
    assert_eq!(readable(dir.path()).len() as u64, COUNT);
}

#[test]
fn a_witness_that_is_missing_or_broken_or_old_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    queue_in(dir.path());
    let witness = dir.path().join("witness");
    let written = fs::read(&witness).unwrap();
    assert_eq!(Witness::read(dir.path()).unwrap().meta.unwrap().next_seq, COUNT + 1);
    fs::write(&witness, &written[..written.len() / 2]).unwrap();
    assert_eq!(readable(dir.path()).len() as u64, COUNT);
    fs::remove_file(&witness).unwrap();
    assert_eq!(readable(dir.path()).len() as u64, COUNT);
    Witness::default().write(dir.path()).unwrap();
    assert_eq!(readable(dir.path()).len() as u64, COUNT);
    assert!(verified(dir.path()).is_sound() && !dir.path().join("quarantine").exists());
}

#[test]
fn inv8_damage_that_is_met_while_the_queue_runs_is_salvaged_in_the_same_process() {
    let bench = Bench::new(config());
    for n in 1..=4 {
        bench.append(&format!("s{n}"), n, &["a"]).unwrap();
    }
    bench.disk.damage(&keys::chunk(2, 1));
    for turn in 1..=2 {
        assert!(matches!(bench.queue.read(2), Err(ReadError::Store(_))), "turn {turn}");
        assert!(bench.queue.episode(Uuid::from_u128(2)).is_err(), "a reader is told, too");
        assert_eq!(bench.disk.quarantined(), Vec::<u64>::new(), "once may be an error of the system");
        bench.tidy();
    }
    assert_eq!(bench.disk.quarantined(), [0]);
    assert!(matches!(bench.queue.read(2), Err(ReadError::Unreadable(_))));
    assert_eq!(bench.queue.stats().state, "ok");
    bench.append("s5", 5, &["a"]).unwrap();
    let mut claims = bench.claim("a", 9);
    claims.sort_unstable_by_key(|claim| claim.seq);
    assert_eq!(
        claims.iter().map(|c| (c.seq, c.sent == Sent::No)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, false), (4, false), (5, true)]
    );
    for claim in claims {
        let unreadable = bench.queue.read(claim.seq).is_err();
        let finish = if unreadable { Finish::Dead { reason: "unreadable" } } else { Finish::Delivered { confirmed_in: None } };
        bench.queue.finish(claim, finish, None);
    }
    let ledger = bench.sink("a");
    assert_eq!((ledger.captured, ledger.delivered, ledger.dead, ledger.gap()), (5, 4, 1, 0));
    let faults = bench.queue.check();
    assert!(faults.len() == 1 && faults[0].contains("the record at 2 can't be read"), "{faults:?}");
}

/// Raises the version of a value, as a later offramp would have it.
fn raised(bytes: &[u8]) -> Vec<u8> {
    [&[99], &bytes[1..]].concat()
}

#[test]
fn what_a_later_version_wrote_is_kept_and_never_sent_and_a_later_version_can_read_it() {
    let mut bench = Bench::new(config());
    for n in 1..=3 {
        let small = Episode { messages: Vec::new(), ..episode("s", n) };
        bench.append_new(&New::of(&small, &bench.lanes("s", &["a"]))).unwrap();
    }
    let store = bench.store();
    let original: Vec<_> = (1..=3).map(|n| store.get(&keys::chunk(n, 0)).unwrap().unwrap()).collect();
    let lane = keys::waiting(SinkId(1), Lane::of("s"), 3);
    let waiting = store.get(&lane).unwrap().unwrap();
    let mut inner: rows::Record = codec::decode(&original[0]).unwrap();
    inner.episode = raised(&inner.episode);
    let later = [
        (keys::chunk(1, 0), Some(codec::encode(&inner).unwrap())),
        (keys::chunk(2, 0), Some(raised(&original[1]))),
        (lane, Some(raised(&waiting))),
    ];
    store.commit(later.into(), true).unwrap();
    let faults = bench.queue.check();
    assert_eq!(faults.iter().filter(|f| f.contains("for another offramp: format version 99")).count(), 2, "{faults:?}");

    for (n, exhausted) in [(1, None), (2, None), (3, Some("later_version"))] {
        let claim = bench.claim("a", 9)[0];
        assert_eq!((claim.seq, claim.exhausted, claim.sent), (n, exhausted, Sent::No));
        if n < 3 {
            assert!(matches!(bench.queue.read(n), Err(ReadError::Foreign { reason: "later_version", .. })));
        }
        bench.queue.finish(claim, Finish::Dead { reason: "later_version" }, None);
    }
    bench.reopen(START + 4_000 * DAY);
    bench.tidy();
    assert_eq!((bench.sink("a").dead, bench.sink("a").expired), (3, 0), "for how long it may be");

    // A later offramp: it reads what is there.
    let store = bench.store();
    store
        .commit((1..=2).map(|n| (keys::chunk(n, 0), Some(original[usize::try_from(n).unwrap() - 1].clone()))).collect(), true)
        .unwrap();
    let select = Select { reason: Some("later_version".into()), ..Select::default() };
    let sink = bench.queue.sink_id("a").unwrap();
    let chosen = inspect::select(&bench.queue.inner.shared, &bench.queue.names(), sink, &select, None).unwrap().0;
    assert_eq!(now(bench.queue.ask(|reply| Op::Redrive(chosen, reply)).unwrap()), Ok(3));
    let claim = bench.claim("a", 9)[0];
    assert_eq!(bench.queue.read(claim.seq).unwrap().unwrap().id, Uuid::from_u128(1));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}
