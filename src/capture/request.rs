//! What is kept of a request's head.

use http::{HeaderMap, HeaderName, Method, Uri};

use super::redact::Redactor;
use crate::episode::Request;

/// The one header whose value goes into every record.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Length of a trace context in version 00; later ones may add to it.
const TRACE_CONTEXT: usize = 55;

/// The request of an episode: without its query, and with nothing in it that the route redacts.
pub(super) fn request(method: &Method, uri: &Uri, headers: &HeaderMap, status: u16, redactor: &Redactor) -> Request {
    let mut path = uri.path().to_owned();
    redactor.target(&mut path);
    let mut traceparent = headers.get(TRACEPARENT).and_then(|value| trace_context(value.to_str().ok()?));
    if let Some(text) = &mut traceparent {
        redactor.text(text);
    }
    Request { method: method.as_str().to_owned(), path, status, traceparent }
}

/// A trace context as the W3C writes it. A header is written by strangers: whatever else is in it could be a secret.
fn trace_context(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(TRACE_CONTEXT)?;
    let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<_> = known.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let fits = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    (fits && (rest.is_empty() || rest.starts_with('-'))).then(|| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv10_a_trace_context_is_kept_and_nothing_else() {
        const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_context(VALID).as_deref(), Some(VALID));
        assert_eq!(trace_context(&format!("{VALID}-of a later version")).as_deref(), Some(VALID));
        let wrong =
            [VALID.replace("4bf", "xyz"), VALID.to_uppercase(), VALID.replace('-', "0"), format!("{VALID}x"), "secret".into()];
        for text in wrong.iter().map(String::as_str).chain([&VALID[1..], ""]) {
            assert_eq!(trace_context(text), None, "{text}");
        }
    }
}
