//! Disks that lie: flipped bits, overwritten blocks and missing ends in every file of a queue's directory.
//!
//! Whatever was done to the files, the queue opens or says in a sentence why not; what it delivers then is, byte for byte, what was
//! appended, in its lane, once; and what is missing is told: by the ledger's gap or by a dead letter.
//!
//! `OFFRAMP_DAMAGES` is the number of cases, 100 by default; each prints its seed if it fails, and `OFFRAMP_SEED` makes it the first one's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use super::super::store::Reading;
use super::*;

/// Longer than any of them takes, but for a queue that hangs.
const LIMIT: Duration = Duration::from_secs(60);

const SINKS: [&str; 2] = ["a", "b"];

/// A queue's directory, and what is in it.
struct Base {
    dir: tempfile::TempDir,
    appended: HashMap<Uuid, Episode>,
    /// What waits, by id and sink.
    pending: BTreeSet<(Uuid, SinkId)>,
}

fn config_at(path: &Path) -> config::Queue {
    config::Queue { path: path.to_owned(), ..config() }
}

pub fn open(path: &Path) -> Result<Queue, QueueError> {
    Queue::open_for(&config_at(path), &SINKS.map(str::to_owned), &Metrics::new())
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// An episode of 0.5 to 20 KB that is like no other.
fn any_episode(rng: &mut fastrand::Rng, n: u64) -> Episode {
    let length = rng.usize(200..20_000);
    let text: String = std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect();
    Episode { messages: vec![Message::new("user", text)], ..episode(&format!("s{}", rng.u8(0..12)), n) }
}

/// Appends and drains by chance.
fn live(queue: &Queue, base: &mut Base, rng: &mut fastrand::Rng, count: u64) {
    let ids = SINKS.map(|name| queue.sink_id(name).unwrap());
    wait(async {
        for n in 0..count {
            let episode = any_episode(rng, base.appended.len() as u64 + 1);
            let to: &[SinkId] = match rng.u8(0..4) {
                0 => &ids[..1],
                1 => &ids[1..],
                _ => &ids,
            };
            let lanes: Vec<_> = to.iter().map(|id| (*id, Lane::of(&episode.session))).collect();
            queue.append(&[New::of(&episode, &lanes)]).unwrap().await.unwrap();
            base.pending.extend(lanes.iter().map(|(sink, _)| (episode.id, *sink)));
            base.appended.insert(episode.id, episode);
            if n % 3 == 0 {
                let sink = ids[rng.usize(0..2)];
                for claim in queue.claim(sink, request(rng.usize(1..5))).await.unwrap().claims {
                    let id = queue.read(claim.seq).unwrap().unwrap().id;
                    let finish = match rng.u8(0..8) {
                        0 => Finish::Retry { delay: 0, sent: Sent::No },
                        1 => Finish::Dead { reason: "rejected" },
                        _ => Finish::Delivered { confirmed_in: None },
                    };
                    if !matches!(finish, Finish::Retry { .. }) {
                        base.pending.remove(&(id, sink));
                    }
                    queue.finish(claim, finish, None);
                }
            }
        }
        // Everything before it is done.
        queue.pause(ids[0], None).await.unwrap();
    });
}

/// Until the witness has seen it all.
fn witnessed(queue: &Queue, dir: &Path) {
    let began = Instant::now();
    let captured = |w: Witness| w.sinks.iter().map(|seen| seen.ledger.captured).sum::<u64>();
    while Witness::read(dir).map(captured) != Some(queue.stats().ledger.captured) {
        assert!(began.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { assert!(fs::copy(entry.path(), to).is_ok()) }
    }
}

/// A queue that was closed, or that lost its process; in its first life or in its third.
fn base(seed: u64, lives: u32, killed: bool) -> Base {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut base = Base { dir: tempfile::tempdir().unwrap(), appended: HashMap::new(), pending: BTreeSet::new() };
    let dir = base.dir.path().join("lives");
    for life in 1..=lives {
        let queue = open(&dir).unwrap();
        live(&queue, &mut base, &mut rng, 120 / u64::from(lives));
        if killed && life == lives {
            witnessed(&queue, &dir);
            copy(&dir, &base.dir.path().join("queue"));
        }
        queue.close();
    }
    if !killed {
        fs::rename(&dir, base.dir.path().join("queue")).unwrap();
    }
    base
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Does something to one file; what.
fn damage(dir: &Path, rng: &mut fastrand::Rng) -> String {
    let files = files(dir);
    let log = files.iter().position(|file| file.ends_with("db"));
    let file = &files[log.filter(|_| rng.u8(0..10) < 6).unwrap_or_else(|| rng.usize(0..files.len()))];
    let name = file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let mut bytes = fs::read(file).unwrap();
    if bytes.is_empty() {
        return format!("{name} untouched");
    }
    let at = rng.usize(0..bytes.len());
    let block = at / 4096 * 4096;
    let end = bytes.len().min(block + 4096 * rng.usize(1..4));
    let what = match rng.u8(0..12) {
        0..=4 => {
            bytes[at] ^= 1 << rng.u8(0..8);
            "flipped"
        }
        5 | 6 => {
            let end = bytes.len().min(at + rng.usize(1..4096));
            bytes[at..end].iter_mut().for_each(|b| *b = rng.u8(..));
            "overwritten"
        }
        7 | 8 => {
            bytes[block..end].fill(0);
            "zeroed"
        }
        9 => {
            bytes.copy_within(block..end, 0);
            "misplaced"
        }
        10 => {
            bytes.truncate(at);
            "truncated"
        }
        _ => {
            fs::remove_file(file).unwrap();
            return format!("{name} removed");
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{name} {what}")
}

/// What came of a case.
#[derive(Debug, Default)]
struct Outcome {
    refused: Option<String>,
    salvaged: bool,
    missing: usize,
    unreadable: usize,
    again: usize,
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self { refused: Some(_), .. } => "refused with a sentence",
            Self { salvaged: false, missing: 0, .. } => "as if nothing had been",
            Self { salvaged: false, .. } => "not salvaged, missing and told",
            Self { missing: 0, .. } => "salvaged, nothing missing",
            _ => "salvaged, missing and told",
        }
    }
}

/// Opens a damaged queue and drains it; an error if it broke a promise.
fn drain(base: &Base, dir: &Path) -> Result<Outcome, String> {
    let queue = match open(dir) {
        Ok(queue) => queue,
        Err(error) => return Ok(Outcome { refused: Some(error.to_string()), ..Outcome::default() }),
    };
    let mut outcome = Outcome::default();
    let (mut delivered, began, mut idle) = (BTreeSet::new(), Instant::now(), 0);
    let mut last: BTreeMap<(SinkId, Lane), Seq> = BTreeMap::new();
    while idle < 2 {
        if began.elapsed() > LIMIT / 2 {
            return Err(format!("it is not empty after {LIMIT:?} / 2: {:?}", queue.stats()));
        }
        idle += 1;
        for sink in SINKS.map(|name| queue.sink_id(name).unwrap()) {
            let Ok(claims) = wait(queue.claim(sink, ClaimRequest { max_attempts: 99, ..request(8) })) else {
                std::thread::sleep(Duration::from_millis(50)); // until the writer has looked after the store
                idle = 0;
                continue;
            };
            for claim in claims.claims {
                idle = 0;
                match queue.read(claim.seq) {
                    Ok(Some(episode)) => {
                        let appended = base.appended.get(&episode.id).ok_or("an episode that nobody appended")?;
                        if *appended != episode || claim.lane != Lane::of(&episode.session) {
                            return Err(format!("{} is not as it was appended", episode.id));
                        }
                        if !delivered.insert((episode.id, sink)) || !base.pending.contains(&(episode.id, sink)) {
                            outcome.again += 1;
                            if claim.sent == Sent::No {
                                return Err(format!("{} had ended, and is sent again without a look", episode.id));
                            }
                        }
                        if last.insert((sink, claim.lane), claim.seq).is_some_and(|last| last > claim.seq) {
                            return Err(format!("{} came too late", episode.id));
                        }
                        queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
                    }
                    Err(ReadError::Store(_)) => {
                        std::thread::sleep(Duration::from_millis(50));
                        let counted = claim.sent == Sent::No;
                        let finish = if counted { Finish::Uncount } else { Finish::Hold { sent: claim.sent } };
                        queue.finish(claim, finish, None);
                    }
                    Err(ReadError::Foreign { why, .. }) => {
                        return Err(format!("damage passes for what another offramp wrote: {why}"));
                    }
                    Ok(None) | Err(ReadError::Unreadable(_)) => {
                        outcome.unreadable += 1;
                        queue.finish(claim, Finish::Dead { reason: "unreadable" }, None);
                    }
                }
            }
        }
    }
    outcome.salvaged = dir.join("quarantine").exists();
    outcome.missing = base.pending.difference(&delivered).count();
    wait(queue.pause(queue.sink_id("a").unwrap(), None)).map_err(|e| e.to_string())?;
    let gap = usize::try_from(queue.stats().ledger.gap()).map_err(|_| format!("a gap below zero: {:?}", queue.stats()))?;
    if outcome.missing > gap + outcome.unreadable {
        let gone: Vec<_> = base.pending.difference(&delivered).collect();
        let ledgers = queue.stats().sinks.iter().map(|s| s.ledger).collect::<Vec<_>>();
        return Err(format!("{} are missing and {gap} are told: {outcome:?} {ledgers:?} {gone:?}", outcome.missing));
    }
    let faults: Vec<String> = queue
        .check()
        .into_iter()
        .filter(|f| !["are missing", "can't be read", "has no record", "is damaged"].iter().any(|told| f.contains(told)))
        .collect();
    if !faults.is_empty() {
        return Err(format!("{faults:?} {outcome:?}"));
    }
    drop(queue);
    match open(dir) {
        // A panic of the engine keeps its lock for as long as this process lives.
        Ok(_) | Err(QueueError::Locked { .. }) => Ok(outcome),
        Err(error) => Err(format!("it opened once: {error}")),
    }
}

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn inv8_whatever_the_disk_does_to_a_queue_what_is_delivered_was_appended_and_what_is_missing_is_told() {
    if std::env::var_os("OFFRAMP_LOG").is_some() {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    }
    let bases: Vec<Base> = [(1, false), (1, true), (3, false), (3, true)].map(|(lives, killed)| base(7, lives, killed)).into();
    let first = number("OFFRAMP_SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("OFFRAMP_DAMAGES").unwrap_or(100);
    let next = std::sync::atomic::AtomicU64::new(0);
    let table = std::sync::Mutex::new(BTreeMap::<(String, &'static str), [usize; 4]>::new());
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let seed = first.wrapping_add(n);
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let base = &bases[rng.usize(0..bases.len())];
                    let dir = tempfile::tempdir().unwrap();
                    copy(&base.dir.path().join("queue"), dir.path());
                    let what = damage(dir.path(), &mut rng);
                    let outcome = limited(|| drain(base, dir.path()));
                    let mut table = table.lock().unwrap();
                    let outcome = match outcome {
                        Ok(outcome) => outcome,
                        Err(broken) => {
                            failures.lock().unwrap().push(format!("OFFRAMP_SEED={seed}: {what}: {broken}"));
                            continue;
                        }
                    };
                    let row = table.entry((what, outcome.name())).or_default();
                    row[0] += 1;
                    row[1] += outcome.missing;
                    row[2] += outcome.unreadable;
                    row[3] += outcome.again;
                }
            });
        }
    });
    eprintln!("damage, outcome: cases, episodes missing, dead letters as unreadable, looked up again");
    for ((what, outcome), row) in table.into_inner().unwrap() {
        eprintln!("{what:<24} {outcome:<32} {row:?}");
    }
    assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
}

