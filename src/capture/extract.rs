//! From sources to text: what an exchange says about itself. [`crate::config::source`] has the rules.

use std::borrow::Cow;
use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::Kept;
use super::decode::decode;
use super::document::document;
use super::node::{is_empty, is_something, lines_of, text_of};
use super::redact::Redactor;
use super::stream::{Assembled, Pick, Plan};
use crate::config::pattern::Params;
use crate::config::source::Source;

/// What a source is asked for: it decides which node counts where a `JSONPath` finds several, and which event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Who and where: the first node, of the first event that has one.
    Key,
    /// What was asked: the last node, because a conversation repeats itself in each request.
    Input,
    /// What was answered: all nodes, of the last event that has any.
    Output,
    /// What else there is to know: the first node, of the last event that has one.
    Metadata,
}

impl Want {
    /// What it picks of a stream's events.
    pub fn pick(self) -> Pick {
        match self {
            Self::Key | Self::Input => Pick::First,
            Self::Output => Pick::Texts,
            Self::Metadata => Pick::Last,
        }
    }
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

/// A body that may be a document: read when the first source asks for it, and once.
pub struct Document<'a> {
    headers: &'a HeaderMap,
    /// None where it never came to an end.
    kept: Option<&'a Kept>,
    /// Bytes, once decoded, at most.
    limit: usize,
    redactor: &'a Redactor,
    read: OnceCell<Read>,
}

/// What a document was.
#[derive(Debug, Clone, Default)]
pub struct Read {
    json: Option<Value>,
    /// The same for sources that look for a key, where something was redacted.
    keys: Option<Value>,
    whole: bool,
}

/// The response, as sources see it.
pub enum Response<'a> {
    /// One document.
    Document(Document<'a>),
    /// Events, put together as they passed.
    Stream {
        /// What they were.
        assembled: &'a Assembled,
        /// What was asked of them.
        plan: &'a Plan,
        /// It came to its end.
        whole: bool,
    },
}

/// All that was seen of one exchange.
pub struct Seen<'a> {
    /// The `{names}` of the path.
    pub params: Option<Params<'a>>,
    /// Behind the path.
    pub query: Option<&'a str>,
    /// Those that sources read.
    pub request_headers: &'a HeaderMap,
    /// The same of the response.
    pub response_headers: &'a HeaderMap,
    /// The request's body.
    pub request: &'a Document<'a>,
    /// The response's; none while there is none.
    pub response: Option<&'a Response<'a>>,
}

impl<'a> Document<'a> {
    /// Of what was kept of a body.
    pub fn new(headers: &'a HeaderMap, kept: Option<&'a Kept>, limit: usize, redactor: &'a Redactor) -> Self {
        Self { headers, kept, limit, redactor, read: OnceCell::new() }
    }

    /// One that was read already. Nothing of it has been redacted.
    pub fn of_json(json: Option<Value>, headers: &'a HeaderMap, redactor: &'a Redactor) -> Self {
        let read = OnceCell::from(Read::of(json, redactor));
        Self { headers, kept: None, limit: 0, redactor, read }
    }

    /// With what was read of it already.
    #[must_use]
    pub fn with(mut self, read: Option<Read>) -> Self {
        self.read = read.map(OnceCell::from).unwrap_or_default();
        self
    }

    /// What was read of it, for [`with`](Self::with); none if nobody asked, or not all of it was there.
    pub fn into_read(self) -> Option<Read> {
        self.read.into_inner().filter(|read| read.whole)
    }

    /// The document, if it is one and whole.
    pub fn json(&self, want: Want) -> Option<&Value> {
        let read = self.read();
        read.keys.as_ref().filter(|_| want == Want::Key).or(read.json.as_ref())
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.read().whole
    }

    fn read(&self) -> &Read {
        self.read.get_or_init(|| {
            let Some(kept) = self.kept.filter(|kept| kept.is_whole()) else { return Read::default() };
            let decoded = match decode(self.headers, &kept.frames, self.limit) {
                Ok(decoded) if !decoded.cut => decoded,
                Ok(_) => return Read::default(),
                Err(error) => {
                    tracing::debug!(%error, "a body can't be read; its traffic is untouched");
                    return Read::default();
                }
            };
            let json = if decoded.bytes.is_empty() { None } else { document(self.headers, &decoded.bytes) };
            Read::of(json, self.redactor)
        })
    }
}

