//! Addresses: where to listen, where to forward to, and when two of them are one.

use std::net::IpAddr;
use std::path::PathBuf;

use http::HeaderValue;
use rustls::pki_types::ServerName;

use super::read::{Field, Read};
use super::{Listen, Scheme, Upstream};

/// What `listen` of a proxy may be.
pub const LISTENS: &str = "\"host:port\", \"unix:/absolute/path\" or \"fd:NAME\"";
/// What `listen` of the admin API may be.
const ADMIN_LISTENS: &str = "\"host:port\" or \"unix:/absolute/path\"";
/// What `upstream` may be.
pub const UPSTREAMS: &str = "\"http://host:port\", \"https://host:port\", \"h2c://host:port\" or \"unix:/absolute/path\"";

/// Longest path of a unix socket that the system takes, in bytes.
const LONGEST_SOCKET: usize = 107;
/// Longest name of a socket that systemd takes.
const LONGEST_NAME: usize = 255;

/// `host:port`, `unix:/path` or `fd:NAME`.
pub fn listen(field: &Field<'_>) -> Read<Listen> {
    let text = field.text(LISTENS)?;
    let Some(name) = text.strip_prefix("fd:") else { return own_address(text, LISTENS) };
    // A colon parts the names from each other where systemd passes them.
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err("allowed: fd:NAME, with the FileDescriptorName= of a systemd socket unit".to_owned());
    }
    Ok(Listen::Fd(name.to_owned()))
}

/// `host:port` or `unix:/path`.
pub fn admin_listen(field: &Field<'_>) -> Read<Listen> {
    let text = field.text(ADMIN_LISTENS)?;
    if text.starts_with("fd:") {
        return Err(format!("sockets of the service manager are for proxies alone, allowed: {ADMIN_LISTENS}"));
    }
    own_address(text, ADMIN_LISTENS)
}

fn own_address(text: String, allowed: &str) -> Read<Listen> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path).map(Listen::Unix);
    }
    if text.contains("://") {
        return Err(format!("an address has no scheme, allowed: {allowed}"));
    }
    match host_and_port(&text, allowed)? {
        (_, Some(_)) => Ok(Listen::Tcp(text)),
        (_, None) => Err(format!("it has no port, allowed: {allowed}")),
    }
}

/// `http://host:port`, `https://host:port`, `h2c://host:port` or `unix:/path`.
pub fn upstream(field: &Field<'_>) -> Read<Upstream> {
    let text = field.text(UPSTREAMS)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path).map(Upstream::Unix);
    }
    let schemes = [("http://", Scheme::Http, 80), ("https://", Scheme::Https, 443), ("h2c://", Scheme::H2c, 80)];
    let Some((rest, scheme, usual)) =
        schemes.iter().find_map(|(prefix, scheme, port)| Some((text.strip_prefix(prefix)?, *scheme, *port)))
    else {
        return Err(format!("allowed: {UPSTREAMS}"));
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(behind, "" | "/") {
        return Err(format!("an upstream has no path, each request keeps its own, allowed: {UPSTREAMS}"));
    }
    if authority.contains('@') {
        return Err(format!("an upstream has no user and no password, allowed: {UPSTREAMS}"));
    }
    let (host, port) = host_and_port(authority, UPSTREAMS)?;
    if port == Some(0) {
        return Err(format!("nobody answers on port 0, allowed: {UPSTREAMS}"));
    }
    if scheme == Scheme::Https && ServerName::try_from(host.as_str()).is_err() {
        return Err(format!("no certificate can have the name {host:?}, allowed: {UPSTREAMS}"));
    }
    let authority = HeaderValue::from_str(authority).map_err(|_| format!("allowed: {UPSTREAMS}"))?;
    Ok(Upstream::Http { scheme, host, port: port.unwrap_or(usual), authority })
}

/// The base URL of a service, without its trailing slashes.
pub fn base_url(field: &Field<'_>) -> Read<String> {
    const ALLOWED: &str = "\"http://host:port\" or \"https://host:port\", with a path where the service has one";
    let text = field.text(ALLOWED)?;
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return Err(format!("allowed: {ALLOWED}"));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("a URL has no user and no password here, allowed: a header, headers = { authorization = \"…\" }".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err(format!("a base URL has no query and no fragment, allowed: {ALLOWED}"));
    }
    host_and_port(authority, ALLOWED)?;
    if text.parse::<http::Uri>().is_err() {
        return Err(format!("its path is not valid, allowed: {ALLOWED}"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn socket(path: &str) -> Read<PathBuf> {
    if !path.starts_with('/') {
        return Err("the path is relative, allowed: unix:/absolute/path".to_owned());
    }
    if path.len() > LONGEST_SOCKET || path.contains('\0') {
        return Err(format!("allowed: unix:/absolute/path, with a path of at most {LONGEST_SOCKET} bytes"));
    }
    Ok(PathBuf::from(path))
}

/// Host without brackets, and the port if there is one.
pub fn host_and_port(authority: &str, allowed: &str) -> Read<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, behind)) = rest.split_once(']') else { return Err(format!("the [ is never closed, allowed: {allowed}")) };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("{host:?} is no IPv6 address, allowed: {allowed}"));
        }
        match behind {
            "" => (host, None),
            _ => (host, Some(behind.strip_prefix(':').ok_or_else(|| format!("allowed: {allowed}"))?)),
        }
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err(format!("an IPv6 address needs brackets, [::1]:8880, allowed: {allowed}"));
        }
        if host.is_empty() {
            return Err(format!("it has no host (0.0.0.0 is every address), allowed: {allowed}"));
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(format!("{host:?} is no host, allowed: {allowed}"));
        }
        (host, port)
    };
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(port) => Some(port),
            Err(_) => return Err(format!("{digits:?} is no port, a port is a number from 0 to 65535, allowed: {allowed}")),
        },
        Some(other) => return Err(format!("{other:?} is no port, a port is a number from 0 to 65535, allowed: {allowed}")),
    };
    Ok((host.to_owned(), port))
}

