//! Holds: lanes in which nothing behind a place may begin yet, because what has that place is still going on.
//!
//! In memory only: what was going on before a restart never ends. Each hold ends by itself at its time, so that an exchange that hangs
//! delays its lane and stops nothing for ever. The requests' threads make holds at once; the writer asks whether a lane is held, and ends
//! holds in their turn among all else that it does: under a lock that is never held longer than a few look-ups take, and not taken at all
//! while there are no holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Lane, Seq, SinkId};

type At = (SinkId, Lane);

/// All holds.
#[derive(Default)]
pub struct Holds {
    /// How many there are.
    count: AtomicUsize,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    places: HashMap<Seq, Hold>,
    lanes: HashMap<At, BTreeSet<Seq>>,
    /// When they end by themselves.
    ends: BTreeSet<(u64, Seq)>,
}

struct Hold {
    until: u64,
    lanes: Vec<At>,
    /// It kept an episode from being claimed.
    felt: bool,
}

impl Holds {
    /// Holds these lanes for a place, those that it holds already too: the last `until` counts. (`now` and `until` in ms.)
    pub fn hold(&self, lanes: &[At], place: Seq, until: u64, now: u64) {
        if lanes.is_empty() || until <= now {
            return;
        }
        self.change(|all| {
            let hold = all.places.entry(place).or_insert(Hold { until, lanes: Vec::new(), felt: false });
            all.ends.remove(&(hold.until, place));
            all.ends.insert((until, place));
            hold.until = until;
            for at in lanes {
                if all.lanes.entry(*at).or_default().insert(place) {
                    hold.lanes.push(*at);
                }
            }
        });
    }

    /// What had this place has ended. The sinks at which an episode waited for it.
    pub fn release(&self, place: Seq) -> Vec<SinkId> {
        if self.is_empty() {
            return Vec::new();
        }
        let hold = self.change(|all| all.remove(place));
        let mut sinks: Vec<SinkId> = hold.filter(|h| h.felt).into_iter().flat_map(|h| h.lanes).map(|(sink, _)| sink).collect();
        sinks.sort_unstable();
        sinks.dedup();
        sinks
    }

    /// Whether this place holds any lane.
    pub fn has(&self, place: Seq) -> bool {
        !self.is_empty() && self.lock().places.contains_key(&place)
    }

    /// Whether an episode waits for this place.
    pub fn is_felt(&self, place: Seq) -> bool {
        self.lock().places.get(&place).is_some_and(|h| h.felt)
    }

    /// Whether any lane is held.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether a lane is held for any place.
    pub fn is_held(&self, sink: SinkId, lane: Lane) -> bool {
        !self.is_empty() && self.lock().lanes.contains_key(&(sink, lane))
    }

    /// Whether the episode at `seq` may not begin yet: until when (ms), unless it is released before. To look again then is enough: there
    /// may be a further hold.
    pub fn blocks(&self, sink: SinkId, lane: Lane, seq: Seq, now: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        self.change(|all| {
            loop {
                let place = *all.lanes.get(&(sink, lane))?.range(..seq).next()?;
                let hold = all.places.get_mut(&place)?;
                if hold.until > now {
                    hold.felt = true;
                    return Some(hold.until);
                }
                all.remove(place);
            }
        })
    }

