//! Wires everything together and owns the order in which it stops.

mod certificates;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::certificates::Certificates;
pub use self::reload::ReloadError;
use crate::admin::{self, ProxyFacts, Readiness, Settings};
use crate::config::{self, Config, Listen, OrderBy, SocketFile};
use crate::drain::Drain;
use crate::proxy::Proxy;
use crate::queue::{Queue, QueueError, SinkId};
use crate::server::{self, Listener, Serving};
use crate::sink::{self, SetupError};
use crate::systemd;
use crate::telemetry::metrics::Metrics;
use crate::tls::TlsError;

/// What attempts in flight and the queue's last commit get at least to end, however long the requests took.
const CLOSE: Duration = Duration::from_secs(5);

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
    stop_proxies: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    proxy_tasks: JoinSet<()>,
    admin_task: JoinSet<()>,
    /// Held while a configuration takes the place of another.
    live: tokio::sync::Mutex<Live>,
}

/// What a reload changes.
struct Live {
    /// What is in force.
    config: Config,
    /// As in `config`.
    proxies: Vec<LiveProxy>,
    /// The admin API's.
    settings: watch::Sender<Arc<Settings>>,
}

struct LiveProxy {
    /// Where it listens.
    address: String,
    serving: watch::Sender<Serving>,
    certificates: Certificates,
}

