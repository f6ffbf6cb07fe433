//! Durations and sizes, as the file writes them.

use std::time::Duration;

/// What a duration may look like.
pub const DURATIONS: &str = "a duration such as 250ms, 5s, 2m, 24h or 30d";
/// What a size may look like.
pub const SIZES: &str = "a size such as 512KiB, 2GiB, 10MB or a number of bytes";

/// A hundred years. Longer ones are refused, so that a duration can be added to any time without overflow.
pub const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

const TIME: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const BYTES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number and its unit: `250ms`, `5s`, `2m`, `24h`, `30d`. Zero is a duration; whether it makes sense is the key's business.
pub fn duration(text: &str) -> Option<Duration> {
    let ms = scaled(text, &TIME)?;
    Some(Duration::from_millis(ms)).filter(|d| *d <= LONGEST)
}

/// A number and its unit, in bytes: `512KiB`, `2GiB`, `10MB`, `4096`.
pub fn size(text: &str) -> Option<u64> {
    scaled(text, &BYTES)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest way to write a duration: `2m`, `1500ms`.
pub fn show_duration(d: Duration) -> String {
    let ms = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = TIME.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)).unwrap_or(&("s", 1));
    format!("{}{unit}", ms / factor)
}

/// The shortest exact way to write a size: `4GiB`, `1500B`.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) =
        BYTES[6..].iter().rev().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        for (text, ms) in [("250ms", 250), ("0s", 0), ("5s", 5_000), ("2m", 120_000), ("24h", 86_400_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "1.5s", "-1s", "+1s", "5S", "5sec", "36501d", "99999999999999999999d", "²s", "5m "] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal_or_plain_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("2KB", 2_000),
            ("512KiB", 524_288),
            ("2GiB", 2 << 30),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "1kb", "1 KiB", "1.5GiB", "-1", "99999999999TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_itself() {
        for text in ["0s", "1ms", "1500ms", "90s", "2m", "25h", "30d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1500B", "1KiB", "1MiB", "4GiB", "3TiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }
}
