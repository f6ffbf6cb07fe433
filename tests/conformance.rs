//! What every sink has to be, one suite for all types: each against the real service where the tests have one, else against a fake that
//! speaks as the service's own documentation says.
//!
//! A new sink gets a [`Backend`] here and is through: order, once in effect, doubts, refusals, texts, times, and the probe of `sink test`.

mod aspects;
mod fake;
mod real;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use offramp::config::{self, Input};
use offramp::episode::{Digests, End, Episode, Message, Original, Request};
use offramp::sink::{self, Cause, Delivery, Presence, Receipt, Sink};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::fake::{Dialect, Fake};
use self::real::{Graphiti, InFile, LightRag};
use crate::support::databases::{Database, PASSWORD};

const LIMIT: Duration = Duration::from_secs(180);

/// What a service may say no with.
const STATUSES: [u16; 9] = [302, 400, 401, 403, 404, 422, 429, 500, 503];

/// A backend of one test. It ends with it.
trait Backend {
    /// The keys of a sink that sends to this address, `host:port` and perhaps a path, and not to its own.
    fn table(&self, address: &str) -> String;

    /// Its own address; none for what no line leads to.
    fn address(&self) -> Option<String>;

    /// What it holds of a session, in its order, and perhaps what it holds of others.
    fn holds(&self, session: &str) -> Vec<Held>;

    /// It takes each episode once, however often that is sent. Any other has to be asked first.
    fn takes_once(&self) -> bool;

    /// Sinks that are set up wrongly, and what they say of it.
    fn refusals(&self, status: &str) -> Vec<(String, Cause)> {
        STATUSES.map(|code| (self.table(&format!("{status}/{code}")), Cause::Status(code))).to_vec()
    }

    /// What is only in a request that writes.
    fn writes(&self) -> &'static [u8] {
        b"POST "
    }

    /// How many texts it is given, and how long the longest of them is (bytes).
    fn texts(&self) -> (usize, usize) {
        (100, 1 << 20)
    }

    /// A text as it comes back.
    fn told(&self, text: &str) -> String {
        text.to_owned()
    }

    /// The latest time (ms) that it takes and shows.
    fn latest(&self) -> i64 {
        i64::MAX
    }
}

/// An episode as a backend has it.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    id: String,
    /// What was said, if it shows that.
    content: Option<String>,
    /// When, if it shows that.
    at: Option<String>,
    /// Who asked, and what else is known, if it shows that.
    more: Option<(String, String)>,
}

/// A sink of these keys, and the directory where its configuration lies.
fn configured(table: &str) -> (config::Sink, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
    std::fs::write(dir.path().join("wrong"), "wrong").unwrap();
    let proxy = "[[proxy]]\nname = \"p\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://127.0.0.1:2\"\n";
    let text = format!("{proxy}[[sink]]\nname = \"sink\"\n{table}");
    let mut config = config::read(&text, &dir.path().join("config.toml"), &Input::default()).unwrap();
    (config.sinks.remove(0), dir)
}

fn open(table: &str) -> (Arc<dyn Sink>, TempDir) {
    let (config, dir) = configured(table);
    (sink::open(&config).unwrap(), dir)
}

/// The n-th episode of a session, captured in the n-th millisecond of 2026.
fn delivery(session: &str, n: u64) -> Delivery {
    let said = vec![Message::new("user", format!("question {n}")), Message::new("assistant", format!("answer {n}"))];
    saying(session, n, said)
}

