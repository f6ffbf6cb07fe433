//! How much may begin: `rate`, and below it what [`Adaptive`] has found out.
//!
//! Each sending takes a token when it begins; looking up takes none. The scheduler claims no more lanes than there are tokens, for a claim
//! counts an attempt on disk. An attempt that has to send again takes its own token in advance, if there is none, and waits for it: so the
//! scheduler, which always wants more, can't be quicker than it for ever.

use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Adaptive;
use crate::config;

/// How late a timer may be without a loss: a bucket of one token would lose a part of it each time.
const LATE: Duration = Duration::from_millis(5);

/// What the sums of fractions are wrong by at most.
const ROUNDING: f64 = 1e-6;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    /// Below 0: taken in advance.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Full.
    pub fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        Self { per_second, burst: f64::from(burst), tokens: f64::from(burst), at: now }
    }

    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// From now on so many a second.
    pub fn set(&mut self, per_second: f64, now: Instant) {
        self.fill(now);
        self.per_second = per_second;
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        let most = self.burst + LATE.as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(most);
        self.at = self.at.max(now);
    }

    /// Tokens that are there, at most `max`.
    pub fn whole(&mut self, max: usize, now: Instant) -> usize {
        self.fill(now);
        let there = (self.tokens + ROUNDING).max(0.0);
        // Not negative, and at most a million.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        max.min(there as usize)
    }

    /// Takes one.
    fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// When there are so many.
    fn ready(&self, tokens: f64) -> Instant {
        let missing = tokens - ROUNDING - self.tokens;
        if missing <= 0.0 { self.at } else { self.at + wait(missing, self.per_second) }
    }
}

fn wait(tokens: f64, per_second: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(86_400);
    Duration::try_from_secs_f64(tokens / per_second).unwrap_or(LONGEST).min(LONGEST)
}

/// All limits of a sink but `workers`.
#[derive(Debug)]
pub struct Limits {
    rate: Option<Bucket>,
    pub adaptive: Option<Adaptive>,
}

impl Limits {
    pub fn new(config: &config::Sink, now: Instant) -> Self {
        let config::Rate { per_second, burst } = config.rate;
        Self {
            rate: (per_second > 0.0).then(|| Bucket::new(per_second, burst, now)),
            adaptive: config.adaptive.then(|| Adaptive::new(config.workers)),
        }
    }

    /// From now on these hold. What was found out stays.
    pub fn configure(&mut self, former: &config::Sink, config: &config::Sink, now: Instant) {
        let new = Self::new(config, now);
        if former.rate != config.rate {
            self.rate = new.rate;
        }
        self.adaptive = match (self.adaptive.take(), new.adaptive) {
            (Some(mut known), Some(_)) => {
                known.resize(config.workers);
                Some(known)
            }
            (_, new) => new,
        };
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.rate.iter_mut().chain(self.adaptive.as_mut().and_then(Adaptive::pace))
    }

    /// Whether nothing needs a token.
    pub fn is_free(&mut self) -> bool {
        self.buckets().next().is_none()
    }

    /// How many of `wanted` have a token.
    pub fn allowed(&mut self, wanted: usize, now: Instant) -> usize {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.wanted(wanted, now);
        }
        self.buckets().fold(wanted, |most, bucket| bucket.whole(most, now))
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_there = self.buckets().all(|bucket| bucket.whole(1, now) == 1);
        if is_there {
            self.buckets().for_each(Bucket::spend);
        }
        is_there
    }

    /// Takes one in any case; from when on it may be used.
    pub fn reserve(&mut self, now: Instant) -> Instant {
        self.buckets().for_each(|bucket| bucket.fill(now));
        self.buckets().for_each(Bucket::spend);
        self.buckets().map(|bucket| bucket.ready(0.0)).fold(now, Instant::max)
    }

    /// When there is one, if nobody takes it before.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.buckets().map(|bucket| bucket.ready(1.0)).fold(now, Instant::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: f64, burst: u32, now: Instant) -> Limits {
        Limits { rate: Some(Bucket::new(per_second, burst, now)), adaptive: None }
    }

    /// As many as there are, at most.
    fn take(l: &mut Limits, max: usize, now: Instant) -> usize {
        (0..max).take_while(|_| l.take(now)).count()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_burst_goes_at_once_and_then_each_has_its_time() {
        let now = Instant::now();
        let mut l = limits(10.0, 3, now);
        assert_eq!((take(&mut l, 100, now), take(&mut l, 100, now)), (3, 0));
        assert_eq!(l.next(now), now + ms(100) - Duration::from_nanos(100), "to a rounding");
        assert_eq!(
            (take(&mut l, 100, now + ms(99)), take(&mut l, 100, now + ms(100)), take(&mut l, 100, now + ms(100))),
            (0, 1, 0)
        );
        assert_eq!(take(&mut l, 100, now + ms(60_000)), 3, "an idle hour saves up no more than the burst");
    }

    #[test]
    fn timers_that_are_late_lose_nothing() {
        let now = Instant::now();
        let mut l = limits(30.0, 1, now);
        let (mut at, mut taken) = (now, 0);
        while at < now + ms(60_000) {
            taken += take(&mut l, 100, at);
            at = l.next(at).max(at) + ms(3);
        }
        assert!((1_799..=1_801).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_allowed_is_there_until_it_is_taken() {
        let now = Instant::now();
        let mut l = limits(10.0, 5, now);
        assert_eq!((l.allowed(3, now), l.allowed(9, now)), (3, 5));
        l.reserve(now);
        assert_eq!((l.allowed(9, now), take(&mut l, 100, now)), (4, 4));
    }

    #[test]
    fn what_is_reserved_comes_before_what_is_taken_later() {
        let now = Instant::now();
        let mut l = limits(10.0, 1, now);
        assert_eq!(l.reserve(now), now);
        let second = l.reserve(now);
        assert!(second > now + ms(99) && second <= now + ms(100));
        assert_eq!(
            (take(&mut l, 1, now + ms(100)), take(&mut l, 1, now + ms(200))),
            (0, 1),
            "the token of the first tenth is spoken for"
        );
    }

    #[test]
    fn without_limits_everything_goes() {
        let now = Instant::now();
        let mut l = Limits { rate: None, adaptive: None };
        assert_eq!((take(&mut l, 7, now), l.next(now), l.reserve(now)), (7, now, now));
    }
}
