//! When a service that refuses wants to be asked again: what the headers of its answer say.
//!
//! `Retry-After` says it for any refusal. The headers of rate limits come with every answer of some services, and tell when the window of
//! the limit ends: they count only where it is the limit that refuses (429, 503) and, as far as they say, nothing is left of it.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

/// Numbers above this are no seconds to wait but seconds since the Unix epoch: those of September 2001 and later.
const EPOCH: f64 = 1e9;

/// And those above this are milliseconds since then.
const EPOCH_MS: f64 = 1e12;

/// What a refusal wishes.
pub fn of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| self::number(text(name)?);
    let asked = || number("retry-after-ms").map(|ms| seconds(ms / 1e3)).or_else(|| retry_after(text(RETRY_AFTER.as_str())?, now));
    let limited = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let left = || ["ratelimit-remaining", "x-ratelimit-remaining"].into_iter().find_map(number).is_some_and(|left| left > 0.0);
    let limit = || {
        if !limited || left() {
            return None;
        }
        let after = number("x-ratelimit-reset-after").or_else(|| number("ratelimit-reset")).map(seconds);
        after.or_else(|| rate_limit(text("ratelimit")?)).or_else(|| number("x-ratelimit-reset").map(|at| until(at, now)))
    };
    asked().or_else(limit)
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Some(asked) = number(text) {
        return Some(seconds(asked));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// `"default";r=0;t=30`, or `limit=100, remaining=0, reset=30` of earlier drafts: the longest wait of those limits that leave nothing.
fn rate_limit(text: &str) -> Option<Duration> {
    let value = |part: &str, names: [&str; 2]| {
        part.split([';', ','])
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(name, value)| names.contains(&name.trim()).then(|| number(value.trim())).flatten())
    };
    let wait = |part: &str| {
        let left = value(part, ["r", "remaining"]).is_some_and(|left| left > 0.0);
        if left { None } else { value(part, ["t", "reset"]).map(seconds) }
    };
    // One list with an item for each limit, except in the earlier drafts, where all of it is one limit.
    if text.contains("reset=") { wait(text) } else { text.split(',').filter_map(wait).max() }
}

/// From now until that time; what is too small for a time is a number of seconds.
fn until(at: f64, now: Timestamp) -> Duration {
    let at = if at >= EPOCH_MS { at / 1e3 } else { at };
    if at < EPOCH { seconds(at) } else { seconds(at - now.as_duration().as_secs_f64()) }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)
}

fn seconds(n: f64) -> Duration {
    // More than a duration can be is longer than anyone waits.
    Duration::try_from_secs_f64(n.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z
    const NOW: i64 = 1_767_225_600;

    fn wish(status: u16, headers: &[(&'static str, &str)]) -> Option<f64> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = Timestamp::from_second(NOW).unwrap();
        of(StatusCode::from_u16(status).unwrap(), &headers, now).map(|d| (d.as_secs_f64() * 1e3).round() / 1e3)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text| wish(500, &[("retry-after", text)]);
        assert_eq!(after("17"), Some(17.0));
        assert_eq!(after(" 1.5 "), Some(1.5));
        assert_eq!(after("Thu, 01 Jan 2026 00:01:00 GMT"), Some(60.0));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0.0), "long ago is now");
        for nonsense in ["soon", "-1", "inf", "NaN", ""] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
        assert!(after("1e300").is_some_and(|s| s > 1e18), "longer than anyone waits, and no panic");
        assert_eq!(wish(429, &[("retry-after-ms", "250"), ("retry-after", "1")]), Some(0.25), "the finer one");
    }

    #[test]
    fn the_end_of_a_rate_limit_is_waited_for_however_it_is_written() {
        for (name, value, wait) in [
            ("ratelimit-reset", "30", 30.0),
            ("x-ratelimit-reset-after", "0.35", 0.35),
            ("x-ratelimit-reset", "30", 30.0),
            ("x-ratelimit-reset", "1767225630", 30.0),
            ("x-ratelimit-reset", "1767225630500", 30.5),
            ("x-ratelimit-reset", "1767225500", 0.0),
            ("ratelimit", "\"default\";r=0;t=30", 30.0),
            ("ratelimit", "limit=100, remaining=0, reset=30", 30.0),
            ("ratelimit", "\"burst\";r=5;t=90, \"hour\";r=0;t=40,\"day\";t=20", 40.0),
        ] {
            assert_eq!(wish(429, &[(name, value)]), Some(wait), "{name}: {value}");
            assert_eq!(wish(503, &[(name, value)]), Some(wait), "{name}: {value}");
            assert_eq!(wish(500, &[(name, value)]), None, "a window's end says nothing of an error");
        }
        assert_eq!(wish(429, &[("x-ratelimit-reset", "30"), ("retry-after", "2")]), Some(2.0), "what is asked for comes first");
    }

    #[test]
    fn a_limit_that_has_something_left_is_not_waited_for() {
        assert_eq!(wish(429, &[("x-ratelimit-reset", "30"), ("x-ratelimit-remaining", "4999")]), None);
        assert_eq!(wish(429, &[("x-ratelimit-reset", "30"), ("x-ratelimit-remaining", "0")]), Some(30.0));
        assert_eq!(wish(429, &[("ratelimit", "\"default\";r=5;t=30")]), None);
        assert_eq!(wish(429, &[("ratelimit", "nonsense")]), None);
        assert_eq!(wish(429, &[]), None);
    }
}