/// Why offramp could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A sink.
    #[error(transparent)]
    Sink(#[from] SetupError),
    /// A certificate.
    #[error("proxy {proxy}: {source}")]
    Tls {
        /// Whose it is.
        proxy: String,
        /// What is wrong with it.
        source: TlsError,
    },
    /// A listener.
    #[error("{what} cannot listen on {listen}: {source}")]
    Listen {
        /// `proxy NAME` or `admin`.
        what: String,
        /// The address as configured.
        listen: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Offramp {
    /// Opens the queue, binds every listener, starts the sinks, then serves. Logs a line `listening` for each listener, and tells systemd.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let metrics = Metrics::new();
        let queue = open_queue(&config, &metrics).await?;
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            sinks.push((sink.clone(), sink::open(sink)?));
        }
        let certificates = config.proxies.iter().map(Certificates::load).collect::<Result<Vec<_>, _>>()?;
        let mut listeners = Vec::new();
        for proxy in &config.proxies {
            listeners.push(bind(format!("proxy {}", proxy.name), &proxy.listen, &proxy.socket).await?);
        }
        let admin_listener = bind("admin".to_owned(), &config.admin.listen, &SocketFile::default()).await?;
        let admin = admin_listener.local_addr();

        let drain = Arc::new(Drain::start(&queue, sinks, &metrics));
        let readiness = Readiness::default();
        let (stop_proxies, stop_admin) = (watch::Sender::new(false), watch::Sender::new(false));
        let ids = known_sinks(&queue, &config.sinks);
        let (mut proxies, mut running, mut proxy_tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for ((proxy, listener), certificates) in config.proxies.iter().zip(listeners).zip(certificates) {
            let (name, address) = (proxy.name.clone(), listener.local_addr());
            proxies.extend(address.map(|a| (name.clone(), a)));
            let address = address.map_or_else(|| proxy.listen.to_string(), |a| a.to_string());
            let client = certificates.client.clone();
            let proxy = Proxy::new(proxy.clone(), config.queue.on_full, &ids, queue.clone(), &metrics, client);
            let (serving, live) = watch::channel(Serving { proxy, tls: certificates.server.clone() });
            let (stop, ready) = (stopped(&stop_proxies), readiness.clone());
            proxy_tasks.spawn(async move {
                server::serve(listener, live, stop).await;
                ready.down(format!("proxy {name}"), "its listener is closed");
            });
            running.push(LiveProxy { address, serving, certificates });
        }
        let (settings, admins) = watch::channel(Arc::new(settings(&config, ids, &running)));
        let state = admin::State {
            queue: queue.clone(),
            drain: drain.clone(),
            metrics: metrics.clone(),
            readiness,
            settings: admins,
            started,
        };
        let stop = stopped(&stop_admin);
        let mut admin_task = JoinSet::new();
        admin_task.spawn(async move {
            if let Err(error) = admin::serve(admin_listener, state, stop).await {
                tracing::error!(%error, "the admin API has ended");
            }
        });
        systemd::ready("serving");
        Ok(Self {
            queue,
            drain,
            metrics,
            proxies,
            admin,
            stop_proxies,
            stop_admin,
            proxy_tasks,
            admin_task,
            live: tokio::sync::Mutex::new(Live { config, proxies: running, settings }),
        })
    }

    /// Stops in order: accept nothing new, finish what is in flight (up to each proxy's `drain_timeout`), give attempts in flight a
    /// moment, commit, close the queue. The admin API answers until then. A disk that hangs is not waited for: false, and the queue is
    /// not closed.
    pub async fn shutdown(mut self) -> bool {
        let told = Instant::now();
        systemd::stopping();
        self.stop_proxies.send_replace(true);
        while self.proxy_tasks.join_next().await.is_some() {}
        let proxies = &self.live.get_mut().config.proxies;
        let drain_timeout = proxies.iter().map(|proxy| proxy.drain_timeout).max().unwrap_or_default();
        let left = drain_timeout.saturating_sub(told.elapsed()).max(CLOSE);
        let closed = tokio::time::timeout(left, self.close()).await.is_ok();
        if !closed {
            tracing::error!(waited = ?told.elapsed(), "the queue's disk does not answer: the queue is left as it is");
            return false; // the admin API may be waiting for that disk too
        }
        self.stop_admin.send_replace(true);
        while self.admin_task.join_next().await.is_some() {}
        true
    }

    async fn close(&self) {
        self.drain.stop().await;
        let queue = self.queue.clone();
        if tokio::task::spawn_blocking(move || queue.close()).await.is_err() {
            tracing::error!("closing the queue panicked; what was acknowledged is safe");
        }
    }
}

/// Where episodes can go, in the order of the file.
fn known_sinks(queue: &Queue, sinks: &[config::Sink]) -> Vec<(String, SinkId, OrderBy)> {
    sinks.iter().filter_map(|sink| Some((sink.name.clone(), queue.sink_id(&sink.name)?, sink.order_by))).collect()
}

/// What the admin API is to show.
fn settings(config: &Config, sinks: Vec<(String, SinkId, OrderBy)>, proxies: &[LiveProxy]) -> Settings {
    let facts = config.proxies.iter().zip(proxies).map(|(proxy, running)| ProxyFacts {
        name: proxy.name.clone(),
        listen: running.address.clone(),
        upstream: proxy.upstream.to_string(),
    });
    Settings { limits: config.queue.clone(), sinks, proxies: facts.collect(), token: config.admin.token.clone() }
}

async fn open_queue(config: &Config, metrics: &Metrics) -> Result<Queue, QueueError> {
    let (queue, sinks, metrics) = (config.queue.clone(), config.sinks.clone(), metrics.clone());
    match tokio::task::spawn_blocking(move || Queue::open(&queue, &sinks, &metrics)).await {
        Ok(opened) => opened,
        Err(panic) => {
            Err(QueueError::Unreadable { path: config.queue.path.clone(), message: format!("the engine panicked: {panic}") })
        }
    }
}

async fn bind(what: String, listen: &Listen, file: &SocketFile) -> Result<Listener, StartError> {
    match Listener::bind(listen, file).await {
        Ok(listener) => {
            let address = listener.local_addr().map_or_else(|| listen.to_string(), |a| a.to_string());
            tracing::info!(what, address, "listening");
            Ok(listener)
        }
        Err(source) => Err(StartError::Listen { what, listen: listen.to_string(), source }),
    }
}

/// Resolves when told to stop, or when nobody is left who could tell.
fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stop = stop.subscribe();
    async move {
        let _ = stop.wait_for(|stop| *stop).await; // an error: the sender is gone
    }
}
