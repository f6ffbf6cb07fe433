//! Requests that stay here.

use serde_json::{Value, json};

use super::*;
use crate::config::Input;
use crate::episode::End;

/// A proxy before nobody, whose one route is made of these keys. The sinks are `graphiti` (by group), `other` and `again` (a replay).
fn keeper(keys: &str) -> config::Proxy {
    let text = format!(
        "[[sink]]\nname = \"graphiti\"\ntype = \"graphiti\"\nurl = \"http://h\"\n[[sink]]\nname = \"again\"\ntype = \"replay\"\nurl = \"http://h\"\n\
         [[proxy]]\nname = \"agent\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\"\n\
         [[proxy.route]]\nname = \"run\"\npath = \"/{{*rest}}\"\n{keys}"
    );
    let read = config::read(&text, std::path::Path::new("c.toml"), &Input::default()).unwrap();
    config::Proxy { routes: read.proxies[0].routes.clone(), ..proxy_to("127.0.0.1:9".parse().unwrap()) }
}

const GRAPHITI: &str = "preset = \"graphiti-messages\"\nsinks = [\"graphiti\"]\n";
const PLAIN: &str = "action = \"offload\"\nsinks = [\"graphiti\"]\n[proxy.route.extract]\ninput = \"req.json:$.say\"\n";

async fn serve(keys: &str, recorder: &Arc<Recorder>) -> Running {
    start(keeper(keys), recorder.clone()).await
}

/// One exchange on a connection of its own: status, head and body.
async fn ask(running: &Running, path: &str, head: &str, body: &[u8]) -> (u16, String, String) {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    split(&running.exchange(&request).await)
}

fn split(response: &[u8]) -> (u16, String, String) {
    let response = text(response);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    (head[9..12].parse().unwrap(), format!("{head}\r\n"), body.to_owned())
}

fn messages(contents: &[&str]) -> String {
    let messages: Vec<_> =
        contents.iter().map(|content| json!({"content": content, "role_type": "user", "role": "Ann", "uuid": "u"})).collect();
    json!({"group_id": "user:1", "messages": messages}).to_string()
}

#[tokio::test]
async fn inv2_no_byte_of_the_reply_leaves_before_the_commit() {
    let recorder = Recorder::slow();
    let running = serve(GRAPHITI, &recorder).await;
    let mut client = running.connect().await;
    client.write_all(&post("/messages", &messages(&["one"]))).await.unwrap();
    recorder.appended(1).await;
    assert!(is_silent(&mut client).await);
    assert_eq!(running.proxy.in_flight(), 1, "it has a place in the line as every request has");
    recorder.commit(Ok(()));
    let head = text(&read_head(&mut client).await.unwrap());
    assert!(head.starts_with("HTTP/1.1 202 Accepted\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n") && !head.contains("x-offramp-episode"), "{head}");
    assert_eq!(
        text(&read_until(&mut client, b"}").await.unwrap()),
        r#"{"message":"Messages added to processing queue","success":true}"#
    );
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
    // The connection goes on.
    client.write_all(&post("/messages", &messages(&["two"]))).await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 202 "));
}

