//! From sources to text: what an exchange says about itself.
//!
//! | the value is | the text is |
//! |---|---|
//! | a string | itself |
//! | a number, `true`, `false` | as JSON prints it |
//! | an array of content parts (`{"type":"text","text":…}`, also `input_text`, `output_text`) | the texts, joined by line breaks |
//! | absent, `null`, empty, anything else | nothing: the next source is asked |

use std::borrow::Cow;
use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::Kept;
use crate::config::pattern::Params;
use crate::config::source::Source;

/// Which node counts where a `JSONPath` finds several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The first.
    First,
    /// The last: what the user said last is what was asked.
    Last,
}

/// Whether a `success_if` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It yields something that is neither absent, false, null nor empty.
    Holds,
    /// It doesn't.
    Fails,
    /// The body it reads wasn't seen to its end.
    Unseen,
}

/// All that was seen of one exchange. Each body is parsed when the first source asks for it, and once.
pub struct Seen<'a> {
    params: Option<Params<'a>>,
    query: Option<&'a str>,
    request_headers: &'a HeaderMap,
    response_headers: &'a HeaderMap,
    request: Document<'a>,
    response: Document<'a>,
}

/// A body that may be JSON.
struct Document<'a> {
    kept: Option<&'a Kept>,
    json: OnceCell<Option<Value>>,
}

impl<'a> Seen<'a> {
    /// `request` is `None` where its body never came to an end.
    pub fn new(
        params: Option<Params<'a>>,
        query: Option<&'a str>,
        request_headers: &'a HeaderMap,
        response_headers: &'a HeaderMap,
        request: Option<&'a Kept>,
        response: &'a Kept,
    ) -> Self {
        Self {
            params,
            query,
            request_headers,
            response_headers,
            request: Document { kept: request, json: OnceCell::new() },
            response: Document { kept: Some(response), json: OnceCell::new() },
        }
    }

    /// Of a request alone, whose body was read already.
    pub fn of_request(
        params: Option<Params<'a>>,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
        nothing: &'a HeaderMap,
        json: Option<Value>,
    ) -> Self {
        let document = |json| Document { kept: None, json: OnceCell::from(json) };
        Self {
            params,
            query,
            request_headers: headers,
            response_headers: nothing,
            request: document(json),
            response: document(None),
        }
    }

    /// The text of the first source that yields one.
    pub fn text(&self, sources: &[Source], pick: Pick) -> Option<String> {
        sources.iter().find_map(|source| match source {
            Source::ReqJson(path) => self.request.find(path, pick).and_then(text_of),
            Source::RespJson(path) => self.response.find(path, pick).and_then(text_of),
            plain => self.plain(plain).map(Cow::into_owned),
        })
    }

    /// Whether a source yields something that is neither absent, false, null nor empty.
    pub fn judge(&self, source: &Source) -> Judgement {
        let holds = match source {
            Source::ReqJson(path) if self.request.is_whole() => self.request.find(path, Pick::First).is_some_and(is_something),
            Source::RespJson(path) if self.response.is_whole() => self.response.find(path, Pick::First).is_some_and(is_something),
            Source::ReqJson(_) | Source::RespJson(_) => return Judgement::Unseen,
            plain => self.plain(plain).is_some(),
        };
        if holds { Judgement::Holds } else { Judgement::Fails }
    }

    /// A source that isn't JSON; never empty.
    fn plain<'s>(&'s self, source: &'s Source) -> Option<Cow<'s, str>> {
        let text = match source {
            Source::ReqJson(_) | Source::RespJson(_) | Source::RespStream(_) => None,
            Source::ReqHeader(name) => header_text(self.request_headers, name),
            Source::RespHeader(name) => header_text(self.response_headers, name),
            Source::ReqPath(name) => self.params.as_ref()?.get(name).map(decoded),
            Source::ReqQuery(name) => self.query?.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (form_decoded(key) == *name).then(|| form_decoded(value))
            }),
            Source::ReqCookie(name) => self.request_headers.get_all(header::COOKIE).iter().find_map(|line| {
                line.to_str().ok()?.split(';').find_map(|pair| {
                    let (key, value) = pair.trim().split_once('=')?;
                    (key == name).then(|| Cow::Borrowed(value.trim_matches('"')))
                })
            }),
            Source::Const(text) => Some(Cow::Borrowed(text.as_str())),
        };
        text.filter(|t| !t.is_empty())
    }
}

impl Document<'_> {
    fn is_whole(&self) -> bool {
        self.kept.is_some_and(Kept::is_whole)
    }

    fn find(&self, path: &JsonPath, pick: Pick) -> Option<&Value> {
        let json = self.json.get_or_init(|| self.parse()).as_ref()?;
        let nodes = path.query(json);
        match pick {
            Pick::First => nodes.first(),
            Pick::Last => nodes.last(),
        }
    }

    fn parse(&self) -> Option<Value> {
        let kept = self.kept.filter(|k| k.is_whole() && k.len > 0)?;
        match kept.frames.as_slice() {
            [one] => serde_json::from_slice(one).ok(),
            many => serde_json::from_slice(&many.concat()).ok(),
        }
    }
}

/// The text of a node.
pub(super) fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(parts) => parts.iter().filter_map(part_text).collect::<Vec<_>>().join("\n"),
        Value::Null | Value::Object(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn part_text(part: &Value) -> Option<&str> {
    if let Value::String(text) = part {
        return Some(text);
    }
    // `kind`: A2A until 0.3. Parts of 1.0 say neither.
    let kind = part.get("type").or_else(|| part.get("kind")).map_or(Some("text"), Value::as_str)?;
    matches!(kind, "text" | "input_text" | "output_text").then(|| part.get("text")?.as_str())?
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn header_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// Of a query: `+` is a space there.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') { Cow::Owned(decoded(&text.replace('+', " ")).into_owned()) } else { decoded(text) }
}

#[cfg(test)]
mod tests;
