//! The faults that a real graph service has, each against the running binary. Where one was measured: DESIGN.md §3.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use offramp::demo::graph::faults::{Call, Fault, Times};
use offramp::demo::graph::{Death, Mode, Options};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::offramp::Offramp;
use crate::support::world::{LIMIT, Settings, World, exchange};
use crate::support::{http, wait_until};

/// A look-up settles a doubt within a second, so that a test can wait for it.
fn quick(world: &World) -> Settings {
    world.settings().set("sink.timeout", "'1s'")
}

fn is_stalled(status: &Value) -> bool {
    status["sinks"][0]["state"] == "stalled"
}

/// What offramp has sent, in its order: the names, each being the id of an episode.
fn sent(world: &World) -> Vec<String> {
    world.graph.posted().into_iter().map(|posted| posted.message.name).collect()
}

/// The ids of all episodes, in the order of capture.
fn ids(offramp: &Offramp) -> Vec<String> {
    offramp.episodes().iter().map(|episode| episode["id"].as_str().unwrap().to_owned()).collect()
}

/// What is in the graph, in the order of writing.
fn stored(world: &World) -> Vec<String> {
    world.graph.stored().into_iter().map(|stored| stored.name).collect()
}

/// The history of an episode at the sink, as (outcome, status).
fn history(episode: &Value) -> Vec<(&str, Option<u64>)> {
    let lines = episode["sinks"]["graphiti"]["history"].as_array().unwrap();
    lines.iter().map(|line| (line["outcome"].as_str().unwrap(), line["status"].as_u64())).collect()
}

fn moment(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn inv7_a_service_that_accepts_and_forgets_stalls_the_sink_and_gets_one_episode_at_a_time() {
    let world = World::new();
    let mut offramp = world.start(&quick(&world));
    world.graph.faults().forget(Times::Always);

    let outcome = world.load(&offramp, "forgotten", 12, 3);
    let status = offramp.wait_for_status("the sink is stalled", LIMIT, is_stalled);
    assert_eq!(status["ledger"]["delivered"], 0);
    assert_eq!(status["ledger"]["pending"], 12);

    // Each lane's first has been sent once. From now on it is the oldest of all, again and again, and never a second one with it.
    assert!(wait_until(LIMIT, || sent(&world).len() >= 3 + 2), "nothing is sent again");
    let mut before = sent(&world);
    let again = before.split_off(3);
    assert_eq!(before.iter().collect::<HashSet<_>>().len(), 3);
    assert!(again.iter().all(|name| *name == again[0] && before.contains(name)), "{before:?}, then {again:?}");
    let status = offramp.status();
    assert!(is_stalled(&status), "{status:#}");
    assert_eq!(status["ledger"]["delivered"], 0);

    world.graph.faults().clear();
    world.restart_graph();
    let status = world.assert_delivered(&mut offramp, &outcome.conversations);
    assert_eq!(status["sinks"][0]["state"], "running");
}

#[test]
fn inv7_a_worker_that_died_of_somebody_elses_message_costs_nothing() {
    let world = World::new();
    let mut offramp = world.start(&quick(&world));
    let before = world.load(&offramp, "before", 6, 2);
    offramp.wait_for_delivery(6, LIMIT);

    // A group id that the service does not take, from a client that knows no better.
    let message = json!({ "content": "hi", "role_type": "user", "role": null, "name": "stranger" });
    let deadly = json!({ "group_id": "user:42", "messages": [message] });
    assert_eq!(http::request(world.graph.address(), "POST", "/messages", Some(&deadly)).unwrap().status, 202);
    assert!(wait_until(LIMIT, || world.graph.death() == Some(Death::GroupId("user:42".to_owned()))));

    let after = world.load(&offramp, "after", 6, 2);
    let status = offramp.wait_for_status("the sink is stalled", LIMIT, is_stalled);
    assert_eq!(status["ledger"]["delivered"], 6);
    assert_eq!(http::request(world.graph.address(), "GET", "/healthcheck", None).unwrap().status, 200);

    world.restart_graph();
    world.assert_delivered(&mut offramp, &[before.conversations, after.conversations].concat());
}

#[test]
fn inv5_a_429_is_retried_when_it_says_and_a_500_soon_both_in_order() {
    let world = World::new();
    let retry = "{ max_attempts = 20, initial = '50ms', max = '5s', jitter = 'full', max_age = '1h' }";
    let mut offramp = world.start(&world.settings().set("sink.retry", retry));

    world.graph.faults().answer(Call::Messages, Fault::TooManyRequests { retry_after: Some("1".to_owned()) }, Times::Next(1));
    let limited = world.load(&offramp, "limited", 3, 1);
    offramp.wait_for_delivery(3, LIMIT);
    let first = &offramp.episodes()[0];
    assert_eq!(history(first), [("retry", Some(429)), ("delivered", None)]);
    let lines = &first["sinks"]["graphiti"]["history"];
    let waited = moment(&lines[1]["at"]).duration_since(moment(&lines[0]["at"]));
    assert!(waited.as_millis() >= 1000, "asked for 1 s, waited {waited:#}");

    world.graph.faults().answer(Call::Messages, Fault::Status(500), Times::Next(3));
    let broken = world.load(&offramp, "broken", 3, 1);
    world.assert_delivered(&mut offramp, &[limited.conversations, broken.conversations].concat());
    let episode = &offramp.episodes()[3];
    assert_eq!(history(episode), [("retry", Some(500)), ("retry", Some(500)), ("retry", Some(500)), ("delivered", None)]);
    assert_eq!(sent(&world), ids(&offramp), "each was taken once, in the order of capture");
}

#[test]
fn inv4_after_a_hang_it_is_looked_up_before_it_is_sent_again() {
    let world = World::new();
    let mut offramp = world.start(&quick(&world));

    // The service took it, and its answer never came.
    world.graph.faults().answer(Call::Messages, Fault::Hang { accepted: true }, Times::Next(1));
    let taken = world.load(&offramp, "taken", 3, 1);
    offramp.wait_for_delivery(3, LIMIT);
    assert_eq!(history(&offramp.episodes()[0]), [("retry", None), ("delivered", None)]);
    assert_eq!(sent(&world), ids(&offramp), "nothing was sent twice");

    // The service never took it, which looks the same.
    world.graph.faults().answer(Call::Messages, Fault::Hang { accepted: false }, Times::Next(1));
    let lost = world.load(&offramp, "lost", 3, 1);
    world.assert_delivered(&mut offramp, &[taken.conversations, lost.conversations].concat());
    assert_eq!(sent(&world), ids(&offramp));
}

#[test]
fn inv4_an_answer_that_breaks_off_is_no_reason_to_send_twice() {
    let world = World::new();
    let mut offramp = world.start(&quick(&world));

    world.graph.faults().answer(Call::Messages, Fault::ResetMidResponse, Times::Always);
    world.graph.faults().answer(Call::Episodes, Fault::ResetMidResponse, Times::Next(2));
    let outcome = world.load(&offramp, "reset", 6, 2);

    world.assert_delivered(&mut offramp, &outcome.conversations);
    assert_eq!(sent(&world).len(), 6, "each was accepted once");
}

#[test]
fn inv6_an_answer_that_drips_holds_nothing_up() {
    let world = World::new();
    let mut offramp = world.start(&world.settings().set("sink.timeout", "'60s'"));

    // Some sixty bytes: half a minute for each.
    world.graph.faults().answer(Call::Messages, Fault::Drip { every: Duration::from_millis(500) }, Times::Always);
    let begin = Instant::now();
    let outcome = world.load(&offramp, "drip", 6, 2);
    world.assert_delivered(&mut offramp, &outcome.conversations);

    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}: the answers were waited for", begin.elapsed());
    assert_eq!(sent(&world).len(), 6);
}

