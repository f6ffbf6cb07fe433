//! Clients and upstreams that speak either version of HTTP, and leave when and how a test wants them to.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Request, Response, Uri};
use tokio::task::AbortHandle;

use super::*;

mod upstream;

pub use upstream::{Asked, Upstream};

/// What a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

pub const VERSIONS: [Http; 2] = [Http::One, Http::Two];

/// How a peer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Its connection is closed: FIN.
    Close,
    /// Its connection is gone: RST.
    Reset,
    /// HTTP/2: its stream is gone (`RST_STREAM`), and the connection stays.
    Cancel,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length, in advance.
    Length,
    /// By its end: chunked in HTTP/1.
    Stream,
}

/// A message's body as it is read.
pub struct Incoming(Source);

enum Source {
    /// HTTP/1: bytes that are still to come, in all or of this chunk.
    Length(usize),
    Chunked(usize),
    UntilClose,
    Two(RecvStream, Bytes),
    Over,
}

/// The end of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Clean,
    Broken,
}

impl Incoming {
    fn of_http1(headers: &HeaderMap, without: Source) -> Self {
        let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
        Self(match length {
            _ if headers.contains_key(TRANSFER_ENCODING) => Source::Chunked(0),
            Some(length) => Source::Length(length),
            None => without,
        })
    }

    /// The next bytes, at most `limit`. `socket` is that of HTTP/1.
    async fn next(&mut self, socket: Option<&mut TcpStream>, limit: usize) -> Result<Vec<u8>, End> {
        if let Source::Two(stream, read) = &mut self.0 {
            while read.is_empty() {
                match stream.data().await {
                    Some(Ok(data)) => {
                        stream.flow_control().release_capacity(data.len()).unwrap();
                        *read = data;
                    }
                    Some(Err(_)) => return Err(End::Broken),
                    // Trailers, or the end, or a reset: only they tell.
                    None => return Err(stream.trailers().await.map_or(End::Broken, |_| End::Clean)),
                }
            }
            return Ok(read.split_to(limit.min(read.len())).to_vec());
        }
        let socket = socket.ok_or(End::Broken)?;
        if let Source::Chunked(left @ 0) = &mut self.0 {
            let size = read_until(socket, b"\r\n").await.ok_or(End::Broken)?;
            *left = usize::from_str_radix(text(&size).trim(), 16).expect("a chunk begins with its size");
            if *left == 0 {
                // No trailers in these tests.
                let end = read_until(socket, b"\r\n").await.map_or(End::Broken, |_| End::Clean);
                self.0 = Source::Over;
                return Err(end);
            }
        }
        let left = match self.0 {
            Source::Length(0) | Source::Over => return Err(End::Clean),
            Source::Length(left) | Source::Chunked(left) => left,
            Source::UntilClose | Source::Two(..) => usize::MAX,
        };
        let mut read = vec![0; limit.min(left).min(1 << 16)];
        let n = match socket.read(&mut read).await {
            Ok(0) if matches!(self.0, Source::UntilClose) => return Err(End::Clean),
            Ok(0) | Err(_) => return Err(End::Broken),
            Ok(n) => n,
        };
        read.truncate(n);
        if let Source::Length(left) | Source::Chunked(left) = &mut self.0 {
            *left -= n;
        }
        if matches!(self.0, Source::Chunked(0)) {
            read_until(socket, b"\r\n").await.ok_or(End::Broken)?;
        }
        Ok(read)
    }

    /// So many bytes.
    async fn exactly(&mut self, mut socket: Option<&mut TcpStream>, n: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < n {
            read.extend(self.next(socket.as_deref_mut(), n - read.len()).await.expect("more of the body"));
        }
        read
    }

    /// What is left, and how it ends.
    async fn rest(&mut self, mut socket: Option<&mut TcpStream>) -> (Vec<u8>, End) {
        let mut read = Vec::new();
        loop {
            match self.next(socket.as_deref_mut(), usize::MAX).await {
                Ok(more) => read.extend(more),
                Err(end) => return (read, end),
            }
        }
    }
}

