//! What the proxy's port has to put up with.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde_json::json;

use crate::support::http;
use crate::support::offramp::Offramp;
use crate::support::world::{LIMIT, World, ask, exchange};

const MIB: usize = 1 << 20;
/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const RUN: &str = "/api/v1/agent/sample/run";

/// A piece of a large body that looks like no other one.
fn block(number: usize) -> Bytes {
    let mut block = format!("{number:016x}").into_bytes();
    block.resize(MIB / 16, u8::try_from(number % 251).unwrap());
    block.into()
}

/// An agent that answers with so many MiB, and says nothing of their number before.
fn large(mebibytes: usize) -> Router {
    Router::new().route(
        RUN,
        post(move || async move {
            let blocks = stream::iter((0..mebibytes * 16).map(|number| Ok::<_, std::io::Error>(block(number))));
            ([(CONTENT_TYPE, "application/json")], Body::from_stream(blocks)).into_response()
        }),
    )
}

fn assert_is_large(body: &[u8], mebibytes: usize) {
    assert_eq!(body.len(), mebibytes * MIB);
    for (number, piece) in body.chunks(MIB / 16).enumerate() {
        assert!(piece == block(number), "the piece {number} is another one");
    }
}

fn upstream(world: &World, router: Router) -> Offramp {
    world.start(&world.settings().set("proxy.upstream", &format!("'http://{}'", world.serve(router))))
}

/// The most memory that the process ever had, in bytes; none where the system doesn't tell.
fn peak_memory(offramp: &Offramp) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", offramp.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024)
}

#[test]
fn inv1_inv9_a_large_response_is_untouched_and_its_episode_truncated() {
    let world = World::new();
    let mut offramp = upstream(&world, large(64));

    assert_is_large(&exchange(&offramp, "s", "much, please").body, 64);
    offramp.wait_for_delivery(1, LIMIT);
    let episode = &offramp.episodes()[0];
    assert_eq!(episode["end"], "truncated");
    assert_eq!(episode["messages"], json!([{ "role": "user", "content": "much, please" }]));
    assert_eq!(offramp.metric("offramp_capture_total", &[("outcome", "truncated")]), Some(1.0));
    if let Some(peak) = peak_memory(&offramp) {
        assert!(peak < 200 * MIB, "{} MiB of memory for a body that was not to be kept", peak / MIB);
    }
}

#[test]
fn inv1_inv9_a_large_upload_arrives_whole_and_its_episode_is_truncated() {
    let world = World::new();
    let received = Arc::new(Mutex::new(Bytes::new()));
    let keep = Arc::clone(&received);
    let agent = post(move |body: Bytes| async move {
        *keep.lock().unwrap() = body;
        Json(json!({ "message": "that was much", "session_id": "s", "success": true }))
    });
    let mut offramp = upstream(&world, Router::new().route(RUN, agent.layer(DefaultBodyLimit::disable())));

    let upload = json!({ "message_content": "0123456789abcdef".repeat(5 * MIB / 16), "session_name": "s" });
    let response = http::request(offramp.proxy("agent"), "POST", RUN, Some(&upload)).unwrap();
    assert_eq!(response.status, 200);
    assert!(*received.lock().unwrap() == upload.to_string(), "the agent got something else");
    offramp.wait_for_delivery(1, LIMIT);
    let episode = &offramp.episodes()[0];
    assert_eq!(episode["end"], "truncated");
    assert_eq!(episode["messages"], json!([{ "role": "assistant", "content": "that was much" }]));
}

/// Sends bytes that are no request and reads to the end of the connection.
fn provoke(proxy: SocketAddr, bytes: &[u8], hang_up: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // It may have been cut off in the middle, with a reset: as good an answer as any.
    let _ = stream.write_all(bytes);
    if hang_up {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection stays open");
    }
    answer
}

