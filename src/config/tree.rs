//! The configuration before it has types: one tree of values, each of which knows where it was written.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Origin;

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written; for a table, its header.
    pub at: Origin,
    /// The text that it was made of, where that had no quotes to tell text from numbers (environment and `--set`).
    pub raw: Option<String>,
}

/// A value of TOML.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text, with `${VAR}` not yet expanded.
    Text(String),
    /// An integer; one that is out of range is at the end of the range, and no key allows that.
    Integer(i128),
    /// A float.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or a time: no key takes one.
    Datetime(String),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Keys and their values, in the order of the alphabet.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The entries.
    pub entries: BTreeMap<String, Entry>,
}

/// A key's place and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the key was written.
    pub key_at: Origin,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// A value of the `toml` crate; `at` turns a byte offset into a place.
    pub fn from_toml(value: Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> Origin) -> Self {
        let place = at(value.span().start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(digits) => {
                let limit = if digits.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
                Value::Integer(i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(limit))
            }
            DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Boolean(flag),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(items) => Value::List(items.into_iter().map(|item| Self::from_toml(item, at)).collect()),
            DeValue::Table(table) => Value::Table(Table::from_toml(table, at)),
        };
        Self { value, at: place, raw: None }
    }

    /// The value as an environment variable or `--set` gives it: TOML where it is TOML, else the text as it is.
    pub fn from_overlay(text: &str, origin: &Origin) -> Self {
        match DeValue::parse(text) {
            Ok(value) => Self { raw: Some(text.to_owned()), ..Self::from_toml(value, &|_| origin.clone()) },
            Err(_) => Self { value: Value::Text(text.to_owned()), at: origin.clone(), raw: None },
        }
    }

    /// An empty table.
    pub fn table(at: Origin) -> Self {
        Self { value: Value::Table(Table::default()), at, raw: None }
    }

    /// How a fault names the value: as it was written, cut short, without the credentials of a URL.
    pub fn shown(&self) -> String {
        match (&self.value, &self.raw) {
            (Value::List(items), _) if items.is_empty() => "an empty list".to_owned(),
            (Value::List(_), _) => "a list".to_owned(),
            (Value::Table(_), _) => "a table".to_owned(),
            (Value::Text(text), _) | (_, Some(text)) => quoted(text),
            (Value::Integer(number), _) => number.to_string(),
            (Value::Float(number), _) => format!("{number:?}"),
            (Value::Boolean(flag), _) => flag.to_string(),
            (Value::Datetime(time), _) => format!("the date {time}"),
        }
    }
}

fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let hidden = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}://…{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    };
    match hidden.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}", format!("{}…", &hidden[..end])),
        None => format!("{hidden:?}"),
    }
}

impl Table {
    /// A table of the `toml` crate.
    pub fn from_toml(table: DeTable<'_>, at: &dyn Fn(usize) -> Origin) -> Self {
        let entry = |(key, value): (Spanned<_>, _)| {
            let key_at = at(key.span().start);
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            (key.into_owned(), Entry { key_at, node: Node::from_toml(value, at) })
        };
        Self { entries: table.into_iter().map(entry).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_is_toml_where_it_is_toml() {
        let shown = |text| Node::from_overlay(text, &Origin::Whole).shown();
        assert_eq!(shown("127.0.0.1:1"), r#""127.0.0.1:1""#);
        assert_eq!(shown("[1, 2]"), "a list");
        assert!(matches!(Node::from_overlay("3", &Origin::Whole).value, Value::Integer(3)));
        assert!(matches!(Node::from_overlay("true", &Origin::Whole).value, Value::Boolean(true)));
        assert!(matches!(Node::from_overlay("", &Origin::Whole).value, Value::Text(_)));
    }

    #[test]
    fn a_fault_shows_no_password() {
        let shown = Node::from_overlay("http://me:hunter2@graph/", &Origin::Whole).shown();
        assert_eq!(shown, r#""http://…@graph/""#);
    }
}
