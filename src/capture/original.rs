//! The request itself, for a sink that sends it again.
//!
//! Kept are its method (as in every episode), its target without the query's credentials, the headers that the route allows (none with
//! a credential can be allowed), and its whole body. A route's `redact` comes first: what it makes unreadable in the record is
//! unreadable in here too, so such a request is sent again without it.

use http::{HeaderMap, HeaderName, Uri, header};
use serde_bytes::ByteBuf;

use super::redact::Redactor;
use super::{Kept, decode};
use crate::config::credentials::without_credentials;
use crate::episode::Original;

/// How many times its length a body may have, decoded: one that is longer can't be redacted, and is not kept.
const MOST: usize = 64;

/// The request, if all of its body is here: a part of it would be another request.
pub fn original(
    keep: &[HeaderName],
    redactor: &Redactor,
    uri: &Uri,
    headers: &HeaderMap,
    body: Option<&Kept>,
) -> Option<Original> {
    let kept = body.filter(|kept| kept.is_whole())?;
    let mut body = kept.frames.concat();
    let mut encoded = true;
    if !redactor.is_empty() && !body.is_empty() {
        let decoded = decode::decode(headers, &kept.frames, kept.len.saturating_mul(MOST)).ok().filter(|decoded| !decoded.cut)?;
        if let Some(redacted) = redactor.body(headers, &decoded.bytes) {
            (body, encoded) = (redacted, false);
        }
    }
    let allowed = keep.iter().filter(|name| encoded || **name != header::CONTENT_ENCODING);
    let headers = allowed
        .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
        .map(|(name, value)| (name.as_str().to_owned(), ByteBuf::from(redacted(redactor, value.as_bytes()))))
        .collect();
    let mut target = target(uri);
    redactor.target(&mut target);
    Some(Original { target, headers, body })
}

/// A header's value. What is no text is left alone.
fn redacted(redactor: &Redactor, value: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(value) else { return value.to_vec() };
    let mut text = text.to_owned();
    redactor.text(&mut text);
    text.into_bytes()
}

/// Path and query, without parameters that hold credentials.
fn target(uri: &Uri) -> String {
    let path = uri.path();
    let Some(query) = uri.query() else { return path.to_owned() };
    let harmless = without_credentials(query);
    if harmless.is_empty() { path.to_owned() } else { format!("{path}?{harmless}") }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn whole(body: &'static [u8]) -> Kept {
        Kept { frames: vec![Bytes::from_static(body)], len: body.len(), total: body.len() as u64, ended: true, ..Kept::default() }
    }

    #[test]
    fn inv10_a_request_is_kept_without_its_credentials() {
        let uri: Uri = "/v1/add?x-api-key=canary&a=1&access%5ftoken=canary&b=%20".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/plain".parse().unwrap());
        headers.insert("authorization", "canary".parse().unwrap());
        headers.append("accept", "a".parse().unwrap());
        headers.append("accept", "b".parse().unwrap());
        let keep = [header::CONTENT_TYPE, header::ACCEPT];
        let kept = original(&keep, &Redactor::default(), &uri, &headers, Some(&whole(b"body"))).unwrap();
        assert_eq!(kept.target, "/v1/add?a=1&b=%20");
        assert_eq!(kept.body, b"body");
        let lines: Vec<_> = kept.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(lines, [("content-type", &b"text/plain"[..]), ("accept", b"a"), ("accept", b"b")]);
    }

    #[test]
    fn a_request_that_was_not_kept_whole_is_none() {
        let uri: Uri = "/".parse().unwrap();
        let cut = Kept { total: 5, ..whole(b"body") };
        for body in [None, Some(&cut), Some(&Kept { ended: false, ..whole(b"body") })] {
            assert_eq!(original(&[], &Redactor::default(), &uri, &HeaderMap::new(), body), None);
        }
    }
}
