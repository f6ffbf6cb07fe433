//! Offload in front of the real Graphiti service: its callers talk to offramp, which has everything on disk before it answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::http::{self, Response};
use crate::support::offramp::Offramp;
use crate::support::python::RealGraphiti;
use crate::support::world;

const LIMIT: Duration = Duration::from_secs(180);

struct World(RealGraphiti);

impl World {
    /// Stands where the service stood: what isn't offloaded goes to it.
    fn offramp(&self) -> Offramp {
        let config = format!(
            r#"
            [[proxy]]
            name = "graph"
            listen = "127.0.0.1:0"
            upstream = "{graphiti}"
            expose_episode_id = true

            [[proxy.route]]
            name = "messages"
            method = "POST"
            path = "/messages"
            preset = "graphiti-messages"

            [queue]
            path = "queue"

            [[sink]]
            name = "graphiti"
            type = "graphiti"
            url = "{graphiti}"
            retry = {{ max_attempts = 20, initial = "100ms", max = "1s", jitter = "full", max_age = "1h" }}
            confirm = {{ mode = "read_back", timeout = "60s", poll = "100ms" }}

            [admin]
            listen = "127.0.0.1:0"

            [log]
            level = "info"
            format = "json"
            "#,
            graphiti = self.0.service.url(),
        );
        Offramp::start(self.0.dir(), &config)
    }

    /// The graph holds each message once, under its episode's id, in the order and at the time of its caller.
    fn assert_graph_holds(&self, sent: &[Sent], offramp: &Offramp) {
        let nodes = self.0.nodes();
        let episodes = offramp.episodes();
        assert_eq!((nodes.len(), episodes.len()), (sent.len(), sent.len()));
        let mut stored = std::collections::HashMap::new();
        for sent in sent {
            let episode = episodes.iter().find(|e| e["messages"][0]["content"] == sent.content).unwrap();
            let node = nodes.iter().find(|node| node["name"] == episode["id"]).unwrap_or_else(|| panic!("lost: {episode:#}"));
            assert_eq!(episode["session"], sent.group);
            assert_eq!(episode["metadata"]["uuid"], sent.uuid);
            assert_eq!(node["content"], format!("Ann(user): {}", sent.content));
            assert_eq!(node["source_description"], "chat");
            assert_eq!(time(&node["valid_at"]), time(&json!(sent.timestamp)), "{node:#}");
            let created = time(&node["created_at"]);
            let before = stored.insert(sent.group.clone(), created);
            assert!(before.is_none_or(|before| before < created), "stored before its predecessor: {node:#}");
        }
    }
}

