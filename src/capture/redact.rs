//! Redaction: what a route says must not be written is made unreadable before anything is.
//!
//! - **A path** (`$.api_key`) replaces each node that it finds by the string `[redacted]`, whatever the node was.
//! - **An expression** (`re:\b\d{16}\b`) replaces what matches in every text: in the strings of a document, in its members' names, and
//!   in its numbers as JSON prints them (such a number becomes a string). JSON that stands inside a string is text like any other: it
//!   is not parsed, and no path leads into it.
//! - **A key** (a session, a group, a user) in which a rule finds something becomes `redacted-` and 16 hexadecimal digits of its SHA-256
//!   as a whole: of two keys two remain, and of one one, so lanes stay what they were. Who can guess a key can check the guess.

mod body;
mod twice;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use regex::{NoExpand, Regex};
use serde_json::{Map, Value};
use serde_json_path::{JsonPath, NormalizedPath};
use sha2::{Digest, Sha256};

use crate::config::Redact;

/// What stands where something was redacted.
pub const REDACTED: &str = "[redacted]";

/// What is encoded in a redacted part of a target: [`REDACTED`] stays readable.
const IN_TARGET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'[').remove(b']').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The rules of a route.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    paths: Vec<JsonPath>,
    texts: Vec<Regex>,
}

impl Redactor {
    /// Of these rules.
    pub fn new(rules: &[Redact]) -> Self {
        let mut redactor = Self::default();
        for rule in rules {
            match rule {
                Redact::Json(path) => redactor.paths.push(path.clone()),
                Redact::Text(expression) => redactor.texts.push(expression.clone()),
            }
        }
        redactor
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.texts.is_empty()
    }

    /// Redacts a document in place, by its paths and by its texts; whether anything was found.
    pub fn document(&self, document: &mut Value) -> bool {
        let by_path = self.paths(document, |_| Value::from(REDACTED));
        self.strings(document) | by_path
    }

    /// The document for those sources that look for a [key](Self::key): what a path finds is not `[redacted]` there but as different as
    /// it was. None where no path finds anything, and the document serves as it is. Texts are left to [`key`](Self::key), which sees
    /// the whole of them.
    pub fn document_of_keys(&self, document: &Value) -> Option<Value> {
        if !self.paths.iter().any(|path| !path.query(document).is_empty()) {
            return None;
        }
        let mut document = document.clone();
        self.paths(&mut document, |found| match found {
            Value::String(text) => pseudonym(text).into(),
            other => pseudonym(&other.to_string()).into(),
        });
        Some(document)
    }

    /// Redacts a text in place; whether anything was found.
    pub fn text(&self, text: &mut String) -> bool {
        let mut found = false;
        for expression in &self.texts {
            if let std::borrow::Cow::Owned(redacted) = expression.replace_all(text, NoExpand(REDACTED)) {
                *text = redacted;
                found = true;
            }
        }
        found
    }

    /// Redacts a path, or a path and a query, in place: what stands between its delimiters by what it means, and all of it as it is
    /// written; whether anything was found. What was not found stays byte for byte.
    pub fn target(&self, target: &mut String) -> bool {
        if self.texts.is_empty() {
            return false;
        }
        let mut redacted = String::with_capacity(target.len());
        for piece in target.split_inclusive(['/', '?', '&', '=', ';']) {
            let text = piece.trim_end_matches(['/', '?', '&', '=', ';']);
            // In a query a space is a `+`; in a path nobody means one by it, and a `+` that stays one hides nothing.
            let mut meant = percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
            if self.text(&mut meant) {
                redacted.extend(utf8_percent_encode(&meant, IN_TARGET));
                redacted.push_str(&piece[text.len()..]);
            } else {
                redacted.push_str(piece);
            }
        }
        self.text(&mut redacted);
        let found = *target != redacted;
        *target = redacted;
        found
    }

    /// Redacts a key (a session, a group, a user) in place, so that two keys stay two and one stays one; whether anything was found.
    pub fn key(&self, key: &mut String) -> bool {
        let found = self.texts.iter().any(|expression| expression.is_match(key));
        if found {
            *key = pseudonym(key);
        }
        found
    }

    /// Replaces what the paths find.
    fn paths(&self, document: &mut Value, instead: impl Fn(&Value) -> Value) -> bool {
        let mut found = false;
        for path in &self.paths {
            let places: Vec<_> = path.query_located(document).locations().map(NormalizedPath::to_json_pointer).collect();
            // Outer nodes come before what is in them, which is gone then.
            for place in places {
                if let Some(node) = document.pointer_mut(&place) {
                    *node = instead(node);
                    found = true;
                }
            }
        }
        found
    }

    /// Redacts every text in a document. Its depth is that of JSON which was parsed: 128 at most.
    fn strings(&self, value: &mut Value) -> bool {
        if self.texts.is_empty() {
            return false;
        }
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => {
                let mut text = number.to_string();
                let found = self.text(&mut text);
                if found {
                    *value = Value::String(text);
                }
                found
            }
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().fold(false, |found, item| self.strings(item) | found),
            Value::Object(members) => {
                let found = members.values_mut().fold(false, |found, member| self.strings(member) | found);
                self.names(members) | found
            }
        }
    }

    /// Redacts the names of members. Where two become one, the later ones are numbered: no member is lost.
    fn names(&self, members: &mut Map<String, Value>) -> bool {
        if !members.keys().any(|name| self.texts.iter().any(|expression| expression.is_match(name))) {
            return false;
        }
        let mut number = 1_usize;
        for (mut name, value) in std::mem::take(members) {
            if self.text(&mut name) {
                let base = name.clone();
                while members.contains_key(&name) {
                    number += 1;
                    name = format!("{base} {number}");
                }
            }
            members.insert(name, value);
        }
        true
    }
}

/// What stands for a key. The same for the same.
fn pseudonym(key: &str) -> String {
    use std::fmt::Write as _;

    Sha256::digest(key).iter().take(8).fold("redacted-".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes it all
        text
    })
}

#[cfg(test)]
mod tests;
