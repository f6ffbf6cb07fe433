//! Large bodies, up or down, one after the other on each connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use crate::args::Args;
use crate::http;

/// Moves `--count` bodies of `--bytes` on each connection.
pub fn run(args: &Args) -> io::Result<()> {
    let (to, direction): (SocketAddr, String) = (args.get("to")?, args.get("direction")?);
    let (connections, count, bytes): (usize, usize, usize) = (args.get("connections")?, args.get("count")?, args.get("bytes")?);
    let one = match direction.as_str() {
        "up" => up,
        "down" => down,
        _ => return Err(io::Error::other("--direction is up or down")),
    };
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            thread::spawn(move || {
                let (mut stream, mut block) = (http::connect(to)?, vec![b'x'; 256 << 10]);
                (0..count).try_for_each(|_| one(&mut stream, &mut block, bytes))
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| io::Error::other("a client panicked"))??;
    }
    println!(r#"{{"bytes":{},"seconds":{:.6}}}"#, connections * count * bytes, start.elapsed().as_secs_f64());
    Ok(())
}

fn up(stream: &mut TcpStream, block: &mut [u8], bytes: usize) -> io::Result<()> {
    stream.write_all(format!("PUT /up HTTP/1.1\r\nhost: agent.example\r\ncontent-length: {bytes}\r\n\r\n").as_bytes())?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(block.len());
        stream.write_all(&block[..part])?;
        left -= part;
    }
    http::read_response(stream, block)
}

fn down(stream: &mut TcpStream, block: &mut [u8], bytes: usize) -> io::Result<()> {
    stream.write_all(format!("GET /bytes/{bytes} HTTP/1.1\r\nhost: agent.example\r\n\r\n").as_bytes())?;
    let (mut read, mut length) = (0, None);
    while length.is_none_or(|length| read < length) {
        // Until the head is complete, what came is kept; after that only its length matters.
        let from = if length.is_none() { read } else { 0 };
        match stream.read(&mut block[from..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
        if length.is_none() {
            length = http::response_length(&block[..read])?;
        }
    }
    Ok(())
}
