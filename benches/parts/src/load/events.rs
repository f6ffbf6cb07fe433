//! Clients of event streams: how many events come, and how long each was on its way.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::http;
use crate::upstream::{DIGITS, EVENT, LAST_CHUNK, MARK, STAMP, now};

/// Reads `--count` events on each connection.
pub fn run(args: &Args) -> io::Result<()> {
    let to: SocketAddr = args.get("to")?;
    let (connections, count, gap): (u32, usize, u64) = (args.get("connections")?, args.get("count")?, args.get("gap-us")?);
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|connection| {
            // The streams' events are spread over the gap.
            let wait = Duration::from_micros(gap) * connection / connections;
            thread::spawn(move || {
                thread::sleep(wait);
                client(to, count, gap)
            })
        })
        .collect();
    let (mut events, mut reads, mut times) = (0, 0, Vec::new());
    for client in clients {
        let seen = client.join().map_err(|_| io::Error::other("a client panicked"))??;
        events += seen.events;
        reads += seen.reads;
        times.extend(seen.times);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(r#"{{"events":{events},"reads":{reads},"seconds":{seconds:.6},{}}}"#, super::percentiles(times));
    Ok(())
}

#[derive(Default)]
struct Seen {
    events: usize,
    reads: usize,
    times: Vec<f64>,
}

fn client(to: SocketAddr, count: usize, gap: u64) -> io::Result<Seen> {
    let mut stream = http::connect(to)?;
    stream.write_all(
        format!("GET /events/{count}/{gap} HTTP/1.1\r\nhost: agent.example\r\naccept: text/event-stream\r\n\r\n").as_bytes(),
    )?;
    let (mut seen, mut buffer, mut tail, mut last) = (Seen::default(), vec![0; 256 << 10], Vec::new(), Vec::new());
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = &buffer[..read];
        seen.reads += 1;
        // The compiler makes vector code of it.
        #[allow(clippy::naive_bytecount)]
        let events = bytes.iter().filter(|&&b| b == MARK).count();
        seen.events += events;
        if gap > 0 {
            tail.extend_from_slice(bytes);
            arrivals(&mut tail, &mut seen.times);
        }
        last.extend_from_slice(&bytes[read.saturating_sub(LAST_CHUNK.len())..]);
        if seen.events == count && last.ends_with(LAST_CHUNK) {
            return Ok(seen);
        }
        last.drain(..last.len().saturating_sub(LAST_CHUNK.len()));
    }
}

/// Takes the complete events out of `tail`, and notes how long each was on its way.
fn arrivals(tail: &mut Vec<u8>, times: &mut Vec<f64>) {
    let now = now();
    let mut done = 0;
    while let Some(mark) = tail[done..].iter().position(|&b| b == MARK) {
        let end = done + mark + 1;
        // The event's text begins so far before its mark, however it was cut into chunks: each event is one.
        let stamp = (end + 2).checked_sub(EVENT).map(|start| start + STAMP.len()).and_then(|at| tail.get(at..at + DIGITS));
        if let Some(sent) = stamp.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u128>().ok()) {
            // Microseconds of a run fit into 52 bits.
            #[allow(clippy::cast_precision_loss)]
            times.push(now.saturating_sub(sent) as f64 / 1e3);
        }
        done = end;
    }
    tail.drain(..done);
}
