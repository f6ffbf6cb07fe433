//! A node of JSON: what it says, and whether it says anything.

use serde_json::Value;

/// The text of a node: a string, a number, a boolean, or the texts of an array of content parts, a line each; none where that is empty.
pub fn text_of(node: &Value) -> Option<String> {
    Some(lines_of([node])).filter(|text| !text.is_empty())
}

/// The texts of nodes, a line each.
pub fn lines_of<'j>(nodes: impl IntoIterator<Item = &'j Value>) -> String {
    let mut lines = String::new();
    for node in nodes {
        texts_of(node, |text| {
            if !lines.is_empty() && !text.is_empty() {
                lines.push('\n');
            }
            lines.push_str(text);
        });
    }
    lines
}

/// Hands over the texts of a node: itself, or its parts.
pub fn texts_of(node: &Value, mut take: impl FnMut(&str)) {
    match node {
        Value::String(text) => take(text),
        Value::Number(_) | Value::Bool(_) => take(&node.to_string()),
        Value::Array(parts) => parts.iter().filter_map(part).for_each(take),
        Value::Null | Value::Object(_) => {}
    }
}

/// A part is a string, or an object with a `text`, unless it says that it is something else.
fn part(part: &Value) -> Option<&str> {
    if let Value::String(text) = part {
        return Some(text);
    }
    // `kind`: A2A until 0.3. Parts of 1.0 say neither.
    let kind = part.get("type").or_else(|| part.get("kind")).map_or(Some("text"), Value::as_str)?;
    matches!(kind, "text" | "input_text" | "output_text").then(|| part.get("text")?.as_str())?
}

/// Whether a node is something: neither `false`, null nor empty.
pub fn is_something(node: &Value) -> bool {
    !matches!(node, Value::Bool(false)) && !is_empty(node)
}

/// Whether it is null or empty.
pub fn is_empty(node: &Value) -> bool {
    match node {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}
