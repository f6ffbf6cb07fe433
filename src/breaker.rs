//! A circuit breaker: after some failures in a row it leaves alone what failed, then lets one attempt through to see.
//!
//! Of a sink: while it is open nothing is claimed, so it costs no episode an attempt. Of an upstream: clients get the fallback.

use tokio::time::Instant;

use crate::config;

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    config: config::Breaker,
    state: State,
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
        Self { config, state: State::Closed { failures: 0 } }
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
    pub fn success(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// One failed; whether that opened the breaker.
    pub fn failure(&mut self, now: Instant) -> bool {
        let failures = match self.state {
            State::Closed { failures } => failures + 1,
            State::HalfOpen => self.config.consecutive_failures,
            State::Open { .. } => return false, // an attempt that began before it opened
        };
        let opens = self.config.consecutive_failures > 0 && failures >= self.config.consecutive_failures;
        self.state = if opens { State::Open { until: now + self.config.open_for } } else { State::Closed { failures } };
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn breaker(consecutive_failures: u32) -> Breaker {
        Breaker::new(config::Breaker::in_a_row(consecutive_failures, Duration::from_secs(60)))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_probe() {
        let (mut b, now) = (breaker(3), Instant::now());
        assert!(!b.failure(now) && !b.failure(now));
        b.success();
        assert!(!b.failure(now) && !b.failure(now) && b.failure(now));
        let until = now + Duration::from_secs(60);
        assert_eq!((b.allowed(now), b.gauge()), (Allowed::NotBefore(until), 1));
        assert!(!b.failure(now), "a late failure changes nothing");
        assert_eq!((b.allowed(until), b.gauge()), (Allowed::One, 2));
        assert!(b.failure(until), "the probe failed");
        assert!(matches!(b.allowed(until), Allowed::NotBefore(_)));
        assert_eq!(b.allowed(until + Duration::from_secs(60)), Allowed::One);
        b.success();
        assert_eq!((b.allowed(until), b.gauge()), (Allowed::All, 0));
    }

    #[test]
    fn zero_is_never() {
        let (mut b, now) = (breaker(0), Instant::now());
        assert!((0..1000).all(|_| !b.failure(now)));
        assert_eq!(b.allowed(now), Allowed::All);
    }
}
