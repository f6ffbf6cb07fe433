//! What surrounds an offramp under test: a sample agent before it, a sample graph service behind it, and a configuration between them. Both
//! services run in the test's own process, so that it can switch their faults and look into the graph.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use offramp::config;
use offramp::demo::agent::{self, Agent};
use offramp::demo::graph::{self, Graph, Stored};
use offramp::demo::load::{Conversation, Load, Mark, Outcome, Progress};
use offramp::demo::proof::{self, Found};
use offramp::queue::{Ledger, Queue};
use offramp::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinHandle;

use super::http::{self, Response};
use super::offramp::Offramp;
use super::wait_until;

/// Generous: it only matters when something is broken.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The agent, the graph service and the directory of one test. They end with it.
pub struct World {
    /// The upstream.
    pub agent: Agent,
    /// The sink's other end.
    pub graph: Graph,
    runtime: Runtime,
    dir: TempDir,
}

impl World {
    /// An agent that answers at once, and the strict graph service.
    pub fn new() -> Self {
        Self::with(Duration::ZERO, graph::Options::default())
    }

    /// With an agent that takes so long to answer, and this graph service.
    pub fn with(agent_delay: Duration, graph: graph::Options) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let agent = runtime.block_on(Agent::start(agent::Options { delay: agent_delay, inline: None })).unwrap();
        let graph = runtime.block_on(Graph::start(graph)).unwrap();
        Self { agent, graph, runtime, dir: tempfile::tempdir().unwrap() }
    }

    /// The directory: configuration, queue, log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the tasks of both services run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The graph service's process ends.
    pub fn stop_graph(&self) {
        self.runtime.block_on(self.graph.stop());
    }

    /// The graph service's process starts again, on its port.
    pub fn resume_graph(&self) {
        // Somebody's outgoing connection may have been given the port meanwhile; it will not keep it long.
        let mut failed = None;
        let resumed = wait_until(LIMIT, || {
            failed = self.runtime.block_on(self.graph.resume()).err();
            failed.is_none()
        });
        assert!(resumed, "the graph service can't have its port again: {failed:?}");
    }

    /// Its end and a new start: the only cure for a dead worker.
    pub fn restart_graph(&self) {
        self.stop_graph();
        self.resume_graph();
    }

    /// Serves a router on a free port until the test ends.
    pub fn serve(&self, router: Router) -> SocketAddr {
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        self.runtime.spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// The usual configuration: one proxy before the agent, one sink to the graph service, and times short enough for tests.
    pub fn settings(&self) -> Settings {
        Settings::default()
            .set("proxy.name", "'agent'")
            .set("proxy.listen", "'127.0.0.1:0'")
            .set("proxy.upstream", &format!("'http://{}'", self.agent.address()))
            .set("route.name", "'run'")
            .set("route.method", "'POST'")
            .set("route.path", "'/api/v1/agent/{agent}/run'")
            .set("route.action", "'capture'")
            .set("route.preset", "'automagik'")
            .set("queue.path", "'queue'")
            .set("queue.min_free_disk", "'1MiB'")
            // What was answered is captured, and a test may count on it, however slow the disk is.
            .set("queue.commit_wait", "'30s'")
            .set("sink.name", "'graphiti'")
            .set("sink.type", "'graphiti'")
            .set("sink.url", &format!("'{}'", self.graph.url()))
            .set("sink.workers", "5")
            .set("sink.timeout", "'2s'")
            .set("sink.retry", "{ max_attempts = 20, initial = '50ms', max = '500ms', jitter = 'full', max_age = '1h' }")
            .set("sink.breaker", "{ consecutive_failures = 5, open_for = '1s' }")
            .set("sink.confirm", "{ mode = 'read_back', timeout = '3s', poll = '50ms' }")
            .set("admin.listen", "'127.0.0.1:0'")
            .set("log.level", "'info'")
            .set("log.format", "'json'")
    }

    /// Starts an offramp in the test's directory; after the end of one with the same `queue.path` this is a restart.
    pub fn start(&self, settings: &Settings) -> Offramp {
        Offramp::start(self.dir(), &settings.text())
    }

    /// The same in surroundings that `change` makes.
    pub fn start_as(&self, settings: &Settings, change: impl FnOnce(Command) -> Command) -> Offramp {
        Offramp::start_as(self.dir(), &settings.text(), change)
    }

    /// So many requests, each session's one after the other, all sessions at the same time; waits for their end.
    pub fn load(&self, offramp: &Offramp, prefix: &'static str, requests: u64, sessions: usize) -> Outcome {
        self.runtime.block_on(load(offramp, prefix, requests, sessions).run(&Arc::default()))
    }

    /// The same, and doesn't wait.
    pub fn start_load(
        &self,
        offramp: &Offramp,
        prefix: &'static str,
        requests: u64,
        sessions: usize,
    ) -> (JoinHandle<Outcome>, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        let load = load(offramp, prefix, requests, sessions);
        let shared = Arc::clone(&progress);
        (self.runtime.spawn(async move { load.run(&shared).await }), progress)
    }

    /// A load without one failed request; all that it sent is delivered within the limit: once, in order, and the ledger balances.
    pub fn assert_delivered(&self, offramp: &mut Offramp, conversations: &[Conversation]) -> Value {
        let requests: usize = conversations.iter().map(|c| c.answered.len()).sum();
        assert!(conversations.iter().all(|c| c.failed.is_empty()), "failed requests: {conversations:?}");
        let status = offramp.wait_for_delivery(requests, LIMIT);
        self.assert_graph_holds(conversations, &status);
        status
    }

    /// The graph holds what the clients were told that it would: everything once, and in order. What failed for its client may be there.
    pub fn assert_graph_holds(&self, conversations: &[Conversation], status: &Value) {
        let ledger: Ledger = serde_json::from_value(status["ledger"].clone()).unwrap();
        let answered: usize = conversations.iter().map(|c| c.answered.len()).sum();
        let failed: usize = conversations.iter().map(|c| c.failed.len()).sum();
        let range = answered as u64..=(answered + failed) as u64;
        assert!(range.contains(&ledger.captured), "{answered} answered, {failed} failed: {ledger:?}");

        let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for Stored { group, name, content, valid_at, .. } in self.graph.stored() {
            found.entry(group).or_default().push(Found { name, content, valid_at });
        }
        let mut claims = proof::prove(conversations, &found, ledger);
        if failed > 0 {
            // Its number is the one of the range above.
            claims.retain(|claim| !claim.claim.ends_with("was captured"));
        }
        assert!(claims.iter().all(|claim| claim.holds), "{claims:#?}");
        let names: HashSet<_> = self.graph.stored().into_iter().map(|stored| stored.name).collect();
        assert_eq!(names.len() as u64, ledger.delivered, "the graph has what was delivered, and nothing twice");
    }

    /// Of these loads no request failed, and all that was answered is in the graph.
    pub fn assert_stored(&self, outcomes: &[&Outcome]) {
        let marks = self.graph.stored().into_iter().filter_map(|stored| Mark::find(&stored.content));
        let there: HashSet<_> = marks.map(|mark| (mark.session, mark.number)).collect();
        for outcome in outcomes {
            assert_eq!(outcome.failed(), 0, "{:?}", outcome.errors);
            let answered = outcome.conversations.iter().flat_map(|c| c.answered.iter().map(|number| (c.name.clone(), *number)));
            let lost: Vec<_> = answered.filter(|mark| !there.contains(mark)).collect();
            assert!(lost.is_empty(), "answered, and not in the graph: {lost:?}");
        }
    }

    /// No message was sent twice: what was in doubt was looked up.
    pub fn assert_sent_once(&self) {
        let mut names = HashSet::new();
        let twice: Vec<_> =
            self.graph.posted().into_iter().map(|posted| posted.message.name).filter(|n| !names.insert(n.clone())).collect();
        assert!(twice.is_empty(), "sent more than once: {twice:?}");
    }
}