fn saying(session: &str, n: u64, messages: Vec<Message>) -> Delivery {
    let bytes = [session.as_bytes(), &[0; 10]].concat();
    let mut random = [0; 10];
    random.copy_from_slice(&bytes[..10]);
    let at = 1_767_225_600_000 + n;
    let episode = Episode {
        id: uuid::Builder::from_unix_timestamp_millis(at, &random).into_uuid(),
        session: session.to_owned(),
        group: None,
        user: Some("somebody".to_owned()),
        agent: Some(session.to_owned()), // where a service has places for agents alone
        proxy: "agent".to_owned(),
        route: "run".to_owned(),
        captured_at: at,
        completed_at: at,
        end: End::Complete,
        messages,
        metadata: "{}".to_owned(),
        request: Request { method: "POST".to_owned(), path: "/run".to_owned(), status: 200, traceparent: None },
        occurred_at: None,
        sha256: Digests::default(),
        original: None,
    };
    let mut delivery = Delivery { episode: Arc::new(episode), at: at.cast_signed() };
    let body = json!({ "session": session, "text": content(&delivery), "at": delivery.timestamp() }).to_string().into_bytes();
    let original = Original { target: "/run".to_owned(), headers: Vec::new(), body };
    Arc::make_mut(&mut delivery.episode).original = Some(original);
    delivery
}

/// What was said, as all sinks say it.
fn content(delivery: &Delivery) -> String {
    let said = delivery.episode.messages.iter().map(|m| format!("{}: {}", m.role, m.content));
    said.collect::<Vec<_>>().join("\n")
}

/// Sends it as the drain does: until it is there.
async fn deliver(sink: &Arc<dyn Sink>, delivery: &Delivery) {
    if sink.deliver(delivery).await.unwrap() == Receipt::Accepted {
        seen(sink, delivery).await;
    }
}

async fn seen(sink: &Arc<dyn Sink>, delivery: &Delivery) {
    let looking = async {
        loop {
            match sink.look_up(delivery).await.unwrap() {
                Presence::Present => return,
                Presence::Absent => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, looking).await.expect("it is seen");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// All of it.
fn conform(backend: &dyn Backend, runtime: &Runtime) {
    aspects::inv5_a_lane_is_there_in_its_order(backend, runtime);
    aspects::inv4_what_is_sent_twice_is_there_once_or_is_seen(backend, runtime);
    aspects::inv4_an_answer_that_never_comes_leaves_a_doubt_that_a_look_settles(backend, runtime);
    aspects::a_refusal_says_whose_fault_it_is(backend, runtime);
    aspects::inv4_texts_come_back_as_they_were(backend, runtime);
    aspects::times_come_back_as_they_were(backend, runtime);
    aspects::a_probe_is_there_and_says_what_it_is(backend, runtime);
}

#[test]
fn a_file_conforms() {
    conform(&InFile::new(), &runtime());
}

#[test]
fn a_real_graphiti_conforms() {
    let (graphiti, runtime) = (Graphiti::rest(), runtime());
    conform(&graphiti, &runtime);
    aspects::a_time_that_is_none_or_in_the_future_does_graphiti_no_harm(&graphiti, &runtime, 422);
}

#[test]
fn a_real_graphiti_behind_mcp_conforms() {
    let (graphiti, runtime) = (Graphiti::mcp(), runtime());
    conform(&graphiti, &runtime);
    aspects::a_time_that_is_none_or_in_the_future_does_graphiti_no_harm(&graphiti, &runtime, 500);
}

#[test]
fn a_real_lightrag_conforms() {
    conform(&LightRag::new(), &runtime());
}

#[test]
fn a_real_arcadedb_conforms() {
    let _running = Database::ArcadeDb.start();
    conform(&Database::ArcadeDb, &runtime());
}

#[test]
fn a_real_falkordb_conforms() {
    let _running = Database::FalkorDb.start();
    conform(&Database::FalkorDb, &runtime());
}

#[test]
fn what_speaks_like_the_services_of_the_presets_conforms() {
    let runtime = runtime();
    for dialect in [Dialect::Mem0, Dialect::Zep, Dialect::Cognee, Dialect::Letta] {
        conform(&Fake::start(dialect, &runtime), &runtime);
    }
}

#[test]
fn what_templates_of_ones_own_speak_to_conforms() {
    let runtime = runtime();
    conform(&Fake::start(Dialect::Own, &runtime), &runtime);
}

#[test]
fn what_gets_its_requests_again_conforms() {
    let runtime = runtime();
    conform(&Fake::start(Dialect::Replay, &runtime), &runtime);
}
