//! Credentials pass through offramp and leave no trace in it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use offramp::demo::graph::faults::{Call, Fault, Times};

use crate::support::http;
use crate::support::offramp::Offramp;
use crate::support::world::{LIMIT, World};

/// Credentials of a client, each in a place where services look for one.
const CLIENT: [(&str, &str); 5] = [
    ("authorization", "Bearer canary-authorization-7f3a"),
    ("proxy-authorization", "Basic canary-proxy-7f3a"),
    ("x-api-key", "canary-key-7f3a"),
    ("cookie", "session=canary-cookie-7f3a"),
    ("x-forwarded-access-token", "canary-forwarded-7f3a"),
];

/// What all of them, and those in query and configuration, have in common.
const CANARY: &[u8] = b"7f3a";

fn ask_with_credentials(offramp: &Offramp, session: &str) {
    let body = format!(r#"{{"message_content":"hello","session_name":"{session}"}}"#);
    let headers: Vec<String> = CLIENT.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "POST /api/v1/agent/sample/run?x-api-key=canary-query-7f3a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{}\r\n{body}",
        body.len(),
        headers.concat()
    );
    let mut stream = TcpStream::connect(offramp.proxy("agent")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(http::parse(&answer).unwrap().status, 200);
}

fn assert_clean(what: &str, bytes: &[u8]) {
    if let Some(at) = bytes.windows(CANARY.len()).position(|w| w == CANARY) {
        let around = &bytes[at.saturating_sub(120)..(at + 40).min(bytes.len())];
        panic!("a credential is in {what}: …{}…", String::from_utf8_lossy(around));
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn inv10_no_credential_is_in_records_logs_metrics_or_answers() {
    let world = World::new();
    let settings = world
        .settings()
        .set("sink.headers", "{ authorization = 'Bearer canary-sink-7f3a' }")
        .set("log.level", "'trace'")
        .set("sink.retry", "{ max_attempts = 2, initial = '10ms', max = '20ms', jitter = 'none', max_age = '1h' }");
    let mut offramp = world.start(&settings);

    // Delivered, retried and dead: each leaves other traces.
    world.graph.faults().answer(Call::Messages, Fault::Status(500), Times::Next(2));
    ask_with_credentials(&offramp, "first");
    offramp.wait_for_status("a dead letter", LIMIT, |status| status["ledger"]["dead"] == 1);
    ask_with_credentials(&offramp, "second");
    let status = offramp.wait_for_status("a delivery", LIMIT, |status| status["ledger"]["delivered"] == 1);

    assert_clean("the status", status.to_string().as_bytes());
    let episodes = offramp.episodes();
    assert_eq!(episodes.len(), 2);
    assert_clean("the episodes", serde_json::to_string(&episodes).unwrap().as_bytes());
    assert_clean("the metrics", &offramp.ask("GET", "/metrics", None).body);
    assert_clean("what `show` prints", &offramp.cli(&["show", episodes[0]["id"].as_str().unwrap()]).stdout);
    let log = offramp.log();
    assert!(log.contains("TRACE"), "the log has everything that it can have");
    assert_clean("the log at trace", log.as_bytes());
    assert!(offramp.stop().success());
    for file in files(&world.dir().join("queue")) {
        assert_clean(&file.display().to_string(), &fs::read(&file).unwrap());
    }
}
