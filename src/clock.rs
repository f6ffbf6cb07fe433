//! What time it is, in milliseconds since the Unix epoch: the unit in which offramp stores every time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A source of wall-clock time that tests can tie to tokio's paused clock.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's clock. It may jump, also backwards.
    System,
    /// Advances steadily from a given moment, whatever the system's clock is set to; under tokio's `start_paused` it stands still until a
    /// test moves it.
    Steady {
        /// The wall-clock time at `start`.
        epoch_ms: u64,
        /// The instant that corresponds to `epoch_ms`.
        start: Instant,
    },
    /// Always the same time, for tests.
    #[cfg(test)]
    Fixed(u64),
    #[cfg(test)]
    /// What a test says.
    Told(&'static std::sync::atomic::AtomicU64),
}

impl Clock {
    /// A steady clock that shows `epoch_ms` now.
    pub fn steady_from(epoch_ms: u64) -> Self {
        Self::Steady { epoch_ms, start: Instant::now() }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => now_ms(),
            Self::Steady { epoch_ms, start } => epoch_ms + as_ms(start.elapsed()),
            #[cfg(test)]
            Self::Fixed(ms) => *ms,
            #[cfg(test)]
            Self::Told(ms) => ms.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

/// The system's clock, in milliseconds since the Unix epoch (0 for a clock set before it).
pub fn now_ms() -> u64 {
    as_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in whole milliseconds, saturating.
pub fn as_ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// An RFC 3339 time, in milliseconds since the Unix epoch; none that is before it.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    parse_event(text).and_then(|ms| u64::try_from(ms).ok())
}

/// An RFC 3339 time of an event, which may lie before the Unix epoch.
pub fn parse_event(text: &str) -> Option<i64> {
    text.parse().ok().map(jiff::Timestamp::as_millisecond)
}

/// A time as RFC 3339 in UTC with milliseconds: `2026-01-01T00:00:00.000Z`.
pub fn rfc3339(ms: u64) -> String {
    i64::try_from(ms).map_or_else(|_| format!("{ms} ms"), event)
}

/// The time of an event (ms since the Unix epoch, or before it), likewise.
pub fn event(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}