#[tokio::test]
async fn inv5_each_message_is_an_episode_and_all_of_a_request_are_one_lane_in_order() {
    let recorder = Recorder::quick();
    let mut config = keeper(GRAPHITI);
    config.expose_episode_id = true;
    let running = start(config, recorder.clone()).await;
    let body = json!({"group_id": "user:1", "messages": [
        {"content": "one", "role_type": "user", "role": "Ann", "uuid": "u-1", "name": "n", "timestamp": "2026-01-01T00:00:00Z",
         "source_description": "chat"},
        {"content": "", "role_type": "system", "role": null},
        {"content": "two", "role_type": "assistant", "role": null, "source_description": ""},
    ]});
    let (status, head, _) = ask(
        &running,
        "/messages?token=canary",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        body.to_string().as_bytes(),
    )
    .await;
    assert_eq!(status, 202);
    let episodes = recorder.appended(3).await;
    assert!(head.contains(&format!("x-offramp-episode: {}\r\n", episodes[0].id)), "{head}");
    let said: Vec<_> = episodes
        .iter()
        .map(|e| (e.messages[0].role.as_str(), e.messages[0].name.as_deref(), e.messages[0].content.as_str(), e.messages.len()))
        .collect();
    assert_eq!(said, [("user", Some("Ann"), "one", 1), ("system", None, "", 1), ("assistant", None, "two", 1)]);
    let first = &episodes[0];
    assert_eq!(
        serde_json::from_str::<Value>(&first.metadata).unwrap(),
        json!({"uuid": "u-1", "name": "n", "source_description": "chat"})
    );
    assert_eq!((first.occurred_at, episodes[1].occurred_at), (Some(1_767_225_600_000), None));
    assert_eq!((first.end, first.request.status, first.request.path.as_str()), (End::Complete, 202, "/messages"));
    assert_eq!(first.request.traceparent.as_deref(), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), body.to_string())).into();
    assert!(first.sha256.request == Some(digest) && first.original.is_none());
    assert!(recorder.lanes().iter().all(|lanes| *lanes == [(SinkId(1), Lane::of("user:1"))]));
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1), "one request");
}

#[tokio::test]
async fn messages_that_belong_together_are_one_episode() {
    let recorder = Recorder::quick();
    let running = serve("preset = \"mem0-memories\"\nsinks = [\"graphiti\"]\n", &recorder).await;
    let body =
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "user_id": "u"});
    assert_eq!(ask(&running, "/memories", "", body.to_string().as_bytes()).await.2, r#"{"results":[]}"#);
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!(
        episode.messages,
        [crate::episode::Message::new("user", "hi"), crate::episode::Message::new("assistant", "hello")]
    );
    assert_eq!((episode.session.as_str(), episode.user.as_deref()), ("u", Some("u")));
}

