//! A circuit breaker: after some failures in a row, or too large a share of them, it leaves alone what failed, then lets one attempt
//! through to see.
//!
//! Of a sink: while it is open nothing is claimed, so it costs no episode an attempt. Of an upstream: clients get the fallback.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// Parts that `window` is counted in: its beginning moves by one of them.
const SLICES: usize = 10;

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    config: config::Breaker,
    state: State,
    recent: Recent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// How many attempts may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Any number.
    All,
    /// One, if none is under way.
    One,
    /// None before this time.
    NotBefore(Instant),
}

impl Breaker {
    /// Closed.
    pub fn new(config: config::Breaker) -> Self {
        Self { config, state: State::Closed { failures: 0 }, recent: Recent::new(&config, Instant::now()) }
    }

    /// From now on it has these settings. What has failed counts on, and one that is open is so no longer than these say.
    pub fn configure(&mut self, config: config::Breaker, now: Instant) {
        if config.window != self.config.window {
            self.recent = Recent::new(&config, now);
        }
        self.config = config;
        self.state = match self.state {
            _ if !config.is_on() => State::Closed { failures: 0 },
            State::Open { until } => State::Open { until: until.min(now + config.open_for) },
            state => state,
        };
    }

    /// What may begin now. An open breaker whose time is over becomes half-open.
    pub fn allowed(&mut self, now: Instant) -> Allowed {
        match self.state {
            State::Closed { .. } => Allowed::All,
            State::Open { until } if now < until => Allowed::NotBefore(until),
            State::Open { .. } | State::HalfOpen => {
                self.state = State::HalfOpen;
                Allowed::One
            }
        }
    }

    /// An attempt succeeded.
    pub fn success(&mut self, now: Instant) {
        match self.state {
            State::Closed { .. } => self.recent.count(now, false),
            // It began before: some that succeed are no news of a sink that fails half the time, nor of one that has just gone.
            State::Open { .. } => return,
            State::HalfOpen => self.recent.clear(),
        }
        self.state = State::Closed { failures: 0 };
    }

    /// One failed; whether that opened the breaker.
    pub fn failure(&mut self, now: Instant) -> bool {
        let opens = match self.state {
            State::Open { .. } => return false, // an attempt that began before it opened
            State::HalfOpen => true,
            State::Closed { failures } => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                self.recent.count(now, true);
                let in_a_row = self.config.consecutive_failures > 0 && failures >= self.config.consecutive_failures;
                let for_share = self.config.failure_rate > 0.0 && self.recent.exceeds(&self.config, now);
                in_a_row || for_share
            }
        };
        if opens {
            self.state = State::Open { until: now + self.config.open_for };
            self.recent.clear();
        }
        opens
    }

    /// As the metric shows it: 0 closed, 1 open, 2 half-open.
    pub fn gauge(&self) -> i64 {
        match self.state {
            State::Closed { .. } => 0,
            State::Open { .. } => 1,
            State::HalfOpen => 2,
        }
    }
}

/// How the attempts of the last `window` ended. It takes the same room whatever their number.
#[derive(Debug)]
struct Recent {
    slice: Duration,
    start: Instant,
    /// Each with the number of the slice that it is for: the latest one that leaves this remainder.
    slices: [Slice; SLICES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    number: u128,
    attempts: u32,
    failures: u32,
}

impl Recent {
    fn new(config: &config::Breaker, start: Instant) -> Self {
        let slice = (config.window / 10).max(Duration::from_millis(1));
        Self { slice, start, slices: [Slice::default(); SLICES] }
    }

    fn clear(&mut self) {
        self.slices = [Slice::default(); SLICES];
    }

    fn number(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.start).as_nanos() / self.slice.as_nanos()
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let number = self.number(now);
        let at = usize::try_from(number % SLICES as u128).unwrap_or(0); // less than ten
        let slice = &mut self.slices[at];
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        slice.attempts = slice.attempts.saturating_add(1);
        slice.failures = slice.failures.saturating_add(u32::from(failed));
    }

