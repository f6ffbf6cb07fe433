//! What a request and an event cost in writes. `/proc/PID/io` counts them, whatever the machine does beside: a guard on the cost of the
//! request path that needs no quiet processor and no tool. On one thread, because threads wake each other by writes too.
//! Time is measured by `benches/compare.py`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::support::offramp::Offramp;

const REQUESTS: u32 = 500;
const EVENTS: u32 = 2000;

/// One to the upstream and one to the client, each head and body together.
const WRITES_PER_REQUEST: f64 = 2.1;
/// Events that come together leave together: one write for many of them.
const WRITES_PER_EVENT: f64 = 0.2;

/// An upstream that reads a request of `length` bytes and answers with `answer`, again and again.
fn upstream(length: usize, answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let (mut bytes, mut request) = (vec![0; 64 << 10], Vec::new());
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    request.extend_from_slice(&bytes[..read]);
                    let head = request.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
                    if head.is_some_and(|head| request.len() == head + length) {
                        stream.write_all(&answer).unwrap();
                        request.clear();
                    }
                }
            });
        }
    });
    address
}

fn start(dir: &tempfile::TempDir, upstream: SocketAddr) -> Offramp {
    let config = format!(
        "[[proxy]]\nname = 'agent'\nlisten = '127.0.0.1:0'\nupstream = 'http://{upstream}'\n\
         [admin]\nlisten = '127.0.0.1:0'\n[log]\nformat = 'json'\n\
         [[sink]]\nname = 'file'\ntype = 'file'\npath = 'episodes.jsonl'\n"
    );
    Offramp::start_on_one_thread(dir.path(), &config)
}

/// Writes of the process until now, to sockets and files.
fn writes(offramp: &Offramp) -> f64 {
    let counts = fs::read_to_string(format!("/proc/{}/io", offramp.pid())).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().parse().unwrap()
}

fn read_until(client: &mut TcpStream, end: &[u8]) {
    let (mut seen, mut bytes) = (Vec::new(), vec![0; 256 << 10]);
    while !seen.ends_with(end) {
        let read = client.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "the connection ended early");
        seen.extend_from_slice(&bytes[..read]);
        seen.drain(..seen.len().saturating_sub(64));
    }
}

#[test]
fn a_request_costs_one_write_in_each_direction() {
    let dir = tempfile::tempdir().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2048\r\n\r\n{}!", "x".repeat(2047));
    let offramp = start(&dir, upstream(1024, answer.into_bytes()));
    let request = format!("POST /pass HTTP/1.1\r\nhost: a\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024));
    let mut client = TcpStream::connect(offramp.proxy("agent")).unwrap();
    let mut exchange = || {
        client.write_all(request.as_bytes()).unwrap();
        read_until(&mut client, b"!");
    };
    exchange();
    let before = writes(&offramp);
    (0..REQUESTS).for_each(|_| exchange());
    let each = (writes(&offramp) - before) / f64::from(REQUESTS);
    assert!(each <= WRITES_PER_REQUEST, "{each} writes a request");
}

#[test]
fn events_that_come_together_leave_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let event = format!("c8\r\ndata: {}\n\n\r\n", "x".repeat(192));
    (0..EVENTS).for_each(|_| stream.extend_from_slice(event.as_bytes()));
    stream.extend_from_slice(b"0\r\n\r\n");
    let offramp = start(&dir, upstream(0, stream));
    let mut client = TcpStream::connect(offramp.proxy("agent")).unwrap();
    let before = writes(&offramp);
    client.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    read_until(&mut client, b"\r\n0\r\n\r\n");
    let each = (writes(&offramp) - before) / f64::from(EVENTS);
    assert!(each <= WRITES_PER_EVENT, "{each} writes an event");
}
