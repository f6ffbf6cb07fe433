//! How long to wait before the next attempt: exponential, with full jitter.

use std::time::Duration;

use crate::config::Retry;

/// The delay after the given number of attempts (from 1). What the backend asked for wins, but never beyond `retry.max`.
pub fn delay(retry: &Retry, attempts: u32, retry_after: Option<Duration>) -> Duration {
    if let Some(asked) = retry_after {
        return asked.min(retry.max);
    }
    let doubled = retry.initial.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
    let bound = doubled.min(retry.max);
    if retry.full_jitter { bound.mul_f64(fastrand::f64()) } else { bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(full_jitter: bool) -> Retry {
        let s = Duration::from_secs;
        Retry { max_attempts: 10, initial: s(1), max: s(300), full_jitter, max_age: s(86_400) }
    }

    #[test]
    fn it_doubles_up_to_the_longest() {
        let seconds: Vec<_> = [1, 2, 3, 9, 10, 33, u32::MAX].map(|n| delay(&retry(false), n, None).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300, 300]);
    }

    #[test]
    fn full_jitter_spreads_over_the_whole_of_it() {
        let delays: Vec<_> = (0..1000).map(|_| delay(&retry(true), 4, None).as_secs_f64()).collect();
        assert!(delays.iter().all(|d| (0.0..=8.0).contains(d)));
        assert!(delays.iter().any(|d| *d < 2.0) && delays.iter().any(|d| *d > 6.0));
    }

    #[test]
    fn what_the_backend_asks_for_is_kept_within_bounds() {
        assert_eq!(delay(&retry(true), 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(delay(&retry(true), 1, Some(Duration::from_secs(7_000))), Duration::from_secs(300));
    }
}
