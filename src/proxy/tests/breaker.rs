//! The upstream's breaker: what opens it, what clients get meanwhile, and how it closes.

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(30);
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A proxy whose breaker opens after two failures.
async fn guarded(upstream: SocketAddr) -> Running {
    let mut config = proxy_to(upstream);
    config.breaker = config::Breaker::in_a_row(2, OPEN_FOR);
    config.fallback = config::Fallback {
        status: http::StatusCode::ACCEPTED,
        body: bytes::Bytes::from_static(b"later"),
        content_type: HeaderValue::from_static("text/plain"),
    };
    start(config, Recorder::quick()).await
}

/// A request that the upstream answers so; the client's status.
async fn answered(running: &Running, agent: &Agent, answer: &[u8]) -> String {
    let (response, ()) = tokio::join!(running.get("/x"), async {
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(answer).await.unwrap();
    });
    response[9..12].to_owned()
}

/// Two failures.
async fn opened() -> (Agent, Running) {
    let agent = Agent::new().await;
    let running = guarded(agent.at()).await;
    for _ in 0..2 {
        assert_eq!(answered(&running, &agent, REFUSED).await, "503", "what the upstream says itself is passed on");
    }
    (agent, running)
}

/// A request that isn't let through: the seconds after which it may be repeated.
async fn turned_away(running: &Running) -> u64 {
    let response = running.get("/x").await;
    assert!(response.starts_with("HTTP/1.1 202 Accepted\r\n"), "{response}");
    assert!(response.contains("x-offramp-error: breaker_open\r\n"), "{response}");
    assert!(response.contains("content-type: text/plain\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nlater"), "{response}");
    let after = response.split("retry-after: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    after.parse().unwrap()
}

/// Lets time pass.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_upstream_that_refuses_twice_is_left_alone_for_a_while() {
    let (agent, running) = opened().await;
    for _ in 0..3 {
        assert!((29..=30).contains(&turned_away(&running).await));
    }
    pass(OPEN_FOR / 2).await;
    assert!((14..=15).contains(&turned_away(&running).await));
    let touched = tokio::time::timeout(Duration::from_millis(20), agent.accept()).await;
    assert!(touched.is_err(), "it is left alone");
    running.idle().await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_opens_it_too() {
    let agent = Agent::new().await;
    let at = agent.at();
    drop(agent);
    let running = guarded(at).await;
    for _ in 0..2 {
        let response = running.get("/x").await;
        assert!(response.contains("x-offramp-error: upstream_connect\r\n"), "{response}");
    }
    turned_away(&running).await;
}

#[tokio::test]
async fn an_agents_own_errors_do_not_open_it_and_a_success_counts_anew() {
    let agent = Agent::new().await;
    let running = guarded(agent.at()).await;
    let error = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(answered(&running, &agent, error).await, "500");
    }
    for _ in 0..3 {
        assert_eq!(answered(&running, &agent, REFUSED).await, "503");
        assert_eq!(answered(&running, &agent, OK).await, "200");
    }
    // A request that can't be forwarded says nothing of the upstream.
    for _ in 0..3 {
        let response = text(&running.exchange(b"GET /x HTTP/1.1\r\nconnection: close\r\n\r\n").await);
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    }
    assert_eq!(answered(&running, &agent, OK).await, "200");
}

#[tokio::test]
async fn one_request_at_a_time_shows_whether_it_answers_again() {
    let (agent, running) = opened().await;
    pass(OPEN_FOR).await;
    // The first probe: others are turned away meanwhile, and it fails.
    let mut client = running.connect().await;
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    turned_away(&running).await;
    upstream.write_all(REFUSED).await.unwrap();
    assert!(read_head(&mut client).await.unwrap().starts_with(b"HTTP/1.1 503 "));
    assert!((29..=30).contains(&turned_away(&running).await), "open for as long again");
    // The second succeeds, and all are let through again; one failure more doesn't open it.
    pass(OPEN_FOR).await;
    for (answer, status) in [(OK, "200"), (OK, "200"), (REFUSED, "503"), (OK, "200")] {
        assert_eq!(answered(&running, &agent, answer).await, status);
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_probe_leaves_it_to_the_next() {
    for (method, rest_of_it, code) in [("GET", "\r\n", "499"), ("POST", "content-length: 9\r\n\r\npart", "400")] {
        let (agent, running) = opened().await;
        pass(OPEN_FOR).await;
        let mut client = running.connect().await;
        client.write_all(format!("{method} /x HTTP/1.1\r\nhost: a\r\n{rest_of_it}").as_bytes()).await.unwrap();
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        turned_away(&running).await;
        drop(client);
        rest(&mut upstream).await;
        drop(upstream);
        running.idle().await;
        let counted = running.metrics.http_requests.with_label_values(&["agent", "none", method, code]).get();
        assert_eq!(counted, 1, "{method}: the client's doing, not the upstream's");
        assert_eq!(answered(&running, &agent, OK).await, "200");
        assert_eq!(answered(&running, &agent, OK).await, "200");
    }
}
