//! As much of HTTP/1.1 as the parts need among themselves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Where a head ends, its blank line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// A header's value.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|&b| b == b'\n').skip(1).find_map(|line| {
        let (key, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The length of a message's body. None of the parts sends chunked bodies but for event streams.
pub fn body_length(head: &[u8]) -> io::Result<usize> {
    if header(head, "transfer-encoding").is_some() {
        return Err(io::Error::other("the body became chunked on its way"));
    }
    match header(head, "content-length") {
        None => Ok(0),
        Some(length) => length.parse().map_err(|_| io::Error::other("content-length is no number")),
    }
}

/// The length of a response that has come up to `bytes`, if that can be told yet.
pub fn response_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = head_end(bytes) else { return Ok(None) };
    let head = &bytes[..end];
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
        return Err(io::Error::other(format!("the answer is {}", String::from_utf8_lossy(line))));
    }
    Ok(Some(end + body_length(head)?))
}

/// A request of an agent's client: a JSON body of 1,024 bytes, with a session of its own for every connection.
pub fn question(path: &str, connection: usize) -> Vec<u8> {
    const BODY: usize = 1024;
    let mut body = format!(r#"{{"session_name":"bench-{connection:05}","user_id":"bench","message_content":""#);
    while body.len() < BODY - 2 {
        body.push_str(&"What did we say about the harbour at night? "[..(BODY - 2 - body.len()).min(44)]);
    }
    body.push_str("\"}");
    format!(
        "POST {path} HTTP/1.1\r\nhost: agent.example\r\nuser-agent: bench\r\naccept: */*\r\ncontent-type: application/json\r\n\
         content-length: {BODY}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A connection of a client that blocks.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads a whole response into `buffer`.
pub fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let (mut filled, mut length) = (0, None);
    while length.is_none_or(|length| filled < length) {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if length.is_none() {
            length = response_length(&buffer[..filled])?;
        }
    }
    Ok(())
}

/// One request and its response.
pub fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(request)?;
    read_response(stream, buffer)
}
