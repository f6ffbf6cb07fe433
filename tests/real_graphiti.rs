//! Real parts from end to end: an httpx client, offramp, a `FastAPI` agent; behind them `graphiti-core` on `FalkorDB`.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::graph::{self, group_of, micros, sessions, text};
use crate::support::offramp::Offramp;
use crate::support::python::{self, RealGraphiti, Service};
use crate::support::{http, wait_until};

const LIMIT: Duration = Duration::from_secs(180);

/// All services of one test. They end with it.
struct World {
    agent: Service,
    graphiti: RealGraphiti,
}

impl World {
    fn new() -> Self {
        let graphiti = RealGraphiti::new();
        Self { agent: python::agent(graphiti.dir()), graphiti }
    }

    fn dir(&self) -> &Path {
        self.graphiti.dir()
    }

    /// `confirm` is how long nothing may appear in the graph before the sink counts as stalled.
    fn offramp(&self, confirm: &str) -> Offramp {
        self.offramp_with(confirm, "")
    }

    /// The same with further keys of the sink.
    fn offramp_with(&self, confirm: &str, keys: &str) -> Offramp {
        let config = format!(
            r#"
            [[proxy]]
            name = "agent"
            listen = "127.0.0.1:0"
            upstream = "{agent}"

            [[proxy.route]]
            name = "run"
            method = "POST"
            path = "/api/v1/agent/{{agent}}/run"
            action = "capture"
            preset = "automagik"

            [queue]
            path = "queue"

            [[sink]]
            name = "graphiti"
            type = "graphiti"
            url = "{graphiti}"
            retry = {{ max_attempts = 20, initial = "100ms", max = "1s", jitter = "full", max_age = "1h" }}
            breaker = {{ consecutive_failures = 5, open_for = "1s" }}
            confirm = {{ mode = "read_back", timeout = "{confirm}", poll = "100ms" }}
            {keys}

            [admin]
            listen = "127.0.0.1:0"

            [log]
            level = "info"
            format = "json"
            "#,
            agent = self.agent.url(),
            graphiti = self.graphiti.service.url(),
        );
        Offramp::start(self.dir(), &config)
    }

    /// Holds conversations through offramp at the same time; none of the requests may notice anything.
    fn converse(&self, offramp: &Offramp, sessions: &[String], exchanges: usize) -> Vec<Value> {
        let results = python::converse(self.dir(), offramp.proxy("agent"), sessions, exchanges);
        assert_eq!(results.len(), sessions.len() * exchanges);
        for result in &results {
            assert_eq!(result["status"], 200, "{result}");
            assert_eq!(result["reply"], format!("You said: {}", result["content"].as_str().unwrap()));
        }
        results
    }

    /// The graph must hold each exchange once, in the order of its session, in the session's group, at the time of its capture.
    fn assert_graph_holds(&self, exchanges: &[Value], episodes: &[Value]) {
        let content = |question: &str, answer: &str| format!("(user): user: {question}\nassistant: {answer}");
        graph::assert_holds(&self.graphiti.nodes(), exchanges, episodes, group_of, content);
    }
}

#[test]
fn inv5_inv7_fifty_exchanges_reach_a_real_graphiti_once_and_in_order() {
    let world = World::new();
    let mut offramp = world.offramp("60s");

    let exchanges = world.converse(&offramp, &sessions(5), 10);
    offramp.wait_for_delivery(50, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes());
    assert!(offramp.stop().success(), "SIGTERM ends in exit code 0");
}

#[test]
fn inv5_inv7_a_real_graphiti_takes_calls_of_many_in_order() {
    let world = World::new();
    let mut offramp = world.offramp_with("60s", "batch = { max_items = 8 }");

    let exchanges = world.converse(&offramp, &sessions(4), 12);
    offramp.wait_for_delivery(48, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes());
    let calls = world.graphiti.service.log().matches("accepted ").count();
    assert!((4..40).contains(&calls), "{calls} calls");
}