/// Runs it under a time limit.
fn limited<T: Send>(run: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let (send, done) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || send.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))));
        match done.recv_timeout(LIMIT) {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err("it panicked".into()),
            // A scope can't be left while it hangs.
            Err(_) => {
                eprintln!("it hangs");
                std::process::abort()
            }
        }
    })
}

/// What the engine and the reader without the engine find in the same files.
#[test]
fn what_is_read_without_the_engine_is_what_the_engine_reads() {
    for (lives, killed) in [(1, false), (1, true), (3, true)] {
        let base = base(9, lives, killed);
        let dir = base.dir.path().join("queue");
        let rows = |store: &Store| {
            let mut rows = BTreeMap::new();
            store.scan(vec![0]..vec![u8::MAX], &mut |key, value| rows.insert(key.to_vec(), value.to_vec()).is_none()).unwrap();
            rows
        };
        let read = || Reading::of(&dir, &|_| ()).unwrap().store.unwrap();
        let raw = rows(&read());
        let engine = Store::open(&dir).unwrap();
        assert!(rows(&engine) == raw, "{lives} lives, killed: {killed}");
        assert!(raw.len() > 300 && raw.keys().all(|key| keys::is_row(key)));
        let read = read();
        assert!(raw.keys().all(|key| read.get(key).unwrap().as_ref() == raw.get(key)));
        let tables: HashSet<u8> = raw.keys().map(|key| key[0]).collect();
        assert!(b"melirtdx".iter().all(|table| tables.contains(table)));
    }
}
