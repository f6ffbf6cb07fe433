//! What is claimed in advance.
//!
//! A claim is a commit, for it counts the attempt on disk before it is made. A worker that waits for that between two attempts loses nothing
//! where attempts take seconds; where they take milliseconds that wait is a good part of its time. So there as many lanes as end theirs
//! while claims are under way are claimed in advance, and a worker goes on with one of these at once.
//!
//! It is kept short. What is claimed in advance stands no longer among those that wait for their turn, and is in doubt after a kill although
//! it was never sent: it is looked up then, and one of its attempts is gone. So it is none for slow sinks, none of an episode's last
//! attempt, none where each attempt needs a token (`rate`, or the pace that `adaptive` has found); and whatever isn't begun within
//! [`STALE`], or when nothing may begin, or when the sink is set up anew, is given back as if it had never been claimed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::read::Read;
use crate::queue::Claim;

/// How long a claim may wait for its worker.
pub const STALE: Duration = Duration::from_secs(1);

/// An attempt that takes so many times as long as a claim, or longer, can wait for it.
const SLOW: f64 = 100.0;

/// Claims that are covered: the one under way, and the next one, which makes up for it.
const CLAIMS: f64 = 2.0;

/// How much the latest of many times counts.
const LATEST: f64 = 0.1;

/// Of one lane, for one call, that is not begun.
pub struct Call {
    pub claims: Vec<Claim>,
    /// What was read of the first episode.
    pub head: Read,
    since: Instant,
}

impl Call {
    /// What was claimed now.
    pub fn new(claims: Vec<Claim>, head: Read) -> Self {
        Self { claims, head, since: Instant::now() }
    }

    /// Whether it needs a token: a look-up, or an end, does not.
    pub fn sends(&self) -> bool {
        self.claims[0].counts()
    }
}

/// Calls that are claimed and not begun, the first to begin first; and how many there should be.
#[derive(Default)]
pub struct Ahead {
    calls: VecDeque<Call>,
    /// Seconds that a claim takes, and an attempt, as far as that is known.
    claim: Option<f64>,
    attempt: Option<f64>,
}

impl Ahead {
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub fn put(&mut self, calls: impl Iterator<Item = Call>) {
        self.calls.extend(calls);
    }

    pub fn take(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    /// Takes the first one, if that is so.
    pub fn take_if(&mut self, is: impl FnOnce(&Call) -> bool) -> Option<Call> {
        if self.calls.front().is_some_and(is) { self.calls.pop_front() } else { None }
    }

    /// When the first of them will have waited for too long.
    pub fn stale(&self) -> Option<Instant> {
        self.calls.front().map(|call| call.since + STALE)
    }

    pub fn claim_took(&mut self, took: Duration) {
        learn(&mut self.claim, took);
    }

    pub fn attempt_took(&mut self, took: Duration) {
        learn(&mut self.attempt, took);
    }

    /// Attempts take longer than those that have ended tell.
    pub fn forget(&mut self) {
        self.attempt = None;
    }

    /// How many to have, for so many workers.
    pub fn wanted(&self, workers: usize) -> usize {
        let (Some(claim), Some(attempt)) = (self.claim, self.attempt) else { return 0 };
        if attempt >= claim * SLOW {
            return 0;
        }
        let ends = f64::from(u32::try_from(workers).unwrap_or(u32::MAX)) * claim / attempt.max(f64::EPSILON);
        // Not negative, and no more than `workers`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = (ends * CLAIMS).ceil() as usize;
        wanted.min(workers)
    }
}

fn learn(mean: &mut Option<f64>, took: Duration) {
    let took = took.as_secs_f64();
    *mean = Some(mean.map_or(took, |mean| mean + (took - mean) * LATEST));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(claim: u64, attempt: u64) -> Ahead {
        let mut ahead = Ahead::default();
        ahead.claim_took(Duration::from_millis(claim));
        ahead.attempt_took(Duration::from_millis(attempt));
        ahead
    }

    #[test]
    fn as_many_are_claimed_in_advance_as_end_during_two_claims_and_none_for_a_slow_sink() {
        assert_eq!(Ahead::default().wanted(100), 0, "nothing is known");
        assert_eq!(ahead(3, 20).wanted(100), 30);
        assert_eq!(ahead(1, 20).wanted(1), 1);
        assert_eq!(ahead(200, 20).wanted(100), 100, "never more than workers");
        assert_eq!(ahead(1, 99).wanted(5), 1);
        assert_eq!(ahead(1, 100).wanted(100), 0);
        assert_eq!(ahead(0, 0).wanted(100), 0);
        let mut slower = ahead(3, 20);
        slower.forget();
        assert_eq!(slower.wanted(100), 0);
    }
}