#[test]
fn inv5_inv7_a_real_graphiti_holds_each_message_of_a_turn_in_its_order() {
    let world = World::new();
    let mut offramp = world.offramp_with("60s", "batch = { max_items = 8 }\nformat = \"messages\"");

    world.converse(&offramp, &sessions(2), 5);
    offramp.wait_for_delivery(10, LIMIT);

    let mut nodes = world.graphiti.nodes();
    nodes.sort_by_key(|node| (text(node, "group_id").to_owned(), micros(node, "valid_at")));
    for session in sessions(2) {
        let stored = nodes.iter().filter(|node| node["group_id"] == group_of(&session).as_str());
        let stored: Vec<_> = stored.map(|node| (text(node, "name").to_owned(), text(node, "content").to_owned())).collect();
        let mut episodes: Vec<_> = offramp.episodes().into_iter().filter(|episode| episode["session"] == *session).collect();
        episodes.sort_by_key(|episode| episode["seq"].as_u64());
        let expected = episodes.iter().flat_map(|episode| {
            let said = |n: usize| text(&episode["messages"][n], "content").to_owned();
            let id = text(episode, "id");
            [(format!("{id}/1"), format!("(user): {}", said(0))), (id.to_owned(), format!("(assistant): {}", said(1)))]
        });
        assert_eq!(stored, expected.collect::<Vec<_>>());
    }
}

#[test]
fn inv4_inv8_a_real_graphiti_has_each_episode_once_after_kill_9() {
    let world = World::new();
    let mut offramp = world.offramp("60s");

    let exchanges = world.converse(&offramp, &sessions(5), 6);
    offramp.wait_for_status("some delivered", LIMIT, |status| status["ledger"]["delivered"].as_u64() >= Some(5));
    offramp.kill();

    let mut offramp = world.offramp("60s");
    offramp.wait_for_delivery(30, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes());
}

#[test]
fn inv7_a_real_graphiti_whose_worker_died_stalls_the_sink_and_loses_nothing() {
    let mut world = World::new();
    let mut offramp = world.offramp("2s");

    // One 429 of its model ends the worker; the service goes on accepting messages and calls itself healthy.
    python::fail_model(&world.graphiti.model, 429, 1);
    let exchanges = world.converse(&offramp, &sessions(3), 4);
    let status = offramp.wait_for_status("the sink is stalled", LIMIT, |status| status["sinks"][0]["state"] == "stalled");
    assert_eq!(status["ledger"]["delivered"], 0);
    assert_eq!(status["ledger"]["captured"], 12);

    world.graphiti.restart();
    offramp.wait_for_delivery(12, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes());
}

/// Not of offramp: what it counts on, so that a newer `graphiti-core` shows what became different.
#[test]
fn a_real_graphiti_accepts_everything_and_stores_nothing_once_its_worker_died() {
    let world = World::new();
    let address = world.graphiti.service.address;
    let post = |group: &str, name: &str, timestamp: Timestamp| {
        let message = json!({
            "content": "user: hi\nassistant: hello", "role_type": "user", "role": null, "name": name,
            "timestamp": timestamp.to_string(), "source_description": "test",
        });
        let body = json!({ "group_id": group, "messages": [message] });
        assert_eq!(http::request(address, "POST", "/messages", Some(&body)).unwrap().status, 202);
    };
    let names = |group: &str| -> Vec<String> {
        let response = http::request(address, "GET", &format!("/episodes/{group}?last_n=10"), None).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        response.json().as_array().unwrap().iter().map(|episode| text(episode, "name").to_owned()).collect()
    };

    // The name comes back, in the order of the timestamps.
    let now = Timestamp::now();
    post("g", "second", now - Duration::from_secs(1));
    post("g", "first", now - Duration::from_secs(2));
    assert!(wait_until(LIMIT, || names("g") == ["first", "second"]), "{:?}", names("g"));

    // A group id that it does not take, and that was the last message that it stored.
    post("user:42", "deadly", now);
    post("g", "lost", now);
    assert_eq!(http::request(address, "GET", "/healthcheck", None).unwrap().status, 200);
    assert!(wait_until(LIMIT, || world.graphiti.service.log().contains("the worker dies of deadly in group user:42")));
    assert_eq!(names("g"), ["first", "second"]);
}
