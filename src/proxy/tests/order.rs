//! Overlapping requests of one session: the order is that in which they came.

use super::*;

/// A request on its way: its client, and its upstream, which has read it and says nothing yet.
struct Open {
    client: TcpStream,
    upstream: TcpStream,
}

impl Open {
    async fn ask(running: &Running, agent: &Agent, body: &str) -> Self {
        let mut client = running.connect().await;
        client.write_all(&post("/run/x", body)).await.unwrap();
        let mut upstream = agent.accept().await;
        read_until(&mut upstream, b"}").await.unwrap();
        Self { client, upstream }
    }

    async fn answer(&mut self) {
        self.upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        read_until(&mut self.client, b"{}").await.unwrap();
    }
}

async fn world() -> (Running, Agent, Arc<Recorder>) {
    let agent = Agent::new().await;
    let recorder = Recorder::quick();
    (start(proxy_to(agent.at()), recorder.clone()).await, agent, recorder)
}

const ASKED: &str = r#"{"message":"hi","session":"s"}"#;

#[tokio::test]
async fn inv5_the_later_request_of_a_session_that_ends_first_waits_for_the_earlier_one() {
    let (running, agent, recorder) = world().await;
    let mut first = Open::ask(&running, &agent, ASKED).await;
    let mut second = Open::ask(&running, &agent, ASKED).await;
    let mut other = Open::ask(&running, &agent, r#"{"message":"hi","session":"t"}"#).await;
    eventually(|| running.proxy.routes().order.open() == 3).await;
    second.answer().await;
    other.answer().await;
    let places = recorder.places();
    assert_eq!(*recorder.holds.lock().unwrap(), [(SinkId(1), Lane::of("s"), places[0] - 1)], "and nobody else waits");
    first.answer().await;
    let places = recorder.places();
    assert_eq!(places.len(), 3);
    assert!(places[2] < places[0] && places[0] < places[1], "each has the place at which it came: {places:?}");
    eventually(|| recorder.holds.lock().unwrap().is_empty()).await;
    running.idle().await;
    assert_eq!(running.proxy.routes().order.open(), 0);
}

#[tokio::test]
async fn inv5_an_earlier_request_that_comes_to_nothing_is_waited_for_no_longer() {
    let (running, agent, recorder) = world().await;
    for failing in ["gone", "refused", "broken"] {
        let mut first = Open::ask(&running, &agent, ASKED).await;
        let mut second = Open::ask(&running, &agent, ASKED).await;
        eventually(|| running.proxy.routes().order.open() == 2).await;
        second.answer().await;
        assert_eq!(recorder.holds.lock().unwrap().len(), 1, "{failing}");
        match failing {
            "gone" => drop(first.client),
            "refused" => first.upstream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await.unwrap(),
            _ => drop(first.upstream),
        }
        eventually(|| recorder.holds.lock().unwrap().is_empty() && running.proxy.routes().order.open() == 0).await;
    }
}

#[tokio::test]
async fn requests_that_name_no_session_wait_for_nobody() {
    let (running, agent, recorder) = world().await;
    let _first = Open::ask(&running, &agent, r#"{"message":"hi"}"#).await;
    let mut second = Open::ask(&running, &agent, r#"{"message":"hi"}"#).await;
    second.answer().await;
    assert_eq!((running.proxy.routes().order.open(), recorder.holds.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn inv3_a_request_that_is_long_once_decoded_is_not_read_while_it_waits_and_recorded_all_the_same() {
    let (running, agent, recorder) = world().await;
    let body = format!(r#"{{"session":"s","message":"{}"}}"#, "x".repeat(300_000));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let encoded = gzip.finish().unwrap();
    let head = format!("POST /run/x HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", encoded.len());
    let mut client = running.connect().await;
    client.write_all(&[head.as_bytes(), &encoded].concat()).await.unwrap();
    let mut upstream = agent.accept().await;
    read_head(&mut upstream).await.unwrap();
    upstream.read_exact(&mut vec![0; encoded.len()]).await.unwrap();
    let mut open = Open { client, upstream };
    open.answer().await;
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!((episode.session.as_str(), episode.messages[0].content.len()), ("s", 300_000));
    running.idle().await;
    assert_eq!((running.proxy.routes().order.open(), running.outcome("queued")), (0, 1));
}
