//! An agent that repeats what is secret, in every shape that an answer can have; and a client that says it, in every shape of a request.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tower::ServiceExt;

use crate::support::http;
use crate::support::world::{LIMIT, World};

/// What every credential has in it, and every value that a path redacts. In no digest or id: it is no hexadecimal number.
pub const CANARY: &str = "kanari7z";

/// What an expression redacts: a card.
pub const CARD: &str = "4111222233334444";

/// Credentials of a client, each in a header where services look for one.
const HEADERS: [&str; 14] = [
    "authorization: Bearer kanari7z-authorization",
    "proxy-authorization: Basic kanari7z-proxy",
    "x-api-key: kanari7z-x-api-key",
    "api-key: kanari7z-api-key",
    "x-goog-api-key: kanari7z-goog",
    "ocp-apim-subscription-key: kanari7z-apim",
    "x-auth-token: kanari7z-auth-token",
    "x-amz-security-token: kanari7z-amz",
    "x-forwarded-access-token: kanari7z-forwarded",
    "x-client-secret: kanari7z-client-secret",
    "x-unheard-of: kanari7z-unheard-of",
    "traceparent: kanari7z-traceparent",
    "cookie: session=kanari7z-session; theme=dark",
    "cookie: kanari7z=kanari7z-second",
];

/// The same in a query, in several spellings.
const QUERY: &str = "x-api-key=kanari7z-q1&note=4111222233334444&access_token=kanari7z-q2&x%2Dapi%2Dkey=kanari7z-q3&clientSecret=kanari7z-q4&\
                     password=kanari7z-q5&key=kanari7z-q6&page=7";

/// The agent's answer to everything, by the last part of its path.
async fn answer(request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if axum::body::to_bytes(request.into_body(), usize::MAX).await.is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let said = json!({
        "reply": format!("charged {CARD}"),
        "api_key": format!("{CANARY}-answer"),
        "meta": { "number": 4_111_222_233_334_444_u64, CARD: [CARD] },
        "deep": [{ "password": [CANARY] }],
    })
    .to_string();
    // In two events: neither of them has all of it.
    let events = format!(
        "data: {}\n\ndata: {}\n\nevent: key\ndata: {}\n\n",
        json!({ "delta": "charged 41112222" }),
        json!({ "delta": "33334444" }),
        json!({ "api_key": format!("{CANARY}-event"), "card": CARD })
    );
    let done = "data: [DONE]\n\n";
    let (content_type, zipped, body) = match path.rsplit('/').next().unwrap_or_default() {
        "events" => ("text/event-stream", false, Body::from(events + done)),
        "zipped-events" => ("text/event-stream", true, Body::from(gzip((events + done).as_bytes()))),
        // It comes to no end: the client leaves.
        "hanging" => {
            let first = stream::once(async move { Ok::<_, Infallible>(Bytes::from(events)) });
            ("text/event-stream", false, Body::from_stream(first.chain(stream::pending())))
        }
        "broken" => ("application/json", true, Body::from(said)),
        "zipped" => ("application/json", true, Body::from(gzip(said.as_bytes()))),
        _ => ("application/json", false, Body::from(said)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.append(header::SET_COOKIE, HeaderValue::from_static("session=kanari7z-set-cookie"));
    headers.append("x-auth-token", HeaderValue::from_static("kanari7z-new-token"));
    if zipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Serves it over HTTP/1.1 and over HTTP/2.
pub fn serve(world: &World) -> [SocketAddr; 2] {
    let router = Router::new().fallback(answer);
    let one = world.serve(router.clone());
    let listener = world.runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let two = listener.local_addr().unwrap();
    world.runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let router = router.clone();
            let service =
                service_fn(move |request: Request<hyper::body::Incoming>| router.clone().oneshot(request.map(Body::new)));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    [one, two]
}

/// A service that refuses everything, and says what it was sent. That it keeps too, but for the sink's own credential.
pub fn serve_echo(world: &World) -> (SocketAddr, Arc<Mutex<String>>) {
    let sent = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&sent);
    let refuse = move |mut request: Request<Body>| async move {
        let said = format!("refused: {:?}", request.headers());
        request.headers_mut().remove(header::AUTHORIZATION);
        let head = format!("{} {:?}\n", request.uri(), request.headers());
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        kept.lock().unwrap().extend([head.as_str(), &String::from_utf8_lossy(&body), "\n"]);
        (StatusCode::BAD_REQUEST, said)
    };
    (world.serve(Router::new().fallback(refuse)), sent)
}

/// What is asked.
pub struct Question {
    /// Behind `/ask/AGENT/`.
    pub path: &'static str,
    pub content_type: &'static str,
    pub encoding: &'static str,
    pub body: Vec<u8>,
}

/// Every shape of a question, with a session of its own each.
pub fn questions() -> Vec<Question> {
    let json = |path: &'static str| {
        json!({
            "message": format!("pay with {CARD}, please"),
            "session": format!("{path} of {CARD}"),
            "api_key": format!("{CANARY}-field"),
            "user": { "password": format!("{CANARY}-password") },
            "meta": { "number": 4_111_222_233_334_444_u64, "list": [CARD, { "password": CANARY }] },
        })
        .to_string()
        .into_bytes()
    };
    let plain = |path| Question { path, content_type: "application/json", encoding: "identity", body: json(path) };
    let form = format!("message=pay+with+{CARD}%2C+please&session=form+of+{CARD}&api%5Fkey={CANARY}-form&meta={CARD}");
    let part = |name: &str, text: &str| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
    let multipart = [
        part("message", &format!("pay with {CARD}, please")),
        part("session", &format!("multipart of {CARD}")),
        part("api_key", &format!("{CANARY}-part")),
        part("meta", CARD),
        part(&format!("file\"; filename=\"{CARD}.txt"), CARD),
        "--b--\r\n".to_owned(),
    ];
    let wide: Vec<u8> = String::from_utf8(json("wide")).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        plain("json"),
        Question { encoding: "gzip", body: gzip(&json("zipped")), ..plain("zipped") },
        plain("events"),
        plain("zipped-events"),
        plain("broken"),
        Question {
            path: "form",
            content_type: "application/x-www-form-urlencoded",
            encoding: "identity",
            body: form.into_bytes(),
        },
        Question {
            path: "multipart",
            content_type: "multipart/form-data; boundary=b",
            encoding: "identity",
            body: multipart.concat().into_bytes(),
        },
        Question { content_type: "application/json; charset=utf-16le", body: wide, ..plain("wide") },
        // Not what it says that it is: nothing of it can be read.
        Question { encoding: "br", body: format!("{CANARY} {CARD}").into_bytes(), ..plain("damaged") },
        Question { body: format!("{{\"api_key\":\"{CANARY}\",\"card\":\"{CARD}").into_bytes(), ..plain("torn") },
    ]
}