/// The head of an HTTP/1 message: its first line, and its header lines.
fn parse_head(head: &[u8]) -> (String, HeaderMap) {
    let head = text(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    (first, headers.map(|(name, value)| (HeaderName::try_from(name).unwrap(), value.parse().unwrap())).collect())
}

fn framing_line(framing: Framing, length: usize) -> String {
    match framing {
        Framing::Length => format!("content-length: {length}\r\n"),
        Framing::Stream => "transfer-encoding: chunked\r\n".to_owned(),
    }
}

/// Sends a part of a body, and its end.
async fn send_http1(socket: &mut TcpStream, framing: Framing, part: &[u8], end: bool) {
    let mut wire = Vec::new();
    match framing {
        Framing::Length => wire.extend_from_slice(part),
        Framing::Stream => {
            if !part.is_empty() {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            if end {
                wire.extend_from_slice(b"0\r\n\r\n");
            }
        }
    }
    socket.write_all(&wire).await.unwrap();
}

/// A client with one connection.
pub struct Client {
    leave: Leave,
    with: With,
    body: Option<Incoming>,
    framing: Framing,
}

enum With {
    One(Option<TcpStream>),
    Two { sender: SendRequest<Bytes>, driver: AbortHandle, send: Option<SendStream<Bytes>>, answer: Option<ResponseFuture> },
}

impl Client {
    pub async fn connect(at: SocketAddr, http: Http, leave: Leave) -> Self {
        let socket = TcpStream::connect(at).await.unwrap();
        socket.set_nodelay(true).unwrap();
        if leave == Leave::Reset {
            socket.set_zero_linger().unwrap();
        }
        let with = match http {
            Http::One => With::One(Some(socket)),
            Http::Two => {
                let (sender, connection) = client::Builder::new().data_frame_budget(usize::MAX).handshake(socket).await.unwrap();
                let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
                With::Two { sender: sender.ready().await.unwrap(), driver, send: None, answer: None }
            }
        };
        Self { leave, with, body: None, framing: Framing::Length }
    }

    /// Sends a head. The body has `length` bytes, and follows.
    pub async fn ask(&mut self, method: &str, path: &str, framing: Framing, length: usize) {
        (self.framing, self.body) = (framing, None);
        match &mut self.with {
            With::One(socket) => {
                let framing = if length == 0 { String::new() } else { framing_line(framing, length) };
                let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{framing}\r\n");
                socket.as_mut().unwrap().write_all(head.as_bytes()).await.unwrap();
            }
            With::Two { sender, send, answer, .. } => {
                let uri: Uri = format!("http://a{path}").parse().unwrap();
                let mut request = Request::builder().method(method).uri(uri);
                if framing == Framing::Length && length > 0 {
                    request = request.header(CONTENT_LENGTH, length);
                }
                poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
                let (response, stream) = sender.send_request(request.body(()).unwrap(), length == 0).unwrap();
                (*send, *answer) = (Some(stream), Some(response));
            }
        }
    }

    /// Asks with headers, and without a body. Who refuses so large a head may do so before all of it is sent.
    pub async fn ask_with(&mut self, path: &str, headers: &[(String, String)]) {
        match &mut self.with {
            With::One(socket) => {
                let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{}\r\n", lines.concat());
                let _ = socket.as_mut().unwrap().write_all(head.as_bytes()).await;
            }
            With::Two { sender, answer, .. } => {
                let mut request = Request::builder().uri(format!("http://a{path}"));
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                *answer = Some(sender.send_request(request.body(()).unwrap(), true).unwrap().0);
            }
        }
    }

    /// Sends a part of the body.
    pub async fn send(&mut self, part: &'static [u8], end: bool) {
        match &mut self.with {
            With::One(socket) => send_http1(socket.as_mut().unwrap(), self.framing, part, end).await,
            With::Two { send, .. } => send.as_mut().unwrap().send_data(Bytes::from_static(part), end).unwrap(),
        }
    }

    /// The response's head.
    pub async fn head(&mut self) -> Response<()> {
        let (body, status, headers) = match &mut self.with {
            With::One(socket) => {
                let head = read_head(socket.as_mut().unwrap()).await.expect("a response");
                let (first, headers) = parse_head(&head);
                (Incoming::of_http1(&headers, Source::UntilClose), first[9..12].parse().unwrap(), headers)
            }
            With::Two { answer, .. } => {
                let (head, body) = answer.take().unwrap().await.expect("a response").into_parts();
                (Incoming(Source::Two(body, Bytes::new())), head.status, head.headers)
            }
        };
        self.body = Some(body);
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }

    /// So many bytes of the response's body.
    pub async fn read(&mut self, n: usize) -> Vec<u8> {
        let socket = if let With::One(socket) = &mut self.with { socket.as_mut() } else { None };
        self.body.as_mut().unwrap().exactly(socket, n).await
    }

    /// The rest of the response's body, and how it ends.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        let socket = if let With::One(socket) = &mut self.with { socket.as_mut() } else { None };
        self.body.as_mut().unwrap().rest(socket).await
    }

    /// Leaves.
    pub fn leave(&mut self) {
        match (&mut self.with, self.leave) {
            (With::One(socket), _) => *socket = None,
            (With::Two { send, .. }, Leave::Cancel) => send.as_mut().unwrap().send_reset(Reason::CANCEL),
            (With::Two { driver, .. }, _) => driver.abort(),
        }
    }

    /// HTTP/1: what still comes until the connection ends.
    pub async fn everything(&mut self) -> Vec<u8> {
        let With::One(Some(socket)) = &mut self.with else { panic!("HTTP/2 is more than its bytes") };
        rest(socket).await
    }

    /// HTTP/1: closes the half that sends.
    pub async fn close_half(&mut self) {
        let With::One(Some(socket)) = &mut self.with else { panic!("HTTP/2 has no such thing") };
        socket.shutdown().await.unwrap();
    }
}
