//! Connections that had one request each and are kept.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use crate::args::Args;
use crate::http;

/// Requests in flight at one time, while the connections are made.
const TOGETHER: usize = 64;

/// Says `ready`, and holds the connections until its standard input ends.
pub fn run(args: &Args) -> io::Result<()> {
    let (to, connections): (SocketAddr, usize) = (args.get("to")?, args.get("connections")?);
    let (mut streams, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    for first in (0..connections).step_by(TOGETHER) {
        let wave = first..connections.min(first + TOGETHER);
        for connection in wave.clone() {
            let mut stream = http::connect(to)?;
            stream.write_all(&http::question("/pass", connection))?;
            streams.push(stream);
        }
        for stream in &mut streams[wave] {
            http::read_response(stream, &mut buffer)?;
        }
    }
    println!(r#"{{"connections":{connections},"ready":true}}"#);
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
