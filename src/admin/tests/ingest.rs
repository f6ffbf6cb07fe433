//! Episodes that are handed over.

use serde_json::json;

use super::*;

const ONE: &str = r#"{"session":"s","messages":[{"role":"user","content":"hi"}]}"#;

async fn post(api: &Api, key: Option<&str>, body: &str) -> (StatusCode, Value) {
    let request = Request::post("/api/v1/episodes").header("content-type", "application/json; charset=utf-8");
    let request = match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    };
    parts(api.send(request.body(Body::from(body.to_owned())).unwrap()).await).await
}

async fn episode(api: &Api, id: &Value) -> Value {
    api.get(&format!("/api/v1/episodes/{}", id.as_str().unwrap())).await.1
}

#[tokio::test]
async fn an_episode_is_taken_and_is_there() {
    let api = Api::new();
    let body = json!({
        "session": "s", "group": "g", "user": "u", "agent": "a", "metadata": {"n": 1}, "occurred_at": "1969-07-20T20:17:40Z",
        "messages": [{"role": "user", "name": "Ann", "content": "hi"}, {"role": "assistant", "content": "hello"}], "sinks": ["log"],
    });
    let (status, taken) = post(&api, None, &body.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{taken}");
    let shown = episode(&api, &taken["id"]).await;
    for key in ["session", "group", "user", "agent", "metadata", "messages"] {
        assert_eq!(shown[key], body[key], "{key}");
    }
    assert_eq!((&shown["proxy"], &shown["route"], &shown["end"]), (&"ingest".into(), &"api".into(), &"complete".into()));
    assert_eq!(shown["request"], json!({"method": "POST", "path": "/api/v1/episodes", "status": 202, "traceparent": null}));
    assert_eq!(shown["occurred_at"], "1969-07-20T20:17:40.000Z");
    assert_eq!(shown["sinks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["log"]);
}

#[tokio::test]
async fn a_batch_is_taken_in_its_order_in_either_form() {
    let api = Api::new();
    for body in [format!("[{ONE},{ONE}]"), format!("{{\"episodes\":[{ONE},{ONE}]}}")] {
        let (status, taken) = post(&api, None, &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{taken}");
        let ids = taken["ids"].as_array().unwrap();
        let seqs = [episode(&api, &ids[0]).await, episode(&api, &ids[1]).await].map(|shown| shown["seq"].as_u64().unwrap());
        assert!(ids.len() == 2 && seqs[0] < seqs[1], "{seqs:?}");
    }
    let (_, taken) = post(&api, None, &format!("[{ONE}]")).await;
    assert_eq!(taken["ids"].as_array().map(Vec::len), Some(1), "a batch of one is a batch");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place_and_nothing_is_taken() {
    let api = Api::new();
    let many = format!("[{}]", vec![ONE; 1001].join(","));
    for (body, said) in [
        ("{", "the body is no JSON"),
        ("5", "invalid type: integer `5`"),
        ("{}", "missing field `messages`"),
        (r#"{"messages":[]}"#, "messages is empty"),
        (r#"{"messages":[{"role":"user"}]}"#, "messages[0]: missing field `content`"),
        (r#"{"messages":[{"role":"user","content":""}]}"#, "messages[0].content is empty"),
        (r#"{"messages":[{"role":"tool","content":"x"}]}"#, "messages[0].role: unknown variant `tool`, expected one of"),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "messages[0].content: invalid type"),
        (r#"{"messages":[{"role":"user","content":"x"}],"sesion":"s"}"#, "unknown field `sesion`"),
        (r#"{"messages":[{"role":"user","content":"x"}],"occurred_at":"soon"}"#, "occurred_at is \"soon\""),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"sinks":["nosuch"]}"#,
            "sinks[0]: \"nosuch\" is no sink; those that can be named are: graphiti, log",
        ),
        (r#"{"messages":[{"role":"user","content":"x"}],"sinks":["log","log"]}"#, "sinks[1] names \"log\" a second time"),
        (r#"{"messages":[{"role":"user","content":"x"}],"sinks":[]}"#, "sinks is empty"),
        (r#"[{"messages":[{"role":"user","content":"x"}]},{"messages":[]}]"#, "episodes[1].messages is empty"),
        (r#"{"episodes":[{"messages":[{"role":"user"}]}]}"#, "episodes[0].messages[0]: missing field `content`"),
        (r#"[{"messages":[{"role":"user","content":5}]}]"#, "episodes[0].messages[0].content: invalid type"),
        ("[]", "1 to 1000 episodes"),
        (&many, "1 to 1000 episodes, and this one has 1001"),
    ] {
        let request = Request::post("/api/v1/episodes").header("content-type", "application/json");
        let detail = problem(api.send(request.body(Body::from(body.to_owned())).unwrap()).await, 400).await;
        assert!(detail.contains(said), "{}: {detail}", &body[..body.len().min(80)]);
    }
    let request = Request::post("/api/v1/episodes").header("content-type", "text/plain").body(Body::from(ONE)).unwrap();
    problem(api.send(request).await, 415).await;
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(17 << 20));
    let request = Request::post("/api/v1/episodes").header("content-type", "application/json").body(Body::from(long)).unwrap();
    problem(api.send(request).await, 413).await;
    assert_eq!(api.get("/api/v1/episodes").await.1["episodes"], json!([]));
}

#[tokio::test]
async fn a_long_body_is_taken() {
    let api = Api::new();
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(3 << 20));
    assert_eq!(post(&api, None, &long).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_first_ones_episode() {
    let api = Api::new();
    let first = post(&api, Some("k"), ONE).await;
    assert_eq!(post(&api, Some("k"), ONE).await, first);
    assert_ne!(post(&api, Some("other"), ONE).await, first);
    let own = ONE.replacen('{', r#"{"idempotency_key":"k","#, 1);
    let second = post(&api, Some("k"), &own).await;
    assert_ne!(second, first, "an episode's own key is another one, and wins");
    assert_eq!(post(&api, None, &own).await, second);
    let batch = format!("[{ONE},{ONE}]");
    let taken = post(&api, Some("k"), &batch).await;
    assert_ne!(taken.1["ids"][0], taken.1["ids"][1]);
    assert_eq!(post(&api, Some("k"), &batch).await, taken);
    assert_eq!(api.get("/api/v1/episodes").await.1["episodes"].as_array().unwrap().len(), 3 + 2);
    let metrics = text(api.call("GET", "/metrics", None).await).await;
    for (outcome, count) in [("queued", 5), ("duplicate", 4)] {
        let line = format!("offramp_capture_total{{outcome=\"{outcome}\",proxy=\"ingest\",route=\"api\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let request = Request::post("/api/v1/episodes").header("content-type", "application/json").header("idempotency-key", "");
    problem(api.send(request.body(Body::from(ONE)).unwrap()).await, 400).await;
}

#[tokio::test]
async fn a_full_queue_takes_nothing_and_says_when_to_try_again() {
    let dir = tempfile::tempdir().unwrap();
    let limits = config::Queue { max_episodes: 1, ..limits(&dir) };
    let api = Api { router: router(state_with(limits, None)), readiness: Readiness::default(), _dir: dir };
    assert_eq!(post(&api, None, ONE).await.0, StatusCode::ACCEPTED);
    let request = Request::post("/api/v1/episodes").header("content-type", "application/json");
    let response = api.send(request.body(Body::from(ONE)).unwrap()).await;
    assert_eq!(
        (&response.headers()["x-offramp-error"], &response.headers()["retry-after"]),
        (&"queue_full".parse().unwrap(), &"1".parse().unwrap())
    );
    problem(response, 503).await;
}
