//! Each connection sends its next request when it has the answer to the last.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::http;

/// What one connection has seen.
#[derive(Default)]
struct Seen {
    requests: u64,
    times: Vec<f64>,
}

/// Runs for `--seconds`.
pub fn run(args: &Args) -> io::Result<()> {
    let (to, path): (SocketAddr, String) = (args.get("to")?, args.get("path")?);
    let (connections, seconds): (usize, f64) = (args.get("connections")?, args.get("seconds")?);
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let mut clients = JoinSet::new();
        for connection in 0..connections {
            clients.spawn(client(to, http::question(&path, connection), end));
        }
        let mut all = Seen::default();
        while let Some(seen) = clients.join_next().await {
            let seen = seen??;
            all.requests += seen.requests;
            all.times.extend(seen.times);
        }
        let took = start.elapsed().as_secs_f64();
        println!(r#"{{"requests":{},"seconds":{took:.6},{}}}"#, all.requests, super::percentiles(all.times));
        Ok(())
    })
}

/// Any error ends the whole run: a figure with errors in it is no figure.
async fn client(to: SocketAddr, request: Vec<u8>, end: Instant) -> io::Result<Seen> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Seen::default(), vec![0; 8 << 10]);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(seen);
        }
        stream.write_all(&request).await?;
        let (mut filled, mut length) = (0, None);
        while length.is_none_or(|length| filled < length) {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if length.is_none() {
                length = http::response_length(&buffer[..filled])?;
            }
        }
        seen.requests += 1;
        seen.times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
}
