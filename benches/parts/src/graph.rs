//! A graph that takes a fixed time for each write, and as many at once as come: what `drain.py` drains to. Writes are POSTs; anything else
//! is answered at once.
//!
//! A thread per connection: a sleep of the system ends within a tenth of a millisecond, tokio's counts whole ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::http;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// What it has seen.
#[derive(Default)]
struct Seen {
    writes: u64,
    /// When the first one came.
    first: Option<Instant>,
    /// Of all writes together, from the request's last byte to the answer.
    busy: Duration,
    at_once: u64,
    most: u64,
}

/// Serves until killed. Once `--count` writes are answered it prints how long they took as a line of JSON.
pub fn run(args: &Args) -> io::Result<()> {
    let (listen, count): (SocketAddr, u64) = (args.get("listen")?, args.get("count")?);
    let takes = Duration::from_micros(args.get("write-us")?);
    let seen = Arc::new(Mutex::new(Seen::default()));
    for stream in TcpListener::bind(listen)?.incoming() {
        let (stream, seen) = (stream?, seen.clone());
        std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            if let Err(error) = serve(stream, takes, count, &seen) {
                eprintln!("graph: {error}");
            }
        })?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream, takes: Duration, count: u64, seen: &Mutex<Seen>) -> io::Result<()> {
    let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    while let Some(is_write) = request(&mut stream, &mut buffer)? {
        if !is_write {
            stream.write_all(ANSWER)?;
            continue;
        }
        let began = Instant::now();
        {
            let mut seen = seen();
            seen.first.get_or_insert(began);
            seen.at_once += 1;
            seen.most = seen.most.max(seen.at_once);
        }
        std::thread::sleep(takes);
        {
            // Before the answer: the next request may be there before this thread is on again.
            let mut seen = seen();
            seen.at_once -= 1;
            seen.writes += 1;
            seen.busy += began.elapsed();
            if seen.writes == count {
                let took = seen.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
                let (busy, most) = (seen.busy.as_secs_f64(), seen.most);
                println!(r#"{{"writes":{count},"seconds":{took:.6},"busy":{busy:.6},"most":{most}}}"#);
            }
        }
        stream.write_all(ANSWER)?;
    }
    Ok(())
}

/// Reads a request; whether it is a write. None: the client has left.
fn request(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<bool>> {
    let (mut filled, mut length) = (0, None);
    while length.is_none_or(|length| filled < length) {
        let read = match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            read => read?,
        };
        filled += read;
        if length.is_none()
            && let Some(end) = http::head_end(&buffer[..filled])
        {
            length = Some(end + http::body_length(&buffer[..end])?);
        }
        if filled == buffer.len() {
            return Err(io::Error::other("a request is too large"));
        }
    }
    Ok(Some(buffer.starts_with(b"POST ")))
}