/// A message as its caller knows it.
struct Sent {
    group: String,
    content: String,
    uuid: String,
    timestamp: String,
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Posts so many messages to a group, in requests of one, two and three; each must be answered as the service itself would.
fn post(offramp: &Offramp, group: &str, count: usize) -> Vec<Sent> {
    let first = Timestamp::from_second(1_767_225_600).unwrap();
    let sent: Vec<_> = (0..count)
        .map(|n| Sent {
            group: group.to_owned(),
            content: format!("{group} says {n}"),
            // One that is not in the graph ends the service's worker.
            uuid: format!("{group}-{n}"),
            timestamp: (first + Duration::from_secs(n as u64)).to_string(),
        })
        .collect();
    let mut rest = sent.as_slice();
    for size in [1, 2, 3].into_iter().cycle() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        let messages: Vec<_> = now
            .iter()
            .map(|sent| {
                json!({"content": sent.content, "role_type": "user", "role": "Ann", "uuid": sent.uuid,
                    "timestamp": sent.timestamp, "source_description": "chat"})
            })
            .collect();
        let body = json!({"group_id": group, "messages": messages});
        let response = http::request(offramp.proxy("graph"), "POST", "/messages", Some(&body)).unwrap();
        assert_eq!(response.status, 202, "{}", response.text());
        assert_eq!(response.json(), json!({"message": "Messages added to processing queue", "success": true}));
        assert!(response.header("x-offramp-episode").is_some());
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    sent
}

#[test]
fn inv5_inv7_messages_reach_a_real_graphiti_once_and_in_order() {
    let world = World(RealGraphiti::new());
    let mut offramp = world.offramp();

    let groups = ["chat-0", "user:1", "chat-2"];
    let sent: Vec<_> = groups.iter().flat_map(|group| post(&offramp, group, 7)).collect();
    offramp.wait_for_delivery(sent.len(), LIMIT);

    world.assert_graph_holds(&sent, &offramp);
    assert_eq!(http::request(offramp.proxy("graph"), "GET", "/healthcheck", None).unwrap().json()["status"], "healthy");
    assert!(offramp.stop().success());
}

#[test]
fn inv2_inv8_after_kill_9_between_reply_and_delivery_a_real_graphiti_has_every_message() {
    let world = World(RealGraphiti::new());
    let offramp = world.offramp();
    assert_eq!(offramp.ask("POST", "/api/v1/sinks/graphiti/pause", None).status, 200);

    let sent = post(&offramp, "chat", 6);
    assert_eq!(offramp.status()["ledger"]["pending"], 6);
    offramp.kill();

    let mut offramp = world.offramp();
    assert_eq!(offramp.ask("POST", "/api/v1/sinks/graphiti/resume", None).status, 200);
    offramp.wait_for_delivery(sent.len(), LIMIT);
    world.assert_graph_holds(&sent, &offramp);
}

#[test]
fn what_a_real_graphiti_refuses_offramp_refuses_in_the_same_words() {
    let world = World(RealGraphiti::new());
    let offramp = world.offramp();
    let json = "application/json";
    for body in broken_bodies() {
        assert_same(&world, &offramp, json, body.as_bytes());
    }
    assert_same(&world, &offramp, json, b"\xff{}");
    assert_same(&world, &offramp, json, b"\xef\xbb\xbf{}");
    assert_same(&world, &offramp, "text/plain", b"{}");
    assert_same(&world, &offramp, "application/vnd.api+json; charset=utf-8", b"{}");
    // Nothing to keep, and no fault.
    assert_same(&world, &offramp, json, br#"{"group_id":"g","messages":[]}"#);
    assert_eq!(offramp.status()["ledger"]["captured"], 0);
}

/// Both answer with the same status and the same JSON.
fn assert_same(world: &World, offramp: &Offramp, content_type: &str, body: &[u8]) {
    let [theirs, ours] = [world.0.service.address, offramp.proxy("graph")].map(|address| send(address, content_type, body));
    let shown = String::from_utf8_lossy(body);
    assert_eq!((ours.status, ours.json()), (theirs.status, theirs.json()), "{shown}");
    assert_eq!(ours.header("content-type"), theirs.header("content-type"), "{shown}");
}

fn send(address: SocketAddr, content_type: &str, body: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let head = format!(
        "POST /messages HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    http::parse(&response).unwrap()
}

/// Text that is no JSON, JSON that is no such request, and messages with one fault each or several.
fn broken_bodies() -> Vec<String> {
    let mut bodies: Vec<String> = [
        "",
        " ",
        "null",
        "5",
        "true",
        "\"x\"",
        "[]",
        "{}",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{a:1}",
        "[1",
        "[1 2]",
        "nul",
        "-",
        "1.",
        "01",
        "\"abc",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"   ",
        "\"a\tb\"",
        "{} x",
        "{\"é\":",
        "{\"a\":1 \"b\":2}",
        "\u{1F600}",
        "{\"group_id\":\"g\",\"messages\":[}",
    ]
    .map(str::to_owned)
    .into();
    let whole = json!({"content": "c", "role_type": "user", "role": null});
    for messages in [json!(null), json!({}), json!("x"), json!([5, null, [], "x", {}, whole, {"content": 1}])] {
        bodies.push(json!({"group_id": "g", "messages": messages}).to_string());
        bodies.push(json!({"messages": messages, "group_id": 5}).to_string());
    }
    for group in [json!(null), json!(1.5), json!([]), json!({"a": "é"})] {
        bodies.push(json!({"group_id": group, "messages": []}).to_string());
    }
    let wrong = [
        ("content", json!(null)),
        ("content", json!(["x"])),
        ("uuid", json!(5)),
        ("name", json!(null)),
        ("role_type", json!("tool")),
        ("role_type", json!(null)),
        ("role", json!(false)),
        ("source_description", json!({})),
        ("timestamp", json!(null)),
        ("timestamp", json!(true)),
        ("timestamp", json!([])),
        ("timestamp", json!("")),
        ("timestamp", json!("soon")),
        ("timestamp", json!("12:00")),
        ("timestamp", json!("2026-13-01")),
        ("timestamp", json!("2026-02-30T00:00:00Z")),
        ("timestamp", json!("2026-01-01T25:00:00")),
        ("timestamp", json!("2026-01-01T00:00:00+25:00")),
        ("timestamp", json!(" 2026-01-01T00:00:00Z")),
        ("timestamp", json!(1e20)),
    ];
    for (key, value) in wrong {
        let mut message = whole.clone();
        message[key] = value;
        bodies.push(json!({"group_id": "g", "messages": [whole, message]}).to_string());
    }
    for missing in ["content", "role_type", "role"] {
        let mut message = whole.clone();
        message.as_object_mut().unwrap().remove(missing);
        bodies.push(json!({"group_id": "g", "messages": [message]}).to_string());
    }
    bodies
}

/// A request as a service without a preset gets it: method and target, headers, body.
type Got = (String, HeaderMap, Vec<u8>);

#[test]
fn inv5_inv8_inv10_a_service_without_a_preset_gets_each_request_again_after_kill_9_as_it_was_and_in_order() {
    let world = world::World::new();
    let got: Arc<Mutex<Vec<Got>>> = Arc::default();
    let board = Arc::clone(&got);
    let service = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let mut got = board.lock().unwrap();
        got.push((format!("{method} {uri}"), headers, body.to_vec()));
        // Every second time it is busy: what it has not taken comes again, and nothing overtakes it.
        if got.len() % 2 == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CREATED }
    });
    let service = world.serve(service);
    let config = format!(
        r#"
        [[proxy]]
        name = "memory"
        listen = "127.0.0.1:0"
        upstream = "http://{service}"

        [[proxy.route]]
        name = "add"
        path = "/v1/{{*rest}}"
        action = "offload"
        extract = {{ session = "req.header:x-chat" }}
        reply = {{ status = 201, body = "kept", content_type = "text/plain" }}

        [queue]
        path = "queue"

        [[sink]]
        name = "again"
        type = "replay"
        url = "http://{service}"
        headers = {{ authorization = "Bearer operators" }}
        retry = {{ max_attempts = 20, initial = "50ms", max = "50ms", jitter = "none", max_age = "1h" }}

        [admin]
        listen = "127.0.0.1:0"

        [log]
        level = "info"
        format = "json"
        "#
    );
    let offramp = Offramp::start(world.dir(), &config);
    assert_eq!(offramp.ask("POST", "/api/v1/sinks/again/pause", None).status, 200);
    for n in 0..3 {
        let mut stream = TcpStream::connect(offramp.proxy("memory")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let request = format!(
            "PUT /v1/add%20it?n={n}&api_key=canary HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-chat: c\r\nauthorization: canary\r\n\
             content-type: application/octet-stream\r\ncontent-length: 3\r\n\r\n\0\r{n}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let response = http::parse(&response).unwrap();
        assert_eq!(
            (response.status, response.text().as_str(), response.header("content-type")),
            (201, "kept", Some("text/plain"))
        );
    }
    offramp.kill();
    assert!(got.lock().unwrap().is_empty(), "nothing is forwarded");

    let mut offramp = Offramp::start(world.dir(), &config);
    assert_eq!(offramp.ask("POST", "/api/v1/sinks/again/resume", None).status, 200);
    offramp.wait_for_delivery(3, LIMIT);

    let got = got.lock().unwrap();
    let targets: Vec<_> = got.iter().map(|(target, ..)| target.as_str()).collect();
    assert_eq!(targets, [0, 0, 1, 1, 2, 2].map(|n| format!("PUT /v1/add%20it?n={n}")));
    for ((_, headers, body), episode) in got.iter().zip(offramp.episodes().iter().flat_map(|episode| [episode, episode])) {
        assert_eq!(headers["idempotency-key"], episode["id"].as_str().unwrap());
        assert_eq!(headers["authorization"], "Bearer operators");
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert!(body.starts_with(b"\0\r") && body.len() == 3);
    }
}
