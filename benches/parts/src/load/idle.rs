//! Connections that had one request each and are kept.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use crate::args::Args;
use crate::http;

/// Says `ready`, and holds the connections until its standard input ends.
pub fn run(args: &Args) -> io::Result<()> {
    let to: SocketAddr = args.get("to")?;
    let (connections, together): (usize, usize) = (args.get("connections")?, args.get("together")?);
    let (mut streams, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    for first in (0..connections).step_by(together) {
        let wave = first..connections.min(first + together);
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
