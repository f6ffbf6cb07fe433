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
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, response, uri};
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
    /// Clients come by TLS.
    pub tls: bool,
}

impl Rewrite {
    /// Makes a client's request one for the upstream, whatever is spoken there: [`frame`] does the rest. The header map is changed in
    /// place.
    pub fn request<B: Body>(&self, request: &mut Request<B>, peer: Option<IpAddr>) -> Result<(), ProxyError> {
        if request.method() == Method::CONNECT {
            return Err(ProxyError::BadRequest("CONNECT asks for a tunnel; this is a reverse proxy in front of one service"));
        }
        let host = host_of(request)?;
        let http2 = request.version() == Version::HTTP_2;
        let headers = request.headers_mut();
        check_framing(headers)?;
        let trailers = names(headers, &TE, |coding| coding.eq_ignore_ascii_case(b"trailers"));
        remove_hop_by_hop(headers);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if http2 {
            join_cookies(headers);
        }
        if self.forwarded {
            if let Some(peer) = peer {
                append_address(headers, peer);
            }
            if !headers.contains_key(FORWARDED_PROTO) {
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if self.tls { "https" } else { "http" }));
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

/// Writes the target of a rewritten request, and what belongs to the connection, as the upstream's version of HTTP wants it.
/// `protocol` is the upgrade that the client wishes for.
pub fn frame<B: Body>(request: &mut Request<B>, http2: Option<Scheme>, protocol: Option<&HeaderValue>) -> Result<(), ProxyError> {
    let path = request.uri().path_and_query().cloned();
    if let Some(scheme) = http2 {
        let host = request.headers_mut().remove(HOST);
        // Only a request that was framed for HTTP/2 before has no `Host` here.
        let authority =
            host.as_ref().map_or_else(|| request.uri().authority().cloned(), |host| Authority::try_from(host.as_bytes()).ok());
        let mut target = uri::Parts::default();
        target.authority = Some(authority.ok_or(ProxyError::BadRequest("the request's Host is no host"))?);
        target.scheme = Some(scheme);
        target.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| ProxyError::BadRequest("the request's target is not valid"))?;
        *request.version_mut() = Version::HTTP_2;
        for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
            request.headers_mut().remove(name);
        }
        return Ok(());
    }
    if let Some(authority) = request.uri().authority() {
        // From absolute-form to origin-form. Only a request that was framed for HTTP/2 before has no `Host` here.
        if !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    *request.version_mut() = Version::HTTP_11;
    let unknown_length = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    let options = match (headers.contains_key(TE), protocol.is_some()) {
        (false, false) => None,
        (true, false) => Some("te"),
        (false, true) => Some("upgrade"),
        (true, true) => Some("te, upgrade"),
    };
    if let Some(options) = options {
        headers.insert(CONNECTION, HeaderValue::from_static(options));
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol.clone());
    }
    if unknown_length {
        // hyper would send no body at all with a GET.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// Makes an upstream's response one for the client. The header map is changed in place. `upgraded` where the client has asked for
/// the protocol that the upstream switched to.
pub fn response(head: &mut response::Parts, upgraded: bool) -> Result<(), ProxyError> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !upgraded {
        return Err(ProxyError::Misbehaved("it switched protocols without being asked to"));
    }
    if !only_chunked(&head.headers) {
        return Err(ProxyError::Misbehaved("it used a transfer coding that it wasn't offered"));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) {
        // The coding wins over the length, and a message with both must not go on with both.
        head.headers.remove(CONTENT_LENGTH);
    }
    // It says what was switched to, or what would be accepted (426): the answer to the client's own wish.
    let protocol =
        (upgraded || head.status == StatusCode::UPGRADE_REQUIRED).then(|| head.headers.get(UPGRADE).cloned()).flatten();
    remove_hop_by_hop(&mut head.headers);
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    // The version belongs to the connection too: hyper speaks to each client as that client can.
    head.version = Version::HTTP_11;
    Ok(())
}

/// Whether a head of HTTP/2 is within the limits. In HTTP/1 hyper sees to that.
pub fn fits(headers: &HeaderMap, max_lines: usize, max_size: usize) -> bool {
    headers.len() <= max_lines
        && headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() <= max_size
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
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(ProxyError::BadRequest("the request's Host is no host"));
    }
    if let Some(authority) = request.uri().authority() {
        if request.uri().scheme().is_none() {
            return Err(ProxyError::BadRequest("the request's target is no path"));
        }
        let authority = authority.as_str().rsplit('@').next().unwrap_or_default();
        // HTTP/1 servers must go by the target (RFC 9112 §3.2.2); HTTP/2 has no reason for two (RFC 9113 §8.3.1).
        if request.version() == Version::HTTP_2
            && host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
        {
            return Err(ProxyError::BadRequest("the request's Host and :authority differ"));
        }
        return HeaderValue::from_str(authority)
            .map(Some)
            .map_err(|_| ProxyError::BadRequest("the request's target has no valid host"));
    }
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(ProxyError::BadRequest("the request has no Host header"));
    }
    Ok(host.cloned())
}

/// Whether nobody could take it for more than a host and a port, or for another one than the next reader does (RFC 9112 §3.2).
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|&b| b.is_ascii_graphic() && !matches!(b, b'/' | b'\\' | b'?' | b'#' | b'@' | b','))
}

/// A message whose length could be read in two ways is how one request is smuggled inside another (RFC 9112 §6.1, §11.2). Of a coding
/// and a length hyper has kept the coding alone.
fn check_framing(headers: &HeaderMap) -> Result<(), ProxyError> {
    // In HTTP/1 hyper has seen to it; in HTTP/2 nobody looks behind the first, and an empty one is taken for 0.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if lengths.next().is_some_and(HeaderValue::is_empty) || lengths.next().is_some() {
        return Err(ProxyError::BadRequest("the request's Content-Length is not one number"));
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if !only_chunked(headers) || headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_some() {
        return Err(ProxyError::BadRequest("the only transfer coding that is understood here is \"chunked\""));
    }
    Ok(())
}

/// HTTP/2 may split a cookie's parts over several lines; HTTP/1 knows one line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_maybe_shared(bytes::Bytes::from(parts.join(&b"; "[..]))) {
        headers.insert(COOKIE, cookie);
    }
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

/// Whether a header belongs to one connection by its name alone.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Whether a list header has a member that `is_it`.
pub fn names(headers: &HeaderMap, name: &HeaderName, is_it: impl Fn(&[u8]) -> bool) -> bool {
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