    /// Removes the holds that have ended by themselves.
    pub fn expire(&self, now: u64) {
        if self.is_empty() {
            return;
        }
        self.change(|all| {
            while let Some(&(until, place)) = all.ends.first().filter(|(until, _)| *until <= now) {
                tracing::debug!(place, until, "a lane no longer waits for an exchange that goes on");
                all.remove(place);
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        // A panic in here leaves a hold too many at worst, and each ends at its time.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut All) -> T) -> T {
        let mut all = self.lock();
        let answer = change(&mut all);
        self.count.store(all.places.len(), Ordering::Release);
        answer
    }
}

impl All {
    fn remove(&mut self, place: Seq) -> Option<Hold> {
        let hold = self.places.remove(&place)?;
        self.ends.remove(&(hold.until, place));
        for at in &hold.lanes {
            if let Some(places) = self.lanes.get_mut(at) {
                places.remove(&place);
                if places.is_empty() {
                    self.lanes.remove(at);
                }
            }
        }
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SINK: SinkId = SinkId(1);

    fn at(lane: u8) -> At {
        (SINK, Lane([lane; 16]))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hold { lanes: Vec<u8>, place: Seq, until: u64 },
        Release(Seq),
        Expire,
        Ask { lane: u8, seq: Seq },
        Tick(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (prop::collection::vec(0u8..3, 0..3), 1u64..8, 0u64..60)
                .prop_map(|(lanes, place, until)| Step::Hold { lanes, place, until }),
            2 => (1u64..8).prop_map(Step::Release),
            1 => Just(Step::Expire),
            4 => (0u8..3, 0u64..10).prop_map(|(lane, seq)| Step::Ask { lane, seq }),
            2 => (0u64..20).prop_map(Step::Tick),
        ]
    }

    proptest! {
        /// The plainest way to say it: per place its lanes and its end.
        #[test]
        fn inv5_an_episode_waits_while_and_only_while_an_earlier_place_holds_its_lane(steps in prop::collection::vec(step(), 1..60)) {
            let holds = Holds::default();
            let mut model: HashMap<Seq, (u64, BTreeSet<u8>)> = HashMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Hold { lanes, place, until } => {
                        holds.hold(&lanes.iter().map(|l| at(*l)).collect::<Vec<_>>(), place, until, now);
                        if !lanes.is_empty() && until > now {
                            let hold = model.entry(place).or_default();
                            // One that has ended may still be there, its lanes with it.
                            hold.0 = until;
                            hold.1.extend(lanes);
                        }
                    }
                    Step::Release(place) => {
                        holds.release(place);
                        model.remove(&place);
                    }
                    Step::Expire => {
                        holds.expire(now);
                        model.retain(|_, (until, _)| *until > now);
                    }
                    Step::Tick(by) => {
                        now += by;
                        // As the writer does every second; what is late in ending may only be late by that.
                        holds.expire(now);
                        model.retain(|_, (until, _)| *until > now);
                    }
                    Step::Ask { lane, seq } => {
                        let (sink, lane_id) = at(lane);
                        let blocking = model.iter().filter(|(p, (until, lanes))| **p < seq && *until > now && lanes.contains(&lane));
                        let first = blocking.min_by_key(|(p, _)| **p).map(|(_, (until, _))| *until);
                        prop_assert_eq!(holds.blocks(sink, lane_id, seq, now), first);
                    }
                }
                let all = holds.lock();
                prop_assert_eq!(all.places.len(), model.len());
                prop_assert_eq!(all.ends.len(), model.len());
                prop_assert_eq!(all.lanes.values().map(BTreeSet::len).sum::<usize>(), model.values().map(|(_, l)| l.len()).sum::<usize>());
                prop_assert!(all.lanes.values().all(|l| !l.is_empty()));
                prop_assert_eq!(holds.count.load(Ordering::Acquire), model.len());
            }
        }
    }

    #[test]
    fn only_who_was_kept_waiting_is_told_of_the_release() {
        let holds = Holds::default();
        let (sink, lane) = at(1);
        holds.hold(&[(sink, lane)], 5, 100, 0);
        assert_eq!(holds.release(5), []);
        holds.hold(&[(sink, lane)], 5, 100, 0);
        assert_eq!(holds.blocks(sink, lane, 5, 0), None, "its own place is not behind it");
        assert_eq!(holds.blocks(sink, lane, 6, 0), Some(100));
        assert_eq!(holds.release(5), [sink]);
        assert_eq!(holds.blocks(sink, lane, 6, 0), None);
    }
}
