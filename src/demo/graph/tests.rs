use serde_json::Value;

use super::faults::{Fault, Times};
use super::*;

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Every call on a connection of its own: a broken one must not break the next.
    reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap()
}

fn message(name: &str) -> Value {
    json!({"content": name, "role_type": "user", "role": null, "name": name, "timestamp": "2026-01-01T00:00:00Z"})
}

async fn post(graph: &Graph, body: &Value) -> reqwest::Result<reqwest::Response> {
    client().post(format!("{}/messages", graph.url())).json(body).send().await
}

async fn post_one(graph: &Graph, group: &str, name: &str) -> u16 {
    post(graph, &json!({"group_id": group, "messages": [message(name)]})).await.unwrap().status().as_u16()
}

async fn episodes(graph: &Graph, group: &str, last_n: &str) -> (u16, Value) {
    let response = client().get(format!("{}/episodes/{group}{last_n}", graph.url())).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn names(nodes: &[Stored]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

async fn strict() -> Graph {
    Graph::start(Options::default()).await.unwrap()
}

#[tokio::test]
async fn a_message_is_accepted_in_the_services_words_and_read_back_as_a_node() {
    let graph = strict().await;
    let body = json!({"group_id": "g", "messages": [{
        "content": "hi", "role_type": "user", "role": "Ann", "name": "id-1",
        "timestamp": "2026-01-01T01:00:00.123+01:00", "source_description": "here",
    }]});
    let response = post(&graph, &body).await.unwrap();
    assert_eq!(response.status(), 202);
    let accepted: Value = response.json().await.unwrap();
    assert_eq!(accepted, json!({"message": "Messages added to processing queue", "success": true}));

    graph.wait_stored(1).await;
    let (status, nodes) = episodes(&graph, "g", "?last_n=5").await;
    assert_eq!((status, nodes.as_array().unwrap().len()), (200, 1));
    assert_eq!(nodes[0]["name"], "id-1");
    assert_eq!(nodes[0]["content"], "Ann(user): hi");
    assert_eq!(nodes[0]["valid_at"], "2026-01-01T00:00:00.123000Z");
    assert_eq!((&nodes[0]["group_id"], &nodes[0]["source_description"]), (&json!("g"), &json!("here")));
    assert_eq!(episodes(&graph, "nobody", "?last_n=5").await, (200, json!([])));
}

#[tokio::test]
async fn a_body_that_breaks_the_model_is_a_422_in_the_shape_of_fastapi() {
    let graph = strict().await;
    let mut without_role = message("a");
    without_role.as_object_mut().unwrap().remove("role");
    let response = post(&graph, &json!({"group_id": "g", "messages": [message("b"), without_role]})).await.unwrap();
    assert_eq!(response.status(), 422);
    let error = response.json::<Value>().await.unwrap();
    let expected =
        json!({"type": "missing", "loc": ["body", "messages", 1, "role"], "msg": "Field required", "input": without_role});
    assert_eq!(error, json!({"detail": [expected]}));

    let mut odd = message("a");
    odd["role_type"] = json!("tool");
    for (body, kind) in [
        (json!({"messages": []}), "missing"),
        (json!({"group_id": 7, "messages": []}), "string_type"),
        (json!({"group_id": "g", "messages": [odd]}), "literal_error"),
        (json!([]), "model_attributes_type"),
    ] {
        let response = post(&graph, &body).await.unwrap();
        assert_eq!(response.status(), 422);
        assert_eq!(response.json::<Value>().await.unwrap()["detail"][0]["type"], kind);
    }
    assert_eq!(post(&graph, &json!({"group_id": "g", "messages": []})).await.unwrap().status(), 202);
    assert!(graph.posted().is_empty());
    let (status, error) = episodes(&graph, "g", "").await;
    assert_eq!((status, &error["detail"][0]["loc"]), (422, &json!(["query", "last_n"])));
}

#[tokio::test]
async fn reading_gives_the_newest_oldest_first_and_hides_the_future() {
    let graph = strict().await;
    let mut messages: Vec<Value> = ["c", "a", "b", "future"].map(message).into();
    for (message, time) in messages.iter_mut().zip(["2026-01-03T00:00:00", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]) {
        message["timestamp"] = json!(time);
    }
    messages[3]["timestamp"] = json!("2999-01-01T00:00:00Z");
    assert_eq!(post(&graph, &json!({"group_id": "g", "messages": messages})).await.unwrap().status(), 202);
    graph.wait_stored(4).await;

    let (_, nodes) = episodes(&graph, "g", "?last_n=2").await;
    let read: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(read, ["b", "c"]);
    assert_eq!(names(&graph.group("g")), ["c", "a", "b", "future"], "the handle tells the order of writing");
}

/// Three groups of two: how long it takes on tokio's clock tells how many writers there were.
async fn seconds_for_three_pairs(mode: Mode) -> (u64, Vec<Stored>) {
    let work = Work::new(Options { write_delay: Duration::from_secs(10), mode }, Arc::default());
    let begin = tokio::time::Instant::now();
    for name in ["1", "2"] {
        for group in ["a", "b", "c"] {
            let body = json!({"group_id": group, "messages": [message(name)]}).to_string();
            work.post(group, wire::parse_messages(body.as_bytes()).unwrap().1);
        }
    }
    work.wait(|work| work.stored_count() == 6).await;
    (begin.elapsed().as_secs(), work.stored())
}

#[tokio::test(start_paused = true)]
async fn the_strict_service_writes_one_at_a_time_first_come_first_served() {
    let (seconds, stored) = seconds_for_three_pairs(Mode::Strict).await;
    assert_eq!(seconds, 60);
    let order: Vec<_> = stored.iter().map(|node| format!("{}{}", node.group, node.name)).collect();
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "c2"]);
}

