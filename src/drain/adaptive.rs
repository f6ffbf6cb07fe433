//! How much a sink takes, found out by giving it a little more until it minds.
//!
//! Two things are learnt. *How many attempts at once*, between 1 and `workers`: one more for each that was taken, until something goes wrong
//! for the first time; from then on one more for each round of them. It is cut when the sink refuses (429, 503), when it does not answer
//! in time, and when answers take twice as long as they did at best, averaged over enough of them that one slow answer is none. If a far
//! smaller number of attempts doesn't bring the times down, it isn't offramp that makes them long, and the new times are what is usual.
//!
//! *How many a second*, from the first refusal on. Where answers are quick, two at once may be too few and three too many: the pace can be
//! in between. A refusal sets it a little below what was taken of late. Then it grows, slowly at first and quicker the longer nobody
//! minds: around the limit of a service most of the time is spent just below it, and one that takes ten times as much since it was
//! scaled up is found out within a minute. It grows only while it is what holds attempts back; what is not tried is not known.
//!
//! What was sent before the last cut does not cut again, and for a moment nothing does: a service that counts by the second refuses
//! everything for the rest of it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::limit::Bucket;

/// Least time between two cuts.
const ROUND: Duration = Duration::from_secs(1);

/// What a cut leaves of the attempts at once.
const FEWER: f64 = 0.7;

/// What a refusal leaves of the pace that was taken.
const SLOWER: f64 = 0.93;

/// The slowest pace, a second.
const SLOWEST: f64 = 0.1;

/// By how much the pace grows in a second, at first ...
const GROWTH: f64 = 0.01;

/// ... and the time in which that doubles ...
const DOUBLING: f64 = 10.0;

/// ... up to this.
const MOST_GROWTH: f64 = 0.25;

/// The fastest pace that is still one.
const FASTEST: f64 = 1e6;

/// Of so many that were taken the times are known ...
const KNOWN: usize = 64;

/// ... if it was not longer ago.
const RECENT: Duration = Duration::from_secs(30);

/// Answers whose times make an average.
const SAMPLES: u32 = 20;

/// How much longer than at best answers may take.
const SLOW: f64 = 2.0;

/// What is known of one sink.
#[derive(Debug)]
pub struct Adaptive {
    most: f64,
    /// At once.
    limit: f64,
    /// Nothing has gone wrong yet.
    starting: bool,
    pace: Option<Pace>,
    cut: Option<Instant>,
    taken: VecDeque<Instant>,
    times: Times,
}

#[derive(Debug)]
struct Pace {
    bucket: Bucket,
    /// When it was last used.
    used: Instant,
    /// Seconds of use since the last cut.
    calm: f64,
}

/// How long answers take, in seconds.
#[derive(Debug, Default)]
struct Times {
    sum: f64,
    count: u32,
    /// The lowest average.
    best: Option<f64>,
    latest: f64,
    /// What was at once when they became too long, and how long they were.
    long: Option<(f64, f64)>,
}

impl Adaptive {
    /// Knows nothing, and begins with one at once.
    pub fn new(workers: usize) -> Self {
        Self {
            most: f64::from(u32::try_from(workers).unwrap_or(u32::MAX)),
            limit: 1.0,
            starting: true,
            pace: None,
            cut: None,
            taken: VecDeque::new(),
            times: Times::default(),
        }
    }

    /// From now on at most so many at once.
    pub fn resize(&mut self, workers: usize) {
        self.most = f64::from(u32::try_from(workers).unwrap_or(u32::MAX));
        self.limit = self.limit.min(self.most);
    }

    /// Attempts that may be under way.
    pub fn at_once(&self) -> usize {
        // Between 1 and `workers`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = self.limit as usize;
        limit
    }

    /// The bucket of the pace, once there is one.
    pub fn pace(&mut self) -> Option<&mut Bucket> {
        self.pace.as_mut().map(|pace| &mut pace.bucket)
    }

