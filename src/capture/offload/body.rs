//! The body of a request that is offloaded: decoded, read, and refused if the service that it was meant for would refuse it.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::check::check;
use super::{Refusal, fastapi};
use crate::capture::Kept;
use crate::capture::decode::{self, DecodeError};
use crate::capture::document::document;
use crate::capture::node::is_something;
use crate::config::offload::{Offload, Refuse, Split};

/// The body without its `Content-Encoding`.
pub fn decoded(head: &Parts, body: &Kept, limit: usize) -> Result<Bytes, Refusal> {
    if !decode::is_encoded(&head.headers) {
        return Ok(match body.frames.as_slice() {
            [one] => one.clone(),
            many => many.concat().into(),
        });
    }
    let refuse = |status, detail: String| Err(Refusal::Own { status, detail });
    match decode::decode(&head.headers, &body.frames, limit) {
        Ok(decoded) if decoded.cut => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body, decoded, is longer than {limit} bytes, or broke off"),
        ),
        Ok(decoded) => Ok(decoded.bytes),
        Err(error @ DecodeError::Damaged) => refuse(StatusCode::BAD_REQUEST, error.to_string()),
        Err(error) => refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()),
    }
}

/// The body as JSON; refused where the route needs JSON and it is none.
pub fn read(offload: &Offload, headers: &HeaderMap, body: &[u8]) -> Result<Option<Value>, Refusal> {
    let needed = !offload.fields.is_empty() || !offload.needs.is_empty() || !matches!(offload.split, Split::Whole);
    if !needed {
        return Ok(document(headers, body));
    }
    if offload.refuse == Refuse::FastApi && !body.is_empty() && !is_json(headers) {
        return Err(service(fastapi::foreign(body)));
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(text) {
        Ok(json) => Ok(Some(json)),
        Err(error) => Err(match offload.refuse {
            Refuse::FastApi => service(fastapi::malformed(body)),
            Refuse::Problem => {
                let detail = format!("the request's body is no JSON: {error}");
                Refusal::Own { status: StatusCode::BAD_REQUEST, detail }
            }
        }),
    }
}

/// Whether a body is announced as JSON, or not announced at all.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

/// Refuses what the service would refuse.
pub fn judge(offload: &Offload, json: &Value) -> Result<(), Refusal> {
    let wrong = check(&offload.fields, json);
    if !wrong.is_empty() {
        return Err(match offload.refuse {
            Refuse::FastApi => service(fastapi::invalid(&wrong)),
            Refuse::Problem => {
                let detail = wrong.iter().map(|wrong| format!("{}: {}", wrong.path(), wrong.says)).collect::<Vec<_>>().join("; ");
                Refusal::Own { status: StatusCode::UNPROCESSABLE_ENTITY, detail }
            }
        });
    }
    for need in &offload.needs {
        let there = need.one_of.iter().any(|path| path.query(json).iter().any(|node| is_told(node)));
        if !there {
            return Err(Refusal::Service { status: need.status, body: need.body.clone() });
        }
    }
    Ok(())
}

/// Whether a node says anything; blanks don't.
fn is_told(node: &Value) -> bool {
    is_something(node) && node.as_str().is_none_or(|text| !text.trim().is_empty())
}

fn service((status, body): (StatusCode, String)) -> Refusal {
    Refusal::Service { status, body: body.into() }
}
