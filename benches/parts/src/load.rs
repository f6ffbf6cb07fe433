//! The clients.

pub mod closed;
pub mod events;
pub mod idle;
pub mod open;
pub mod transfer;

use std::fmt::Write as _;

/// Several times in microseconds, as members of a JSON object: `"p50_us":...,"p99_us":...`.
fn percentiles(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let mut members = String::new();
    for percent in [50, 90, 99] {
        let value = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
        // Writing to a string cannot fail. NaN is no JSON.
        let _ = if value.is_nan() {
            write!(members, r#","p{percent}_us":null"#)
        } else {
            write!(members, r#","p{percent}_us":{value:.1}"#)
        };
    }
    members.remove(0);
    members
}
