//! `[proxy.route.offload]` and `[proxy.route.reply]`

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json_path::JsonPath;

use super::proxy::content_type;
use crate::config::credentials::is_credential;
use crate::config::offload::{Field as Shape, Kind, Need, Offload, Part, Refuse, Reply, Split};
use crate::config::read::{Field, Header, Read, Section};
use crate::config::source::json_path;
use crate::config::values::{boolean, choice, integer, list};

/// What the path of a field may look like.
const SHAPES: &str = "$.name, or $.list[*].name for a field of each object in a list that stands before it";

/// What is replayed of a request's head where nothing is said.
const KEPT: [&str; 7] =
    ["content-type", "content-encoding", "accept", "accept-language", "idempotency-key", "traceparent", "tracestate"];

/// What a route, or its preset, says about `offload` and `reply`.
#[derive(Debug, Clone, Default)]
pub struct Given {
    split: Option<Split>,
    message: Option<Part>,
    fields: Option<Vec<Shape>>,
    needs: Option<Vec<Need>>,
    refuse: Option<Refuse>,
    status: Option<StatusCode>,
    body: Option<String>,
    content_type: Option<HeaderValue>,
    /// Where the first of it was written, if any of it was.
    at: Option<crate::config::Origin>,
}

impl Given {
    /// Reads both tables out of a route, or out of a preset.
    pub fn read(parent: &mut Section<'_>) -> Self {
        let mut s = parent.table("offload", Header::Own("[proxy.route.offload]"));
        let (each, all) = (s.maybe("each", path), s.maybe("all", path));
        if each.is_some()
            && all.is_some()
            && let Some(at) = s.place("all")
        {
            s.cx().fault(at, "`all` stands beside `each`, allowed: one of them".to_owned());
        }
        let message = s.maybe_table("message", Header::Own("[proxy.route.offload.message]")).map(part);
        let fields = s.tables("field", "[[proxy.route.offload.field]]");
        let needs = s.tables("need", "[[proxy.route.offload.need]]");
        let mut given = Self {
            split: each.map(Split::Each).or(all.map(Split::All)),
            message,
            fields: (!fields.is_empty()).then(|| shapes(fields)),
            needs: (!needs.is_empty()).then(|| needs.into_iter().filter_map(need).collect()),
            refuse: s.maybe("refuse", choice(&[("problem", Refuse::Problem), ("fastapi", Refuse::FastApi)])),
            ..Self::default()
        };
        s.finish();
        let mut r = parent.table("reply", Header::Own("[proxy.route.reply]"));
        given.status = r.maybe("status", success);
        given.body = r.maybe("body", |field| field.text("text in quotes"));
        given.content_type = r.maybe("content_type", content_type);
        if given.body.as_ref().is_some_and(|body| !body.is_empty())
            && let Some(status @ (StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)) = given.status
            && let Some(at) = r.place("body")
        {
            r.cx().fault(at, format!("`body` is given, and a {} has none, allowed: body = \"\"", status.as_u16()));
        }
        r.finish();
        given.at = parent.place("offload").or_else(|| parent.place("reply"));
        given
    }

    /// Whether it says what messages are.
    pub fn has_messages(&self) -> bool {
        self.split.is_some()
    }

    /// Where it begins, if any of it was given.
    pub fn at(&self) -> Option<&crate::config::Origin> {
        self.at.as_ref()
    }

    /// The route's own keys, and the preset's where the route gives none.
    pub fn over(self, preset: Self) -> Offload {
        let reply = Reply::default();
        Offload {
            split: self.split.or(preset.split).unwrap_or_default(),
            message: self.message.or(preset.message).unwrap_or_default(),
            fields: self.fields.or(preset.fields).unwrap_or_default(),
            needs: self.needs.or(preset.needs).unwrap_or_default(),
            refuse: self.refuse.or(preset.refuse).unwrap_or_default(),
            reply: Reply {
                status: self.status.or(preset.status).unwrap_or(reply.status),
                body: self.body.or(preset.body).unwrap_or(reply.body),
                content_type: self.content_type.or(preset.content_type).unwrap_or(reply.content_type),
            },
        }
    }
}

/// `keep_headers`: what a sink that sends the request again sends of its head.
pub fn keep_headers(s: &mut Section<'_>) -> Vec<HeaderName> {
    s.get("keep_headers", KEPT.map(HeaderName::from_static).to_vec(), list(kept))
}

