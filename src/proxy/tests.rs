//! The request path over real sockets: a raw upstream, a raw client, and a queue that does as it is told.

mod aborts;
mod barrier;
mod breaker;
mod capture;
mod golden;
mod line;
mod malformed;
mod offload;
mod order;
mod peer;
mod reload;
mod shutdown;
mod smuggling;
mod split;
mod stream;
mod strict;
mod timeouts;
mod transparent;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use serde_json_path::JsonPath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Proxy;
use crate::capture::{Commit, Record};
use crate::clock;
use crate::config::pattern::PathPattern;
use crate::config::source::Source;
use crate::config::status::StatusSet;
use crate::config::{self, Action, Extract, Listen, OnFull, OrderBy, Upstream};
use crate::episode::Episode;
use crate::queue::{AppendError, Key, Lane, New, Note, Seq, SinkId};
use crate::server::{self, Listener, Serving};
use crate::telemetry::metrics::Metrics;

type Lanes = Vec<(SinkId, Lane)>;

/// A queue that commits when told, or never, or breaks.
pub struct Recorder {
    episodes: Mutex<Vec<(Episode, Lanes, Option<Seq>)>>,
    appended: watch::Sender<usize>,
    verdict: watch::Sender<Option<Result<(), AppendError>>>,
    pub refuse: Mutex<Option<AppendError>>,
    pub panics: AtomicBool,
    pub full: AtomicBool,
    pub wait: Mutex<Duration>,
    next_place: AtomicU64,
    /// Lanes, and the place that each waits for.
    pub holds: Mutex<Vec<(SinkId, Lane, Seq)>>,
    notes: Mutex<HashMap<Key, Vec<u8>>>,
    uniques: Mutex<HashMap<Key, Uuid>>,
}

impl Recorder {
    /// Commits at once.
    pub fn quick() -> Arc<Self> {
        let recorder = Self::slow();
        recorder.commit(Ok(()));
        recorder
    }

    /// Commits when told; responses wait for ever.
    pub fn slow() -> Arc<Self> {
        Arc::new(Self {
            episodes: Mutex::default(),
            appended: watch::Sender::new(0),
            verdict: watch::Sender::new(None),
            refuse: Mutex::default(),
            panics: AtomicBool::new(false),
            full: AtomicBool::new(false),
            wait: Mutex::new(Duration::from_secs(3600)),
            next_place: AtomicU64::new(1),
            holds: Mutex::default(),
            notes: Mutex::default(),
            uniques: Mutex::default(),
        })
    }

    pub fn commit(&self, verdict: Result<(), AppendError>) {
        self.verdict.send_replace(Some(verdict));
    }

    pub async fn appended(&self, n: usize) -> Vec<Episode> {
        self.appended.subscribe().wait_for(|&seen| seen >= n).await.unwrap();
        self.episodes.lock().unwrap().iter().map(|(e, ..)| e.clone()).collect()
    }

    pub fn lanes(&self) -> Vec<Lanes> {
        self.episodes.lock().unwrap().iter().map(|(_, l, _)| l.clone()).collect()
    }
}

impl Recorder {
    /// Where each episode was put, in the order of the appends.
    pub fn places(&self) -> Vec<Seq> {
        self.episodes.lock().unwrap().iter().filter_map(|(.., place)| *place).collect()
    }
}

