//! Graph databases that a sink speaks to in their own protocol: where they are, and what is written.

use std::path::PathBuf;

use super::Secret;
use super::address::host_and_port;
use super::read::{Field, Read, Section};
use super::values::file;

/// The keys of `type = "neo4j"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neo4j {
    /// Where it is.
    pub server: Server,
    /// It is one of a cluster, and knows who leads that (`neo4j://`).
    pub routed: bool,
    /// Who asks; empty = nobody in particular.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database; none = the server's (or the user's) default.
    pub database: Option<String>,
    /// What writes an episode; none = the default statement.
    pub statement: Option<String>,
    /// The authorities to trust, PEM; none = the system's.
    pub ca_file: Option<PathBuf>,
}

/// The keys of `type = "falkordb"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Falkordb {
    /// Where it is.
    pub server: Server,
    /// The graph's key.
    pub graph: String,
    /// Who asks; none = the server's default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// What writes an episode; none = the default statement.
    pub statement: Option<String>,
    /// The authorities to trust, PEM; none = the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a database listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What is spoken there.
    pub tls: ServerTrust,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = match self.tls {
            ServerTrust::Plain => " without TLS",
            ServerTrust::Verified => " with TLS",
            ServerTrust::Anyone => " with anybody's TLS",
        };
        match &self.host {
            host if host.contains(':') => write!(f, "[{host}]:{}{tls}", self.port),
            host => write!(f, "{host}:{}{tls}", self.port),
        }
    }
}

/// Whether TLS is spoken to a database, and whom its certificate has to satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTrust {
    /// No TLS.
    Plain,
    /// TLS with a certificate that an authority vouches for.
    Verified,
    /// TLS with any certificate.
    Anyone,
}

/// `SCHEME://host:port`: the server, and what the scheme stands for besides its TLS. `port` is the usual one.
pub fn server<T: Copy>(field: &Field<'_>, schemes: &[(&str, ServerTrust, T)], port: u16) -> Read<(Server, T)> {
    let names = schemes.iter().map(|(scheme, ..)| format!("\"{scheme}://host:{port}\"")).collect::<Vec<_>>().join(", ");
    let text = field.text(&names)?;
    let Some((scheme, rest)) = text.split_once("://") else { return Err(format!("allowed: {names}")) };
    let Some((_, tls, means)) = schemes.iter().find(|(name, ..)| *name == scheme) else {
        return Err(format!("allowed: {names}"));
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("a URL has no user and no password here, allowed: `user` and `password_file`".to_owned());
    }
    if !matches!(behind, "" | "/") {
        return Err(format!("it has no path and no query, allowed: {names}"));
    }
    match host_and_port(authority, &names)? {
        (_, Some(0)) => Err(format!("nobody answers on port 0, allowed: {names}")),
        (host, given) => Ok((Server { host, port: given.unwrap_or(port), tls: *tls }, *means)),
    }
}

/// Text that says something.
pub fn word(field: &Field<'_>) -> Read<String> {
    let text = field.text("text in quotes")?;
    if text.trim().is_empty() || text.contains('\0') { Err("allowed: text, not empty".to_owned()) } else { Ok(text) }
}

/// `ca_file`, which makes sense only where it is looked into.
pub fn ca_file(s: &mut Section<'_>, server: &Server) -> Option<PathBuf> {
    let field = s.take("ca_file")?;
    if server.tls != ServerTrust::Verified && !server.host.is_empty() {
        s.cx().fault(field.key_at, format!("`ca_file` is for TLS that is verified, and `url` is {server}, leave it out"));
        return None;
    }
    file(&field).map_err(|tail| field.fault(&tail)).ok()
}

/// What stands where a server couldn't be read: it is never seen.
pub fn nowhere() -> Server {
    Server { host: String::new(), port: 0, tls: ServerTrust::Plain }
}
