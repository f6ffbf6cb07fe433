//! Settings that change while connections are open and requests are under way.

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
const ASKED: &str = r#"{"message":"hi","session":"s"}"#;

impl Running {
    /// From now on it goes by these.
    fn reload(&mut self, config: config::Proxy) {
        let sinks = [("graphiti".to_owned(), SinkId(1), OrderBy::Session)];
        let proxy = self.live.borrow().proxy.renew(config, OnFull::Pass, &sinks, &self.metrics, None);
        self.live.send_replace(Serving { proxy: proxy.clone(), tls: None });
        self.proxy = proxy;
    }
}

fn without_routes(upstream: SocketAddr) -> config::Proxy {
    config::Proxy { routes: Vec::new(), ..proxy_to(upstream) }
}

/// A request on a connection that stays, answered by a connection of the upstream that stays.
async fn exchange(client: &mut TcpStream, upstream: &mut TcpStream) {
    client.write_all(&post("/run/x", ASKED)).await.unwrap();
    read_until(upstream, b"}").await.unwrap();
    upstream.write_all(OK).await.unwrap();
    read_until(client, b"{}").await.unwrap();
}

#[tokio::test]
async fn inv1_an_open_connection_goes_by_the_new_routes_with_its_next_request() {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    let mut running = start(without_routes(agent.at()), recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/x", ASKED)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    upstream.write_all(OK).await.unwrap();
    read_until(&mut client, b"{}").await.unwrap();
    assert_eq!(recorder.places().len(), 0);

    running.reload(proxy_to(agent.at()));
    exchange(&mut client, &mut upstream).await;
    assert_eq!(recorder.places().len(), 1, "and the connection to the upstream is the same one");
    running.reload(without_routes(agent.at()));
    exchange(&mut client, &mut upstream).await;
    assert_eq!(recorder.places().len(), 1);
    running.idle().await;
    let counted = |route| running.metrics.http_requests.with_label_values(&["agent", route, "POST", "200"]).get();
    assert_eq!((counted("none"), counted("run")), (2, 1));
}

#[tokio::test]
async fn inv5_a_request_ends_as_it_began_and_later_ones_of_its_session_wait_for_it_all_the_same() {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    let mut running = start(proxy_to(agent.at()), recorder.clone()).await;
    let mut first = running.connect().await;
    first.write_all(&post("/run/x", ASKED)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    eventually(|| running.proxy.routes().order.open() == 1).await;

    running.reload(proxy_to(agent.at()));
    let mut second = running.connect().await;
    second.write_all(&post("/run/x", ASKED)).await.unwrap();
    exchange_rest(&mut second, &agent).await;
    assert_eq!(recorder.holds.lock().unwrap().len(), 1, "it waits for the one that began before the reload");

    running.reload(without_routes(agent.at()));
    upstream.write_all(OK).await.unwrap();
    read_until(&mut first, b"{}").await.unwrap();
    let places = recorder.places();
    assert!(places.len() == 2 && places[1] < places[0], "recorded by the route that is gone, at its place: {places:?}");
    eventually(|| recorder.holds.lock().unwrap().is_empty()).await;
}

/// What the upstream does for a request that comes by a connection of its own.
async fn exchange_rest(client: &mut TcpStream, agent: &Agent) {
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    upstream.write_all(OK).await.unwrap();
    read_until(client, b"{}").await.unwrap();
}

#[tokio::test]
async fn another_upstream_gets_the_next_request_and_the_former_ends_what_it_has() {
    let (former, agent) = (Agent::new().await, Agent::new().await);
    let mut running = start(proxy_to(former.at()), Recorder::quick()).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    first.write_all(&post("/run/x", ASKED)).await.unwrap();
    let mut upstream = former.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    running.reload(proxy_to(agent.at()));
    second.write_all(&post("/run/x", "{}")).await.unwrap();
    exchange_rest(&mut second, &agent).await;
    upstream.write_all(OK).await.unwrap();
    read_until(&mut first, b"{}").await.unwrap();
    first.write_all(&post("/run/x", "{}")).await.unwrap();
    exchange_rest(&mut first, &agent).await;
}

fn line(upstream: SocketAddr, max_in_flight: usize, max_waiting: usize) -> config::Proxy {
    config::Proxy { max_in_flight, max_waiting, ..proxy_to(upstream) }
}

#[tokio::test]
async fn a_longer_line_lets_in_who_waits_and_a_shorter_one_sends_nobody_away() {
    let agent = Agent::new().await;
    let mut running = start(line(agent.at(), 1, 10), Recorder::quick()).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = running.connect().await;
        client.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        open.push(client);
    }
    eventually(|| running.proxy.waiting() == 2).await;
    running.reload(line(agent.at(), 3, 10));
    let mut upstreams = Vec::new();
    for _ in 0..3 {
        upstreams.push(agent.accept().await);
    }
    assert_eq!((running.proxy.in_flight(), running.proxy.waiting()), (3, 0));

    running.reload(line(agent.at(), 1, 0));
    assert!(running.get("/x").await.contains("x-offramp-error: overloaded"));
    running.reload(line(agent.at(), 1, 10));
    let mut waiting = running.connect().await;
    waiting.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually(|| running.proxy.waiting() == 1).await;
    for upstream in upstreams.iter_mut().take(2) {
        read_head(upstream).await.unwrap();
        upstream.write_all(OK).await.unwrap();
    }
    eventually(|| running.proxy.in_flight() == 1).await;
    assert_eq!(running.proxy.waiting(), 1, "the third one has the only place");
    read_head(&mut upstreams[2]).await.unwrap();
    upstreams[2].write_all(OK).await.unwrap();
    eventually(|| running.proxy.waiting() == 0 && running.proxy.in_flight() == 1).await;
}

#[tokio::test]
async fn a_limit_that_is_raised_again_before_it_was_reached_leaves_no_debt() {
    let running = start(line("127.0.0.1:1".parse().unwrap(), 4, 10), Recorder::quick()).await;
    let line = running.proxy.line();
    let wait = Duration::from_secs(1);
    let taken: Vec<_> = (0..4).map(|_| line.try_enter().unwrap()).collect();
    line.resize(1, 10, wait);
    line.resize(3, 10, wait);
    line.resize(2, 10, wait);
    drop(taken);
    let taken: Vec<_> = (0..2).map(|_| line.try_enter().unwrap()).collect();
    assert!(line.try_enter().is_none());
    line.resize(4, 10, wait);
    let more: Vec<_> = (0..2).map(|_| line.try_enter().unwrap()).collect();
    assert!(line.try_enter().is_none());
    drop((taken, more));
}

#[tokio::test]
async fn a_connection_that_waits_to_be_accepted_is_once_there_may_be_more() {
    let agent = Agent::new().await;
    let at = agent.at();
    agent.always(OK);
    let with = |max_connections| config::Proxy { max_connections, ..proxy_to(at) };
    let mut running = start(with(1), Recorder::quick()).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    first.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, b"{}").await.unwrap();
    second.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(is_silent(&mut second).await);
    running.reload(with(2));
    read_until(&mut second, b"{}").await.unwrap();
}

#[tokio::test]
async fn a_breaker_stays_open_and_another_upstream_has_one_of_its_own() {
    let agent = Agent::new().await;
    let with =
        |to, breaker| config::Proxy { breaker: config::Breaker::in_a_row(breaker, Duration::from_secs(3600)), ..proxy_to(to) };
    let nobody = "127.0.0.1:1".parse().unwrap();
    let mut running = start(with(nobody, 1), Recorder::quick()).await;
    assert!(running.get("/x").await.contains("x-offramp-error: upstream_connect"));
    assert!(running.get("/x").await.contains("x-offramp-error: breaker_open"));
    running.reload(with(nobody, 2));
    assert!(running.get("/x").await.contains("x-offramp-error: breaker_open"));
    running.reload(with(nobody, 0));
    assert!(running.get("/x").await.contains("x-offramp-error: upstream_connect"));
    running.reload(with(nobody, 1));
    assert!(running.get("/x").await.contains("x-offramp-error: upstream_connect"));
    assert!(running.get("/x").await.contains("x-offramp-error: breaker_open"));
    running.reload(with(agent.at(), 1));
    agent.always(OK);
    assert!(running.get("/x").await.starts_with("HTTP/1.1 200 OK"));
}