#[tokio::test(start_paused = true)]
async fn slots_work_in_parallel_but_never_on_one_group() {
    let (seconds, stored) = seconds_for_three_pairs(Mode::Parallel(100)).await;
    assert_eq!(seconds, 20, "two in a row per group, the groups side by side");
    for group in ["a", "b", "c"] {
        let of_group: Vec<_> = stored.iter().filter(|node| node.group == group).map(|node| node.name.as_str()).collect();
        assert_eq!(of_group, ["1", "2"]);
    }
    assert_eq!(seconds_for_three_pairs(Mode::Parallel(2)).await.0, 30);
}

#[tokio::test(start_paused = true)]
async fn an_inline_write_takes_the_delay_and_leaves_nothing_when_cut_off() {
    let graph = Graph::start(Options { write_delay: Duration::from_secs(10), mode: Mode::Parallel(1) }).await.unwrap();
    let message = || {
        let body = json!({"group_id": "g", "messages": [message("a")]}).to_string();
        wire::parse_messages(body.as_bytes()).unwrap().1.remove(0)
    };
    assert!(tokio::time::timeout(Duration::from_secs(9), graph.add_episode("g", message())).await.is_err());
    let begin = tokio::time::Instant::now();
    graph.add_episode("g", message()).await.unwrap();
    assert_eq!((begin.elapsed().as_secs(), graph.stored().len()), (10, 1));
    assert_eq!(graph.add_episode("a:b", message()).await, Err(Death::GroupId("a:b".to_owned())));
    assert_eq!(graph.death(), None, "an inline write's error is its caller's");
}

/// After what kills the worker: 202, healthy, and nothing stored until the restart.
async fn assert_dead_until_restart(graph: &Graph) {
    let before = graph.stored().len();
    assert_eq!(post_one(graph, "g", "into the hole").await, 202);
    let health = client().get(format!("{}/healthcheck", graph.url())).send().await.unwrap();
    assert_eq!(health.json::<Value>().await.unwrap(), json!({"status": "healthy"}));
    assert_eq!((graph.queued(), graph.stored().len()), (1, before));

    graph.restart().await.unwrap();
    assert_eq!((graph.queued(), graph.death()), (0, None));
    assert_eq!(post_one(graph, "g", "after").await, 202);
    graph.wait_stored(before + 1).await;
    assert_eq!(graph.stored().last().unwrap().name, "after", "what was queued is lost");
}

#[tokio::test]
async fn a_group_id_outside_the_pattern_ends_the_worker() {
    let graph = strict().await;
    assert_eq!(post_one(&graph, "user:42", "a").await, 202);
    assert_eq!(graph.wait_death().await, Death::GroupId("user:42".to_owned()));
    assert_dead_until_restart(&graph).await;
}

#[tokio::test]
async fn an_unknown_uuid_ends_the_worker_and_a_known_one_makes_no_second_node() {
    let graph = strict().await;
    assert_eq!(post_one(&graph, "g", "a").await, 202);
    graph.wait_stored(1).await;
    let mut again = message("a");
    again["uuid"] = json!(graph.stored()[0].uuid);
    let mut unknown = message("b");
    unknown["uuid"] = json!("0190-new");
    assert_eq!(post(&graph, &json!({"group_id": "g", "messages": [again, unknown]})).await.unwrap().status(), 202);
    assert_eq!(graph.wait_death().await, Death::UnknownUuid("0190-new".to_owned()));
    assert_eq!(graph.stored().len(), 1);
    assert_dead_until_restart(&graph).await;
}