#[tokio::test]
async fn an_empty_list_of_messages_is_answered_and_is_no_episode() {
    let recorder = Recorder::slow();
    let running = serve(GRAPHITI, &recorder).await;
    let (status, ..) = ask(&running, "/messages", "", messages(&[]).as_bytes()).await;
    assert_eq!(status, 202);
    assert_eq!((running.outcome("no_match"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn what_the_service_would_refuse_is_refused_in_its_words() {
    let recorder = Recorder::slow();
    let running = serve(GRAPHITI, &recorder).await;
    let (status, head, body) = ask(&running, "/messages", "content-type: application/json\r\n", br#"{"group_id":"g"}"#).await;
    assert_eq!(status, 422);
    assert!(head.contains("content-type: application/json\r\n") && !head.contains("x-offramp-error"), "{head}");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        told,
        json!({"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required", "input": {"group_id": "g"}}]})
    );
    assert_eq!((running.outcome("no_match"), running.outcomes()), (1, 1));
    let running = serve("preset = \"mem0-memories\"\nsinks = [\"graphiti\"]\n", &recorder).await;
    let (status, _, body) = ask(&running, "/memories", "", br#"{"messages":[{"role":"user","content":"x"}],"user_id":""}"#).await;
    assert_eq!(
        (status, body.as_str()),
        (400, r#"{"detail":"At least one identifier (user_id, agent_id, run_id) is required."}"#)
    );
    let running = serve("preset = \"lightrag-text\"\nsinks = [\"graphiti\"]\n", &recorder).await;
    for (body, expected) in [
        (r#"{"text":"","file_source":"f"}"#, 422),
        (r#"{"text":" \n","file_source":"f"}"#, 422),
        (r#"{"text":"x","file_source":" "}"#, 400),
        (r#"{"text":"x"}"#, 400),
    ] {
        assert_eq!(ask(&running, "/documents/text", "", body.as_bytes()).await.0, expected, "{body}");
    }
}

/// The answers are those of `LightRAG`'s own request model (lightrag-hku 1.5.7) and of mem0's (8d5b7865b), on `FastAPI` 0.165 and pydantic
/// 2.14; Graphiti's service itself is asked in an integration test.
#[tokio::test]
async fn lightrag_and_mem0_would_refuse_the_same_requests_in_the_same_words() {
    let recorder = Recorder::quick();
    let mut services: HashMap<String, Running> = HashMap::new();
    let rows: Vec<Value> = serde_json::from_str(include_str!("refusals.json")).unwrap();
    for row in &rows {
        let preset = row["preset"].as_str().unwrap();
        if !services.contains_key(preset) {
            services
                .insert(preset.to_owned(), serve(&format!("preset = \"{preset}\"\nsinks = [\"graphiti\"]\n"), &recorder).await);
        }
        let body = row["body"].to_string();
        let json = "content-type: application/json\r\n";
        let (status, _, answer) = ask(&services[preset], row["path"].as_str().unwrap(), json, body.as_bytes()).await;
        assert_eq!(row["status"], status, "{body}: {answer}");
        if status >= 400 {
            assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), row["answer"], "{body}");
        }
    }
    assert_eq!(recorder.lanes().len(), rows.iter().filter(|row| row["status"] == 200).count());
}

#[tokio::test]
async fn a_request_that_says_nothing_is_refused_and_not_lost() {
    let recorder = Recorder::slow();
    let running = serve(PLAIN, &recorder).await;
    let (status, head, body) = ask(&running, "/x", "", br#"{"other":1}"#).await;
    assert_eq!(status, 422, "{body}");
    assert!(head.contains("x-offramp-error: bad_request\r\n") && body.contains("nothing to keep"), "{head}{body}");
    let each = "action = \"offload\"\nsinks = [\"graphiti\"]\noffload = { each = \"$.a[*]\", message = { content = \"$.t\" } }\n";
    let running = serve(each, &recorder).await;
    let (status, _, body) = ask(&running, "/x", "", br#"{"a":[{"t":"x"},{"u":1}]}"#).await;
    assert!(status == 422 && body.contains("message 1 has no text"), "{body}");
    assert_eq!(ask(&running, "/x", "", b"{").await.0, 400);
}

#[tokio::test]
async fn a_request_that_cannot_be_kept_is_a_503_with_retry_after() {
    let unavailable = |(status, head, _): &(u16, String, String)| {
        *status == 503 && head.contains("x-offramp-error: queue_full\r\n") && head.contains("retry-after: ")
    };
    let recorder = Recorder::slow();
    recorder.full.store(true, Ordering::SeqCst);
    let running = serve(PLAIN, &recorder).await;
    let answer = ask(&running, "/x", "", br#"{"say":"x"}"#).await;
    assert!(unavailable(&answer), "{answer:?}");
    assert_eq!((running.outcome("queue_full"), running.outcomes()), (1, 1));
    recorder.full.store(false, Ordering::SeqCst);
    for (error, outcome) in [(AppendError::Full, "queue_full"), (AppendError::Failed, "failed")] {
        let running = serve(PLAIN, &recorder).await;
        *recorder.refuse.lock().unwrap() = Some(error);
        let answer = ask(&running, "/x", "", br#"{"say":"x"}"#).await;
        assert!(unavailable(&answer), "{answer:?}");
        *recorder.refuse.lock().unwrap() = None;
        recorder.commit(Err(error));
        let answer = ask(&running, "/x", "", br#"{"say":"x"}"#).await;
        assert!(unavailable(&answer), "{answer:?}");
        assert_eq!((running.outcome(outcome), running.outcomes()), (2, 2));
    }
}

#[tokio::test]
async fn a_commit_that_does_not_come_is_a_503_in_the_end() {
    let mut config = keeper(PLAIN);
    config.response_timeout = Duration::from_millis(50);
    let running = start(config, Recorder::slow()).await;
    let (status, head, _) = ask(&running, "/x", "", br#"{"say":"x"}"#).await;
    assert!(status == 503 && head.contains("x-offramp-error: queue_full\r\n"), "{head}");
    running.idle().await;
    assert_eq!((running.outcome("failed"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn inv9_a_body_beyond_the_limit_is_a_413() {
    let recorder = Recorder::slow();
    let running = serve(&format!("max_capture = \"16B\"\n{PLAIN}"), &recorder).await;
    for request in [
        &b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 17\r\n\r\n"[..],
        b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n11\r\n0123456789abcdefg\r\n",
    ] {
        let mut client = running.connect().await;
        client.write_all(request).await.unwrap();
        let head = text(&read_head(&mut client).await.unwrap());
        assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("x-offramp-error: bad_request\r\n"), "{head}");
    }
    running.idle().await;
    assert_eq!((running.outcome("no_match"), running.outcomes()), (2, 2));
    assert_eq!(ask(&running, "/x", "", br#"{"say":"1234567"}"#).await.0, 413);
    recorder.commit(Ok(()));
    assert_eq!(ask(&running, "/x", "", br#"{"say":"123456"}"#).await.0, 202);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408_and_one_that_breaks_off_is_none() {
    let mut config = keeper(PLAIN);
    config.idle_timeout = Duration::from_millis(50);
    let running = start(config, Recorder::slow()).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{\"sa").await.unwrap();
    let head = text(&read_head(&mut client).await.unwrap());
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await.unwrap();
    assert!(text(&rest(&mut client).await).starts_with("HTTP/1.1 400 "));
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{\"sa").await.unwrap();
    eventually(|| running.proxy.in_flight() == 1).await;
    drop(client);
    running.idle().await;
    eventually(|| running.outcomes() == 3).await;
    assert_eq!((running.outcome("no_match"), running.outcome("cancelled")), (1, 2));
}

#[tokio::test]
async fn a_body_may_come_in_chunks_and_after_a_100() {
    let recorder = Recorder::quick();
    let running = serve(PLAIN, &recorder).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    assert_eq!(text(&read_head(&mut client).await.unwrap()), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"6\r\n{\"say\"\r\n").await.unwrap();
    client.write_all(b"6\r\n:\"hi\"}\r\n0\r\nx-trailer: 1\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 202 "));
    assert_eq!(recorder.appended(1).await[0].messages[0].content, "hi");
    // One that is too long is not even asked for.
    let running = serve(&format!("max_capture = \"16B\"\n{PLAIN}"), &recorder).await;
    let mut client = running.connect().await;
    client.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99\r\n\r\n").await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 413 "));
}

#[tokio::test]
async fn inv2_a_client_that_has_closed_its_half_gets_its_reply_after_the_commit_too() {
    let recorder = Recorder::slow();
    let running = serve(PLAIN, &recorder).await;
    let mut client = running.connect().await;
    client.write_all(&post("/x", r#"{"say":"hi"}"#)).await.unwrap();
    client.shutdown().await.unwrap();
    recorder.appended(1).await;
    assert!(is_silent(&mut client).await);
    recorder.commit(Ok(()));
    let reply = text(&rest(&mut client).await);
    assert!(reply.starts_with("HTTP/1.1 202 "), "{reply}");
    assert!(reply.ends_with(&format!("{{\"id\":\"{}\"}}", recorder.appended(1).await[0].id)), "{reply}");
}

#[tokio::test]
async fn what_was_appended_stays_when_the_client_leaves() {
    let recorder = Recorder::slow();
    let running = serve(PLAIN, &recorder).await;
    let mut client = running.connect().await;
    client.write_all(&post("/x", r#"{"say":"hi"}"#)).await.unwrap();
    recorder.appended(1).await;
    drop(client);
    running.idle().await;
    assert_eq!((running.outcomes(), recorder.lanes().len()), (1, 1));
}

#[tokio::test]
async fn http_2_is_served_too() {
    let recorder = Recorder::slow();
    let running = serve(PLAIN, &recorder).await;
    let (mut sender, connection) = h2::client::handshake(running.connect().await).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://a/x").body(()).unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(b"{\"say\":"), false).unwrap();
    body.send_data(bytes::Bytes::from_static(b"\"hi\"}"), true).unwrap();
    recorder.appended(1).await;
    recorder.commit(Ok(()));
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), 202);
    let reply = response.body_mut().data().await.unwrap().unwrap();
    assert_eq!(text(&reply), format!("{{\"id\":\"{}\"}}", recorder.appended(1).await[0].id));
    running.idle().await;
    connection.abort();
}

#[tokio::test]
async fn a_large_body_is_read_elsewhere() {
    let recorder = Recorder::quick();
    let running = serve(PLAIN, &recorder).await;
    let body = json!({"say": "x".repeat(700_000)}).to_string();
    assert_eq!(ask(&running, "/x", "", body.as_bytes()).await.0, 202);
    assert_eq!(recorder.appended(1).await[0].messages[0].content.len(), 700_000);
}

#[tokio::test]
async fn a_repeated_request_is_one_episode_and_gets_the_first_ones_id() {
    let recorder = Recorder::quick();
    let dedupe = "dedupe = { window = \"10m\", key = [\"req.header:idempotency-key\"] }\n";
    let running = serve(&format!("{dedupe}{PLAIN}"), &recorder).await;
    let mut replies = Vec::new();
    for key in ["a", "a", "b"] {
        replies.push(ask(&running, "/x", &format!("idempotency-key: {key}\r\n"), br#"{"say":"hi"}"#).await.2);
    }
    assert_eq!(replies[0], replies[1]);
    assert_ne!(replies[0], replies[2]);
    for _ in 0..2 {
        ask(&running, "/x", "", br#"{"say":"hi"}"#).await;
    }
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcome("duplicate"), running.outcomes()), (4, 1, 5));
    // Several messages have a key each.
    let running = serve(&format!("{dedupe}{GRAPHITI}"), &recorder).await;
    for _ in 0..2 {
        assert_eq!(ask(&running, "/messages", "idempotency-key: c\r\n", messages(&["1", "2"]).as_bytes()).await.0, 202);
    }
    assert_eq!(recorder.lanes().len(), 4 + 2);
}

#[tokio::test]
async fn a_sink_that_sends_again_gets_the_request_once_and_nobody_else_gets_what_says_nothing() {
    let recorder = Recorder::quick();
    let sinks =
        || [("graphiti".to_owned(), SinkId(1), OrderBy::Group), ("again".to_owned(), SinkId(2), OrderBy::Session)].to_vec();
    let replaying = |keys: &str| {
        let recorder = recorder.clone();
        let config = keeper(keys);
        async move { start_between(config, recorder, OnFull::Pass, &sinks()).await }
    };
    // Nothing needs to be found for it.
    let running = replaying("action = \"offload\"\nsinks = [\"again\"]\n").await;
    let (status, ..) =
        ask(&running, "/v1/add?a=1&api_key=canary", "content-type: x/y\r\nauthorization: canary\r\ncookie: canary\r\n", b"\x00!")
            .await;
    assert_eq!(status, 202);
    let episode = recorder.appended(1).await.remove(0);
    let original = episode.original.as_ref().unwrap();
    assert_eq!((original.target.as_str(), original.body.as_slice()), ("/v1/add?a=1", &b"\x00!"[..]));
    assert_eq!((original.headers.len(), original.headers[0].0.as_str()), (1, "content-type"));
    assert_eq!((episode.messages.len(), episode.session), (0, episode.id.to_string()));
    // Each message goes to the graph, and the request goes to the other with the first of them.
    let running = replaying("preset = \"graphiti-messages\"\n").await;
    ask(&running, "/messages", "", messages(&["1", "2"]).as_bytes()).await;
    ask(&running, "/messages", "", messages(&[]).as_bytes()).await;
    let episodes = recorder.appended(4).await;
    let sinks: Vec<Vec<u16>> = recorder.lanes().iter().map(|lanes| lanes.iter().map(|(sink, _)| sink.0).collect()).collect();
    assert_eq!(sinks, [vec![2], vec![1, 2], vec![1], vec![2]]);
    assert!(episodes[1].original.is_some() && episodes[2].original.is_none() && episodes[3].original.is_some());
}

#[tokio::test]
async fn how_the_upstream_is_makes_no_difference() {
    let agent = Agent::new().await;
    let mut config = keeper(PLAIN);
    config.routes[0].path = PathPattern::parse("/keep").unwrap();
    config.upstream = proxy_to(agent.at()).upstream;
    config.breaker = config::Breaker::in_a_row(1, Duration::from_secs(300));
    drop(agent);
    let running = start(config, Recorder::quick()).await;
    assert_eq!(ask(&running, "/x", "", b"{}").await.0, 502);
    let (status, head, _) = ask(&running, "/x", "", b"{}").await;
    assert!(status == 503 && head.contains("breaker_open"), "{head}");
    assert_eq!(ask(&running, "/keep", "", br#"{"say":"hi"}"#).await.0, 202);
    let (status, head, _) = ask(&running, "/x", "", b"{}").await;
    assert!(status == 503 && head.contains("breaker_open"), "nothing was learnt of the upstream: {head}");
}

/// `{"say":"hi"}`, and the same with 100,000 bytes.
const ZIPPED: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x4e\xac\x54\xb2\x52\xca\xc8\x54\xaa\x05\x00\xbc\xe0\xd4\x63\x0c\x00\x00\x00";
const BOMB: &[u8] = include_bytes!("bomb.gz");

#[tokio::test]
async fn a_body_with_a_content_encoding_is_read_or_refused() {
    let recorder = Recorder::quick();
    let running = serve(&format!("max_capture = \"1KiB\"\n{PLAIN}"), &recorder).await;
    let encoded = |encoding: &str| format!("content-type: application/json\r\ncontent-encoding: {encoding}\r\n");
    assert_eq!(ask(&running, "/x", &encoded("gzip"), ZIPPED).await.0, 202);
    assert_eq!(recorder.appended(1).await[0].messages[0].content, "hi");
    for (encoding, body, status) in [("gzip", BOMB, 413), ("gzip", b"{}", 400), ("squeeze", b"{}", 415)] {
        let (told, head, _) = ask(&running, "/x", &encoded(encoding), body).await;
        assert!(told == status && head.contains("x-offramp-error: bad_request\r\n"), "{head}");
    }
}

#[tokio::test]
async fn inv10_what_is_to_be_redacted_is_redacted_in_texts_keys_and_the_request_itself() {
    let recorder = Recorder::quick();
    let keys = "redact = [\"$.pin\", \"$.user\", \"re:[0-9]{4} [0-9]{4}\"]\ndedupe = { key = [\"req.json:$.user\"] }\n\
                action = \"offload\"\nsinks = [\"graphiti\", \"again\"]\n[proxy.route.extract]\ninput = \"req.json:$.say\"\n\
                user = \"req.json:$.user\"\nmetadata = { pin = \"req.json:$.pin\" }\n";
    let sinks = [("graphiti".to_owned(), SinkId(1), OrderBy::Group), ("again".to_owned(), SinkId(2), OrderBy::Session)];
    let running = start_between(keeper(keys), recorder.clone(), OnFull::Pass, &sinks).await;
    for user in ["ann", "bob"] {
        let body = json!({"say": "card 1234 5678", "pin": "canary", "user": user}).to_string();
        assert_eq!(ask(&running, "/x", "content-type: application/json\r\n", body.as_bytes()).await.0, 202);
    }
    let episodes = recorder.appended(2).await;
    assert_eq!(episodes[0].messages[0].content, "card [redacted]");
    assert_ne!(episodes[0].user, episodes[1].user, "two keys stay two");
    for episode in episodes {
        let shown = format!("{episode:?}{}", text(&episode.original.as_ref().unwrap().body));
        assert!(!["canary", "ann", "bob", "1234 5678"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}
