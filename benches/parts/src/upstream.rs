//! What all proxies forward to. The path says what is wanted:
//! `/events/COUNT/GAP_US` an event stream, `/bytes/N` a body, anything else an agent's answer of 2 KB.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::args::Args;
use crate::http;

/// Bytes of an event, the blank line included.
pub const EVENT: usize = 200;
/// The last byte of an event's text; nowhere else in a stream, so that counting these counts events.
pub const MARK: u8 = b'~';
/// What precedes the time at which an event left, in nanoseconds since the epoch.
pub const STAMP: &[u8] = b"data: ";
/// Digits of that time.
pub const DIGITS: usize = 20;
/// Events of one write when they go flat out: about 64 KiB.
const BATCH: usize = 320;
/// Bytes of an answer.
const ANSWER: usize = 2048;
const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n";
/// The end of a stream.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Serves until killed.
pub fn run(args: &Args) -> io::Result<()> {
    let listen: SocketAddr = args.get("listen")?;
    // One thread: with two, they would wake each other more than they would share.
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        let answer = answer();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            tokio::spawn(async move {
                if let Err(error) = serve(stream, &answer).await {
                    // Clients that left are no news.
                    if error.kind() == io::ErrorKind::Other {
                        eprintln!("upstream: {error}");
                    }
                }
            });
        }
    })
}

async fn serve(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; 8 << 10];
    loop {
        let mut filled = 0;
        let end = loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            if let Some(end) = http::head_end(&buffer[..filled]) {
                break end;
            }
            if filled == buffer.len() {
                return Err(io::Error::other("a request's head is too large"));
            }
        };
        let head = &buffer[..end];
        let path = head.split(|&b| b == b' ').nth(1).and_then(|path| std::str::from_utf8(path).ok()).unwrap_or("/").to_owned();
        let last = http::header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let left = http::body_length(head)?.saturating_sub(filled - end);
        discard(&mut stream, &mut buffer, left).await?;
        let mut words = path.split('/').skip(1);
        let (kind, number) = (words.next(), words.next().and_then(|n| n.parse::<usize>().ok()));
        match (kind, number) {
            (Some("events"), Some(count)) => match words.next().and_then(|gap| gap.parse().ok()) {
                None | Some(0) => events(&mut stream, count).await?,
                Some(gap) => stream = paced(stream, count, Duration::from_micros(gap)).await?,
            },
            (Some("bytes"), Some(length)) => bytes(&mut stream, length).await?,
            _ => stream.write_all(answer).await?,
        }
        if last {
            return Ok(());
        }
    }
}

/// Takes the rest of a request's body: through the connection's own buffer, or through a large one if there is much.
async fn discard(stream: &mut TcpStream, buffer: &mut [u8], mut left: usize) -> io::Result<()> {
    let mut large = vec![0; if left > buffer.len() { 256 << 10 } else { 0 }];
    let buffer = if large.is_empty() { buffer } else { &mut large };
    while left > 0 {
        let most = left.min(buffer.len());
        match stream.read(&mut buffer[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}

/// As many as the connection takes, each a chunk of its own.
async fn events(stream: &mut TcpStream, count: usize) -> io::Result<()> {
    let batch = chunk(0).repeat(BATCH);
    stream.write_all(STREAM_HEAD).await?;
    for _ in 0..count / BATCH {
        stream.write_all(&batch).await?;
    }
    stream.write_all(&chunk(0).repeat(count % BATCH)).await?;
    stream.write_all(LAST_CHUNK).await
}

/// One event after the other, each with the time at which it left. In a thread of its own: tokio's clock counts milliseconds.
async fn paced(stream: TcpStream, count: usize, gap: Duration) -> io::Result<TcpStream> {
    let mut stream = stream.into_std()?;
    let stream = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false)?;
        stream.write_all(STREAM_HEAD)?;
        let mut due = Instant::now();
        for _ in 0..count {
            due += gap;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.write_all(&chunk(now()))?;
        }
        stream.write_all(LAST_CHUNK)?;
        stream.set_nonblocking(true)?;
        io::Result::Ok(stream)
    });
    TcpStream::from_std(stream.await??)
}

async fn bytes(stream: &mut TcpStream, mut length: usize) -> io::Result<()> {
    let block = vec![b'x'; length.min(256 << 10)];
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
    while length > 0 {
        let part = length.min(block.len());
        stream.write_all(&block[..part]).await?;
        length -= part;
    }
    Ok(())
}

/// Nanoseconds since the epoch.
pub fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn chunk(stamp: u128) -> Vec<u8> {
    let mut event = STAMP.to_vec();
    event.extend(format!("{stamp:0DIGITS$} ").as_bytes());
    event.resize(EVENT - 3, b'.');
    event.extend([MARK, b'\n', b'\n']);
    [format!("{EVENT:x}\r\n").as_bytes(), &event, b"\r\n"].concat()
}

fn answer() -> Vec<u8> {
    const START: &str = r#"{"success":true,"message":""#;
    let message = "We said that the ships come in at two and leave at five. ".repeat(ANSWER / 50);
    let body = format!("{START}{}\"}}", &message[..ANSWER - START.len() - 2]);
    format!(
        "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: agent\r\ncontent-type: application/json\r\n\
         content-length: {ANSWER}\r\n\r\n{body}"
    )
    .into_bytes()
}