#[tokio::test]
async fn one_429_of_the_llm_ends_the_worker() {
    let graph = strict().await;
    graph.faults().llm_rate_limit(Times::Next(1));
    assert_eq!(post_one(&graph, "g", "a").await, 202);
    assert_eq!(graph.wait_death().await, Death::LlmRateLimit);
    assert_dead_until_restart(&graph).await;
}

#[tokio::test]
async fn accept_and_forget_says_202_and_stores_nothing() {
    let graph = strict().await;
    graph.faults().forget(Times::Next(1));
    assert_eq!(post_one(&graph, "g", "forgotten").await, 202);
    assert_eq!(post_one(&graph, "g", "kept").await, 202);
    graph.wait_stored(1).await;
    assert_eq!((names(&graph.stored()), graph.posted().len(), graph.death()), (vec!["kept"], 2, None));
}

#[tokio::test]
async fn a_status_has_no_effect_and_ends_after_its_times() {
    let graph = strict().await;
    let retry_after = Some("7".to_owned());
    for (fault, status, header) in [
        (Fault::TooManyRequests { retry_after }, 429, Some("7")),
        (Fault::TooManyRequests { retry_after: None }, 429, None),
        (Fault::Status(500), 500, None),
        (Fault::Status(401), 401, None),
    ] {
        graph.faults().answer(Call::Messages, fault, Times::Next(1));
        let response = post(&graph, &json!({"group_id": "g", "messages": [message("a")]})).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().get("retry-after").map(|value| value.to_str().unwrap()), header);
    }
    assert!(graph.posted().is_empty());
    assert_eq!(post_one(&graph, "g", "a").await, 202);

    graph.faults().answer(Call::Episodes, Fault::Status(503), Times::Always);
    assert_eq!(episodes(&graph, "g", "?last_n=1").await.0, 503);
    graph.faults().clear();
    assert_eq!(episodes(&graph, "g", "?last_n=1").await.0, 200);
}

#[tokio::test]
async fn a_hanging_call_never_answers_and_may_have_had_its_effect() {
    let graph = strict().await;
    for (accepted, stored) in [(false, 0), (true, 1)] {
        graph.faults().answer(Call::Messages, Fault::Hang { accepted }, Times::Next(1));
        let body = json!({"group_id": "g", "messages": [message("a")]});
        let call = client().post(format!("{}/messages", graph.url())).json(&body).timeout(Duration::from_millis(100));
        assert!(call.send().await.unwrap_err().is_timeout());
        graph.wait_stored(stored).await;
        assert_eq!(graph.posted().len(), stored);
    }
}

#[tokio::test]
async fn a_reset_breaks_the_body_after_the_effect() {
    let graph = strict().await;
    graph.faults().answer(Call::Messages, Fault::ResetMidResponse, Times::Next(1));
    let response = post(&graph, &json!({"group_id": "g", "messages": [message("a")]})).await.unwrap();
    assert_eq!(response.status(), 202, "the head has come");
    assert!(response.bytes().await.is_err(), "the body hasn't");
    graph.wait_stored(1).await;
}

#[tokio::test]
async fn a_drip_comes_byte_by_byte_but_whole() {
    let graph = strict().await;
    graph.faults().answer(Call::Healthcheck, Fault::Drip { every: Duration::from_millis(1) }, Times::Always);
    let mut response = client().get(format!("{}/healthcheck", graph.url())).send().await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        chunks.push(chunk);
    }
    assert_eq!(chunks.concat(), br#"{"status":"healthy"}"#);
    assert!(chunks.len() > 1, "{chunks:?}");
}

#[tokio::test]
async fn a_stopped_service_refuses_connections_and_comes_back_on_its_port_with_what_was_stored() {
    let graph = Graph::start(Options { write_delay: Duration::ZERO, mode: Mode::Strict }).await.unwrap();
    assert_eq!(post_one(&graph, "g", "stored").await, 202);
    graph.wait_stored(1).await;
    graph.set_write_delay(Duration::from_secs(3600));
    assert_eq!(post_one(&graph, "g", "being written").await, 202);
    assert_eq!(post_one(&graph, "g", "queued").await, 202);

    graph.stop().await;
    assert!(post(&graph, &json!({})).await.unwrap_err().is_connect());
    graph.set_write_delay(Duration::ZERO);
    let address = graph.address();
    graph.resume().await.unwrap();
    assert_eq!((graph.address(), names(&graph.stored()), graph.queued()), (address, vec!["stored"], 0));
    assert_eq!(post_one(&graph, "g", "new").await, 202);
    graph.wait_stored(2).await;
    assert_eq!(names(&graph.stored()), ["stored", "new"]);
}
