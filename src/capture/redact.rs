//! Redaction: what a route says must not be written is made unreadable before anything is.

use serde_json::Value;

use crate::config::Redact;

/// The rules of a route.
#[derive(Debug, Clone, Default)]
pub struct Redactor {}

impl Redactor {
    /// Of these rules.
    pub fn new(_rules: &[Redact]) -> Self {
        Self {}
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Redacts a document in place, by its paths and by its texts.
    pub fn document(&self, _document: &mut Value) {}

    /// Only by its paths.
    pub fn paths(&self, _document: &mut Value) {}

    /// Only by its texts.
    pub fn texts(&self, _document: &mut Value) {}

    /// Redacts a text in place.
    pub fn text(&self, _text: &mut String) {}

    /// Redacts a key (a session, a group, a user), so that two keys stay two and one stays one.
    pub fn key(&self, _key: &mut String) {}
}