impl Record for Recorder {
    fn append(&self, new: &[New<'_>]) -> Result<Commit, AppendError> {
        assert!(!self.panics.load(Ordering::SeqCst), "told to panic");
        if let Some(error) = *self.refuse.lock().unwrap() {
            return Err(error);
        }
        let mut earlier = Vec::new();
        for n in new {
            let known = n.unique.and_then(|unique| self.uniques.lock().unwrap().insert(unique.key, n.episode.id));
            if let (Some(id), Some(unique)) = (known, n.unique) {
                self.uniques.lock().unwrap().insert(unique.key, id);
            } else {
                self.episodes.lock().unwrap().push((n.episode.clone(), n.lanes.to_vec(), n.place));
                self.appended.send_modify(|n| *n += 1);
            }
            earlier.push(known);
        }
        let mut verdict = self.verdict.subscribe();
        Ok(Box::pin(async move {
            let verdict = *verdict.wait_for(Option::is_some).await.unwrap();
            verdict.unwrap().map(|()| earlier)
        }))
    }

    fn now(&self) -> u64 {
        clock::now_ms()
    }

    fn reserve(&self) -> Seq {
        self.next_place.fetch_add(1, Ordering::SeqCst)
    }

    fn hold(&self, lanes: &[(SinkId, Lane)], place: Seq, _: u64) {
        self.holds.lock().unwrap().extend(lanes.iter().map(|&(sink, lane)| (sink, lane, place)));
    }

    fn release(&self, place: Seq) {
        self.holds.lock().unwrap().retain(|held| held.2 != place);
    }

    fn note(&self, key: Key) -> Option<Vec<u8>> {
        self.notes.lock().unwrap().get(&key).cloned()
    }

    fn write_note(&self, note: Note) -> Result<Commit, AppendError> {
        self.notes.lock().unwrap().insert(note.key, note.value);
        Ok(Box::pin(std::future::ready(Ok(Vec::new()))))
    }

    fn is_full(&self) -> bool {
        assert!(!self.panics.load(Ordering::SeqCst), "told to panic");
        self.full.load(Ordering::SeqCst)
    }

    fn commit_wait(&self) -> Duration {
        *self.wait.lock().unwrap()
    }
}

/// A proxy that is serving.
pub struct Running {
    pub at: SocketAddr,
    pub proxy: Arc<Proxy>,
    pub live: watch::Sender<Serving>,
    pub metrics: Metrics,
    pub stop: Option<oneshot::Sender<()>>,
    pub serving: JoinHandle<()>,
}

impl Running {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// One exchange on a connection of its own, which the proxy closes.
    pub async fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut client = self.connect().await;
        client.write_all(request).await.unwrap();
        let mut response = Vec::new();
        client.read_to_end(&mut response).await.unwrap();
        response
    }

