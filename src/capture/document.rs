//! A body as JSON: what JSON says, or the fields of a form.

use http::HeaderMap;
use serde_json::Value;

/// Reads a decoded body by what its `Content-Type` says; none where it is nothing that sources can read.
pub fn document(_headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}
