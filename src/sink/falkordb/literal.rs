//! Values as Cypher writes them: how a query for `FalkorDB` is given its parameters, as `CYPHER name=value … statement`.
//!
//! In a string a backslash and a quote get a backslash before them, and everything else stands for itself, ends of lines as well. Two things
//! can't be said. A NUL ends the query wherever it stands, so it is sent as U+FFFD, as browsers do with it. And a name in backticks
//! can't have one: in a key of a map it is sent as an apostrophe.

use std::fmt::Write;

use serde_json::{Map, Value};

/// The query: a statement with its parameters before it.
pub fn query(statement: &str, parameters: &Map<String, Value>) -> String {
    let mut query = "CYPHER".to_owned();
    for (name, value) in parameters {
        let _ = write!(query, " {name}="); // a String takes it all
        append(&mut query, value);
    }
    query.push(' ');
    query.push_str(statement);
    query
}

fn append(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) => {
                let _ = write!(out, "{float:e}"); // never without an exponent: it stays a float
            }
            _ => {
                let _ = write!(out, "{number}");
            }
        },
        Value::String(text) => quote(out, text),
        Value::Array(items) => {
            out.push('[');
            separate(out, items, append);
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            separate(out, entries, |out, (key, item)| {
                out.push('`');
                out.extend(key.chars().map(|c| if c == '`' { '\'' } else { without_nul(c) }));
                out.push_str("`: ");
                append(out, item);
            });
            out.push('}');
        }
    }
}

fn separate<T>(out: &mut String, items: impl IntoIterator<Item = T>, mut append: impl FnMut(&mut String, T)) {
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push_str(", ");
        }
        append(out, item);
    }
}

fn quote(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if matches!(c, '\\' | '\'') {
            out.push('\\');
        }
        out.push(without_nul(c));
    }
    out.push('\'');
}

fn without_nul(c: char) -> char {
    if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_stand_before_the_statement() {
        let parameters = json!({
            "a": "it's \\ \"x\"\n\0", "b": [null, true, -1, 1.5, 1e300, u64::MAX], "c": { "a b": {}, "`": [] },
        });
        let Value::Object(parameters) = parameters else { unreachable!() };
        assert_eq!(
            query("RETURN 1", &parameters),
            "CYPHER a='it\\'s \\\\ \"x\"\n\u{FFFD}' b=[null, true, -1, 1.5e0, 1e300, 1.8446744073709552e19] c={`a b`: {}, `'`: []} RETURN 1"
        );
        assert_eq!(query("RETURN 1", &Map::new()), "CYPHER RETURN 1");
    }
}
