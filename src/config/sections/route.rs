//! `[[proxy.route]]`

use std::time::Duration;

use http::Method;

use super::extract::{Given, sources};
use super::offload::{self, keep_headers};
use super::redact::redact;
use super::stream::{merged, stream};
use crate::config::pattern::{PATTERNS, PathPattern};
use crate::config::presets;
use crate::config::read::{Field, Header, Read, Section};
use crate::config::status::StatusSet;
use crate::config::tree::Value;
use crate::config::values::{choice, duration, integer, list, name, share, size, statuses};
use crate::config::{Action, Dedupe, Route};

/// Most bytes that a route may keep of one direction: they are held in memory until the exchange ends.
const LARGEST_CAPTURE: u64 = 256 << 20;

/// Reads one route.
pub fn route(mut s: Section<'_>) -> Route {
    let name = s.require("name", "a name of letters, digits, _ and -", name).unwrap_or_default();
    let methods = s.get("method", Vec::new(), list(method));
    let path = s.require("path", PATTERNS, |field| {
        PathPattern::parse(&field.text(PATTERNS)?).map_err(|why| format!("{why}, allowed: {PATTERNS}"))
    });
    let action = s.maybe("action", choice(&[("capture", Action::Capture), ("offload", Action::Offload), ("pass", Action::Pass)]));
    let preset_field = s.take("preset");
    let preset = preset_field.as_ref().map(|field| {
        presets::preset(field, path.as_ref()).unwrap_or_else(|tail| {
            field.fault(&tail);
            presets::Preset::default()
        })
    });
    let own = Given::read(&mut s, path.as_ref());
    let offload = offload::Given::read(&mut s);
    let is_given = preset_field.is_some() || own.has_text() || offload.has_messages();
    let preset = preset.unwrap_or_default();
    let action = action.unwrap_or(preset.action);
    if let Some(field) = &preset_field
        && action != Action::Pass
        && action != preset.action
    {
        let meant = if preset.action == Action::Offload { "offload" } else { "capture" };
        field.fault(&format!("which is for action = {meant:?}, allowed: that, or another preset"));
    }
    let route = Route {
        name,
        methods,
        action,
        sinks: s.maybe("sinks", some_sinks).unwrap_or_default(),
        success: s.get("success", StatusSet::from_iter(["2xx"]), statuses),
        success_if: s.maybe("success_if", sources(path.as_ref())).unwrap_or(preset.success_if),
        max_capture: s.get("max_capture", 1 << 20, size(1, LARGEST_CAPTURE)),
        record_cancelled: s.get("on_cancel", true, choice(&[("record", true), ("discard", false)])),
        sample: s.get("sample", 1.0, share),
        dedupe: dedupe(&mut s, path.as_ref()),
        redact: s.maybe("redact", redact).unwrap_or_default(),
        join: s.maybe("join", sources(path.as_ref())).unwrap_or(preset.join),
        stream: merged(stream(&mut s), preset.stream, s.cx()),
        extract: own.over(preset.extract),
        replays: Vec::new(),
        keep_headers: keep_headers(&mut s),
        priority: s.get("priority", 0, integer(0, 100)),
        offload: match (action, offload.at().cloned()) {
            (Action::Offload, _) => Some(Box::new(offload.over(preset.offload))),
            (Action::Capture, Some(at)) => {
                s.cx().fault(at, "`offload` and `reply` are for action = \"offload\", leave them out".to_owned());
                None
            }
            _ => None,
        },
        path: path.unwrap_or_else(PathPattern::root),
    };
    if route.action == Action::Capture && !is_given {
        let allowed = "give it a preset, or extract.input or extract.output, or action = \"pass\"";
        s.cx().missing(s.at().clone(), format!("this [[proxy.route]] captures nothing, {allowed}"));
    }
    s.finish();
    route
}

fn dedupe(s: &mut Section<'_>, path: Option<&PathPattern>) -> Option<Dedupe> {
    const ALLOWED: &str = "a list of sources such as [\"req.header:idempotency-key\"]";
    let mut dedupe = s.maybe_table("dedupe", Header::Inline)?;
    let window = dedupe.get("window", Duration::from_secs(600), duration);
    let key = dedupe.require("key", ALLOWED, sources(path));
    dedupe.finish();
    Some(Dedupe { window, key: key? })
}

fn method(field: &Field<'_>) -> Read<Method> {
    const ALLOWED: &str = "allowed: a method such as \"POST\", or no `method` for any";
    let text = field.text("a method such as \"POST\"")?.to_ascii_uppercase();
    // Both are valid tokens, and nobody who writes them means a method of that name.
    if text == "*" || text == "ANY" {
        return Err(ALLOWED.to_owned());
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| ALLOWED.to_owned())
}

/// Whether these sinks exist is a rule between sections, in `check.rs`.
fn some_sinks(field: &Field<'_>) -> Read<Vec<String>> {
    if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
        return Err("allowed: names of sinks, or no `sinks` for all of them, or action = \"pass\"".to_owned());
    }
    list(name)(field)
}
