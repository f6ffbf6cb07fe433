//! Paths as streams ask them: of every event, and so at a price that matters.

use serde_json::Value;
use serde_json_path::{JsonPath, NodeList};

/// A path into JSON. The common kind, names and places one after the other (`$.choices[0].delta.content`), is walked: a query by
/// RFC 9535 makes several lists for each step.
#[derive(Debug)]
pub enum Path {
    /// From the root on.
    Walk(Vec<Step>),
    /// Any other.
    Query(JsonPath),
}

/// From a node to its child.
#[derive(Debug)]
pub enum Step {
    /// `.name`
    Name(String),
    /// `[0]`
    Place(usize),
}

/// What a path found.
pub enum Nodes<'j> {
    /// One node or none.
    One(Option<&'j Value>),
    /// Any number of them.
    Many(NodeList<'j>),
}

impl Path {
    /// Looks at a path once, to ask it often.
    pub fn new(path: &JsonPath) -> Self {
        walk(&path.to_string()).map_or_else(|| Self::Query(path.clone()), Self::Walk)
    }

    /// What it finds in a document.
    pub fn nodes<'j>(&self, document: &'j Value) -> Nodes<'j> {
        match self {
            Self::Walk(steps) => Nodes::One(steps.iter().try_fold(document, |node, step| match (step, node) {
                (Step::Name(name), Value::Object(members)) => members.get(name),
                (Step::Place(place), Value::Array(items)) => items.get(*place),
                _ => None,
            })),
            Self::Query(path) => Nodes::Many(path.query(document)),
        }
    }
}

impl<'j> Nodes<'j> {
    /// The first.
    pub fn first(&self) -> Option<&'j Value> {
        match self {
            Self::One(node) => *node,
            Self::Many(nodes) => nodes.first(),
        }
    }

    /// The last.
    pub fn last(&self) -> Option<&'j Value> {
        match self {
            Self::One(node) => *node,
            Self::Many(nodes) => nodes.last(),
        }
    }

    /// All, in order.
    pub fn all(self) -> impl Iterator<Item = &'j Value> {
        let (one, many) = match self {
            Self::One(node) => (node, None),
            Self::Many(nodes) => (None, Some(nodes)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// The steps of a path that has none but `.name` and `[0]`.
fn walk(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (name, after) = named.split_at_checked(end)?;
            // `..` is an empty name, `.*` not a name.
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return None;
            }
            steps.push(Step::Name(name.to_owned()));
            rest = after;
        } else {
            let (place, after) = rest.strip_prefix('[')?.split_once(']')?;
            if place.is_empty() || !place.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            steps.push(Step::Place(place.parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_walked_finds_what_a_query_finds() {
        let document = json!({"a": [{"b": {"c": 1}}, [2, 3], "four"], "0": 5, "a b": 6, "é": 7, "": 8, "a_1": null});
        for (text, is_walked) in [
            ("$", true),
            ("$.a", true),
            ("$.a[0].b.c", true),
            ("$.a[1][1]", true),
            ("$.a[9].b", true),
            ("$.a[0][0]", true),
            ("$.a.b", true),
            ("$[0]", true),
            ("$.a_1", true),
            ("$.a[-1]", false),
            ("$['a b']", false),
            ("$['0']", false),
            ("$.é", false),
            ("$['']", false),
            ("$..c", false),
            ("$.*", false),
            ("$.a[*]", false),
            ("$.a[0:2]", false),
            ("$.a[0,1]", false),
            ("$.a[?@.b].b", false),
        ] {
            let query = JsonPath::parse(text).unwrap();
            let path = Path::new(&query);
            assert_eq!(matches!(path, Path::Walk(_)), is_walked, "{text}");
            let (found, nodes) = (query.query(&document), path.nodes(&document));
            assert_eq!((nodes.first(), nodes.last()), (found.first(), found.last()), "{text}");
            assert_eq!(nodes.all().collect::<Vec<_>>(), found.all(), "{text}");
        }
    }
}