#[test]
fn inv8_a_refused_token_pauses_the_sink_until_an_operator_resumes_it() {
    let world = World::new();
    let mut offramp = world.start(&world.settings());

    world.graph.faults().answer(Call::Messages, Fault::Status(401), Times::Always);
    let outcome = world.load(&offramp, "paused", 6, 2);
    let is_paused = |status: &Value| status["sinks"][0]["state"] == "paused";
    offramp.wait_for_status("the sink is paused", LIMIT, is_paused);
    // What is known of the sink may be newer than what the same status knows of the queue.
    let status = offramp.wait_for_status("nothing is under way", LIMIT, |status| status["queue"]["in_flight"] == 0);
    assert!(status["sinks"][0]["reason"].as_str().unwrap().contains("401"), "{status:#}");
    assert_eq!(status["ledger"]["pending"], 6);
    for episode in offramp.episodes() {
        assert_eq!(episode["sinks"]["graphiti"]["attempts"], 0, "a refused token is no episode's fault: {episode:#}");
    }

    // It stays paused over a restart, whatever the service says by now.
    world.graph.faults().clear();
    assert!(offramp.stop().success());
    let mut offramp = world.start(&world.settings());
    let status = offramp.status();
    assert!(is_paused(&status), "{status:#}");
    assert!(world.graph.posted().is_empty());

    let resumed = offramp.cli(&["resume", "graphiti"]);
    assert!(resumed.status.success(), "{resumed:?}");
    world.assert_delivered(&mut offramp, &outcome.conversations);
}

