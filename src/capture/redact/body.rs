//! Redaction of a body that is sent again as it came: bytes in, bytes out.

use std::collections::HashMap;

use http::HeaderMap;
use serde_json::Value;

use super::{REDACTED, Redactor, twice};
use crate::capture::document::{self, Kind, Part};

impl Redactor {
    /// Redacts a whole body, whose content encoding is undone already; none where nothing was found, and the same bytes may go.
    ///
    /// - **JSON** is redacted as a document and written anew, without white space; also where a member stands in it twice, of which
    ///   a document has only the last.
    /// - **Forms** are written anew, with what their [fields](document::document) have become. A file in them is redacted by the
    ///   expressions if it is text, and as a whole where a path finds it.
    /// - **Other text** is redacted by the expressions. What is no text is left alone.
    ///
    /// What its `Content-Type` calls JSON or a form, and can't be read, is redacted as a whole: no path could look into it.
    pub fn body(&self, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
        if self.is_empty() || body.is_empty() {
            return None;
        }
        match document::kind(headers) {
            Kind::Multipart => match document::parts(headers, body) {
                Some(parts) => self.multipart(headers, parts),
                None => Some(REDACTED.into()),
            },
            Kind::Form if !document::looks_like_json(body) => match document::document(headers, body) {
                Some(mut fields) => self.document(&mut fields).then(|| document::urlencoded(&fields)),
                None => Some(REDACTED.into()),
            },
            Kind::Form | Kind::Json | Kind::Other => self.single(headers, body),
        }
    }

    /// What is no form.
    fn single(&self, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
        let is_json = document::kind(headers) == Kind::Json;
        if !is_json && !document::looks_like_json(body) {
            return self.plain(headers, body);
        }
        match document::json(headers, body) {
            Some(mut json) => {
                let found = self.document(&mut json) || twice::has_a_name_twice(&document::text(headers, body));
                found.then(|| document::encoded(headers, &json.to_string()))
            }
            None if is_json => Some(REDACTED.into()),
            None => self.plain(headers, body),
        }
    }

    /// A text, if it is one.
    fn plain(&self, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
        let (text, _, damaged) = document::encoding(headers).decode(body);
        if damaged {
            return None;
        }
        let mut text = text.into_owned();
        self.text(&mut text).then(|| document::encoded(headers, &text))
    }

    fn multipart(&self, headers: &HeaderMap, mut parts: Vec<Part>) -> Option<Vec<u8>> {
        let mut found = self.parts_by_path(&mut parts);
        let texts = Self { paths: Vec::new(), texts: self.texts.clone() };
        for part in &mut parts {
            for text in [&mut part.name, &mut part.filename].into_iter().flatten() {
                found |= self.text(text);
            }
            if let Some(redacted) = texts.single(&part.headers, &part.body) {
                part.body = redacted.into();
                found = true;
            }
        }
        found.then(|| document::multipart(headers, &parts)).flatten()
    }

    /// Lets the paths look at the fields as one document, and does with the parts what became of it.
    fn parts_by_path(&self, parts: &mut [Part]) -> bool {
        let Some(mut fields) = document::fields(parts) else { return false };
        if !self.paths(&mut fields, |_| REDACTED.into()) {
            return false;
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for name in parts.iter().filter_map(|part| part.name.clone()) {
            *counts.entry(name).or_default() += 1;
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for part in parts {
            let Some(name) = part.name.clone() else { continue };
            let repeated = counts.get(&name).is_some_and(|count| *count > 1);
            let index = seen.entry(name.clone()).and_modify(|index| *index += 1).or_default();
            let field = match fields.get(&name) {
                Some(Value::Array(list)) if repeated => list.get(*index),
                whole => whole,
            };
            let field = field.cloned().unwrap_or_else(|| REDACTED.into());
            if field != document::value(part) {
                follow(part, &field);
            }
        }
        true
    }
}

/// Makes a part what its field has become.
fn follow(part: &mut Part, field: &Value) {
    if part.filename.is_some() {
        part.filename = Some(field["filename"].as_str().unwrap_or(REDACTED).to_owned());
        if field.is_object() {
            return; // its name, or what else is said about it
        }
    }
    let text = field.as_str().map_or_else(|| field.to_string(), ToOwned::to_owned);
    part.body = document::encoded(&part.headers, &text).into();
}
