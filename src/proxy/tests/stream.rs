//! Streamed responses: what they say, and when their last frame leaves.

use super::*;
use crate::config::source::EventPath;
use crate::config::{Marker, Stream, StreamFormat};
use crate::episode::End;

const ASKED: &str = r#"{"message":"hi","session":"s1"}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn rules() -> Stream {
    Stream {
        format: StreamFormat::Sse,
        append: vec![EventPath::parse("$.text").unwrap()],
        replace: Vec::new(),
        by: Vec::new(),
        end: vec![Marker::Text("[DONE]".to_owned())],
        error: vec![Marker::Path(EventPath::parse("$.error").unwrap())],
    }
}

/// A request whose upstream has it and says nothing yet.
async fn asked(recorder: &Arc<Recorder>) -> (Running, TcpStream, TcpStream) {
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    let route = &mut config.routes[0];
    route.stream = Some(rules());
    route.extract.output = vec![Source::RespJson(json("$.message")), Source::RespStream(None)];
    route.extract.metadata = vec![
        ("model".to_owned(), vec![Source::RespJson(json("$.model"))]),
        ("thought".to_owned(), vec![Source::RespStream(Some(EventPath::parse("$.thought").unwrap()))]),
    ];
    let running = start(config, recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/x", ASKED)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    (running, client, upstream)
}

fn chunk(text: &str) -> String {
    format!("{:X}\r\n{text}\r\n", text.len())
}

async fn said(recorder: &Recorder) -> (End, Vec<String>, String) {
    let episode = recorder.appended(1).await.remove(0);
    (episode.end, episode.messages.into_iter().map(|m| m.content).collect(), episode.metadata)
}

#[tokio::test]
async fn inv2_the_frame_with_the_end_marker_is_held_and_no_frame_before_it() {
    let recorder = Recorder::slow();
    let (running, mut client, mut upstream) = asked(&recorder).await;
    let said_first = format!("{HEAD}{}", chunk("data: {\"text\":\"hel\",\"thought\":\"h\",\"model\":\"m\"}\n\n"));
    upstream.write_all(said_first.as_bytes()).await.unwrap();
    assert_eq!(text(&read_until(&mut client, b"\n\n\r\n").await.unwrap()), said_first, "at once");
    let marker = chunk("data: {\"text\":\"lo\"}\n\ndata: [DONE]\n\n");
    upstream.write_all(marker.as_bytes()).await.unwrap();
    let (end, messages, metadata) = said(&recorder).await;
    assert_eq!((end, messages), (End::Complete, vec!["hi".to_owned(), "hello".to_owned()]));
    assert_eq!(metadata, r#"{"model":"m","thought":"h"}"#);
    assert!(is_silent(&mut client).await, "it waits for the commit");
    recorder.commit(Ok(()));
    assert_eq!(text(&read_until(&mut client, b"[DONE]\n\n\r\n").await.unwrap()), marker);
    // What follows is passed on, and no part of the episode.
    upstream.write_all(format!("{}0\r\n\r\n", chunk(": bye\n\n")).as_bytes()).await.unwrap();
    assert_eq!(text(&read_until(&mut client, b"0\r\n\r\n").await.unwrap()), format!("{}0\r\n\r\n", chunk(": bye\n\n")));
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_once_it_has_the_end_marker_has_the_whole_answer() {
    let recorder = Recorder::quick();
    let (running, mut client, mut upstream) = asked(&recorder).await;
    let all = format!("{HEAD}{}{}", chunk("data: {\"text\":\"hello\"}\n\n"), chunk("data: [DONE]\n\n"));
    upstream.write_all(all.as_bytes()).await.unwrap();
    read_until(&mut client, b"[DONE]\n\n").await.unwrap();
    drop(client);
    assert_eq!(said(&recorder).await.0, End::Complete);
    running.idle().await;
    assert_eq!((running.outcome("queued"), running.outcomes()), (1, 1));
}

#[tokio::test]
async fn what_was_seen_of_a_stream_that_broke_off_is_recorded() {
    for (cancelled, end) in [(true, End::Cancelled), (false, End::Error)] {
        let recorder = Recorder::quick();
        let (running, mut client, mut upstream) = asked(&recorder).await;
        upstream.write_all(format!("{HEAD}{}", chunk("data: {\"text\":\"hel\"}\n\ndata: {\"te")).as_bytes()).await.unwrap();
        read_until(&mut client, b"{\"te").await.unwrap();
        if cancelled {
            drop(client);
        } else {
            drop(upstream);
            assert!(!text(&rest(&mut client).await).contains("0\r\n\r\n"), "broken for the client too");
        }
        let (seen, messages, _) = said(&recorder).await;
        assert_eq!((seen, messages), (end, vec!["hi".to_owned(), "hel".to_owned()]));
        running.idle().await;
        assert_eq!(running.outcomes(), 1);
    }
}

#[tokio::test]
async fn an_event_that_says_that_the_reply_failed_ends_the_episode_with_an_error() {
    let recorder = Recorder::quick();
    let (_running, mut client, mut upstream) = asked(&recorder).await;
    let all = format!("{HEAD}{}0\r\n\r\n", chunk("data: {\"text\":\"hel\"}\n\ndata: {\"error\":\"overloaded\"}\n\n"));
    upstream.write_all(all.as_bytes()).await.unwrap();
    read_until(&mut client, b"0\r\n\r\n").await.unwrap();
    assert_eq!(said(&recorder).await.0, End::Error);
}

#[tokio::test]
async fn a_stream_beyond_the_limit_passes_whole_and_is_marked() {
    let recorder = Recorder::quick();
    let agent = Agent::new().await;
    let mut config = proxy_to(agent.at());
    config.routes[0].stream = Some(rules());
    config.routes[0].max_capture = 100;
    config.routes[0].extract.output = vec![Source::RespStream(None)];
    let running = start(config, recorder.clone()).await;
    let mut client = running.connect().await;
    client.write_all(&post("/run/x", ASKED)).await.unwrap();
    let mut upstream = agent.accept().await;
    read_until(&mut upstream, b"}").await.unwrap();
    let event = chunk(&format!("data: {{\"text\":\"{}\"}}\n\n", "x".repeat(40)));
    let all = format!("{HEAD}{}{}", event.repeat(50), chunk("data: [DONE]\n\n"));
    upstream.write_all(all.as_bytes()).await.unwrap();
    assert!(text(&read_until(&mut client, b"[DONE]\n\n\r\n").await.unwrap()) == all);
    let episode = recorder.appended(1).await.remove(0);
    assert_eq!((episode.end, episode.messages[1].content.as_str()), (End::Truncated, "x".repeat(100).as_str()));
}

#[tokio::test]
async fn encoded_bodies_are_read_and_pass_as_they_came() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let document = (gzip(r#"{"message":"hello"}"#), "application/json");
    let stream = (gzip("data: {\"text\":\"hello\"}\n\ndata: [DONE]\n\n"), "text/event-stream");
    for (body, kind) in [document, stream] {
        let recorder = Recorder::quick();
        let (_running, mut client, mut upstream) = asked(&recorder).await;
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n");
        upstream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        assert_eq!(text(&read_head(&mut client).await.unwrap()), head);
        let mut passed = vec![0; length];
        client.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, body);
        let episode = recorder.appended(1).await.remove(0);
        assert_eq!((episode.end, episode.messages[1].content.as_str()), (End::Complete, "hello"), "{kind}");
        let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &body)).into();
        assert_eq!(episode.sha256.response, Some(digest), "of what passed");
    }
}
