//! Sources: where in an exchange a part of the episode is found.
//!
//! # What a source yields
//! Each field of `extract` has a list of sources, and the first that yields wins. A header, a parameter, a cookie and a constant
//! yield their text. A path into JSON yields a list of nodes, of which one is taken, and that one becomes text:
//!
//! - **Which node.** For `input` the **last** one: a conversation repeats itself in each request, so
//!   `$.messages[?@.role=='user'].content` is what was asked only at its end. For `output` **all**, a line each: an answer may have
//!   several parts. For every other field the first. The choice falls before the conversion: where the node that was taken yields
//!   nothing, the source yields nothing, and the next source is asked.
//! - **String**: as it is.
//! - **Number and boolean**: printed as JSON prints them (`42`, `true`).
//! - **Array**: the texts of its parts joined with `\n`. A part is a string, or an object with a string `text` whose `type` is absent or
//!   one of `text`, `input_text` and `output_text`; everything else in it (images, tool calls) is passed over.
//! - **Object**: nothing, except in `metadata`, where it stays JSON.
//! - **Null, absent, empty text**: nothing.
//!
//! A header or a parameter whose name says that it is a credential is no source, because records hold none: see
//! [`is_credential`]. A cookie is named by itself, so whoever names one knows what is in it.
//!
//! # Streams
//! `resp.stream` is the text that the route's `[proxy.route.stream]` makes of a streamed response. `resp.stream:$.a` is what all events
//! have at that path: strings joined without a gap, anything else as a list. `resp.json:$.a` is asked of each event: the first one that
//! yields counts, for `output` and `metadata` the last, and for `success_if` any. Of a response that is one document, `resp.stream`
//! yields nothing; of a form, `req.json` sees an object of its fields.
//!
//! # JSON
//! For `metadata` numbers, booleans, arrays and objects stay what they are in JSON: no reader of a graph wants `"3"` for `3`.
//! For `success_if` a source counts if its node is neither absent, `false`, null, `""`, `[]` nor `{}`; a number counts, also 0.

use http::HeaderName;
use serde_json_path::JsonPath;

pub use super::credentials::is_credential;

/// What a source may look like.
pub const SOURCES: &str = "req.json:$.a, resp.json:$.a, req.header:name, resp.header:name, req.path:name, req.query:name, \
                           req.cookie:name, resp.stream, resp.stream:$.a or const:text";

/// What an event path may look like.
pub const EVENT_PATHS: &str = "$.a of every event, or NAME:$.a of those with that name";

/// Longest path into JSON, in bytes.
const LONGEST_PATH: usize = 512;
/// Deepest nesting of brackets in a path into JSON. The parser tries alternatives at each level: the time to fail doubles with each.
const DEEPEST_PATH: usize = 8;

/// One source, parsed from `kind:argument`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `req.json:$.a.b` (RFC 9535).
    ReqJson(JsonPath),
    /// `resp.json:$.a.b`
    RespJson(JsonPath),
    /// `req.header:x-session`
    ReqHeader(HeaderName),
    /// `resp.header:x-session`
    RespHeader(HeaderName),
    /// `req.path:agent`, a `{name}` of the route's path.
    ReqPath(String),
    /// `req.query:session`
    ReqQuery(String),
    /// `req.cookie:session`
    ReqCookie(String),
    /// `resp.stream`, the text that a streamed response was; `resp.stream:$.a`, what its events have at that path.
    RespStream(Option<EventPath>),
    /// `const:text`
    Const(String),
}

/// A path into the JSON of a stream's events: `$.a`, or `NAME:$.a` for the events of that name alone. An event's names are its SSE
/// `event`, and the strings that its JSON has at `$.type` and `$.event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPath {
    /// Only of events with this name.
    pub name: Option<String>,
    /// RFC 9535.
    pub path: JsonPath,
}

impl EventPath {
    /// Reads an event path; the error says what is wrong with it and what is allowed, without naming it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(at) = text.find('$') else { return Err(format!("which is no path, allowed: {EVENT_PATHS}")) };
        let (name, path) = text.split_at(at);
        let name = match name.strip_suffix(':') {
            Some(name) if !name.is_empty() => Some(name.to_owned()),
            None if name.is_empty() => None,
            _ => return Err(format!("which is no path, allowed: {EVENT_PATHS}")),
        };
        Ok(Self { name, path: json_path(path)? })
    }
}

