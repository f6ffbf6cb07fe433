//! `breaker`, of a proxy and of a sink: the same keys with other defaults.

use crate::config::Breaker;
use crate::config::read::{Header, Section};
use crate::config::values::{duration, integer, share};

/// Reads it; what isn't given is as in `default`.
pub fn breaker(s: &mut Section<'_>, default: Breaker) -> Breaker {
    let mut b = s.table("breaker", Header::Inline);
    let breaker = Breaker {
        consecutive_failures: b.get("consecutive_failures", default.consecutive_failures, integer(0, 1_000_000)),
        failure_rate: b.get("failure_rate", default.failure_rate, share),
        window: b.get("window", default.window, duration),
        min_attempts: b.get("min_attempts", default.min_attempts, integer(1, 1_000_000)),
        open_for: b.get("open_for", default.open_for, duration),
    };
    b.finish();
    breaker
}