    /// So many attempts would begin now if the pace allowed it.
    pub fn wanted(&mut self, wanted: usize, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.wanted(wanted, now);
        }
    }

    /// The sink took one, `busy` being under way; it answered after `took`.
    pub fn took(&mut self, took: Duration, busy: usize, now: Instant) {
        if self.taken.len() == KNOWN {
            self.taken.pop_front();
        }
        self.taken.push_back(now);
        // Many can be answered before the next ones begin: half of the limit is in use of it.
        if busy >= self.at_once().div_ceil(2) {
            self.limit = (self.limit + if self.starting { 1.0 } else { 1.0 / self.limit }).min(self.most);
        }
        if self.times.are_long(took.as_secs_f64(), self.limit) && self.is_new(now.checked_sub(took).unwrap_or(now), now) {
            self.fewer(now);
        }
    }

    /// The sink refused one that began then; `false` if that was to be expected after an earlier one.
    pub fn refused(&mut self, began: Instant, now: Instant) -> bool {
        let new = self.is_new(began, now);
        if new {
            self.slower(now);
            self.fewer(now);
        }
        new
    }

    /// The sink did not answer one in time.
    pub fn timed_out(&mut self, began: Instant, now: Instant) {
        if self.is_new(began, now) {
            self.fewer(now);
        }
    }

    fn is_new(&self, began: Instant, now: Instant) -> bool {
        self.cut.is_none_or(|cut| began > cut && now >= cut + ROUND)
    }

    fn slower(&mut self, now: Instant) {
        let taken = self.taken_per_second(now);
        let paced = self.pace.as_ref().map(|pace| pace.bucket.per_second());
        let Some(most) = paced.into_iter().chain(taken).reduce(f64::min) else { return };
        let per_second = (most * SLOWER).max(SLOWEST);
        match &mut self.pace {
            Some(pace) => {
                pace.bucket.set(per_second, now);
                pace.calm = 0.0;
            }
            None => self.pace = Some(Pace { bucket: Bucket::new(per_second, 1, now), used: now, calm: 0.0 }),
        }
    }

    fn fewer(&mut self, now: Instant) {
        self.cut = Some(now);
        self.starting = false;
        // No fewer than the pace needs: it is the finer of the two.
        let needed = self.pace.as_ref().map_or(1.0, |pace| pace.bucket.per_second() * self.times.latest + 1.0);
        self.limit = (self.limit * FEWER).max(needed).clamp(1.0, self.most);
    }

    /// What was taken of late: in the last second or, where less was, in all the time that is known.
    fn taken_per_second(&mut self, now: Instant) -> Option<f64> {
        while self.taken.front().is_some_and(|first| now.saturating_duration_since(*first) > RECENT) {
            self.taken.pop_front();
        }
        let since = |at: &Instant| now.saturating_duration_since(*at);
        let rate = |n: usize, over: Duration| f64::from(u32::try_from(n).unwrap_or(u32::MAX)) / over.as_secs_f64();
        let first = self.taken.front().filter(|_| self.taken.len() > 1).map(since).filter(|over| !over.is_zero())?;
        let last = self.taken.iter().filter(|at| since(at) < ROUND).count();
        Some(rate(self.taken.len(), first).max(if first > ROUND { rate(last, ROUND) } else { 0.0 }))
    }
}

impl Pace {
    fn wanted(&mut self, wanted: usize, now: Instant) {
        let per_second = self.bucket.per_second();
        let since = now.saturating_duration_since(self.used).as_secs_f64().min(f64::max(1.0, 2.0 / per_second));
        self.used = now;
        if self.bucket.whole(wanted, now) < wanted {
            self.calm += since;
            let growth = (GROWTH * (self.calm / DOUBLING).exp2()).min(MOST_GROWTH);
            self.bucket.set((per_second * (growth * since).exp()).min(FASTEST), now);
        }
    }
}