/// What the check of a queue that nobody uses finds.
pub fn faults(path: &Path) -> Vec<String> {
    let config = config::Queue {
        path: path.to_owned(),
        durability: config::Durability::Sync,
        commit_wait: Duration::from_secs(1),
        max_episodes: 1_000_000,
        max_bytes: 1 << 30,
        min_free_disk: 0,
        on_full: config::OnFull::Pass,
        keep_delivered: Duration::from_secs(3600),
        keep_dead: Duration::from_secs(3600),
        encryption_keys: Vec::new(),
    };
    Queue::open(&config, &[], &Metrics::new()).unwrap().check()
}

/// One exchange with the agent through offramp, on a connection of its own.
pub fn exchange(offramp: &Offramp, session: &str, text: &str) -> Response {
    ask(offramp.proxy("agent"), session, text).unwrap()
}

/// One exchange in the agent's shape, on a connection of its own.
pub fn ask(proxy: SocketAddr, session: &str, text: &str) -> std::io::Result<Response> {
    let question = json!({ "message_content": text, "session_name": session, "user_id": session });
    http::request(proxy, "POST", "/api/v1/agent/sample/run", Some(&question))
}

fn load(offramp: &Offramp, prefix: &'static str, requests: u64, sessions: usize) -> Load {
    Load {
        target: offramp.proxy("agent"),
        requests,
        concurrency: sessions,
        sessions,
        prefix,
        ramp: Duration::ZERO,
        begin_within: None,
        timeout: LIMIT,
    }
}

/// A port that nobody has and that the system gives to nobody who asks for any: a listener can have it again after a restart. The
/// system's own choice lies above these.
pub fn lasting_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(12_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

/// A configuration, to be changed key by key.
#[derive(Clone, Default)]
pub struct Settings {
    keys: BTreeMap<String, String>,
}

impl Settings {
    /// Sets a key to a value as TOML writes it. Keys are named `proxy.KEY`, `route.KEY`, `extract.KEY`, `queue.KEY`, `sink.KEY`, `admin.KEY`
    /// or `log.KEY`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let headings = [
            ("proxy", "[[proxy]]"),
            ("route", "[[proxy.route]]"),
            ("extract", "[proxy.route.extract]"),
            ("queue", "[queue]"),
            ("sink", "[[sink]]"),
            ("admin", "[admin]"),
            ("log", "[log]"),
        ];
        let mut text = String::new();
        for (table, heading) in headings {
            let _ = writeln!(text, "{heading}");
            for (key, value) in &self.keys {
                if let Some(key) = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) {
                    let _ = writeln!(text, "{key} = {value}");
                }
            }
        }
        text
    }
}