#[test]
fn inv5_inv6_what_a_service_refuses_is_a_dead_letter_and_goes_back_to_its_place() {
    let world = World::new();
    let mut offramp = world.start(&world.settings());
    let ask = |offramp: &Offramp, number: u64| {
        assert_eq!(exchange(offramp, "s", &format!("question {number}")).status, 200);
    };
    let settled = |offramp: &mut Offramp, dead: u64, delivered: u64| {
        offramp.wait_for_status("settled", LIMIT, |status| {
            let ledger = &status["ledger"];
            ledger["dead"] == dead && ledger["delivered"] == delivered && ledger["pending"] == 0
        });
    };

    for (status, dead) in [(422, 1), (400, 2)] {
        world.graph.faults().answer(Call::Messages, Fault::Status(status), Times::Next(1));
        ask(&offramp, dead);
        settled(&mut offramp, dead, 0);
    }
    ask(&offramp, 3);
    settled(&mut offramp, 2, 1);

    let listed = offramp.cli(&["dead", "list", "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let dead = listed["episodes"].as_array().unwrap();
    assert_eq!(dead.len(), 2);
    for (episode, (number, status, says)) in dead.iter().zip([(1, 422, "Unprocessable Entity"), (2, 400, "Bad Request")]) {
        assert_eq!(episode["messages"][0]["content"], format!("question {number}"));
        assert_eq!(episode["sinks"]["graphiti"]["reason"], "rejected");
        assert_eq!(history(episode), [("dead", Some(status))]);
        let error = episode["sinks"]["graphiti"]["last_error"].as_str().unwrap();
        assert!(error.contains(&format!(r#"{{"detail":"{says}"}}"#)), "what the service said is kept: {error}");
    }

    // Two more wait in the lane when the dead ones come back: those are older, and go first.
    assert!(offramp.cli(&["pause", "graphiti"]).status.success());
    ask(&offramp, 4);
    ask(&offramp, 5);
    let redriven = offramp.cli(&["dead", "redrive", "--all"]);
    assert!(redriven.status.success(), "{redriven:?}");
    assert!(offramp.cli(&["resume", "graphiti"]).status.success());
    offramp.wait_for_delivery(5, LIMIT);

    let ids = ids(&offramp);
    assert_eq!(stored(&world), [2, 0, 1, 3, 4].map(|place: usize| ids[place].clone()));
    let mut by_event = world.graph.stored();
    by_event.sort_by_key(|stored| stored.valid_at);
    let by_event: Vec<_> = by_event.into_iter().map(|stored| stored.name).collect();
    assert_eq!(by_event, ids, "each has the time of its exchange, however late it came");
}

/// A way to the graph service on which whatever contains `poison` ends in a 500, for the fourth time once it is allowed to.
struct Gate {
    client: reqwest::Client,
    graph: String,
    poison: Semaphore,
}

impl Gate {
    fn open(world: &World) -> (Arc<Self>, String) {
        // An error says that there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let gate = Arc::new(Self { client, graph: world.graph.url(), poison: Semaphore::new(3) });
        let address = world.serve(Router::new().fallback(Self::pass).with_state(Arc::clone(&gate)));
        (gate, format!("http://{address}"))
    }

    async fn pass(State(gate): State<Arc<Self>>, method: Method, uri: Uri, body: Bytes) -> Response {
        if String::from_utf8_lossy(&body).contains("poison") {
            gate.poison.acquire().await.unwrap().forget();
            return (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response();
        }
        let answer = gate.client.request(method, format!("{}{uri}", gate.graph)).body(body).send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap()).into_response()
    }
}

#[test]
fn inv6_a_poisoned_lane_ends_at_max_attempts_and_holds_up_nobody() {
    let world = World::with(Duration::ZERO, Options { write_delay: Duration::ZERO, mode: Mode::Parallel(5) });
    let retry = "{ max_attempts = 4, initial = '20ms', max = '1s', jitter = 'none', max_age = '1h' }";
    let (gate, url) = Gate::open(&world);
    let settings = world.settings().set("sink.url", &format!("'{url}'")).set("sink.retry", retry).set("sink.timeout", "'60s'");
    let mut offramp = world.start(&settings);

    for text in ["poison", "better"] {
        assert_eq!(exchange(&offramp, "poisoned", text).status, 200);
    }
    let others = world.load(&offramp, "other", 20, 4);
    let status = offramp.wait_for_status("the others are delivered", LIMIT, |status| status["ledger"]["delivered"] == 20);
    assert_eq!(status["ledger"]["dead"], 0, "the others were delivered while the poisoned lane was still trying: {status:#}");

    gate.poison.add_permits(1);
    let status = offramp
        .wait_for_status("the poison is dead", LIMIT, |status| status["ledger"]["dead"] == 1 && status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["delivered"], 21, "the lane went on behind it");
    let dead = offramp.get("/api/v1/episodes?state=dead");
    let dead = &dead["episodes"][0];
    assert_eq!(dead["messages"][0]["content"], "poison");
    assert_eq!(dead["sinks"]["graphiti"]["reason"], "max_attempts");
    assert_eq!(dead["sinks"]["graphiti"]["attempts"], 4);
    assert_eq!(history(dead), [("retry", Some(500)), ("retry", Some(500)), ("retry", Some(500)), ("dead", Some(500))]);
    assert_eq!(others.failed(), 0);
}

#[test]
fn inv7_a_group_that_would_kill_the_worker_arrives_mapped() {
    let world = World::new();
    let mut offramp = world.start(&world.settings().set("extract.group", "['req.json:$.user_id']"));

    for session in ["user:42", "plain-7"] {
        assert_eq!(exchange(&offramp, session, "hi").status, 200);
    }
    offramp.wait_for_delivery(2, LIMIT);

    assert_eq!(world.graph.death(), None);
    let mut groups: Vec<_> = world.graph.stored().into_iter().map(|stored| stored.group).collect();
    groups.sort();
    assert_eq!(groups, ["plain-7", "user_42-ea3fd43b"]);
}
