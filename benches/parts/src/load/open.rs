//! Requests at fixed times, whether or not the earlier ones have been answered.
//!
//! A request that is due while its connection still waits counts from when it was due, so that a stall shows in all that it delays.
//! One that the system woke up late for counts from when it was sent: the sleeper's lateness is nobody's latency.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::http;

/// Runs for `--seconds`.
pub fn run(args: &Args) -> io::Result<()> {
    let (to, path): (SocketAddr, String) = (args.get("to")?, args.get("path")?);
    let (connections, seconds, rate): (u32, f64, f64) = (args.get("connections")?, args.get("seconds")?, args.get("rate")?);
    let gap = Duration::from_secs_f64(f64::from(connections) / rate);
    // Time enough to connect.
    let start = Instant::now() + Duration::from_millis(200);
    let end = start + Duration::from_secs_f64(seconds);
    let clients: Vec<_> = (0..connections)
        .map(|connection| {
            let request = http::question(&path, connection as usize);
            let first = start + gap * connection / connections;
            thread::spawn(move || client(to, &request, first, gap, end))
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.join().map_err(|_| io::Error::other("a client panicked"))??);
    }
    println!(r#"{{"requests":{},"seconds":{seconds},{}}}"#, times.len(), super::percentiles(times));
    Ok(())
}

fn client(to: SocketAddr, request: &[u8], first: Instant, gap: Duration, end: Instant) -> io::Result<Vec<f64>> {
    let mut stream = http::connect(to)?;
    let (mut times, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    let mut due = first;
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        let since = if wait.is_zero() { due } else { Instant::now() };
        http::exchange(&mut stream, request, &mut buffer)?;
        times.push(since.elapsed().as_secs_f64() * 1e6);
        due += gap;
    }
    Ok(times)
}
