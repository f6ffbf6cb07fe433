//! `[[sink]]` with `type = "http"`: its preset, and its templates.

use std::time::Duration;

use http::{HeaderName, Method};

use super::FRAMING;
use crate::config::address::base_url;
use crate::config::credentials::is_credential;
use crate::config::presets;
use crate::config::read::{Field, Header, Read, Section};
use crate::config::request::{Proof, Repair, Request, Service};
use crate::config::status::StatusSet;
use crate::config::template::{ANSWER, ASKING, Condition, EPISODE, Makes, Template, is_template};
use crate::config::tree::Value;
use crate::config::values::{choice, duration, duration_or_zero, statuses};

const URLS: &str = "\"http://host:port\"";
const PATHS: &str = "a template of a path such as /threads/{{ session }}/messages";
const TEXTS: &str = "a template in quotes";

/// Reads what belongs to the type; nothing where a fault leaves no request. The preset's keys are put into the section where it has none
/// of its own, also those that every sink has.
pub fn http(s: &mut Section<'_>) -> Option<Service> {
    if let Some(field) = s.take("preset") {
        match presets::sink(&field) {
            Ok(table) => s.fill(table),
            Err(tail) => field.fault(&tail),
        }
    }
    let url = s.require("url", URLS, base_url);
    let request = request(s, "POST", &[&EPISODE]);
    let headers = headers(s);
    let success = s.get("success", StatusSet::from_iter(["2xx"]), statuses);
    let delivered_if = s.maybe("delivered_if", |field| condition(field, &[&EPISODE, &ANSWER]));
    let repair = s.maybe_table("repair", Header::Inline).and_then(repair);
    let confirm = s.maybe_table("confirm", Header::Inline).and_then(confirm);
    Some(Service { url: url?, request: request?, headers, success, delivered_if, repair, confirm })
}

fn request(s: &mut Section<'_>, usual: &str, names: &[&[&str]]) -> Option<Request> {
    let text = |makes| move |field: &Field<'_>| template(field, makes, names);
    let plain = |text: &str| Template::request(text, Makes::Line, &[]).ok();
    Some(Request {
        method: s.maybe("method", |field| method(field, names)).or_else(|| plain(usual))?,
        content_type: s.maybe("content_type", text(Makes::Line)).or_else(|| plain("application/json"))?,
        body: s.maybe("body", text(Makes::Text)),
        path: s.require("path", PATHS, |field| path(field, names))?,
    })
}

fn repair(mut s: Section<'_>) -> Option<Repair> {
    let when = s.require("if", "a condition over the answer", |field| condition(field, &[&EPISODE, &ANSWER]));
    let request = request(&mut s, "POST", &[&EPISODE]);
    s.finish();
    Some(Repair { when: when?, request: request? })
}

fn confirm(mut s: Section<'_>) -> Option<Proof> {
    let read_back = s.get("mode", true, choice(&[("read_back", true), ("accepted", false)]));
    let timeout = s.get("timeout", Duration::from_secs(15 * 60), duration);
    let poll = s.get("poll", Duration::from_secs(1), duration);
    if poll > timeout
        && let Some(at) = s.place("poll").or_else(|| s.place("timeout"))
    {
        s.cx().fault(at, "`confirm.poll` is longer than `confirm.timeout`, allowed: at most that".to_owned());
    }
    let settle = s.get("settle", Duration::ZERO, duration_or_zero);
    let request = request(&mut s, "GET", &[&EPISODE, &ASKING]);
    let present = s.require("present", "a condition over the answer", |field| condition(field, &[&EPISODE, &ANSWER]));
    let failed = s.maybe("failed", |field| wrong(Template::reading(&field.text(TEXTS)?, &[&EPISODE, &ANSWER])));
    s.finish();
    Some(Proof { read_back, timeout, poll, settle, request: request?, present: present?, failed })
}

/// Takes the headers with a template in them out; the others stay for the reader of every sink's.
fn headers(s: &mut Section<'_>) -> Vec<(HeaderName, Template)> {
    let mut headers = Vec::new();
    for (key, field) in s.pick("headers", |value| matches!(value, Value::Text(text) if is_template(text))) {
        match header(&key, &field) {
            Ok(header) => headers.push(header),
            Err(tail) => field.fault_quietly(&tail),
        }
    }
    headers
}

fn header(key: &str, field: &Field<'_>) -> Read<(HeaderName, Template)> {
    let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| "this is no header name".to_owned())?;
    if FRAMING.contains(&name.as_str()) {
        return Err("offramp sets this header itself, leave it out; `content_type` has a key of its own".to_owned());
    }
    if is_credential(name.as_str()) {
        // What is redacted has to be known, and an episode has no credentials.
        return Err("a credential is no template, allowed: text without {{ and {%".to_owned());
    }
    Ok((name, template(field, Makes::Line, &[&EPISODE])?))
}

fn template(field: &Field<'_>, makes: Makes, names: &[&[&str]]) -> Read<Template> {
    wrong(Template::request(&field.text(TEXTS)?, makes, names))
}

fn condition(field: &Field<'_>, names: &[&[&str]]) -> Read<Condition> {
    wrong(Condition::new(&field.text("an expression in quotes such as \"status == 409\"")?, names))
}

fn method(field: &Field<'_>, names: &[&[&str]]) -> Read<Template> {
    let text = field.text("a method such as \"POST\"")?;
    if !is_template(&text) && Method::from_bytes(text.as_bytes()).is_err() {
        return Err("allowed: a method such as \"POST\"".to_owned());
    }
    template(field, Makes::Line, names)
}

fn path(field: &Field<'_>, names: &[&[&str]]) -> Read<Template> {
    let text = field.text(PATHS)?;
    if !text.starts_with('/') && !text.starts_with("{%") {
        return Err(format!("it must begin with /, allowed: {PATHS}"));
    }
    template(field, Makes::Path, names)
}

fn wrong<T>(compiled: Result<T, String>) -> Read<T> {
    compiled.map_err(|why| format!("and that is no template: {why}"))
}
