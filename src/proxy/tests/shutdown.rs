//! Listeners, and how serving ends.

use super::*;

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let agent = Agent::new().await;
    let mut running = start(proxy_to(agent.at()), Recorder::quick()).await;
    let mut idle = running.connect().await;
    let mut client = running.connect().await;
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    running.stop.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut idle).await, b"");
    assert!(TcpStream::connect(running.at).await.is_err(), "nothing is accepted any more");
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let answer = text(&rest(&mut client).await);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nok"), "{answer}");
    running.serving.await.unwrap();
}

#[tokio::test]
async fn shutdown_waits_no_longer_than_drain_timeout() {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    (config.drain_timeout, config.max_in_flight) = (Duration::from_millis(50), 1);
    let mut running = start(config, Recorder::quick()).await;
    let mut client = running.connect().await;
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    let mut waiting = running.connect().await;
    waiting.write_all(b"GET /y HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually(|| running.proxy.waiting() == 1).await;
    running.stop.take().unwrap().send(()).unwrap();
    assert!(text(&rest(&mut waiting).await).contains("x-offramp-error: shutting_down"));
    running.serving.await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(rest(&mut upstream).await, b"");
}

#[tokio::test]
async fn no_more_connections_are_accepted_than_allowed() {
    let agent = Agent::new().await;
    let at = agent.at();
    agent.always(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let mut config = proxy_to(at);
    config.max_connections = 1;
    let running = start(config, Recorder::quick()).await;
    let mut first = running.connect().await;
    first.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, b"ok").await.unwrap();
    let mut second = running.connect().await;
    second.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(is_silent(&mut second).await);
    drop(first);
    read_until(&mut second, b"ok").await.unwrap();
}

#[tokio::test]
async fn the_whole_way_works_over_unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let agent = tokio::net::UnixListener::bind(dir.path().join("agent")).unwrap();
    let mut config = proxy_to("127.0.0.1:1".parse().unwrap());
    config.upstream = Upstream::Unix(dir.path().join("agent"));
    config.listen = Listen::Unix(dir.path().join("offramp"));
    config.forwarded = true;
    let listener = Listener::bind(&config.listen, &config.socket).await.unwrap();
    let proxy = Proxy::recording(config, OnFull::Pass, &[], Recorder::quick(), &Metrics::new(), None);
    tokio::spawn(server::serve(listener, watch::channel(Serving { proxy, tls: None }).1, std::future::pending()));
    let mut client = tokio::net::UnixStream::connect(dir.path().join("offramp")).await.unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut upstream = agent.accept().await.unwrap().0;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(upstream.read_u8().await.unwrap());
    }
    assert!(!text(&head).contains("x-forwarded-for"), "there is no address to tell: {}", text(&head));
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}
