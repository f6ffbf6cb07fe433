//! Numbers, sizes, ages and texts as people read them.

use std::time::Duration;

use crate::clock::parse_rfc3339;

/// With thousands apart: `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `512 B`, `20.0 KiB`, `3.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths in whole numbers, so that no size is too large to be exact; rounded down, so that 1023.99 KiB isn't 1024.0.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `340 ms`, `12.3 s`, `4 min 5 s`, `3 h 20 min`, `2 d 4 h`.
pub(super) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0 => format!("{} ms", d.as_millis()),
        1..60 => format!("{s}.{} s", d.subsec_millis() / 100),
        60..3_600 => two(s / 60, "min", s % 60, "s"),
        3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

/// A duration in seconds as JSON has it.
pub(super) fn seconds(s: f64) -> String {
    Duration::try_from_secs_f64(s).map_or_else(|_| "?".to_owned(), duration)
}

/// `1 attempt`, `2 attempts`.
pub(super) fn plural(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// How long ago a time was: `12.3 s ago`; the time itself where it can't be told.
pub(super) fn ago(text: &str, now: u64) -> String {
    match parse_rfc3339(text) {
        Some(then) => format!("{} ago", duration(Duration::from_millis(now.saturating_sub(then)))),
        None => line(text),
    }
}

/// A text on one line that a terminal shows and doesn't obey: an episode's words come from strangers.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { harmless(c) }).collect()
}

/// The same, with its lines kept.
pub(super) fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(line)
}

fn harmless(c: char) -> char {
    // Besides control characters, those that turn the direction of what follows.
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns { char::REPLACEMENT_CHARACTER } else { c }
}

/// The first `max` characters, with a mark where more were.
pub(super) fn shorten(text: &str, max: usize) -> String {
    if text.char_indices().nth(max).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1_023, 1_024, 20_480, 1_048_575, 3_758_096_384, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "20.0 KiB", "1023.9 KiB", "3.5 GiB", "15.9 EiB"]
        );
        let of = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [0, 340, 12_390, 60_000, 245_000, 12_000_000, 187_200_000].map(of),
            ["0 ms", "340 ms", "12.3 s", "1 min", "4 min 5 s", "3 h 20 min", "2 d 4 h"]
        );
        assert_eq!((seconds(42.5), seconds(f64::NAN)), ("42.5 s".into(), "?".into()));
        assert_eq!((plural(1, "attempt"), plural(1_200, "attempt")), ("1 attempt".into(), "1,200 attempts".into()));
    }

    #[test]
    fn times_are_read_back() {
        let text = crate::clock::rfc3339(1_767_225_600_123);
        assert_eq!(parse_rfc3339(&text), Some(1_767_225_600_123));
        assert_eq!(ago(&text, 1_767_225_612_523), "12.4 s ago");
        assert_eq!(ago("soon", 0), "soon");
    }

    #[test]
    fn a_strangers_words_cannot_steer_the_terminal() {
        assert_eq!(line("a\x1b[31mb\nc\u{202e}d"), "a\u{fffd}[31mb c\u{fffd}d");
        assert_eq!(shorten("grüße", 5), "grüße");
        assert_eq!(shorten("grüße!", 5), "grüß…");
    }
}
