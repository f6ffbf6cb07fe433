//! Sources: where in an exchange a part of the episode is found.

use http::HeaderName;
use serde_json_path::JsonPath;

/// One source, parsed from `kind:argument`.
#[derive(Debug, Clone)]
pub enum Source {
    /// `req.json:$.a.b` (RFC 9535).
    ReqJson(JsonPath),
    /// `resp.json:$.a.b`
    RespJson(JsonPath),
    /// `req.header:x-session`
    ReqHeader(HeaderName),
    /// `resp.header:x-session`
    RespHeader(HeaderName),
    /// `req.path:agent`, a `{name}` of the route's path.
    ReqPath(String),
    /// `req.query:session`
    ReqQuery(String),
    /// `req.cookie:session`
    ReqCookie(String),
    /// `const:text`
    Const(String),
}