impl Read {
    fn of(mut json: Option<Value>, redactor: &Redactor) -> Self {
        let mut keys = None;
        if let Some(json) = json.as_mut().filter(|_| !redactor.is_empty()) {
            keys = Some(redactor.document_of_keys(json).unwrap_or_else(|| json.clone()));
            redactor.document(json);
        }
        Self { json, keys, whole: true }
    }
}

impl Response<'_> {
    /// Whether all of it was seen.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Document(document) => document.is_whole(),
            Self::Stream { assembled, whole, .. } => *whole && !assembled.truncated,
        }
    }
}

impl Seen<'_> {
    /// The text of the first source that yields one.
    pub fn text(&self, sources: &[Source], want: Want) -> Option<String> {
        sources.iter().find_map(|source| match (source, self.response) {
            // An answer may have several parts, in one place each.
            (Source::RespJson(path), Some(Response::Document(document))) if want == Want::Output => {
                Some(lines_of(path.query(document.json(want)?).all())).filter(|text| !text.is_empty())
            }
            _ => match self.node(source, want)? {
                Cow::Owned(Value::String(text)) => Some(text),
                node => text_of(&node),
            },
        })
    }

    /// The texts of all sources, empty where one yields nothing; none where none yields.
    pub fn texts(&self, sources: &[Source]) -> Option<Vec<String>> {
        let texts: Vec<_> = sources.iter().map(|source| self.text(std::slice::from_ref(source), Want::Key)).collect();
        texts.iter().any(Option::is_some).then(|| texts.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// What the first source yields that has something, with numbers, lists and objects as they are in JSON.
    pub fn value(&self, sources: &[Source]) -> Option<Value> {
        sources.iter().find_map(|source| self.node(source, Want::Metadata).filter(|node| !is_empty(node)).map(Cow::into_owned))
    }

    /// Whether a source yields something that is neither absent, false, null nor empty.
    pub fn judge(&self, source: &Source) -> Judgement {
        let holds = self.node(source, Want::Key).is_some_and(|node| is_something(&node));
        let seen = match source {
            Source::ReqJson(_) => self.request.is_whole(),
            Source::RespJson(_) | Source::RespStream(_) => self.response.is_some_and(Response::is_whole),
            _ => true,
        };
        match (holds, seen) {
            (true, _) => Judgement::Holds,
            (false, true) => Judgement::Fails,
            (false, false) => Judgement::Unseen,
        }
    }

    /// What a source yields, as JSON; a text is never empty.
    fn node(&self, source: &Source, want: Want) -> Option<Cow<'_, Value>> {
        match source {
            Source::ReqJson(path) => Some(Cow::Borrowed(pick(path, self.request.json(want)?, want)?)),
            Source::RespJson(path) => match self.response? {
                Response::Document(document) => Some(Cow::Borrowed(pick(path, document.json(want)?, want)?)),
                Response::Stream { assembled, plan, .. } => {
                    let at = plan.probes.iter().position(|p| p.path == *path && p.pick == want.pick())?;
                    Some(Cow::Borrowed(assembled.found.get(at)?.as_ref()?))
                }
            },
            Source::RespStream(what) => match (self.response?, what) {
                (Response::Document(_), _) => None,
                (Response::Stream { assembled, .. }, None) => Some(Cow::Owned(Value::String(assembled.text.clone()?))),
                (Response::Stream { assembled, plan, .. }, Some(path)) => {
                    let at = plan.gathers.iter().position(|gathered| gathered == path)?;
                    Some(Cow::Borrowed(assembled.gathered.get(at)?.as_ref()?))
                }
            },
            plain => self.plain(plain).map(|text| Cow::Owned(Value::String(text.into_owned()))),
        }
    }

    /// A source that isn't a body; never empty.
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

fn pick<'j>(path: &JsonPath, json: &'j Value, want: Want) -> Option<&'j Value> {
    let nodes = path.query(json);
    if want == Want::Input { nodes.last() } else { nodes.first() }
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