/// The head and the body of a question as HTTP/1.1 writes it.
fn written(question: &Question) -> Vec<u8> {
    let mut request = format!(
        "POST /ask/{CARD}/{}?{QUERY} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {}\r\ncontent-encoding: {}\r\n\
         x-note: {CARD}\r\ncookie: card={CARD}\r\ncontent-length: {}\r\n{}\r\n\r\n",
        question.path,
        question.content_type,
        question.encoding,
        question.body.len(),
        HEADERS.join("\r\n"),
    )
    .into_bytes();
    request.extend_from_slice(&question.body);
    request
}

/// Asks, and reads the answer to its end.
pub fn ask(proxy: SocketAddr, question: &Question) {
    let mut stream = connect(proxy);
    stream.write_all(&written(question)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(http::parse(&answer).unwrap().status, 200, "{}", question.path);
}

/// Asks for what comes to no end, and leaves in the middle of it.
pub fn ask_and_leave(proxy: SocketAddr) {
    let question = Question { path: "hanging", ..questions().remove(0) };
    let mut stream = connect(proxy);
    stream.write_all(&written(&question)).unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("event: key") {
        let read = stream.read(&mut piece).unwrap();
        assert_ne!(read, 0);
        seen.extend_from_slice(&piece[..read]);
    }
}

/// What no server can read, with a secret in it. Whatever the answer is.
pub fn babble(proxy: SocketAddr) {
    for request in [
        format!("POST /ask/a/json?{QUERY} x HTTP/1.1\r\nhost: a\r\n\r\n"),
        format!("POST /ask/a/json?{QUERY} HTTP/1.1\r\nhost: a\r\nauthorization {CANARY}\r\n\r\n"),
        format!("POST /ask/a/json?{QUERY} HTTP/1.1\r\nhost: a\r\nx-api-key: {CANARY}\r\ncontent-length: {CANARY}\r\n\r\n"),
        format!("POST /ask/a/json HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{CANARY}{CARD}\r\n"),
        format!("{CANARY}{CARD}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY}{CARD}{CANARY}{CARD}"),
    ] {
        let mut stream = connect(proxy);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // It may be cut off: that is an answer too.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Asks over HTTP/2.
pub fn ask_over_two(world: &World, proxy: SocketAddr, question: &Question) {
    world.runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(proxy).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://a/ask/{CARD}/{}?{QUERY}", question.path))
            .header(header::CONTENT_TYPE, question.content_type)
            .header(header::CONTENT_ENCODING, question.encoding)
            .header("x-note", CARD)
            .body(())
            .unwrap();
        for line in HEADERS {
            let (name, value) = line.split_once(": ").unwrap();
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        let mut client = client.ready().await.unwrap();
        let (response, mut upload) = client.send_request(request, false).unwrap();
        upload.send_data(question.body.clone().into(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        connection.abort();
    });
}

fn connect(proxy: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}
