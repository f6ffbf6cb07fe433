//! Wires everything together and owns the order in which it stops.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::drain::Drain;
use crate::queue::Queue;
use crate::telemetry::metrics::Metrics;

/// A running offramp: queue, drain, admin and proxies.
pub struct Offramp {
    /// The queue.
    pub queue: Queue,
    /// The sinks.
    pub drain: Arc<Drain>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// `(name, address)` of each TCP listener, with the port that the system gave for port 0.
    pub proxies: Vec<(String, SocketAddr)>,
    /// The admin API's address, where it is TCP.
    pub admin: Option<SocketAddr>,
}

/// Why offramp could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error("cannot listen on {listen} for {what}: {source}")]
    Listen {
        /// The proxy's name, or `the admin API`.
        what: String,
        /// The address as configured.
        listen: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Offramp {
    /// Opens the queue, binds every listener, starts the sinks, then serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let _ = config;
        unimplemented!()
    }

    /// Stops in order: accept nothing new, finish what is in flight (up to each proxy's `drain_timeout`), give attempts in flight a
    /// moment, commit, close the queue.
    pub async fn shutdown(self) {}
}
