//! `type = "http"` with the preset `lightrag`, against `LightRAG`'s own server from `PyPI`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::http;
use crate::support::offramp::Offramp;
use crate::support::python::{self, Service};

const LIMIT: Duration = Duration::from_secs(180);

/// The key that the server asks for.
const KEY: &str = "lightrag-s3cret";

/// All services of one test. They end with it.
struct World {
    lightrag: Service,
    model: Service,
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = python::model(dir.path());
        let lightrag = python::lightrag(dir.path(), &model, 0);
        Self { lightrag, model, dir }
    }

    fn offramp(&self) -> Offramp {
        let config = format!(
            r#"
            [[proxy]]
            name = "agent"
            listen = "127.0.0.1:0"
            upstream = "http://127.0.0.1:9"

            [queue]
            path = "queue"

            [[sink]]
            name = "lightrag"
            type = "http"
            url = "{url}"
            preset = "lightrag"
            timeout = "5s"
            headers = {{ x-api-key = "{KEY}" }}
            retry = {{ max_attempts = 20, initial = "200ms", max = "1s", jitter = "full", max_age = "1h" }}
            breaker = {{ consecutive_failures = 5, open_for = "1s" }}
            confirm = {{ timeout = "60s", poll = "100ms" }}

            [admin]
            listen = "127.0.0.1:0"

            [log]
            level = "info"
            format = "json"
            "#,
            url = self.lightrag.url(),
        );
        Offramp::start(self.dir.path(), &config)
    }

    /// Each episode is a document that was processed, and there is no other document.
    fn assert_holds(&self, episodes: &[Value]) {
        let documents = documents(self.lightrag.address);
        let held: BTreeMap<&str, &str> = documents.iter().map(|d| (text(d, "file_path"), text(d, "status"))).collect();
        assert_eq!(held.len(), documents.len(), "one document each: {documents:#?}");
        let sources: Vec<String> = episodes.iter().map(|episode| format!("offramp-{}", text(episode, "id"))).collect();
        let expected: BTreeMap<&str, &str> = sources.iter().map(|source| (source.as_str(), "processed")).collect();
        assert_eq!(held, expected);
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn documents(address: SocketAddr) -> Vec<Value> {
    let page = json!({ "page": 1, "page_size": 200 });
    let response = http::request_with(address, "POST", "/documents/paginated", &[("x-api-key", KEY)], Some(&page)).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["documents"].as_array().unwrap().clone()
}

/// Episodes of three sessions. All of them say the same: what `LightRAG` takes once only.
fn add(offramp: &Offramp, count: usize) {
    let episode = |n: usize| {
        let messages = json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "hello" }]);
        json!({ "session": format!("chat {}", n % 3), "messages": messages })
    };
    let episodes: Vec<Value> = (0..count).map(episode).collect();
    let taken = offramp.ask("POST", "/api/v1/episodes", Some(&json!({ "episodes": episodes })));
    assert_eq!(taken.status, 202, "{}", taken.text());
}

#[test]
fn inv7_inv10_a_real_lightrag_has_processed_each_episode_once() {
    let world = World::new();
    let mut offramp = world.offramp();
    add(&offramp, 12);
    offramp.wait_for_delivery(12, LIMIT);
    let episodes = offramp.episodes();
    world.assert_holds(&episodes);
    assert!(!offramp.log().contains(KEY) && !json!(episodes).to_string().contains(KEY));
}

#[test]
fn inv4_inv8_a_real_lightrag_has_each_episode_once_after_offramp_was_killed() {
    let world = World::new();
    let mut offramp = world.offramp();
    add(&offramp, 24);
    offramp.wait_for_status("some delivered", LIMIT, |status| status["ledger"]["delivered"].as_u64() >= Some(4));
    offramp.kill();

    let mut offramp = world.offramp();
    offramp.wait_for_delivery(24, LIMIT);
    world.assert_holds(&offramp.episodes());
}

#[test]
fn inv7_what_a_real_lightrag_failed_on_is_tried_again_until_it_is_there() {
    let world = World::new();
    let mut offramp = world.offramp();
    // The first call of its model fails: the text does, and stays failed by itself.
    python::fail_model(&world.model, 400, 1);
    add(&offramp, 1);
    offramp.wait_for_delivery(1, LIMIT);
    let episodes = offramp.episodes();
    world.assert_holds(&episodes);
    let story = offramp.get(&format!("/api/v1/episodes/{}", text(&episodes[0], "id"))).to_string();
    assert!(story.contains("LightRAG could not process it"), "{story}");
}