impl Source {
    /// Reads a source; the error says what is wrong with it and what is allowed, without naming it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "resp.stream" {
            return Ok(Self::RespStream(None));
        }
        let Some((kind, argument)) = text.split_once(':') else {
            return Err(format!("which is no source, allowed: {SOURCES}"));
        };
        match kind {
            "req.json" => json_path(argument).map(Self::ReqJson),
            "resp.json" => json_path(argument).map(Self::RespJson),
            "req.header" => header(argument).map(Self::ReqHeader),
            "resp.header" => header(argument).map(Self::RespHeader),
            "req.path" => named(argument, "req.path:agent").map(Self::ReqPath),
            "req.query" => query(argument).map(Self::ReqQuery),
            "req.cookie" => named(argument, "req.cookie:session").map(Self::ReqCookie),
            "resp.stream" => EventPath::parse(argument).map(|path| Self::RespStream(Some(path))),
            "const" => named(argument, "const:text").map(Self::Const),
            _ => Err(format!("{kind:?} is no kind of source, allowed: {SOURCES}")),
        }
    }
}

/// Reads a `JSONPath`; the error says what is wrong with it and what is allowed.
pub fn json_path(text: &str) -> Result<JsonPath, String> {
    if text.len() > LONGEST_PATH {
        return Err(format!("a JSONPath has at most {LONGEST_PATH} characters"));
    }
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST_PATH {
            return Err(format!("a JSONPath nests its brackets at most {DEEPEST_PATH} deep"));
        }
    }
    JsonPath::parse(text).map_err(|error| {
        let before = text.char_indices().take_while(|(at, _)| *at < error.position()).count();
        let what = match error.message() {
            "" | "parser error" => String::new(),
            message => format!(" ({message})"),
        };
        format!(
            "{text:?} is no JSONPath from its character {} on{what}, allowed: RFC 9535 such as $.a.b or $.list[0].text",
            before + 1
        )
    })
}

fn header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{text:?} is no header name, allowed: a name such as x-session-id"))?;
    if is_credential(name.as_str()) {
        return Err(format!("{name} holds credentials, which are never recorded, allowed: any other header"));
    }
    Ok(name)
}

fn query(text: &str) -> Result<String, String> {
    let name = named(text, "req.query:session")?;
    if is_credential(&name) {
        return Err(format!("{name:?} holds credentials, which are never recorded, allowed: any other parameter"));
    }
    Ok(name)
}

fn named(text: &str, example: &str) -> Result<String, String> {
    if text.is_empty() { Err(format!("it ends at the colon, allowed: {example}")) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read() {
        assert!(matches!(Source::parse("req.json:$.a[?@.role=='user'].b"), Ok(Source::ReqJson(_))));
        assert!(matches!(Source::parse("resp.json:$"), Ok(Source::RespJson(_))));
        assert_eq!(Source::parse("req.header:X-Session"), Ok(Source::ReqHeader(HeaderName::from_static("x-session"))));
        assert_eq!(Source::parse("resp.header:x-run"), Ok(Source::RespHeader(HeaderName::from_static("x-run"))));
        assert_eq!(Source::parse("req.path:agent"), Ok(Source::ReqPath("agent".to_owned())));
        assert_eq!(Source::parse("req.query:s"), Ok(Source::ReqQuery("s".to_owned())));
        assert_eq!(Source::parse("req.cookie:s"), Ok(Source::ReqCookie("s".to_owned())));
        assert_eq!(Source::parse("resp.stream"), Ok(Source::RespStream(None)));
        let of = |text: &str| {
            Source::parse(text).map(|source| match source {
                Source::RespStream(Some(EventPath { name, path })) => (name, path.to_string()),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(of("resp.stream:$.a"), Ok((None, "$.a".into())));
        assert_eq!(of("resp.stream:content_block:delta:$.a"), Ok((Some("content_block:delta".into()), "$.a".into())));
        assert_eq!(Source::parse("const:a:b"), Ok(Source::Const("a:b".to_owned())));
    }

    #[test]
    fn what_is_no_source_says_why() {
        for (text, why) in [
            ("", "no source"),
            ("$.a", "no source"),
            ("req.body:$.a", "no kind of source"),
            ("req.json:", "character 1"),
            ("req.json:a.b", "character 1"),
            ("req.json:$.é[", "character 4"),
            ("req.header:", "no header name"),
            ("req.header:x y", "no header name"),
            ("req.header:Authorization", "credentials"),
            ("resp.header:set-cookie", "credentials"),
            ("req.header:x-goog-api-key", "credentials"),
            ("req.query:x-api-key", "credentials"),
            ("req.query:", "ends at the colon"),
            ("req.path:", "ends at the colon"),
            ("resp.stream:", "no path"),
            ("resp.stream:a", "no path"),
            ("resp.stream::$.a", "no path"),
            ("resp.stream:x$.a", "no path"),
        ] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn inv9_a_hostile_path_is_refused_before_it_is_parsed() {
        let deep = format!("req.json:$[?@{}1{}]", "[?@".repeat(20), "]".repeat(20));
        assert!(Source::parse(&deep).unwrap_err().contains("deep"));
        assert!(Source::parse(&format!("req.json:$.{}", "a".repeat(600))).unwrap_err().contains("at most"));
    }
}
