//! Any schedule: places out of their order, holds, unique keys, notes, every ending, crashes; against what must be true, kept in the
//! plainest way.

mod run;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// How long a unique key and a note live here.
const KEPT: u64 = 5_000;

#[derive(Debug, Clone)]
enum Step {
    Reserve,
    Append(Arrival),
    Hold { sessions: u8, place: prop::sample::Index },
    Release(prop::sample::Index),
    Claim { sink: bool, max: usize },
    ClaimAll { sink: bool },
    Deliver(prop::sample::Index),
    Retry(prop::sample::Index, u64),
    Uncount(prop::sample::Index),
    Dead(prop::sample::Index),
    Redrive(prop::sample::Index),
    Purge(prop::sample::Index),
    Delete(prop::sample::Index),
    Note(u8, usize),
    Tick(u64),
    Crash,
}

/// An episode that comes.
#[derive(Debug, Clone)]
struct Arrival {
    session: u8,
    both: bool,
    /// At one of the places that were reserved.
    place: Option<prop::sample::Index>,
    /// How much later than the first its event was.
    moved: u64,
    unique: Option<u8>,
    note: Option<(u8, usize)>,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let place = || prop::option::weighted(0.6, index());
    let note = || (0u8..2, prop_oneof![0usize..50, 4_000usize..9_000]);
    let (unique, with) = (prop::option::weighted(0.2, 0u8..2), prop::option::weighted(0.1, note()));
    prop_oneof![
        4 => Just(Step::Reserve),
        7 => (0u8..3, any::<bool>(), place(), 0u64..4, unique, with)
            .prop_map(|(session, both, place, moved, unique, note)| Step::Append(Arrival { session, both, place, moved, unique, note })),
        3 => (1u8..8, index()).prop_map(|(sessions, place)| Step::Hold { sessions, place }),
        2 => index().prop_map(Step::Release),
        5 => (any::<bool>(), 1usize..4).prop_map(|(sink, max)| Step::Claim { sink, max }),
        2 => any::<bool>().prop_map(|sink| Step::ClaimAll { sink }),
        5 => index().prop_map(Step::Deliver),
        2 => (index(), 0u64..50_000).prop_map(|(i, d)| Step::Retry(i, d)),
        1 => index().prop_map(Step::Uncount),
        2 => index().prop_map(Step::Dead),
        2 => index().prop_map(Step::Redrive),
        1 => index().prop_map(Step::Purge),
        1 => index().prop_map(Step::Delete),
        1 => note().prop_map(|(key, len)| Step::Note(key, len)),
        2 => (0u64..2 * DAY).prop_map(Step::Tick),
        1 => Just(Step::Crash),
    ]
}

type At = (SinkId, u8);

/// What must be true.
#[derive(Default)]
struct Oracle {
    /// The queue's time.
    now: u64,
    next: Seq,
    /// The last place that was ever used.
    used: Seq,
    reserved: Vec<Seq>,
    /// Per sink and session: the places that wait, with their not-before.
    waiting: BTreeMap<At, BTreeMap<Seq, u64>>,
    dead: BTreeSet<(SinkId, u8, Seq)>,
    claimed: Vec<(Claim, u8)>,
    holds: BTreeMap<Seq, BTreeSet<u8>>,
    /// Event times given, and the latest of each lane.
    given: BTreeMap<(SinkId, Seq), u64>,
    /// Those of attempts that reached nobody.
    uncounted: BTreeSet<(SinkId, Seq)>,
    latest: BTreeMap<At, u64>,
    uniques: BTreeMap<u8, (Seq, u64)>,
    notes: BTreeMap<u8, (usize, u64)>,
    captured: u64,
    delivered: u64,
    purged: u64,
    expired: u64,
}

impl Oracle {
    fn take(&mut self, index: prop::sample::Index) -> Option<(Claim, u8)> {
        if self.claimed.is_empty() {
            return None;
        }
        let (claim, session) = self.claimed.remove(index.index(self.claimed.len()));
        Some((claim, session))
    }

    fn place(&mut self) -> Seq {
        self.next += 1;
        self.next - 1
    }

    /// The head of a lane, if it may be claimed.
    fn due(&self, at: At) -> Option<Seq> {
        let (&seq, &due) = self.waiting.get(&at)?.first_key_value()?;
        let held = self.holds.iter().any(|(place, sessions)| *place < seq && sessions.contains(&at.1));
        let busy = self.claimed.iter().any(|(c, s)| (c.sink, *s) == at);
        (!held && !busy && due <= self.now).then_some(seq)
    }

    fn claim(&mut self, claims: Vec<Claim>) -> Result<(), TestCaseError> {
        for claim in claims {
            let session = (0..3).find(|s| Lane::of(&s.to_string()) == claim.lane).unwrap();
            let at = (claim.sink, session);
            prop_assert_eq!(self.due(at), Some(claim.seq), "busy, held, not due, or not the next of its lane");
            if claim.exhausted.is_none() {
                let latest = self.latest.get(&at).copied();
                let key = (claim.sink, claim.seq);
                let given = self.given.get(&key).copied();
                if given != Some(claim.at) {
                    prop_assert!(given.is_none() || self.uncounted.contains(&key), "an event time changed");
                    prop_assert!(latest.is_none_or(|l| l < claim.at), "event times go back");
                }
                self.given.insert(key, claim.at);
                self.uncounted.remove(&key);
                self.latest.insert(at, claim.at.max(latest.unwrap_or(0)));
            }
            self.claimed.push((claim, session));
        }
        Ok(())
    }

    /// The queue begins anew, from what it has on disk.
    fn reopened(&mut self, now: u64) {
        self.now = now;
        self.claimed.clear();
        self.holds.clear();
        self.reserved.clear();
        self.next = self.used + 1;
    }
}
