//! Credentials pass through offramp and leave no trace in it, and what a route redacts leaves none either: not in the queue, nor in what
//! sinks get, in the log at any level, in a metric or an answer, however an exchange ends and however offramp does.

mod agent;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use offramp::demo::graph::faults::{Call, Fault, Times};
use serde_json::{Value, json};

use crate::support::offramp::{Offramp, run};
use crate::support::wait_until;
use crate::support::world::{LIMIT, World, exchange, lasting_port};
use agent::{CANARY, CARD, Question};

fn assert_clean(what: &str, bytes: &[u8]) {
    for secret in [CANARY, CARD] {
        let secret = secret.as_bytes();
        if let Some(at) = bytes.windows(secret.len()).position(|w| w == secret) {
            let around = &bytes[at.saturating_sub(120)..(at + 40).min(bytes.len())];
            panic!("a secret is in {what}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Everything that offramp has written: the queue, the file of a sink, its logs. The configuration was not written by it.
fn assert_directory_is_clean(world: &World) {
    let files = files(world.dir());
    for name in ["record.jsonl", "offramp.log", "queue"] {
        assert!(files.iter().any(|file| file.starts_with(world.dir().join(name))), "{name} is among {files:?}");
    }
    for file in files.iter().filter(|file| !file.ends_with("config.toml")) {
        assert_clean(&file.display().to_string(), &fs::read(file).unwrap());
    }
}

/// Everything that offramp tells.
fn assert_answers_are_clean(offramp: &Offramp) {
    for path in ["/metrics", "/api/v1/status", "/api/v1/episodes?limit=500", "/readyz", "/health/graphiti-queue"] {
        assert_clean(path, &offramp.ask("GET", path, None).body);
    }
    for episode in offramp.episodes() {
        let id = episode["id"].as_str().unwrap();
        assert_clean("an episode", &offramp.ask("GET", &format!("/api/v1/episodes/{id}"), None).body);
        let shown = offramp.cli(&["show", id]);
        assert_clean("what `show` prints", &[shown.stdout, shown.stderr].concat());
    }
    for command in ["status", "episodes"] {
        let said = offramp.cli(&[command]);
        assert_clean(command, &[said.stdout, said.stderr].concat());
    }
    let dead = offramp.cli(&["dead", "list"]);
    assert_clean("dead list", &[dead.stdout, dead.stderr].concat());
    let log = offramp.log();
    assert!(log.contains("TRACE"), "the log has everything that it can have");
    assert_clean("the log at trace", log.as_bytes());
}

/// Two proxies, for an agent of HTTP/1.1 and one of HTTP/2; a graph service, a file, and twice a service that repeats what it is sent.
fn config(world: &World, ports: [u16; 2], echo: SocketAddr) -> String {
    let upstreams = agent::serve(world);
    let proxy = |name: &str, port: u16, upstream: String| {
        format!(
            r#"
[[proxy]]
name = "{name}"
listen = "127.0.0.1:{port}"
upstream = "{upstream}"
  [[proxy.route]]
  name = "ask"
  path = "/ask/{{agent}}/{{how}}"
  keep_headers = ["content-type", "content-encoding", "x-note"]
  redact = ["$.api_key", "$..password", 're:\b\d{{16}}\b']
    [proxy.route.extract]
    session = ["req.json:$.session"]
    user = ["req.json:$.user.password"]
    agent = ["req.path:agent"]
    input = ["req.json:$.message"]
    output = ["resp.stream", "resp.json:$.reply"]
      [proxy.route.extract.metadata]
      asked = "req.json:$.meta"
      answered = "resp.json:$.meta"
      deep = "resp.json:$.deep"
      key = "req.json:$.api_key"
      event_key = "resp.stream:$.api_key"
      event_card = "resp.stream:key:$.card"
      header = "req.header:x-note"
      query = "req.query:note"
      cookie = "req.cookie:card"
      how = "req.path:how"
    [proxy.route.stream]
    format = "sse"
    append = ["$.delta"]
    end = ["[DONE]"]
"#
        )
    };
    let sink = |name: &str, kind: &str, url: String| {
        format!(
            r#"
[[sink]]
name = "{name}"
type = "{kind}"
url = "{url}"
headers = {{ authorization = "Bearer kanari7z-sink" }}
retry = {{ max_attempts = 2, initial = "10ms", max = "20ms", jitter = "none", max_age = "1h" }}
retry_on = ["connect", "timeout", 400, "5xx"]
breaker = {{ consecutive_failures = 0, open_for = "1s" }}
"#
        )
    };
    [
        proxy("one", ports[0], format!("http://{}", upstreams[0])),
        proxy("two", ports[1], format!("h2c://{}", upstreams[1])),
        sink("graphiti", "graphiti", world.graph.url()) + "confirm = { mode = 'read_back', timeout = '20s', poll = '50ms' }\n",
        // What was in doubt when it was killed can't be looked up there, and is sent again.
        sink("echo", "graphiti", format!("http://{echo}")) + "confirm = { mode = 'accepted' }\n",
        sink("again", "replay", format!("http://{echo}")),
        "[[sink]]\nname = \"file\"\ntype = \"file\"\npath = \"record.jsonl\"\n".to_owned(),
        "[queue]\npath = \"queue\"\nmin_free_disk = \"1MiB\"\n".to_owned(),
        "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\nformat = \"json\"\n".to_owned(),
    ]
    .concat()
}

/// How many sinks get each episode.
const SINKS: usize = 4;

/// How many episodes there are: what can't be read of two of the questions can be read of their answers.
fn expected() -> usize {
    2 * agent::questions().len() + 1
}

fn ask_everything(world: &World, offramp: &Offramp) {
    for question in agent::questions() {
        agent::ask(offramp.proxy("one"), &question);
        agent::ask_over_two(world, offramp.proxy("two"), &question);
    }
    agent::ask_and_leave(offramp.proxy("one"));
    for proxy in ["one", "two"] {
        agent::babble(offramp.proxy(proxy));
    }
}

#[test]
fn inv10_a_secret_leaves_no_trace_however_it_comes_and_whatever_happens() {
    let world = World::new();
    let (echo, sent) = agent::serve_echo(&world);
    let config = config(&world, [lasting_port(), lasting_port()], echo);
    let mut offramp = Offramp::start(world.dir(), &config);

    // Delivered, retried and dead: each leaves other traces.
    world.graph.faults().answer(Call::Messages, Fault::Status(500), Times::Next(3));
    ask_everything(&world, &offramp);
    let done = expected();
    offramp.wait_for_status("all of it is done", LIMIT, |status| {
        let ledger = &status["ledger"];
        // At two sinks all are dead letters; of the third's failures it depends whom they meet.
        ledger["captured"] == SINKS * done && ledger["pending"] == 0 && ledger["dead"].as_u64() >= Some(2 * done as u64)
    });
    assert_answers_are_clean(&offramp);
    assert_episodes_say_what_they_may(&offramp.episodes());

    // A crash in the middle of it.
    world.stop_graph();
    let question = || Question { path: "json", ..agent::questions().remove(0) };
    agent::ask(offramp.proxy("one"), &question());
    offramp.wait_for_status("it is captured", LIMIT, |status| status["ledger"]["captured"] == SINKS * (done + 1));
    offramp.kill();
    assert_directory_is_clean(&world);

    world.resume_graph();
    let mut offramp = Offramp::start(world.dir(), &config);
    agent::ask(offramp.proxy("two"), &question());
    offramp.wait_for_status("all of it is done", LIMIT, |status| {
        status["ledger"]["captured"] == SINKS * (done + 2) && status["ledger"]["pending"] == 0
    });
    assert_answers_are_clean(&offramp);
    assert!(offramp.stop().success());
    assert_directory_is_clean(&world);
    let sent = sent.lock().unwrap();
    let again = "/ask/[redacted]/json?note=[redacted]&page=7";
    assert!(sent.contains(again) && sent.contains(r#""api_key":"[redacted]""#), "{sent}");
    assert_clean("what is sent again", sent.as_bytes());
    let stored = world.graph.stored();
    assert!(!stored.is_empty());
    for episode in stored {
        assert_clean("the graph", format!("{episode:?}").as_bytes());
    }
}

/// How many files of a killed offramp's queue the canary is in: asked, answered, the session's name, and what a sink said when it refused.
fn files_with_canary(key: Option<&str>) -> usize {
    let world = World::new();
    let refusing =
        world.serve(axum::Router::new().fallback(|| async { (StatusCode::UNAUTHORIZED, format!("{CANARY}-refusal")) }));
    let mut settings = world.settings().set("sink.url", &format!("'http://{refusing}'"));
    if let Some(key) = key {
        fs::write(world.dir().join("queue.key"), format!("# made for this test\n{key}\n")).unwrap();
        settings = settings.set("queue.encryption_key_file", "'queue.key'");
    }
    let refused = |offramp: &mut Offramp| {
        offramp.wait_for_status("it is refused", LIMIT, |status| {
            let sink = &status["sinks"][0];
            sink["state"] == "paused" && sink["reason"].as_str().unwrap().contains(CANARY)
        })
    };
    let mut offramp = world.start(&settings);
    assert_eq!(exchange(&offramp, &format!("{CANARY}-session"), &format!("{CANARY}-question")).status, 200);
    refused(&mut offramp);
    // The pause is written down before the attempt is.
    let error = |offramp: &Offramp| offramp.episodes()[0]["sinks"]["graphiti"]["last_error"].is_string();
    assert!(wait_until(LIMIT, || error(&offramp)));
    offramp.kill();
    let holds = |file: &PathBuf| fs::read(file).unwrap().windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
    let found = files(&world.dir().join("queue")).iter().filter(|file| holds(file)).count();

    // With its key all of it is there.
    let mut offramp = world.start(&settings);
    refused(&mut offramp);
    let episode = offramp.episodes().remove(0);
    assert!(episode["messages"][0]["content"].as_str().unwrap().contains(CANARY), "{episode}");
    assert!(episode["sinks"]["graphiti"]["last_error"].as_str().unwrap().contains(CANARY), "{episode}");
    let log = offramp.log();
    assert!(offramp.stop().success());
    if let Some(key) = key {
        assert!(!log.contains(key), "the key is in the log");
        // Without it the queue stays shut, and says which one it needs.
        let output = run(world.dir(), &["--set", "queue.encryption_key_file=", "episodes"]);
        let says = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && says.contains("sealed with the key"), "{says}");
    }
    found
}

#[test]
fn inv10_a_sealed_queue_has_nothing_in_any_file_that_a_plain_one_shows() {
    assert!(files_with_canary(None) > 0, "it can be found where it is");
    assert_eq!(files_with_canary(Some("kgcHB9kqsU2iBxlrfwgxbbAzEUCFFp2vCTi2u0Pu3E0=")), 0);
}

/// Nothing is clean only because nothing is there.
fn assert_episodes_say_what_they_may(episodes: &[Value]) {
    let of = |how: &str| -> Vec<&Value> { episodes.iter().filter(|episode| episode["metadata"]["how"] == how).collect() };
    let said = |episode: &Value| -> Vec<String> {
        episode["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    };
    let mut sessions = std::collections::BTreeSet::new();
    for (how, both) in [
        ("json", true),
        ("zipped", true),
        ("events", true),
        ("zipped-events", true),
        ("form", true),
        ("multipart", true),
        ("wide", true),
        ("hanging", true),
        ("broken", false),
    ] {
        let found = of(how);
        assert_eq!(found.len(), if how == "hanging" { 1 } else { 2 }, "{how}");
        for episode in &found {
            let mut expected = vec!["pay with [redacted], please"];
            expected.extend(both.then_some("charged [redacted]"));
            assert_eq!(said(episode), expected, "{how}");
            let session = episode["session"].as_str().unwrap();
            assert!(session.starts_with("redacted-"), "{how}: {session}");
            sessions.insert(session.to_owned());
            let metadata = &episode["metadata"];
            assert_eq!((&metadata["header"], &metadata["query"]), (&json!("[redacted]"), &json!("[redacted]")), "{how}");
            assert_eq!(episode["request"]["path"], format!("/ask/[redacted]/{how}"));
            assert!(episode["agent"].as_str().unwrap().starts_with("redacted-"), "{how}");
            assert_eq!(episode["request"]["traceparent"], Value::Null);
        }
        let session = &found[0]["session"];
        assert!(found.iter().all(|episode| episode["session"] == *session), "{how}: one stays one");
    }
    assert_eq!(sessions.len(), 8, "two stay two; what hangs says what the first one does");
    let json = of("json")[0];
    assert!(json["user"].as_str().unwrap().starts_with("redacted-"), "{json}");
    assert_eq!(
        json["metadata"]["asked"],
        json!({ "number": "[redacted]", "list": ["[redacted]", { "password": "[redacted]" }] })
    );
    assert_eq!(json["metadata"]["answered"], json!({ "number": "[redacted]", "[redacted]": ["[redacted]"] }));
    assert_eq!(json["metadata"]["deep"], json!([{ "password": "[redacted]" }]));
    let events = of("events")[0];
    assert_eq!(
        (&events["metadata"]["event_key"], &events["metadata"]["event_card"]),
        (&json!("[redacted]"), &json!("[redacted]"))
    );
    // What can't be read is recorded by its answer alone.
    for how in ["damaged", "torn"] {
        assert_eq!(of(how).iter().map(|episode| said(episode)).collect::<Vec<_>>(), vec![vec!["charged [redacted]"]; 2], "{how}");
    }
}