    fn exceeds(&self, config: &config::Breaker, now: Instant) -> bool {
        let number = self.number(now);
        let recent = || self.slices.iter().filter(|s| s.number + SLICES as u128 > number);
        let attempts: u64 = recent().map(|s| u64::from(s.attempts)).sum();
        let failures: u64 = recent().map(|s| u64::from(s.failures)).sum();
        // Attempts of a window, far from where a float stops counting.
        #[allow(clippy::cast_precision_loss)]
        let share = failures as f64 / attempts.max(1) as f64;
        attempts >= u64::from(config.min_attempts) && share >= config.failure_rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(consecutive_failures: u32) -> Breaker {
        Breaker::new(config::Breaker::in_a_row(consecutive_failures, Duration::from_secs(60)))
    }

    /// Opens when half of at least ten attempts within a minute failed.
    fn by_share(consecutive_failures: u32) -> Breaker {
        let config = config::Breaker::in_a_row(consecutive_failures, Duration::from_secs(60));
        Breaker::new(config::Breaker { failure_rate: 0.5, window: Duration::from_secs(60), min_attempts: 10, ..config })
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_probe() {
        let (mut b, now) = (breaker(3), Instant::now());
        assert!(!b.failure(now) && !b.failure(now));
        b.success(now);
        assert!(!b.failure(now) && !b.failure(now) && b.failure(now));
        let until = now + Duration::from_secs(60);
        assert_eq!((b.allowed(now), b.gauge()), (Allowed::NotBefore(until), 1));
        assert!(!b.failure(now), "a late failure changes nothing");
        b.success(now);
        assert_eq!(b.gauge(), 1, "nor does a late success");
        assert_eq!((b.allowed(until), b.gauge()), (Allowed::One, 2));
        assert!(b.failure(until), "the probe failed");
        assert!(matches!(b.allowed(until), Allowed::NotBefore(_)));
        assert_eq!(b.allowed(until + Duration::from_secs(60)), Allowed::One);
        b.success(until);
        assert_eq!((b.allowed(until), b.gauge()), (Allowed::All, 0));
    }

    #[test]
    fn zero_is_never() {
        let (mut b, now) = (breaker(0), Instant::now());
        assert!((0..1000).all(|_| !b.failure(now)));
        assert_eq!(b.allowed(now), Allowed::All);
    }

    #[test]
    fn it_opens_when_too_large_a_share_fails_even_if_never_two_in_a_row() {
        let (mut b, now) = (by_share(0), Instant::now());
        for _ in 0..4 {
            b.success(now);
            assert!(!b.failure(now));
        }
        b.success(now);
        assert!(b.failure(now), "five of ten");
        let until = now + Duration::from_secs(60);
        assert_eq!(b.allowed(until), Allowed::One);
        assert!(b.failure(until), "the probe failed");
        let until = until + Duration::from_secs(60);
        assert_eq!(b.allowed(until), Allowed::One);
        b.success(until);
        assert!((0..9).all(|_| !b.failure(until)) && b.failure(until), "it counts from new: ten are needed");
    }

    #[test]
    fn a_share_is_one_of_enough_attempts_and_of_the_last_window_alone() {
        let (mut b, now) = (by_share(0), Instant::now());
        assert!((0..9).all(|_| !b.failure(now)), "nine are too few");
        let later = now + Duration::from_secs(61);
        assert!(!b.failure(later), "the nine are long ago");
        (0..12).for_each(|_| b.success(later));
        assert!((0..10).all(|_| !b.failure(later)), "eleven of 23 are less than half");
        assert!(b.failure(later));
    }

    #[test]
    fn failures_in_a_row_open_it_whatever_their_share() {
        let (mut b, now) = (by_share(5), Instant::now());
        (0..100).for_each(|_| b.success(now));
        assert!((0..4).all(|_| !b.failure(now)) && b.failure(now));
    }
}