#[test]
fn inv1_garbage_ends_its_own_connection_and_nothing_else() {
    let world = World::new();
    let mut offramp = world.start(&world.settings().set("proxy.header_read_timeout", "'1s'"));
    let proxy = offramp.proxy("agent");
    let run = |rest: &str| format!("POST {RUN} HTTP/1.1\r\nhost: x\r\n{rest}").into_bytes();

    let garbage = [
        (vec![0; 64 * 1024], false),
        ((0..=255).cycle().take(100_000).collect(), false),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), false), // a client that thinks of TLS
        ([PREFACE, b"no frame of HTTP/2"].concat(), false),
        (b"GET\r\n\r\n".to_vec(), false),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), false),
        (b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n".to_vec(), false),
        ([b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; MIB]].concat(), false),
        (run("content-length: -1\r\n\r\n"), false),
        (run("content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"), false),
        (run("transfer-encoding: chunked\r\n\r\nzz\r\nnonsense\r\n"), false),
        (run("content-length: 1000\r\n\r\n{\"message_content\""), true),
        (run(""), false), // half a head, and nothing more
        (b"GET / HT".to_vec(), true),
        (Vec::new(), true),
    ];
    // At the same time, or the ones that are waited for would add up.
    thread::scope(|scope| {
        for (bytes, hang_up) in &garbage {
            scope.spawn(move || {
                let answer = provoke(proxy, bytes, *hang_up);
                let start = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
                let about = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
                // Type 4 is SETTINGS: how a server of HTTP/2 begins, whatever comes.
                let greeted = bytes.starts_with(PREFACE) && answer.get(3) == Some(&4);
                assert!(start.is_empty() || start.starts_with("HTTP/1.1 4") || greeted, "{about:?} was answered with {start:?}");
            });
        }
    });

    assert_eq!(exchange(&offramp, "s", "hi").status, 200);
    offramp.wait_for_delivery(1, LIMIT);
    offramp.wait_for_status("nothing is left of them", LIMIT, |status| status["proxies"][0]["in_flight"] == 0);
}

#[test]
fn inv9_slow_clients_hold_up_nobody() {
    let world = World::new();
    let settings = world
        .settings()
        .set("proxy.header_read_timeout", "'1s'")
        .set("proxy.upstream", &format!("'http://{}'", world.serve(large(16))));
    let mut offramp = world.start(&settings);
    let proxy = offramp.proxy("agent");

    // One asks for more than any buffer on the way holds, and doesn't read.
    let body = json!({ "message_content": "slowly, please", "session_name": "slow" }).to_string();
    let mut lazy = TcpStream::connect(proxy).unwrap();
    lazy.set_read_timeout(Some(LIMIT)).unwrap();
    write!(lazy, "POST {RUN} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    offramp.wait_for_status("the slow one is in flight", LIMIT, |status| status["proxies"][0]["in_flight"] == 1);

    // Others write their head byte by byte, and get no further than header_read_timeout.
    let begin = Instant::now();
    let dawdlers: Vec<_> = (0..20).map(|_| thread::spawn(move || dawdle(proxy))).collect();

    // Meanwhile everybody else is served.
    assert_is_large(&exchange(&offramp, "quick", "hi").body, 16);
    for dawdler in dawdlers {
        dawdler.join().unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());

    // The slow one gets all of it in the end.
    let mut answer = Vec::new();
    lazy.read_to_end(&mut answer).unwrap();
    assert_is_large(&http::parse(&answer).unwrap().body, 16);
    offramp.wait_for_delivery(2, LIMIT);
}

/// Sends a head one byte at a time until it is cut off.
fn dawdle(proxy: SocketAddr) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let head = b"GET /health HTTP/1.1\r\nx-slow: ".iter().chain([b'a'; 1000].iter());
    for byte in head {
        // Waits its 50 ms for an answer, which is the slowness.
        if stream.write_all(&[*byte]).is_err() || stream.read(&mut [0; 64]).is_ok() {
            return;
        }
    }
    panic!("a head may take for ever");
}

#[test]
fn inv9_two_hundred_connections_are_served_at_the_same_time() {
    let world = World::with(Duration::from_millis(200), offramp::demo::graph::Options::default());
    let mut offramp = world.start(&world.settings().set("sink.workers", "50"));

    // Two requests on each connection; an agent that takes its time holds all of them open at once.
    let outcome = world.load(&offramp, "many", 400, 200);
    assert_eq!(outcome.failed(), 0, "{:?}", outcome.errors);
    world.assert_delivered(&mut offramp, &outcome.conversations);
    assert!(ask(offramp.proxy("agent"), "s", "hi").is_ok());
}
