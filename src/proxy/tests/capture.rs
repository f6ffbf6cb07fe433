//! What becomes of an exchange.

use super::*;
use crate::config::source::Source;
use crate::episode::End;

const ASKED: &str = r#"{"message":"hi","session":"s1"}"#;

async fn run(config: impl FnOnce(&mut config::Proxy), answer: &str) -> (Running, Arc<Recorder>, TcpStream, TcpStream) {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    let mut proxy = proxy_to(agent.at());
    config(&mut proxy);
    let running = start(proxy, recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/my%20agent?key=secret", ASKED)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    upstream.write_all(answer.as_bytes()).await.unwrap();
    (running, recorder, client, upstream)
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_exchange_becomes_an_episode() {
    let before = crate::clock::now_ms();
    let (running, recorder, mut client, _upstream) = run(
        |proxy| {
            proxy.expose_episode_id = true;
            proxy.routes[0].sinks = ["graphiti", "other", "users"].map(ToOwned::to_owned).to_vec();
            proxy.routes[0].extract.group = vec![Source::Const("g".to_owned())];
            proxy.routes[0].extract.metadata = vec![("said".to_owned(), vec![Source::RespJson(json("$.n"))])];
        },
        &answer(r#"{"message":"hello","n":3}"#),
    )
    .await;
    let head = text(&read_head(&mut client).await.unwrap());
    let episode = recorder.appended(1).await.remove(0);
    assert!(head.contains(&format!("x-offramp-episode: {}\r\n", episode.id)), "{head}");
    assert_eq!(
        (episode.session.as_str(), episode.group.as_deref(), episode.agent.as_deref()),
        ("s1", Some("g"), Some("my agent"))
    );
    let messages: Vec<_> = episode.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(messages, [("user", "hi"), ("assistant", "hello")]);
    assert_eq!((episode.proxy.as_str(), episode.route.as_str(), episode.metadata.as_str()), ("agent", "run", r#"{"said":3}"#));
    assert_eq!((episode.end, episode.request.status, episode.request.method.as_str()), (End::Complete, 200, "POST"));
    assert_eq!(episode.request.path, "/run/my%20agent", "without its query");
    assert!(before <= episode.captured_at && episode.captured_at <= episode.completed_at);
    assert_eq!(recorder.lanes()[0], [(SinkId(1), Lane::of("g")), (SinkId(2), Lane::of("s1")), (SinkId(3), Lane::of("s1"))]);
    running.idle().await;
    let requests = running.metrics.http_requests.with_label_values(&["agent", "run", "POST", "200"]);
    read_until(&mut client, b"}").await.unwrap();
    eventually(|| requests.get() == 1).await;
}

#[tokio::test]
async fn an_exchange_without_a_session_is_its_own() {
    let (_running, recorder, _client, _upstream) =
        run(|proxy| proxy.routes[0].extract.session.clear(), &answer(r#"{"message":"hello"}"#)).await;
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!(episode.session, episode.id.to_string());
    assert_eq!(recorder.lanes()[0], [(SinkId(1), Lane::of(&episode.session))]);
}

#[tokio::test]
async fn what_is_no_success_is_no_episode() {
    let error = "HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}".to_owned();
    let apology = answer(r#"{"message":"sorry","success":false}"#);
    for answer in [error, apology] {
        let (running, _recorder, mut client, _upstream) =
            run(|proxy| proxy.routes[0].success_if = vec![Source::RespJson(json("$.success"))], &answer).await;
        read_until(&mut client, b"}").await.unwrap();
        running.idle().await;
        assert_eq!((running.outcome("no_match"), running.outcomes()), (1, 1), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_sampled_is_not_captured() {
    let (running, _recorder, mut client, _upstream) = run(|proxy| proxy.routes[0].sample = 0.0, &answer("{}")).await;
    read_until(&mut client, b"{}").await.unwrap();
    running.idle().await;
    assert_eq!((running.outcome("sampled_out"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn a_body_beyond_the_limit_passes_whole_and_is_marked() {
    let long = answer(&format!(r#"{{"message":"{}"}}"#, "x".repeat(5000)));
    let (running, recorder, mut client, _upstream) = run(
        |proxy| {
            proxy.routes[0].max_capture = 64;
            proxy.routes[0].success_if = vec![Source::RespJson(json("$.success"))];
        },
        &long,
    )
    .await;
    assert_eq!(text(&read_until(&mut client, b"}").await.unwrap()), long);
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!((episode.end, episode.messages.len()), (End::Truncated, 1), "the input, though its success can't be judged");
    running.idle().await;
    assert_eq!((running.outcome("truncated"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_passes_whole_and_is_marked() {
    let broken = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}";
    let (running, recorder, mut client, _upstream) = run(|_| (), broken).await;
    assert_eq!(text(&read_until(&mut client, b"{}").await.unwrap()), broken);
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!((episode.end, episode.messages.len()), (End::Truncated, 1));
    running.idle().await;
    assert_eq!(running.outcomes(), 1);
}

#[tokio::test]
async fn a_large_body_is_read_elsewhere_and_still_before_the_last_byte() {
    let long = answer(&format!(r#"{{"message":"{}"}}"#, "x".repeat(700_000)));
    let (_running, recorder, mut client, _upstream) = run(|_| (), &long).await;
    assert_eq!(read_until(&mut client, b"}").await.unwrap().len(), long.len());
    assert_eq!(*recorder.appended.borrow(), 1);
    assert_eq!(recorder.appended(1).await[0].messages[1].content.len(), 700_000);
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_or_not_as_told() {
    for record_cancelled in [true, false] {
        let (running, recorder, mut client, upstream) = run(
            |proxy| proxy.routes[0].record_cancelled = record_cancelled,
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"mess",
        )
        .await;
        read_until(&mut client, b"mess").await.unwrap();
        drop(client);
        running.idle().await;
        eventually(|| running.outcome("cancelled") == 1).await;
        assert_eq!(running.outcomes(), 1);
        if record_cancelled {
            assert_eq!(recorder.appended(1).await[0].end, End::Cancelled);
        } else {
            assert_eq!(*recorder.appended.borrow(), 0);
        }
        drop(upstream);
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_recorded_with_that_end() {
    let (running, recorder, mut client, upstream) =
        run(|_| (), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{\"mess\r\n").await;
    drop(upstream);
    rest(&mut client).await;
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!((episode.end, episode.messages.len()), (End::Error, 1));
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn an_exchange_without_an_answer_is_counted_too() {
    let (running, _recorder, mut client, upstream) = run(|_| (), "").await;
    drop(upstream);
    assert!(text(&read_head(&mut client).await.unwrap()).contains("x-offramp-error: upstream_protocol"));
    running.idle().await;
    assert_eq!((running.outcome("no_match"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_survives() {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    recorder.panics.store(true, Ordering::SeqCst);
    let running = start_with(proxy_to(agent.at()), recorder.clone(), OnFull::Reject).await;
    agent.always(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let mut client = running.connect().await;
    client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let head = text(&read_head(&mut client).await.unwrap());
    assert!(head.starts_with("HTTP/1.1 500 ") && head.contains("x-offramp-error: internal"), "{head}");
    let problem: serde_json::Value = serde_json::from_slice(&read_until(&mut client, b"}").await.unwrap()).unwrap();
    assert_eq!(problem["status"], 500);
    recorder.panics.store(false, Ordering::SeqCst);
    client.write_all(b"GET /run/x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(text(&read_until(&mut client, b"ok").await.unwrap()).starts_with("HTTP/1.1 200 OK"));
    running.idle().await;
    assert_eq!(running.metrics.http_requests.with_label_values(&["agent", "run", "GET", "500"]).get(), 1);
}

/// Two threads, many connections: what is handed from one to the other (connections, uploads, places) arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_served_and_all_captured() {
    const CLIENTS: usize = 32;
    const EACH: usize = 20;
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    let running = start(proxy_to(agent.at()), recorder.clone()).await;
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let mut stream = agent.accept().await;
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    let length =
                        text(&head).split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.unwrap();
                    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
                    stream.write_all(&body).await.unwrap();
                }
            });
        }
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let at = running.at;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(at).await.unwrap();
                for n in 0..EACH {
                    let body = format!(r#"{{"session":"{client}","message":"{n}"}}"#);
                    stream.write_all(&post("/run/x", &body)).await.unwrap();
                    read_head(&mut stream).await.unwrap();
                    assert_eq!(text(&read_until(&mut stream, b"}").await.unwrap()), body);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    running.idle().await;
    let episodes = recorder.appended(CLIENTS * EACH).await;
    for client in 0..CLIENTS {
        let said: Vec<_> =
            episodes.iter().filter(|e| e.session == client.to_string()).map(|e| e.messages[1].content.clone()).collect();
        assert_eq!(said, (0..EACH).map(|n| n.to_string()).collect::<Vec<_>>(), "each once and in order");
    }
    assert_eq!((running.outcome("queued"), running.outcomes()), ((CLIENTS * EACH) as u64, (CLIENTS * EACH) as u64));
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= CLIENTS + CLIENTS / 2, "connections are used again: {connections} were made");
}

#[tokio::test]
async fn a_second_whole_exchange_with_the_same_key_is_no_new_episode() {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    let mut config = proxy_to(agent.at());
    let header = |name| Source::ReqHeader(http::HeaderName::from_static(name));
    config.routes[0].dedupe =
        Some(config::Dedupe { window: Duration::from_secs(600), key: vec![header("idempotency-key"), header("x-part")] });
    let running = start(config, recorder.clone()).await;
    let ask = async |headers: &str, answer: &str| {
        let mut client = running.connect().await;
        let length = ASKED.len();
        let head = format!("POST /run/x HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
        client.write_all(format!("{head}{ASKED}").as_bytes()).await.unwrap();
        let mut upstream = agent.accept().await;
        read_until(&mut upstream, b"}").await.unwrap();
        upstream.write_all(answer.as_bytes()).await.unwrap();
        drop(upstream);
        rest(&mut client).await
    };
    let whole = answer(r#"{"message":"hello"}"#);
    // What broke off is no reason to leave out the one that is whole.
    ask("idempotency-key: 1\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
    for (headers, episodes, duplicates) in [
        ("idempotency-key: 1\r\n", 2, 0),
        ("idempotency-key: 1\r\n", 2, 1),
        ("idempotency-key: 1\r\nx-part: 2\r\n", 3, 1),
        ("x-part: 1\r\n", 4, 1),
        ("", 5, 1),
        ("", 6, 1),
        ("x-part: 1\r\n", 6, 2),
    ] {
        assert!(text(&ask(headers, &whole).await).ends_with(r#"{"message":"hello"}"#), "it is forwarded all the same");
        running.idle().await;
        assert_eq!((*recorder.appended.borrow(), running.outcome("duplicate")), (episodes, duplicates), "{headers}");
    }
}
