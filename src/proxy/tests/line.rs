//! The line before the upstream.

use super::*;

async fn narrow(max_in_flight: usize, max_waiting: usize, wait_timeout: Duration) -> (Agent, Running) {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    (config.max_in_flight, config.max_waiting, config.wait_timeout) = (max_in_flight, max_waiting, wait_timeout);
    let running = start(config, Recorder::quick()).await;
    (agent, running)
}

async fn ask(running: &Running, path: &str) -> TcpStream {
    let mut client = running.connect().await;
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    client
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[tokio::test]
async fn who_finds_no_place_waits_in_order_and_who_leaves_is_not_served() {
    let (agent, running) = narrow(1, 3, Duration::from_secs(60)).await;
    let mut first = ask(&running, "/1").await;
    let mut upstream = agent.accept().await;
    assert!(read_head(&mut upstream).await.unwrap().starts_with(b"GET /1 "));
    let mut clients = Vec::new();
    for n in 2..=4 {
        clients.push(ask(&running, &format!("/{n}")).await);
        eventually(|| running.proxy.waiting() == n - 1).await;
    }
    assert_eq!((running.proxy.in_flight(), running.metrics.http_waiting.with_label_values(&["agent"]).get()), (1, 3));

    let refused = running.get("/5").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("x-offramp-error: overloaded"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("content-type: application/problem+json"), "{refused}");

    drop(clients.remove(0)); // 2
    eventually(|| running.proxy.waiting() == 2).await;
    // The place is kept until the last byte: a head and half of a body are not the end.
    upstream.write_all(&OK[..OK.len() - 1]).await.unwrap();
    read_until(&mut first, b"\r\n\r\no").await.unwrap();
    assert_eq!((running.proxy.in_flight(), running.proxy.waiting()), (1, 2));
    upstream.write_all(b"k").await.unwrap();
    for (n, mut client) in [3, 4].into_iter().zip(clients) {
        let mut upstream = agent.accept().await;
        assert!(read_head(&mut upstream).await.unwrap().starts_with(format!("GET /{n} ").as_bytes()));
        upstream.write_all(OK).await.unwrap();
        read_until(&mut client, b"ok").await.unwrap();
    }
    running.idle().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_told() {
    let (agent, running) = narrow(1, 1, Duration::from_millis(20)).await;
    let _first = ask(&running, "/1").await;
    let _upstream = agent.accept().await;
    let refused = running.get("/2").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after"), "{refused}");
    assert_eq!((running.proxy.in_flight(), running.proxy.waiting()), (1, 0));
}

#[tokio::test]
async fn a_place_is_free_again_however_the_exchange_ended() {
    let (agent, running) = narrow(1, 0, Duration::from_secs(60)).await;
    // The client leaves, the upstream breaks before and in the middle of its answer, and all is well.
    let client = ask(&running, "/1").await;
    let _upstream = agent.accept().await;
    eventually(|| running.proxy.in_flight() == 1).await;
    drop(client);
    running.idle().await;
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", OK] {
        let mut client = ask(&running, "/2").await;
        let mut upstream = agent.accept().await;
        read_head(&mut upstream).await.unwrap();
        upstream.write_all(answer).await.unwrap();
        drop(upstream);
        read_head(&mut client).await.unwrap();
        running.idle().await;
    }
}
