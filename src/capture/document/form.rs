//! Forms: their fields as one JSON object, and back.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use http::{HeaderMap, header};
use multer::Multipart;
use serde_json::{Map, Value, json};

/// Fields of a form, at most: servers give up at a tenth of it.
const MOST_FIELDS: usize = 10_000;

/// A part of a multipart body.
#[derive(Debug)]
pub struct Part {
    /// What the form calls it.
    pub name: Option<String>,
    /// The name of the file that it is.
    pub filename: Option<String>,
    /// Its own.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

/// The fields of `application/x-www-form-urlencoded`.
pub(super) fn read(body: &[u8]) -> Option<Value> {
    object(form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))))
}

/// The fields that parts are.
pub fn fields(parts: &[Part]) -> Option<Value> {
    object(parts.iter().filter_map(|part| Some((part.name.clone()?, value(part)))))
}

/// The parts of a multipart body; none where it isn't whole.
pub fn parts(headers: &HeaderMap, body: &[u8]) -> Option<Vec<Part>> {
    let boundary = multer::parse_boundary(super::content_type(headers)).ok()?;
    let body = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(body))]);
    let mut multipart = Multipart::new(body, boundary);
    let all = async {
        let mut parts = Vec::new();
        while let Some(field) = multipart.next_field().await.ok()? {
            if parts.len() == MOST_FIELDS {
                return None;
            }
            parts.push(Part {
                name: field.name().map(ToOwned::to_owned),
                filename: field.file_name().map(ToOwned::to_owned),
                headers: field.headers().clone(),
                body: field.bytes().await.ok()?,
            });
        }
        Some(parts)
    };
    // All of the body is there, so there is nothing to wait for.
    all.now_or_never().flatten()
}

/// What a part is worth as a field.
pub fn value(part: &Part) -> Value {
    if let Some(filename) = &part.filename {
        let content_type = part.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        return json!({ "filename": filename, "content_type": content_type, "size": part.body.len() });
    }
    if super::kind(&part.headers) == super::Kind::Json
        && let Some(value) = super::json(&part.headers, &part.body)
    {
        return value;
    }
    Value::String(super::text(&part.headers, &part.body))
}

/// One object of all fields; those of one name become an array.
fn object(fields: impl Iterator<Item = (String, Value)>) -> Option<Value> {
    let mut object: Map<String, Value> = Map::new();
    for (count, (name, value)) in fields.enumerate() {
        if count == MOST_FIELDS {
            return None;
        }
        // Each a list at first: a value that is an array itself must stay one.
        if let Value::Array(values) = object.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            values.push(value);
        }
    }
    for value in object.values_mut() {
        if let Value::Array(values) = value
            && values.len() == 1
        {
            *value = values.remove(0);
        }
    }
    (!object.is_empty()).then_some(Value::Object(object))
}

/// An object of fields as `application/x-www-form-urlencoded`.
pub fn urlencoded(fields: &Value) -> Vec<u8> {
    let Value::Object(fields) = fields else { return plain(fields).into_bytes() };
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value {
            Value::Array(values) => values.iter().for_each(|value| {
                form.append_pair(name, &plain(value));
            }),
            value => {
                form.append_pair(name, &plain(value));
            }
        }
    }
    form.finish().into_bytes()
}

/// Parts as a body, for the boundary that the message's head names.
pub fn multipart(headers: &HeaderMap, parts: &[Part]) -> Option<Vec<u8>> {
    let boundary = multer::parse_boundary(super::content_type(headers)).ok()?;
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}\r\ncontent-disposition: form-data").as_bytes());
        for (key, text) in [("name", &part.name), ("filename", &part.filename)] {
            if let Some(text) = text {
                body.extend_from_slice(format!("; {key}=\"{}\"", quoted(text)).as_bytes());
            }
        }
        // The disposition is written anew, and the length may be another one.
        let rest = part.headers.iter().filter(|(name, _)| ![header::CONTENT_DISPOSITION, header::CONTENT_LENGTH].contains(name));
        for (name, value) in rest {
            for bytes in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
                body.extend_from_slice(bytes);
            }
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(&part.body);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Some(body)
}

/// A name in quotes, as browsers write it.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