impl Times {
    /// Whether, with this one, they have become too long.
    fn are_long(&mut self, took: f64, limit: f64) -> bool {
        self.sum += took;
        self.count += 1;
        if self.count < SAMPLES {
            return false;
        }
        let average = self.sum / f64::from(self.count);
        (self.sum, self.count, self.latest) = (0.0, 0, average);
        let best = self.best.map_or(average, |best| best.min(average));
        self.best = Some(best);
        if average <= SLOW * best {
            self.long = None;
            return false;
        }
        let (when, were) = *self.long.get_or_insert((limit, average));
        if limit <= f64::max(when / 2.0, 1.0) && average > were * 0.75 {
            (self.best, self.long) = (Some(average), None);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that answers after a time that depends on how many are under way, for so many rounds.
    fn rounds(a: &mut Adaptive, now: &mut Instant, n: usize, time: impl Fn(usize) -> f64) {
        for _ in 0..n {
            let busy = a.at_once();
            let took = Duration::from_secs_f64(time(busy));
            *now += took;
            (0..busy).for_each(|_| a.took(took, busy, *now));
        }
    }

    #[test]
    fn it_doubles_until_something_goes_wrong_and_then_grows_by_one_a_round() {
        let (mut a, mut now) = (Adaptive::new(100), Instant::now());
        rounds(&mut a, &mut now, 5, |_| 0.1);
        assert_eq!(a.at_once(), 32);
        now += ROUND;
        a.timed_out(now, now);
        assert_eq!(a.at_once(), 22);
        rounds(&mut a, &mut now, 10, |_| 0.1);
        assert!((31..=32).contains(&a.at_once()), "{}", a.at_once());
        rounds(&mut a, &mut now, 1_000, |_| 0.1);
        assert_eq!(a.at_once(), 100, "never above `workers`");
    }

    #[test]
    fn it_does_not_grow_by_what_is_not_tried() {
        let mut a = Adaptive::new(100);
        let now = Instant::now();
        a.limit = 10.0;
        (0..100).for_each(|_| a.took(Duration::from_millis(100), 3, now));
        assert_eq!(a.at_once(), 10);
    }

    #[test]
    fn a_sink_that_gets_slower_with_each_gets_fewer_at_once() {
        // It works on five at a time; the others wait inside it.
        let (mut a, mut now) = (Adaptive::new(1_000), Instant::now());
        #[allow(clippy::cast_precision_loss)]
        rounds(&mut a, &mut now, 3_000, |busy| 0.1 * (busy as f64 / 5.0).max(1.0));
        assert!((5..=40).contains(&a.at_once()), "of a thousand: {}", a.at_once());
    }

    #[test]
    fn times_that_are_as_they_are_keep_nobody_back() {
        let (mut a, mut now) = (Adaptive::new(50), Instant::now());
        let mut luck = fastrand::Rng::with_seed(7);
        let mut times: Vec<f64> = std::iter::repeat_with(|| 12.0 + 88.0 * luck.f64()).take(100_000).collect();
        for _ in 0..200 {
            let busy = a.at_once();
            for _ in 0..busy {
                let took = times.pop().unwrap();
                now += Duration::from_secs_f64(took / f64::from(u32::try_from(busy).unwrap()));
                a.took(Duration::from_secs_f64(took), busy, now);
            }
        }
        assert_eq!(a.at_once(), 50, "12 to 100 s, as an extraction takes");
        // A slower model: three times as long, whatever is at once.
        rounds(&mut a, &mut now, 100, |_| 170.0);
        assert_eq!(a.at_once(), 50, "times that fewer attempts don't shorten become the usual ones");
    }

    #[test]
    fn what_was_sent_before_a_cut_does_not_cut_again() {
        let (mut a, now) = (Adaptive::new(100), Instant::now());
        a.limit = 64.0;
        let later = now + 3 * ROUND;
        assert!(a.refused(later, later));
        assert!(!a.refused(now, later + 2 * ROUND), "it was under way");
        assert!(!a.refused(later + ROUND / 2, later + ROUND / 2), "it is the same second");
        assert_eq!(a.at_once(), 44);
        assert!(a.refused(later + ROUND, later + ROUND));
    }
}
