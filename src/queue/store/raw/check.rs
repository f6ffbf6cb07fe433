//! Whether the engine may open its files.
//!
//! Where a message can't be read the engine takes the log to end there, or leaves out the rest of that segment, and overwrites what it
//! has left out with zeros: one bit that flipped can cost everything that was written since, and nobody is told. So what the engine would
//! read is read here first. After a crash the end of the log may be torn, which is no damage: nothing of it was on stable storage. Where all
//! before the position that the log itself says was stable can be read, the engine may open it.
//!
//! But what the engine says was stable it has only handed to the system: after a loss of power pieces of that may be missing as well. What was
//! synced our own [`Commits`] tell. If all of that can be read, the log is *torn*: it is good up to the tear, and not for the engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::commits::Commits;
use super::super::keys;
use super::log::{self, HEAD, Kind, LEN, Lsn, SEGMENT, Segment, Walk};
use super::pages::{self, Pages};

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
    /// The engine must not open it, although nothing is damaged: pieces are missing of what was written and not synced, from the tip on.
    pub torn: bool,
}

/// Segments that can have been begun since the last sync: see [`UNSYNCED`](super::super::UNSYNCED).
const UNSYNCED: usize = 2;

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
    let wanted: Vec<Segment> = segments.iter().copied().filter(|s| s.lsn.is_none_or(|lsn| lsn >= from)).collect();
    let seen = read(file, &wanted, progress)?;
    let checked = judge(&seen, from, stable, None);
    if checked.count == 0 {
        return Ok(checked);
    }
    let Some(synced) = promised(file, &segments)? else { return Ok(checked) };
    let mut reused = Vec::new();
    let torn = judge(&seen, from, synced.max(known), Some(&mut reused));
    if torn.count > 0 {
        return Ok(checked);
    }
    let pages = Pages::read(file, Some(torn.tip))?;
    if !pages.have_all() || reused.iter().any(|at| pages.count_on(*at..*at + SEGMENT as u64)) {
        return Ok(checked);
    }
    Ok(Checked { torn: true, ..torn })
}

/// What there is to be said of a log of which everything up to `stable` must be there. With `reused` pieces of what comes later may be
/// there as well, also in a segment that had another place in the log before: it gets where those lie that are to be explained so.
fn judge(seen: &[Seen], from: Lsn, stable: Lsn, mut reused: Option<&mut Vec<u64>>) -> Checked {
    let mut checked = Checked::default();
    let mut log: BTreeMap<Lsn, &Seen> = BTreeMap::new();
    for seen in seen {
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
    let none_is_due = if reused.is_some() { stable == tail } else { stable <= from && log.is_empty() };
    if next == tail && !none_is_due {
        checked.fault(format!("the log was written up to {stable}, and the segment at {tail} is missing"));
    }
    // A batch of which not all is there does not count, nor what follows it.
    let batches = log.values().flat_map(|s| &s.batches).filter(|(at, end)| *at < checked.tip && *end >= checked.tip);
    checked.tip = batches.map(|(at, _)| *at).min().unwrap_or(checked.tip);

    let mut odd = 0;
    for (&lsn, seen) in &log {
        let end = lsn + Lsn::try_from(seen.walk.end).unwrap_or(LEN);
        if let Some(reused) = reused.as_deref_mut().filter(|_| !seen.walk.complete && lsn < tail) {
            reused.push(seen.segment.at);
            odd += usize::from(!seen.walk.reused);
        } else if !seen.walk.complete && end < stable && !(lsn < tail && seen.walk.behind == 0 && seen.walk.reused) {
            let what = if seen.walk.behind > 0 { "a message" } else { "the rest of a segment" };
            let at = seen.segment.at + seen.walk.end as u64;
            checked.fault(format!("{what} at byte {at} can't be read"));
        } else if !seen.walk.complete {
            checked.beyond += seen.walk.behind;
        } else if lsn >= checked.tip {
            checked.beyond += 1;
        }
    }
    // Where no message tells it, as many can be in use again as are filled between two syncs.
    if odd > UNSYNCED {
        checked.fault(format!("in {odd} segments messages can't be read, and only {UNSYNCED} can be in use again"));
    }
    checked
}

/// Up to where the log was synced: to the end of the commit that the highest promise in it is about. None if there is no promise.
fn promised(file: &File, segments: &[Segment]) -> std::io::Result<Option<Lsn>> {
    let (mut said, mut batches, mut buffer) = (Vec::new(), Vec::new(), vec![0; SEGMENT]);
    for segment in segments {
        log::read(file, segment.at, &mut buffer)?;
        log::walk(&buffer, segment.at, segment.lsn, &mut |message| {
            if let (Kind::Batch, Ok(end)) = (message.kind, message.body.try_into().map(Lsn::from_le_bytes)) {
                batches.push((message.lsn, end));
            } else if let Some(commits) = pages::last_value(message, &keys::commits()).and_then(Commits::read) {
                said.push((message.lsn, commits));
            }
        });
    }
    let Some(synced) = said.iter().map(|(_, commits)| commits.synced).max() else { return Ok(None) };
    let first = said.iter().filter(|(_, commits)| commits.latest >= synced).map(|(lsn, _)| *lsn).min();
    Ok(first.map(|lsn| batches.iter().find(|(at, end)| (*at..=*end).contains(&lsn)).map_or(lsn, |(_, end)| *end)))
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
