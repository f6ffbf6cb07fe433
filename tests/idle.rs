//! Very many connections, most of which do nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::http;
use crate::support::offramp::Offramp;
use crate::support::world::{LIMIT, World};

const IDLE: usize = 10_000;
/// Heads that never end.
const DAWDLERS: usize = 800;
/// Responses that nobody reads.
const LAZY: usize = 200;
/// Bytes for each of them: the budget is 20 KB, and this build isn't optimised.
const MOST: usize = 28 << 10;
/// Descriptors for everything else in this process, which is also the upstream.
const OTHERS: usize = 2_000;

/// An upstream with a short answer and one of 16 MiB.
fn upstream() -> Router {
    let block = Bytes::from(vec![b'x'; 64 << 10]);
    let large = move || {
        let blocks = vec![block.clone(); 256].into_iter().map(Ok::<_, std::io::Error>);
        async move { Body::from_stream(stream::iter(blocks)) }
    };
    Router::new().route("/short", get(|| async { "ok" })).route("/large", get(large))
}

fn ask(mut stream: &TcpStream) {
    stream.write_all(b"GET /short HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut piece = [0; 512];
        let n = stream.read(&mut piece).unwrap();
        assert_ne!(n, 0, "the connection was closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..n]);
    }
}

fn connect(proxy: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Connections that have had one request each.
fn idle(proxy: SocketAddr, count: usize) -> Vec<TcpStream> {
    let threads: Vec<_> = (0..8)
        .map(|n| {
            thread::spawn(move || {
                let one = |_| {
                    let stream = connect(proxy);
                    ask(&stream);
                    stream
                };
                (n..count).step_by(8).map(one).collect::<Vec<_>>()
            })
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

/// The median of what a request on a connection of its own takes.
fn usual_time(proxy: SocketAddr) -> Duration {
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(http::request(proxy, "GET", "/short", None).unwrap().status, 200);
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Memory in use, in bytes; none where the system doesn't tell.
fn memory(offramp: &Offramp) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", offramp.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024)
}

#[test]
fn inv9_ten_thousand_idle_connections_and_a_thousand_slow_ones_hold_up_nobody() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let allowed = maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap());
    let count = IDLE.min(allowed.saturating_sub(DAWDLERS + LAZY + OTHERS));
    if count < IDLE {
        println!("{count} idle connections instead of {IDLE}: this process may have {allowed} files open (ulimit -Hn)");
    }

    let world = World::new();
    let settings = world
        .settings()
        .set("proxy.upstream", &format!("'http://{}'", world.serve(upstream())))
        .set("proxy.max_connections", "20000")
        .set("proxy.header_read_timeout", "'10m'");
    let mut offramp = world.start(&settings);
    let proxy = offramp.proxy("agent");
    let alone = usual_time(proxy);

    let before = memory(&offramp);
    let idle = idle(proxy, count);
    if let (Some(before), Some(after)) = (before, memory(&offramp)) {
        let each = after.saturating_sub(before) / count.max(1);
        println!("{count} idle connections: {each} bytes each");
        assert!(each < MOST, "{each} bytes for an idle connection");
    }

    let lazy: Vec<_> = (0..LAZY)
        .map(|_| {
            let mut stream = connect(proxy);
            // Or the system's buffers would read for them.
            set_socket_recv_buffer_size(&stream, 4096).unwrap();
            stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            stream
        })
        .collect();
    offramp.wait_for_status("the lazy ones are in flight", LIMIT, |status| status["proxies"][0]["in_flight"] == LAZY);
    let dawdlers: Vec<_> = (0..DAWDLERS).map(|_| connect(proxy)).collect();
    let done = AtomicBool::new(false);
    let crowded = thread::scope(|scope| {
        scope.spawn(|| {
            let head = b"GET /short HTTP/1.1\r\nx-slow: ".iter().chain([b'a'; 10_000].iter());
            for byte in head.take_while(|_| !done.load(Ordering::Relaxed)) {
                for mut dawdler in &dawdlers {
                    dawdler.write_all(&[*byte]).unwrap();
                }
                // The slowness itself.
                thread::sleep(Duration::from_millis(20));
            }
        });
        let crowded = usual_time(proxy);
        done.store(true, Ordering::Relaxed);
        crowded
    });
    println!("a request takes {alone:?} alone and {crowded:?} among them");
    assert!(crowded < 10 * alone + Duration::from_millis(20), "{crowded:?} instead of {alone:?}");
    // Who was idle is served, too.
    idle.iter().step_by(100).for_each(ask);
    drop(lazy);
}
