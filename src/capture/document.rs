//! A body as JSON: what JSON says, or the fields of a form.
//!
//! | `Content-Type` | document |
//! |---|---|
//! | `application/x-www-form-urlencoded` | an object of the fields; JSON under this name, as curl sends it where nobody says otherwise, is JSON |
//! | `multipart/form-data` | an object of the fields |
//! | anything else, or none | the JSON that it is |
//!
//! Of a form, a field that stands there once is a string, a repeated one an array of them, in order; a part of `application/json` is
//! that JSON, and a file is `{"filename", "content_type", "size"}` without its bytes.
//!
//! Text is read as its `charset` says, as its byte order mark says before that, and as UTF-8 otherwise; what isn't valid becomes
//! U+FFFD. White space before a document (a server keeps its connection alive with it) is passed over. JSON that nests more than 128
//! deep, and a form of more than 10,000 fields, can't be read.

mod form;

use encoding_rs::{Encoding, UTF_8};
use http::{HeaderMap, header};
use serde_json::Value;

pub(super) use form::{Part, fields, multipart, parts, urlencoded, value};

/// Reads a decoded body by what its `Content-Type` says; none where it is nothing that sources can read.
pub fn document(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    match kind(headers) {
        Kind::Form if !looks_like_json(body) => form::read(body),
        Kind::Multipart => fields(&parts(headers, body)?),
        Kind::Form | Kind::Json | Kind::Other => json(headers, body),
    }
}

/// A body as text, whatever is in it.
pub fn text(headers: &HeaderMap, body: &[u8]) -> String {
    encoding(headers).decode(body).0.into_owned()
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Form,
    Multipart,
    /// By its name.
    Json,
    /// Perhaps JSON.
    Other,
}

/// How this body is read.
pub(super) fn kind(headers: &HeaderMap) -> Kind {
    match media_type(headers).to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => Kind::Form,
        "multipart/form-data" => Kind::Multipart,
        "application/json" | "text/json" => Kind::Json,
        json if json.ends_with("+json") => Kind::Json,
        _ => Kind::Other,
    }
}

/// Whether a body begins as only a JSON object or array does: in a form these characters are always encoded.
pub(super) fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// What the text of a message is written in, should it have no byte order mark.
pub(super) fn encoding(headers: &HeaderMap) -> &'static Encoding {
    let mut parameters = content_type(headers).split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let charset = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    charset.and_then(|(_, label)| Encoding::for_label(label.trim().trim_matches('"').as_bytes())).unwrap_or(UTF_8)
}

/// Text as bytes, in what the text of this message is written in.
pub(super) fn encoded(headers: &HeaderMap, text: &str) -> Vec<u8> {
    encoding(headers).encode(text).0.into_owned()
}

/// JSON, whatever it is called.
pub(super) fn json(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let encoding = encoding(headers);
    // Nearly always: nothing is copied before it is parsed, and it is not looked through twice.
    if encoding == UTF_8
        && let Ok(value) = serde_json::from_slice(body)
    {
        return Some(value);
    }
    if encoding == UTF_8 && Encoding::for_bom(body).is_none() && str::from_utf8(body).is_ok() {
        return None;
    }
    serde_json::from_str(&encoding.decode(body).0).ok()
}

fn media_type(headers: &HeaderMap) -> &str {
    content_type(headers).split(';').next().unwrap_or_default().trim()
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
