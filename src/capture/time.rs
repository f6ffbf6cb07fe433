//! Times as callers write them: ISO 8601 in any of its shapes, or Unix seconds or milliseconds, as a number or as text.
//!
//! What is read and what is said of the rest are as with `pydantic`: the parser is its own.

use serde_json::Value;
use speedate::{Date, DateTime, DateTimeConfig, ParseError};
use strum::EnumMessage;

/// Why a value is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTime {
    /// It is neither text nor a number.
    Kind,
    /// It is a number that no time has.
    Number(&'static str),
    /// It is text that is neither a time nor a date.
    Text(&'static str),
}

/// Milliseconds since the Unix epoch, or before it. A time without a zone is in UTC.
pub fn parse(value: &Value) -> Result<i64, NoTime> {
    let time = match value {
        Value::String(text) => {
            let Ok(time) = DateTime::parse_bytes(text.as_bytes()) else {
                let date = Date::parse_bytes(text.as_bytes()).map_err(|error| NoTime::Text(sentence(&error)))?;
                return Ok(date.timestamp_ms());
            };
            time
        }
        Value::Number(number) => {
            let config = DateTimeConfig::default();
            let time = match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => DateTime::from_timestamp_with_config(whole, 0, &config),
                (None, Some(float)) => DateTime::from_float_with_config(float, &config),
                (None, None) => return Err(NoTime::Kind),
            };
            time.map_err(|error| NoTime::Number(sentence(&error)))?
        }
        _ => return Err(NoTime::Kind),
    };
    Ok(time.timestamp_tz_ms())
}

fn sentence(error: &ParseError) -> &'static str {
    error.get_documentation().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_is_read_in_every_shape() {
        for value in [
            json!("2026-01-01T00:00:00Z"),
            json!("2026-01-01T02:00:00.000+02:00"),
            json!("2026-01-01 00:00"),
            json!("2026-01-01"),
            json!("1767225600"),
            json!("1767225600000"),
            json!(1_767_225_600),
            json!(1_767_225_600_000_u64),
            json!(1_767_225_600.0),
        ] {
            assert_eq!(parse(&value), Ok(1_767_225_600_000), "{value}");
        }
        assert_eq!(parse(&json!(-5)), Ok(-5000));
        assert_eq!(parse(&json!("1969-07-20T20:17:40.5Z")), Ok(-14_182_939_500));
        assert_eq!(parse(&json!("1969-12-31")), Ok(-86_400_000));
    }

    #[test]
    fn what_is_no_time_says_why() {
        assert_eq!(parse(&json!("x")), Err(NoTime::Text("input is too short")));
        assert_eq!(parse(&json!("2026-02-30T00:00:00Z")), Err(NoTime::Text("day value is outside expected range")));
        assert_eq!(parse(&json!(1e20)), Err(NoTime::Number("dates after 9999 are not supported as unix timestamps")));
        for value in [json!(null), json!(true), json!([]), json!({})] {
            assert_eq!(parse(&value), Err(NoTime::Kind), "{value}");
        }
    }
}