fn kept(field: &Field<'_>) -> Read<HeaderName> {
    const ALLOWED: &str = "allowed: the name of a header such as content-type";
    let name = HeaderName::from_bytes(field.text("a name in quotes")?.as_bytes()).map_err(|_| ALLOWED.to_owned())?;
    if is_credential(name.as_str()) {
        return Err("a header with credentials, which are never recorded, allowed: the sink's own `headers`".to_owned());
    }
    if super::sink::FRAMING.contains(&name.as_str()) && name != http::header::CONTENT_TYPE {
        return Err(format!("a header that offramp sets itself, {ALLOWED}"));
    }
    Ok(name)
}

fn part(mut s: Section<'_>) -> Part {
    let mut metadata = s.table("metadata", Header::Inline);
    let entries = metadata.rest().into_iter();
    let metadata =
        entries.filter_map(|(key, field)| Some((key, path(&field).map_err(|tail| field.fault(&tail)).ok()?))).collect();
    let part = Part {
        content: s.require("content", "the path of a message's text within the message, such as $.content", path),
        role: s.maybe("role", path),
        name: s.maybe("name", path),
        time: s.maybe("time", path),
        metadata,
    };
    s.finish();
    part
}

fn path(field: &Field<'_>) -> Read<JsonPath> {
    json_path(&field.text("a JSONPath such as $.messages[*]")?)
}

/// Puts each field below the one that it belongs to.
fn shapes(sections: Vec<Section<'_>>) -> Vec<Shape> {
    let mut root = Vec::new();
    for mut s in sections {
        let kind = choice(&[
            ("string", Kind::Text),
            ("array", Kind::Array),
            ("object", Kind::Object),
            ("boolean", Kind::Boolean),
            ("timestamp", Kind::Timestamp),
        ]);
        let path = s.require("path", SHAPES, |field| field.text(SHAPES));
        let shape = Shape {
            name: String::new(),
            kind: s
                .require("type", "\"string\", \"array\", \"object\", \"boolean\" or \"timestamp\"", kind)
                .unwrap_or(Kind::Text),
            required: s.get("required", false, boolean),
            nullable: s.get("nullable", false, boolean),
            one_of: s.get("one_of", Vec::new(), list(|field| field.text("text in quotes"))),
            min_length: s.get("min_length", 0, integer(0, 1_000_000)),
            blank: s.maybe("blank", |field| field.text("text in quotes")),
            fields: Vec::new(),
        };
        if let Some(path) = path
            && !place(&mut root, &path, shape)
            && let Some(at) = s.place("path")
        {
            s.cx().fault(at, format!("`path` is {path:?}, allowed: {SHAPES}"));
        }
        s.finish();
    }
    root
}

fn place(root: &mut Vec<Shape>, path: &str, shape: Shape) -> bool {
    let Some(names) = path.strip_prefix("$.") else { return false };
    let mut names: Vec<&str> = names.split('.').collect();
    let last = names.pop().unwrap_or_default();
    let mut fields = root;
    for name in names {
        let (name, kind) = name.strip_suffix("[*]").map_or((name, Kind::Object), |name| (name, Kind::Array));
        match fields.iter_mut().find(|field| field.name == name && field.kind == kind) {
            Some(parent) => fields = &mut parent.fields,
            None => return false,
        }
    }
    let plain = !last.is_empty() && last.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && fields.iter().all(|field| field.name != last) {
        fields.push(Shape { name: last.to_owned(), ..shape });
        return true;
    }
    false
}

fn need(mut s: Section<'_>) -> Option<Need> {
    let one_of = s.require("one_of", "paths such as [\"$.user_id\", \"$.run_id\"]", list(path));
    let status = s.require("status", "the status of the refusal, such as 400", |field| {
        StatusCode::from_u16(integer(400_u16, 599)(field)?).map_err(|error| error.to_string())
    });
    let body = s.require("body", "the refusal, JSON in quotes", |field| field.text("text in quotes"));
    s.finish();
    Some(Need { one_of: one_of?, status: status?, body: Bytes::from(body?) })
}

/// What is durable has succeeded.
fn success(field: &Field<'_>) -> Read<StatusCode> {
    StatusCode::from_u16(integer(200_u16, 299)(field)?).map_err(|error| error.to_string())
}
