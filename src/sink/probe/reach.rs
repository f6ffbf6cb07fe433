//! The first steps, made by themselves: the host's name, a connection to one of its addresses, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Outcome, Step, What, advice};
use crate::config::units::show_duration;
use crate::config::{Falkordb, Neo4j, Server, ServerTrust, SinkKind};
use crate::tls;

/// Where a sink sends to.
pub struct Place {
    host: String,
    port: u16,
    tls: ServerTrust,
    ca_file: Option<PathBuf>,
}

/// None for a file.
pub fn place(kind: &SinkKind) -> Option<Place> {
    let server = |Server { host, port, tls }: &Server, ca_file: &Option<PathBuf>| {
        Some(Place { host: host.clone(), port: *port, tls: *tls, ca_file: ca_file.clone() })
    };
    match kind {
        SinkKind::Graphiti(graphiti) => of_url(&graphiti.url),
        SinkKind::GraphitiMcp(mcp) => of_url(&mcp.url),
        SinkKind::Http(service) => of_url(&service.url),
        SinkKind::Replay { url } => of_url(url),
        SinkKind::Neo4j(Neo4j { server: at, ca_file, .. }) | SinkKind::Falkordb(Falkordb { server: at, ca_file, .. }) => {
            server(at, ca_file)
        }
        SinkKind::File { .. } => None,
    }
}

fn of_url(url: &str) -> Option<Place> {
    let url = Url::parse(url).ok()?; // checked with the configuration
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let tls = if url.scheme() == "https" { ServerTrust::Verified } else { ServerTrust::Plain };
    Some(Place { host, port: url.port_or_known_default()?, tls, ca_file: None })
}

/// The three steps, as far as they go. `within` so long as `limit` from the beginning.
pub async fn reach(place: &Place, within: Instant, limit: Duration) -> Vec<Step> {
    let Place { host, port, .. } = place;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing within connect_timeout, {}", show_duration(limit)));
    let looked = timeout_at(within, lookup_host((host.as_str(), *port))).await.unwrap_or_else(|_| Err(late()));
    let addresses: Vec<SocketAddr> = match looked {
        Ok(found) => found.collect(),
        Err(error) => return vec![failed(What::Dns, format!("{host} has no address: {error}"), advice::NAME.to_owned())],
    };
    let mut steps = vec![ok(What::Dns, named(host, &addresses))];
    let mut refusals = Vec::new();
    let mut connected = None;
    for address in addresses {
        match timeout_at(within, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => {
                steps.push(ok(What::Connect, format!("{address} takes connections")));
                connected = Some(stream);
                break;
            }
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    let Some(stream) = connected else {
        steps.push(failed(What::Connect, format!("no connection to {}", refusals.join(", ")), advice::connect(host)));
        return steps;
    };
    steps.push(shake(place, stream, within, late).await);
    steps
}

fn named(host: &str, addresses: &[SocketAddr]) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return format!("{host} is an address");
    }
    let mut ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    ips.dedup();
    format!("{host} is {}", ips.join(", "))
}

/// TLS with the trust that the sink has.
async fn shake(place: &Place, stream: TcpStream, within: Instant, late: impl Fn() -> io::Error) -> Step {
    let config = match place.tls {
        ServerTrust::Plain => {
            let says = "not used: whoever is on the way can read what is sent";
            return Step { step: What::Tls, result: Outcome::Skipped, says: says.to_owned(), advice: None };
        }
        ServerTrust::Verified => tls::towards(place.ca_file.as_deref()),
        ServerTrust::Anyone => Ok(tls::towards_anyone()),
    };
    let advice = || advice::tls(place.ca_file.as_deref().map(Path::to_path_buf), place.port);
    let config = match config {
        Ok(config) => config,
        Err(error) => return failed(What::Tls, error.to_string(), advice()),
    };
    let Ok(name) = ServerName::try_from(place.host.clone()) else {
        return failed(What::Tls, format!("no certificate can have the name {}", place.host), advice());
    };
    let shaken = timeout_at(within, TlsConnector::from(config).connect(name, stream)).await.unwrap_or_else(|_| Err(late()));
    match shaken {
        Ok(stream) => {
            let version = stream.get_ref().1.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
            let whose = if place.tls == ServerTrust::Anyone { "any certificate is taken" } else { "its certificate is trusted" };
            ok(What::Tls, format!("{} is spoken, and {whose}", version.replace('_', ".")))
        }
        Err(error) => failed(What::Tls, error.to_string(), advice()),
    }
}

fn ok(step: What, says: String) -> Step {
    Step { step, result: Outcome::Ok, says, advice: None }
}

fn failed(step: What, says: String, advice: String) -> Step {
    Step { step, result: Outcome::Failed, says, advice: Some(advice) }
}