    pub async fn get(&self, path: &str) -> String {
        text(&self.exchange(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await)
    }

    pub fn outcome(&self, outcome: &str) -> u64 {
        self.metrics.capture.with_label_values(&["agent", "run", outcome]).get()
    }

    pub fn outcomes(&self) -> u64 {
        ["queued", "duplicate", "sampled_out", "truncated", "cancelled", "queue_full", "no_match", "failed"]
            .iter()
            .map(|o| self.outcome(o))
            .sum()
    }

    pub async fn idle(&self) {
        eventually(|| self.proxy.in_flight() == 0 && self.proxy.waiting() == 0).await;
    }
}

pub fn proxy_to(upstream: SocketAddr) -> config::Proxy {
    config::Proxy {
        name: "agent".to_owned(),
        listen: Listen::Tcp("127.0.0.1:0".to_owned()),
        upstream: Upstream::Http {
            scheme: config::Scheme::Http,
            host: upstream.ip().to_string(),
            port: upstream.port(),
            authority: HeaderValue::from_static("upstream.example"),
        },
        preserve_host: true,
        forwarded: false,
        connect_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(120),
        idle_timeout: Duration::from_secs(300),
        max_in_flight: 100,
        max_waiting: 100,
        wait_timeout: Duration::from_secs(60),
        max_connections: 100,
        header_read_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(30),
        max_headers: 100,
        max_header_size: 64 << 10,
        expose_episode_id: false,
        tls: None,
        upstream_tls: config::UpstreamTls::default(),
        breaker: config::Breaker::in_a_row(0, Duration::from_secs(30)),
        fallback: config::Fallback {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            body: bytes::Bytes::from_static(b"{}"),
            content_type: HeaderValue::from_static("application/json"),
        },
        socket: config::SocketFile::default(),
        routes: vec![run_route()],
    }
}

pub fn json(path: &str) -> JsonPath {
    JsonPath::parse(path).unwrap()
}

pub fn run_route() -> config::Route {
    let mut success = StatusSet::default();
    success.add_class(2);
    config::Route {
        name: "run".to_owned(),
        methods: Vec::new(),
        path: PathPattern::parse("/run/{agent}").unwrap(),
        action: Action::Capture,
        priority: 0,
        sinks: vec!["graphiti".to_owned()],
        success,
        success_if: Vec::new(),
        max_capture: 1 << 20,
        record_cancelled: true,
        sample: 1.0,
        dedupe: None,
        redact: Vec::new(),
        join: Vec::new(),
        stream: None,
        extract: Extract {
            session: vec![Source::ReqJson(json("$.session"))],
            agent: vec![Source::ReqPath("agent".to_owned())],
            input: vec![Source::ReqJson(json("$.message")), Source::ReqHeader(http::HeaderName::from_static("x-input"))],
            output: vec![Source::RespJson(json("$.message"))],
            ..Extract::default()
        },
        offload: None,
        replays: Vec::new(),
        keep_headers: Vec::new(),
    }
}

pub async fn start(config: config::Proxy, record: Arc<dyn Record>) -> Running {
    start_with(config, record, OnFull::Pass).await
}

pub async fn start_with(config: config::Proxy, record: Arc<dyn Record>, on_full: OnFull) -> Running {
    let sinks = [
        ("graphiti".to_owned(), SinkId(1), OrderBy::Group),
        ("other".to_owned(), SinkId(2), OrderBy::Session),
        ("users".to_owned(), SinkId(3), OrderBy::User),
    ];
    start_between(config, record, on_full, &sinks).await
}

pub async fn start_between(
    config: config::Proxy,
    record: Arc<dyn Record>,
    on_full: OnFull,
    sinks: &[(String, SinkId, OrderBy)],
) -> Running {
    let metrics = Metrics::new();
    let listener = Listener::bind(&config.listen, &config.socket).await.unwrap();
    let at = listener.local_addr().unwrap();
    let proxy = Proxy::recording(config, on_full, sinks, record, &metrics, None);
    let (stop, stopped) = oneshot::channel();
    let (live, serving) = watch::channel(Serving { proxy: Arc::clone(&proxy), tls: None });
    let serving = tokio::spawn(server::serve(listener, serving, async {
        let _ = stopped.await;
    }));
    Running { at, proxy, live, metrics, stop: Some(stop), serving }
}

/// An upstream whose connections the test accepts itself.
pub struct Agent {
    listener: TcpListener,
}

impl Agent {
    pub async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn at(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Answers every request, of any number of connections, with the same bytes. Requests have no body.
    pub fn always(self, response: &'static [u8]) {
        tokio::spawn(async move {
            loop {
                let mut stream = self.accept().await;
                tokio::spawn(async move {
                    while read_head(&mut stream).await.is_some() {
                        if stream.write_all(response).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

/// Everything up to the end of a head; none at the end of the connection.
pub async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    read_until(stream, b"\r\n\r\n").await
}

/// Everything up to and with `end`.
pub async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return None,
        }
    }
    Some(read)
}

/// What is left until the end of the connection, however it ends.
pub async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    read
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for a condition that nothing announces.
pub async fn eventually(holds: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the condition came about");
}

/// Writes until every buffer on the way is full: how much.
pub async fn fill(stream: &mut TcpStream) -> usize {
    let (mut written, block) = (0, vec![b'x'; 1 << 16]);
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(100), stream.write(&block)).await {
        written += sent.unwrap();
    }
    written
}

/// Whether nothing comes for a moment: the only way to see that something is held back.
pub async fn is_silent(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut byte)).await.is_err()
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
