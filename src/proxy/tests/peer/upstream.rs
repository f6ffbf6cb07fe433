//! The upstream of a test.

use std::future::poll_fn;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use tokio::sync::{Notify, mpsc};

use super::super::*;
use super::{End, Framing, Http, Incoming, Leave, Source, framing_line, parse_head, send_http1};

/// An upstream; its requests come in the order of their heads.
pub struct Upstream {
    at: SocketAddr,
    leave: Leave,
    from: From,
}

enum From {
    One(TcpListener),
    Two(mpsc::UnboundedReceiver<Found>),
}

impl Upstream {
    pub async fn new(http: Http, leave: Leave) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let from = match http {
            Http::One => From::One(listener),
            Http::Two => {
                let (found, requests) = mpsc::unbounded_channel();
                tokio::spawn(async move {
                    loop {
                        let socket = listener.accept().await.unwrap().0;
                        prepare(&socket, leave);
                        tokio::spawn(serve_http2(socket, found.clone()));
                    }
                });
                From::Two(requests)
            }
        };
        Self { at, leave, from }
    }

    /// A proxy in front of it. No limit of time ends what a test has left behind.
    pub fn proxy(&self) -> config::Proxy {
        let mut config = proxy_to(self.at);
        if let (From::Two(_), config::Upstream::Http { scheme, .. }) = (&self.from, &mut config.upstream) {
            *scheme = config::Scheme::H2c;
        }
        let hour = Duration::from_secs(3600);
        (config.header_read_timeout, config.idle_timeout, config.response_timeout) = (hour, hour, hour);
        config
    }

    /// The next request, on a connection of its own in HTTP/1.
    pub async fn request(&mut self) -> Asked {
        let (body, with) = match &mut self.from {
            From::One(listener) => {
                let mut socket = listener.accept().await.unwrap().0;
                prepare(&socket, self.leave);
                let (_, headers) = parse_head(&read_head(&mut socket).await.expect("a request"));
                let body = Incoming::of_http1(&headers, Source::Over);
                (body, AskedBy::One(Some(socket)))
            }
            From::Two(requests) => {
                let (request, respond, gone) = requests.recv().await.unwrap();
                let body = Incoming(Source::Two(request.into_body(), Bytes::new()));
                (body, AskedBy::Two { respond, send: None, gone })
            }
        };
        Asked { leave: self.leave, body, with, framing: Framing::Length }
    }
}

fn prepare(socket: &TcpStream, leave: Leave) {
    socket.set_nodelay(true).unwrap();
    if leave == Leave::Reset {
        socket.set_zero_linger().unwrap();
    }
}

/// Tells an upstream's connection to end, and when it has.
#[derive(Default)]
struct Gone {
    go: Notify,
    went: Notify,
}

type Found = (Request<RecvStream>, SendResponse<Bytes>, Arc<Gone>);

async fn serve_http2(socket: TcpStream, found: mpsc::UnboundedSender<Found>) {
    let gone = Arc::new(Gone::default());
    let Ok(mut connection) = server::handshake(socket).await else { return };
    loop {
        tokio::select! {
            biased;
            () = gone.go.notified() => break,
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => drop(found.send((request, respond, Arc::clone(&gone)))),
                _ => return,
            },
        }
    }
    drop(connection);
    gone.went.notify_one();
}

/// A request, as its upstream sees it.
pub struct Asked {
    leave: Leave,
    body: Incoming,
    with: AskedBy,
    framing: Framing,
}

enum AskedBy {
    One(Option<TcpStream>),
    Two { respond: SendResponse<Bytes>, send: Option<SendStream<Bytes>>, gone: Arc<Gone> },
}

impl Asked {
    /// So many bytes of its body.
    pub async fn read(&mut self, n: usize) -> Vec<u8> {
        let socket = if let AskedBy::One(socket) = &mut self.with { socket.as_mut() } else { None };
        self.body.exactly(socket, n).await
    }

    /// The rest of its body, and how it ends.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        let socket = if let AskedBy::One(socket) = &mut self.with { socket.as_mut() } else { None };
        self.body.rest(socket).await
    }

    /// Sends the response's head. The body has `length` bytes, and follows.
    pub async fn answer(&mut self, framing: Framing, length: usize) {
        self.framing = framing;
        match &mut self.with {
            AskedBy::One(socket) => {
                let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", framing_line(framing, length));
                socket.as_mut().unwrap().write_all(head.as_bytes()).await.unwrap();
            }
            AskedBy::Two { respond, send, .. } => {
                let mut response = Response::builder();
                if framing == Framing::Length {
                    response = response.header(CONTENT_LENGTH, length);
                }
                *send = Some(respond.send_response(response.body(()).unwrap(), false).unwrap());
            }
        }
    }

    /// Sends a part of the response's body.
    pub async fn send(&mut self, part: &'static [u8], end: bool) {
        match &mut self.with {
            AskedBy::One(socket) => send_http1(socket.as_mut().unwrap(), self.framing, part, end).await,
            AskedBy::Two { send, .. } => send.as_mut().unwrap().send_data(Bytes::from_static(part), end).unwrap(),
        }
    }

    /// Sends bytes as they are; those of HTTP/2 are a body's, and `end` is its end.
    pub async fn send_raw(&mut self, bytes: Vec<u8>, end: bool) {
        match &mut self.with {
            AskedBy::One(socket) => socket.as_mut().unwrap().write_all(&bytes).await.unwrap(),
            AskedBy::Two { send, .. } => send.as_mut().unwrap().send_data(bytes.into(), end).unwrap(),
        }
    }

    /// HTTP/2: says that it has done nothing with it.
    pub fn refuse(&mut self) {
        let AskedBy::Two { respond, .. } = &mut self.with else { panic!("HTTP/1 has no such thing") };
        respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Resolves when it learns that nobody waits for the response any more.
    pub async fn told(&mut self) {
        match &mut self.with {
            AskedBy::One(socket) => drop(rest(socket.as_mut().unwrap()).await),
            AskedBy::Two { respond, send: None, .. } => drop(poll_fn(|cx| respond.poll_reset(cx)).await),
            AskedBy::Two { send: Some(send), .. } => drop(poll_fn(|cx| send.poll_reset(cx)).await),
        }
    }

    /// Leaves. What it has sent before, and nobody has read, may be lost with it.
    pub async fn leave(&mut self) {
        match &mut self.with {
            AskedBy::One(socket) => *socket = None,
            AskedBy::Two { respond, send, .. } if self.leave == Leave::Cancel => match send {
                Some(send) => send.send_reset(Reason::CANCEL),
                None => respond.send_reset(Reason::CANCEL),
            },
            AskedBy::Two { gone, .. } => {
                gone.go.notify_one();
                gone.went.notified().await;
            }
        }
    }
}
