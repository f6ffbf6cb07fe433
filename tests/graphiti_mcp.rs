//! `type = "graphiti-mcp"`: an httpx client, offramp, a `FastAPI` agent; behind them an MCP server on `graphiti-core` and `FalkorDB`.

use std::time::Duration;

use serde_json::Value;

use crate::support::graph::{self, group_of, sessions, text};
use crate::support::offramp::Offramp;
use crate::support::python::{self, RealGraphiti, Service};

const LIMIT: Duration = Duration::from_secs(180);

/// The group that the server's driver was made for.
const DEFAULT: &str = "default_db";

/// All services of one test. They end with it.
struct World {
    agent: Service,
    graphiti: RealGraphiti,
}

impl World {
    fn new(args: &'static [&'static str]) -> Self {
        let graphiti = RealGraphiti::over_mcp(args);
        Self { agent: python::agent(graphiti.dir()), graphiti }
    }

    /// `extract` and `sink` are further keys there.
    fn offramp(&self, extract: &str, sink: &str) -> Offramp {
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
            extract = {{ {extract} }}

            [queue]
            path = "queue"

            [[sink]]
            name = "graphiti"
            type = "graphiti-mcp"
            url = "{server}/mcp"
            retry = {{ max_attempts = 20, initial = "100ms", max = "1s", jitter = "full", max_age = "1h" }}
            breaker = {{ consecutive_failures = 5, open_for = "1s" }}
            {sink}

            [admin]
            listen = "127.0.0.1:0"

            [log]
            level = "info"
            format = "json"
            "#,
            agent = self.agent.url(),
            server = self.graphiti.service.url(),
        );
        Offramp::start(self.graphiti.dir(), &config)
    }

    fn converse(&self, offramp: &Offramp, sessions: &[String], exchanges: usize) -> Vec<Value> {
        python::converse(self.graphiti.dir(), offramp.proxy("agent"), sessions, exchanges)
    }

    fn assert_graph_holds(&self, exchanges: &[Value], episodes: &[Value], group: impl Fn(&str) -> String) {
        let content = |question: &str, answer: &str| format!("user: {question}\nassistant: {answer}");
        graph::assert_holds(&self.graphiti.nodes(), exchanges, episodes, group, content);
    }
}

const READ_BACK: &str = r#"confirm = { mode = "read_back", timeout = "60s", poll = "100ms" }"#;

#[test]
fn inv5_inv7_exchanges_reach_graphiti_over_mcp_once_and_in_order() {
    for args in [&["--by-group"][..], &["--by-group", "--json"][..]] {
        let world = World::new(args);
        let mut offramp = world.offramp("", READ_BACK);

        let exchanges = world.converse(&offramp, &sessions(4), 5);
        offramp.wait_for_delivery(20, LIMIT);

        world.assert_graph_holds(&exchanges, &offramp.episodes(), group_of);
        assert!(offramp.stop().success(), "SIGTERM ends in exit code 0");
    }
}

#[test]
fn inv4_inv7_inv8_what_an_mcp_server_forgets_is_sent_again_and_is_there_once() {
    let mut world = World::new(&["--by-group"]);
    let mut offramp = world.offramp("", r#"confirm = { mode = "read_back", timeout = "3s", poll = "100ms" }"#);

    // Its worker outlives a 429 of the model; the episode doesn't.
    python::fail_model(&world.graphiti.model, 429, 1);
    let mut exchanges = world.converse(&offramp, &sessions(3), 3);
    offramp.wait_for_delivery(9, LIMIT);
    assert!(world.graphiti.service.log().contains("is forgotten"), "{}", world.graphiti.service.log());

    // A restart forgets the session, and with it what is queued; so does a new offramp.
    exchanges.extend(world.converse(&offramp, &["one-more".to_owned(), "another".to_owned()], 5));
    world.graphiti.restart();
    offramp.wait_for_status("some of them delivered", LIMIT, |status| status["ledger"]["delivered"].as_u64() >= Some(12));
    offramp.kill();
    let mut offramp = world.offramp("", READ_BACK);
    offramp.wait_for_delivery(19, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes(), group_of);
}

#[test]
fn inv4_inv7_where_a_group_cannot_be_read_back_the_sink_pauses_and_says_why() {
    let world = World::new(&[]);
    let blind = r#"timeout = "4s"
        confirm = { mode = "read_back", timeout = "60s", poll = "100ms" }"#;
    let mut offramp = world.offramp("", blind);
    world.converse(&offramp, &["chat".to_owned()], 2);
    let status = offramp.wait_for_status("paused", LIMIT, |status| status["sinks"][0]["state"] == "paused");
    let reason = text(&status["sinks"][0], "reason");
    assert!(reason.contains("nothing of group chat can be read back"), "{reason}");
    assert_eq!((&status["ledger"]["pending"], &status["ledger"]["dead"]), (&2.into(), &0.into()));
    assert_eq!(world.graphiti.nodes().len(), 1, "it was sent, and not sent again");
    assert!(offramp.stop().success());

    // What is said to be done instead. The one that was in doubt can't be looked up: it is there twice.
    let mut offramp = world.offramp("", r#"confirm = { mode = "accepted" }"#);
    offramp.wait_for_delivery(2, LIMIT);
    let possible = offramp.metric("offramp_sink_possible_duplicates_total", &[]);
    assert_eq!(possible, Some(1.0));
    assert!(offramp.stop().success());
}

#[test]
fn inv5_inv7_the_group_that_a_falkordb_server_shows_can_be_read_back() {
    let world = World::new(&[]);
    let mut offramp = world.offramp(&format!("group = \"const:{DEFAULT}\""), READ_BACK);

    let exchanges = world.converse(&offramp, &["a-chat".to_owned()], 6);
    offramp.wait_for_delivery(6, LIMIT);

    world.assert_graph_holds(&exchanges, &offramp.episodes(), |_| DEFAULT.to_owned());
}
