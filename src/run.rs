//! Wires everything together and owns the order in which it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, ProxyFacts, Readiness};
use crate::config::{self, Config, Listen, SocketFile};
use crate::drain::Drain;
use crate::proxy::Proxy;
use crate::queue::{Queue, QueueError};
use crate::server::{self, Listener};
use crate::sink::{self, SetupError};
use crate::systemd;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, TlsError};

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
    drain_timeout: Duration,
    certificates: Vec<Certificates>,
}

/// What a proxy speaks TLS with, on either side.
#[derive(Debug, Clone)]
struct Certificates {
    proxy: String,
    server: Option<Arc<tls::Server>>,
    client: Option<Arc<tls::Client>>,
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
        let ids: Vec<_> =
            config.sinks.iter().filter_map(|sink| Some((sink.name.clone(), queue.sink_id(&sink.name)?, sink.order_by))).collect();
        let drain_timeout = config.proxies.iter().map(|proxy| proxy.drain_timeout).max().unwrap_or_default();
        let (mut proxies, mut facts, mut proxy_tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for ((proxy, listener), certificates) in config.proxies.into_iter().zip(listeners).zip(&certificates) {
            let address = listener.local_addr();
            facts.push(ProxyFacts {
                name: proxy.name.clone(),
                listen: address.map_or_else(|| proxy.listen.to_string(), |a| a.to_string()),
                upstream: proxy.upstream.to_string(),
            });
            proxies.extend(address.map(|a| (proxy.name.clone(), a)));
            let Certificates { server: tls, client, .. } = certificates.clone();
            let proxy = Proxy::new(proxy, config.queue.on_full, &ids, queue.clone(), &metrics, client);
            let (stop, ready) = (stopped(&stop_proxies), readiness.clone());
            proxy_tasks.spawn(async move {
                let name = proxy.name().to_owned();
                server::serve(listener, tls, proxy, stop).await;
                ready.down(format!("proxy {name}"), "its listener is closed");
            });
        }
        let state = admin::State {
            queue: queue.clone(),
            limits: config.queue,
            drain: drain.clone(),
            metrics: metrics.clone(),
            sinks: ids,
            proxies: facts,
            readiness,
            token: config.admin.token,
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
            drain_timeout,
            certificates,
        })
    }

    /// Reads every certificate again, for the connections to come, and logs how that went. One that can't be used leaves what was.
    pub async fn reload_tls(&self) {
        let certificates = self.certificates.clone();
        let reloading = tokio::task::spawn_blocking(move || certificates.iter().for_each(Certificates::reload));
        if reloading.await.is_err() {
            tracing::error!("reading the certificates again panicked; those that were not read stay as they were");
        }
    }

    /// Stops in order: accept nothing new, finish what is in flight (up to each proxy's `drain_timeout`), give attempts in flight a
    /// moment, commit, close the queue. The admin API answers until then. A disk that hangs is not waited for: false, and the queue is
    /// not closed.
    pub async fn shutdown(mut self) -> bool {
        let told = Instant::now();
        systemd::stopping();
        self.stop_proxies.send_replace(true);
        while self.proxy_tasks.join_next().await.is_some() {}
        let left = self.drain_timeout.saturating_sub(told.elapsed()).max(CLOSE);
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

impl Certificates {
    fn load(proxy: &config::Proxy) -> Result<Self, StartError> {
        let wrong = |source| StartError::Tls { proxy: proxy.name.clone(), source };
        let server = proxy.tls.as_ref().map(tls::Server::load).transpose().map_err(wrong)?;
        let client = proxy.upstream.is_tls().then(|| tls::Client::load(&proxy.upstream_tls)).transpose().map_err(wrong)?;
        Ok(Self { proxy: proxy.name.clone(), server: server.map(Arc::new), client: client.map(Arc::new) })
    }

    fn reload(&self) {
        let sides =
            [("tls", self.server.as_ref().map(|s| s.reload())), ("upstream_tls", self.client.as_ref().map(|c| c.reload()))];
        for (key, reloaded) in sides {
            match reloaded {
                Some(Ok(())) => tracing::info!(proxy = self.proxy, key, "certificates read again, for the connections to come"),
                Some(Err(error)) => tracing::error!(proxy = self.proxy, key, %error, "the certificates stay as they were"),
                None => {}
            }
        }
    }
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