/// Whether binding both would fail: same path, same name, or same port on addresses that overlap. Port 0 overlaps with nothing.
pub fn overlap(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Unix(a), Listen::Unix(b)) => a == b,
        (Listen::Fd(a), Listen::Fd(b)) => a == b,
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            let (Some((a, a_port)), Some((b, b_port))) = (split(a), split(b)) else { return false };
            a_port == b_port && a_port != 0 && (a.eq_ignore_ascii_case(b) || ips_overlap(ip(a), ip(b)))
        }
        _ => false,
    }
}

fn ips_overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    // `[::]` takes the port of every IPv4 address too; `0.0.0.0` leaves IPv6 alone.
    let covers = |any: IpAddr, other: IpAddr| any.is_unspecified() && (any.is_ipv6() || other.is_ipv4());
    match (a, b) {
        (Some(a), Some(b)) => a == b || covers(a, b) || covers(b, a),
        // A host name is some address, and a wildcard is all of them.
        (Some(any), None) | (None, Some(any)) => any.is_unspecified(),
        (None, None) => false,
    }
}

impl Upstream {
    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Http { scheme: Scheme::Https, .. })
    }
}

/// Whether a proxy would forward to its own listener.
pub fn forwards_to(upstream: &Upstream, listen: &Listen) -> bool {
    match (upstream, listen) {
        (Upstream::Unix(to), Listen::Unix(at)) => to == at,
        (Upstream::Http { host, port, .. }, Listen::Tcp(at)) => {
            let bracketed = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            // Only an address of this machine is its own listener: a wildcard says nothing about a host elsewhere.
            let own = ip(host).is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
            let same = split(at).is_some_and(|(listening, at_port)| at_port == *port && listening.eq_ignore_ascii_case(host));
            same || (own && overlap(&Listen::Tcp(bracketed), listen))
        }
        _ => false,
    }
}

/// Whether only this machine can connect.
pub fn is_local(listen: &Listen) -> bool {
    match listen {
        Listen::Unix(_) | Listen::Fd(_) => true,
        Listen::Tcp(address) => split(address).and_then(|(host, _)| ip(host)).is_some_and(|ip| ip.is_loopback()),
    }
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// The address that a host is, where that can be told without asking anybody.
fn ip(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") { Some(IpAddr::from([127, 0, 0, 1])) } else { host.parse().ok() }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Https => "https",
        })
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { scheme, authority, .. } => write!(f, "{scheme}://{}", String::from_utf8_lossy(authority.as_bytes())),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Listen {
        Listen::Tcp(address.to_owned())
    }

    #[test]
    fn addresses_overlap_where_binding_both_would_fail() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("localhost:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("agent:1", "Agent:1", true),
            ("agent:1", "0.0.0.0:1", true),
            ("agent:1", "127.0.0.1:1", false),
        ] {
            assert_eq!(overlap(&tcp(a), &tcp(b)), expected, "{a} {b}");
            assert_eq!(overlap(&tcp(b), &tcp(a)), expected, "{b} {a}");
        }
        let unix = |path: &str| Listen::Unix(PathBuf::from(path));
        let fd = |name: &str| Listen::Fd(name.to_owned());
        assert!(overlap(&fd("a"), &fd("a")) && !overlap(&fd("a"), &fd("b")) && !overlap(&fd("a"), &tcp("a:1")));
        assert!(overlap(&unix("/a"), &unix("/a")) && !overlap(&unix("/a"), &unix("/b")) && !overlap(&unix("/a"), &tcp("a:1")));
    }

    #[test]
    fn local_is_what_only_this_machine_reaches() {
        assert!(["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"].iter().all(|a| is_local(&tcp(a))));
        assert!(["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"].iter().all(|a| !is_local(&tcp(a))));
    }

    #[test]
    fn a_proxy_that_forwards_to_itself_is_seen() {
        let upstream = |host: &str, port| Upstream::Http {
            scheme: Scheme::Http,
            host: host.to_owned(),
            port,
            authority: HeaderValue::from_static("x"),
        };
        assert!(forwards_to(&upstream("127.0.0.1", 80), &tcp("0.0.0.0:80")));
        assert!(forwards_to(&upstream("localhost", 80), &tcp("127.0.0.1:80")));
        assert!(forwards_to(&upstream("::1", 80), &tcp("[::]:80")));
        assert!(!forwards_to(&upstream("10.0.0.9", 80), &tcp("0.0.0.0:80")));
        assert!(!forwards_to(&upstream("127.0.0.1", 81), &tcp("127.0.0.1:80")));
    }
}
