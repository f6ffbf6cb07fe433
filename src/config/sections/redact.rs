//! `route.redact`

use regex::{Regex, RegexBuilder};

use crate::config::Redact;
use crate::config::read::{Field, Read};
use crate::config::source::json_path;
use crate::config::values::list;

/// What a rule may look like.
const RULES: &str = r#"a JSONPath such as "$.api_key", or "re:" and a regular expression, such as 're:\b\d{16}\b'"#;

/// Most bytes that a compiled expression may take.
const LARGEST: usize = 10 << 20;

/// A list of paths into JSON and of regular expressions.
pub fn redact(field: &Field<'_>) -> Read<Vec<Redact>> {
    list(rule)(field)
}

fn rule(field: &Field<'_>) -> Read<Redact> {
    let text = field.text(RULES)?;
    match text.strip_prefix("re:") {
        Some(expression) => self::expression(expression).map(Redact::Text),
        None if text.starts_with('$') => json_path(&text).map(Redact::Json),
        None => Err(format!("allowed: {RULES}")),
    }
}

fn expression(text: &str) -> Read<Regex> {
    // The crate draws a picture of the place on several lines; the last one says what is wrong.
    let last_line = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    let parsed = regex_syntax::parse(text)
        .map_err(|error| format!("which is no regular expression ({}), allowed: {RULES}", last_line(&error)))?;
    match parsed.properties().minimum_len() {
        Some(0) => {
            return Err(
                "which matches where there is nothing, allowed: an expression that matches at least one character".to_owned()
            );
        }
        None => return Err("which can't match anything, allowed: an expression that matches at least one character".to_owned()),
        Some(_) => {}
    }
    RegexBuilder::new(text)
        .size_limit(LARGEST)
        .build()
        .map_err(|_| "which takes more than 10 MiB of memory, allowed: a smaller expression".to_owned())
}
