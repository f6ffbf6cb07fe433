//! What a proxy has to change in a message's head, and nothing else (RFC 9110 §7.6, RFC 9112 §3.2 and §6).
//!
//! Removed, because they belong to one connection: `Connection` and every header that it names, `Keep-Alive`, `Proxy-Connection`,
//! `TE` (but `trailers` goes on: trailers are forwarded), `Transfer-Encoding` (set anew where the length isn't known), `Upgrade`,
//! `Proxy-Authenticate` and `Proxy-Authorization`. `Trailer` stays. `Host` and `Content-Length` stay even if `Connection` names
//! them: no client takes a message's framing away.
//!
//! Added: `X-Forwarded-For` gets the client's address behind those that are there; `X-Forwarded-Proto` and `-Host` stay as a proxy
//! before this one set them, and are set otherwise.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, response};
use http_body::Body;

use super::ProxyError;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How one proxy rewrites heads.
#[derive(Debug)]
pub struct Rewrite {
    /// Forward the client's `Host`.
    pub preserve_host: bool,
    /// Say who asked.
    pub forwarded: bool,
    /// The upstream's own `Host`.
    pub authority: HeaderValue,
}

impl Rewrite {
    /// Makes a client's request one for the upstream. The header map is changed in place.
    pub fn request<B: Body>(&self, request: &mut Request<B>, peer: Option<IpAddr>) -> Result<(), ProxyError> {
        if request.method() == Method::CONNECT {
            return Err(ProxyError::BadRequest("CONNECT asks for a tunnel; this is a reverse proxy in front of one service"));
        }
        let host = host_of(request)?;
        if request.uri().authority().is_some() {
            // From absolute-form to origin-form.
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
        *request.version_mut() = Version::HTTP_11;
        let unknown_length = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        if !only_chunked(headers) {
            return Err(ProxyError::BadRequest("the only transfer coding that is understood here is \"chunked\""));
        }
        let trailers = names(headers, &TE, |coding| coding.eq_ignore_ascii_case(b"trailers"));
        remove_hop_by_hop(headers);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if unknown_length {
            // hyper would send no body at all with a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if self.forwarded {
            if let Some(peer) = peer {
                append_address(headers, peer);
            }
            if !headers.contains_key(FORWARDED_PROTO) {
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
            }
            if let Some(host) = &host
                && !headers.contains_key(FORWARDED_HOST)
            {
                headers.insert(FORWARDED_HOST, host.clone());
            }
        }
        let host = host.filter(|_| self.preserve_host).unwrap_or_else(|| self.authority.clone());
        headers.insert(HOST, host);
        Ok(())
    }
}

/// Makes an upstream's response one for the client. The header map is changed in place.
pub fn response(head: &mut response::Parts) -> Result<(), ProxyError> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ProxyError::Misbehaved("it switched protocols without being asked to"));
    }
    if !only_chunked(&head.headers) {
        return Err(ProxyError::Misbehaved("it used a transfer coding that it wasn't offered"));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) {
        // The coding wins over the length, and a message with both must not go on with both.
        head.headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(&mut head.headers);
    // The version belongs to the connection too: hyper speaks to each client as that client can.
    head.version = Version::HTTP_11;
    Ok(())
}

/// Whether a request waits for `100 Continue` before it sends its body.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The host that a request is for: of its target where that has one, else of its `Host`.
fn host_of<B>(request: &Request<B>) -> Result<Option<HeaderValue>, ProxyError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ProxyError::BadRequest("the request has more than one Host header"));
    }
    if let Some(authority) = request.uri().authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        return HeaderValue::from_str(host)
            .map(Some)
            .map_err(|_| ProxyError::BadRequest("the request's target has no valid host"));
    }
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(ProxyError::BadRequest("the request has no Host header"));
    }
    Ok(host.cloned())
}

fn only_chunked(headers: &HeaderMap) -> bool {
    headers.get_all(TRANSFER_ENCODING).iter().all(|v| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none, and looking is cheaper than removing.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH) && !is_hop_by_hop(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION]
    {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Whether a list header has a member that `is_it`.
fn names(headers: &HeaderMap, name: &HeaderName, is_it: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| line.as_bytes().split(|&b| b == b',').any(|member| is_it(member.trim_ascii())))
}

/// One line, however many there were: not every reader looks behind the first.
fn append_address(headers: &mut HeaderMap, peer: IpAddr) {
    let mut list = Vec::new();
    for line in headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    // An IPv4 client of a dual-stack listener is known by its IPv4 address.
    list.extend_from_slice(peer.to_canonical().to_string().as_bytes());
    if let Ok(list) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(FORWARDED_FOR, list);
    }
}
