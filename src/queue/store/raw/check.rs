//! Whether the engine may open its files.
//!
//! Where a message can't be read the engine takes the log to end there, or leaves out the rest of that segment, and overwrites what it
//! has left out with zeros: one bit that flipped can cost everything that was written since, and nobody is told. So what the engine would
//! read is read here first. After a crash the end of the log may be torn, which is no damage: nothing of it was on stable storage. What
//! lies before the position that the log itself says was stable must be readable, all of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::log::{self, HEAD, Kind, LEN, Lsn, SEGMENT, Segment, Walk};

/// Threads that read.
const READERS: usize = 2;

/// What the engine would find.
#[derive(Debug, Default)]
pub struct Checked {
    /// What can't be read although it was stable, a sentence each (the first ones).
    pub faults: Vec<String>,
    /// All of them.
    pub count: usize,
    /// Where the log ends for the engine.
    pub tip: Lsn,
    /// Messages behind that, which the engine would leave out.
    pub beyond: u64,
}

/// Sentences kept.
const FAULTS: usize = 20;

impl Checked {
    /// There is no log.
    pub fn missing() -> Self {
        Self { faults: vec!["the log is missing".to_owned()], count: 1, ..Self::default() }
    }

    /// The faults in short, if there are any.
    pub fn summary(&self) -> Option<String> {
        let first = self.faults.first()?;
        Some(if self.count == 1 { first.clone() } else { format!("{first}, and {} more such places", self.count - 1) })
    }

    fn fault(&mut self, what: String) {
        self.count += 1;
        if self.faults.len() < FAULTS {
            self.faults.push(what);
        }
    }
}

/// A segment and what is in it.
struct Seen {
    segment: Segment,
    walk: Walk,
    /// Its first bytes are not zero.
    headed: bool,
    /// Batches in it: where each begins, and up to where it counts on the log.
    batches: Vec<(Lsn, Lsn)>,
}

/// Checks the log from a position on, up to which it was whole. `progress` is called with the bytes read.
pub fn check(file: &File, from: Lsn, progress: &(dyn Fn(u64) + Sync)) -> std::io::Result<Checked> {
    let (known, from) = (from, from / LEN * LEN);
    let segments = log::segments(file)?;
    let stable = segments.iter().map(|s| s.stable).fold(known, Lsn::max);
    let wanted: Vec<Segment> = segments.into_iter().filter(|s| s.lsn.is_none_or(|lsn| lsn >= from)).collect();
    let mut checked = Checked::default();
    let seen = read(file, &wanted, progress)?;

    let mut log: BTreeMap<Lsn, &Seen> = BTreeMap::new();
    for seen in &seen {
        match seen.segment.lsn {
            Some(lsn) => {
                if log.insert(lsn, seen).is_some() {
                    checked.fault(format!("two segments say that they are at {lsn} in the log"));
                }
            }
            // A header goes with what lies behind it: only one that was never written may lack it, or one that the crash found half-written.
            None if seen.walk.behind > 0 && (from..stable).contains(&seen.walk.first) => {
                checked.fault(format!("the header at byte {} can't be read", seen.segment.at));
            }
            None if seen.headed && seen.walk.behind == 0 => {
                checked.fault(format!("a whole segment at byte {} can't be read", seen.segment.at));
            }
            None => checked.beyond += seen.walk.behind,
        }
    }
    // The end: segments that follow each other, from the one with the last stable position.
    let tail = stable / LEN * LEN;
    let mut next = tail;
    checked.tip = next;
    let mut torn = false;
    while let Some(seen) = log.get(&next).filter(|_| !torn) {
        checked.tip = next + if seen.walk.complete { LEN } else { Lsn::try_from(seen.walk.end).unwrap_or(LEN) };
        torn = !seen.walk.complete;
        next += LEN;
    }
    // Where the engine last stopped at the end of a segment the next one need not be there yet.
    if next == tail && (stable > from || !log.is_empty()) {
        checked.fault(format!("the log was written up to {stable}, and the segment at {tail} is missing"));
    }
    // A batch of which not all is there does not count, nor what follows it.
    let batches = log.values().flat_map(|s| &s.batches).filter(|(at, end)| *at < checked.tip && *end >= checked.tip);
    checked.tip = batches.map(|(at, _)| *at).min().unwrap_or(checked.tip);

    for (&lsn, seen) in &log {
        let end = lsn + Lsn::try_from(seen.walk.end).unwrap_or(LEN);
        if !seen.walk.complete && end < stable && !(lsn < tail && seen.walk.behind == 0 && seen.walk.reused) {
            let what = if seen.walk.behind > 0 { "a message" } else { "the rest of a segment" };
            let at = seen.segment.at + seen.walk.end as u64;
            checked.fault(format!("{what} at byte {at} can't be read"));
        } else if !seen.walk.complete {
            checked.beyond += seen.walk.behind;
        } else if lsn >= checked.tip {
            checked.beyond += 1;
        }
    }
    Ok(checked)
}

/// Reads the segments, several at a time.
fn read(file: &File, wanted: &[Segment], progress: &(dyn Fn(u64) + Sync)) -> std::io::Result<Vec<Seen>> {
    let (turn, seen, failed) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(wanted.len())), Mutex::new(None));
    let one = |segment: Segment, buffer: &mut [u8]| -> std::io::Result<Seen> {
        log::read(file, segment.at, buffer)?;
        let mut batches = Vec::new();
        let walk = log::walk(buffer, segment.at, segment.lsn, &mut |message| {
            if let (Kind::Batch, Ok(end)) = (message.kind, message.body.try_into().map(Lsn::from_le_bytes)) {
                batches.push((message.lsn, end));
            }
        });
        Ok(Seen { segment, walk, headed: buffer[..HEAD].iter().any(|b| *b != 0), batches })
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(wanted.len()) {
            scope.spawn(|| {
                let mut buffer = vec![0; SEGMENT];
                while let Some(segment) = wanted.get(turn.fetch_add(1, Ordering::Relaxed)) {
                    match one(*segment, &mut buffer) {
                        Ok(one) => super::lock(&seen).push(one),
                        Err(error) => {
                            *super::lock(&failed) = Some(error);
                            return;
                        }
                    }
                    progress(SEGMENT as u64);
                }
            });
        }
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}
