//! Invariant 1, the other side of it: what is no request goes no further, whatever it looks like. No panic, no hang, nothing forwarded
//! that could be read in two ways, and the next connection finds all as it was.

use std::cell::Cell;
use std::sync::Once;

use proptest::prelude::*;
use proptest::sample::Index;
use tokio::runtime::Runtime;

use super::strict::{self, Seen};
use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Requests that are well, before they are spoilt.
const WELL: [&[u8]; 6] = [
    b"GET /x?q HTTP/1.1\r\nhost: a\r\naccept: */*\r\n\r\n",
    b"POST /run/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /run/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n",
    b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
];

/// Lines that a head may be spoilt with.
const LINES: [&str; 24] = [
    "content-length: 5",
    "content-length: 6",
    "content-length: 5, 5",
    "content-length: +5",
    "content-length: 0x5",
    "content-length: ",
    "content-length: 99999999999999999999999999",
    "content-length: 18446744073709551615",
    "transfer-encoding: chunked",
    "transfer-encoding : chunked",
    "transfer-encoding:\tchunked",
    "transfer-encoding: xchunked",
    "transfer-encoding: chunked, identity",
    "transfer-encoding: identity, chunked",
    "transfer-encoding:\x0bchunked",
    "x: 1\r\n transfer-encoding: chunked",
    " x: 1",
    "host: b",
    "host:",
    "connection: host, content-length, transfer-encoding",
    "connection: upgrade\r\nupgrade: websocket",
    "te: trailers\r\nconnection: te, close",
    "no colon",
    ": no name",
];

const TARGETS: [&str; 9] =
    ["http://other/x", "http://u:p@a/x", "//a/x", "a:80", "*", "/x y", "/x\u{e9}", "/x#fragment", "http://a:99999/"];
const SIZES: [&str; 9] = ["0x5", "+5", "-5", "5 ", " 5", "5;ext=\"1\"", "5;e\n", "fffffffffffffffff", ""];
const SCRAPS: [&str; 12] = ["\r", "\n", "\0", "\r\n", "\r\n\r\n", " ", "\t", ":", ",", "\r\n ", "\u{7f}", "0\r\n\r\n"];

/// One thing that is done to a request.
#[derive(Debug, Clone)]
enum Spoil {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index),
    Insert(Index, &'static str),
    Line(&'static str),
    Target(&'static str),
    Size(&'static str),
    Again,
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let one_of = |from: &'static [&'static str]| prop::sample::select(from);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Flip(at, byte)),
        any::<Index>().prop_map(Spoil::Cut),
        any::<Index>().prop_map(Spoil::Remove),
        (any::<Index>(), one_of(&SCRAPS)).prop_map(|(at, scrap)| Spoil::Insert(at, scrap)),
        one_of(&LINES).prop_map(Spoil::Line),
        one_of(&TARGETS).prop_map(Spoil::Target),
        one_of(&SIZES).prop_map(Spoil::Size),
        Just(Spoil::Again),
    ]
}

fn replace(bytes: &mut Vec<u8>, what: &[u8], with: &[u8]) {
    if let Some(at) = bytes.windows(what.len()).position(|w| w == what) {
        bytes.splice(at..at + what.len(), with.iter().copied());
    }
}

impl Spoil {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Self::Insert(at, scrap) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, scrap.bytes());
            }
            Self::Line(line) => replace(bytes, b"\r\n", format!("\r\n{line}\r\n").as_bytes()),
            Self::Target(target) => replace(bytes, b" /", format!(" {target}").as_bytes()),
            Self::Size(size) => replace(bytes, b"\r\n5\r\n", format!("\r\n{size}\r\n").as_bytes()),
            Self::Again => bytes.extend_from_within(..),
        }
    }
}

/// Frames of HTTP/2, right and wrong ones.
#[derive(Debug, Clone)]
enum Piece {
    /// Of the next stream.
    Head {
        flags: u8,
        fields: Vec<(&'static str, &'static str)>,
    },
    /// Of the last.
    Data {
        flags: u8,
        length: u8,
    },
    Frame {
        kind: u8,
        flags: u8,
        stream: u8,
        payload: Vec<u8>,
    },
    Raw(Vec<u8>),
}

const FIELDS: [(&str, &str); 26] = [
    (":method", "GET"),
    (":method", "G T"),
    (":method", "GET / HTTP/1.1\r\nx: 1\r\n\r\n"),
    (":path", ""),
    (":path", "*"),
    (":path", "http://other/x"),
    (":path", "/ HTTP/1.1\r\nsmuggled: 1\r\n\r\n"),
    (":authority", "a b"),
    (":authority", "u@a"),
    (":authority", ""),
    (":scheme", "gopher"),
    (":protocol", "websocket"),
    (":unknown", "1"),
    ("host", "b"),
    ("content-length", "5"),
    ("content-length", "8"),
    ("content-length", ""),
    ("content-length", "+5"),
    ("content-length", "5, 5"),
    ("transfer-encoding", "chunked"),
    ("connection", "close, x"),
    ("te", "gzip"),
    ("Upper", "1"),
    ("x\r\nsmuggled", "1"),
    ("x", "1\r\nsmuggled: 1"),
    ("x", "1\0"),
];

fn piece() -> impl Strategy<Value = Piece> {
    let well = [(":method", "POST"), (":path", "/run/x"), (":scheme", "http"), (":authority", "a")];
    let well = prop_oneof![9 => Just(well.to_vec()), 1 => prop::sample::subsequence(well.to_vec(), 3)];
    let more = prop_oneof![Just(Vec::new()), prop::collection::vec(prop::sample::select(&FIELDS[..]), 1..3)];
    let payload = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        20 => (prop_oneof![8 => Just(4), 16 => Just(5), 1 => Just(0), 1 => Just(0x24), 1 => Just(0x0c)], well, more)
            .prop_map(|(flags, well, more)| Piece::Head { flags, fields: [well, more].concat() }),
        6 => (prop::sample::select(&[0, 1, 1, 8][..]), 0..9_u8).prop_map(|(flags, length)| Piece::Data { flags, length }),
        1 => (0..12_u8, any::<u8>(), 0..6_u8, payload())
            .prop_map(|(kind, flags, stream, payload)| Piece::Frame { kind, flags, stream, payload }),
        1 => payload().prop_map(Piece::Raw),
    ]
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Header fields as literals that no table takes up (RFC 7541 §6.2.2).
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |s: &str| [&[u8::try_from(s.len()).unwrap()], s.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

fn frames(pieces: &[Piece]) -> Vec<u8> {
    let mut streams = 0;
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend(match piece {
            Piece::Head { flags, fields: f } => {
                streams += 1;
                frame(1, *flags, 2 * streams - 1, &fields(f))
            }
            Piece::Data { flags, length } => frame(0, *flags, (2 * streams).saturating_sub(1), &vec![b'x'; usize::from(*length)]),
            Piece::Frame { kind, flags, stream, payload } => frame(*kind, *flags, *stream, payload),
            Piece::Raw(bytes) => bytes.clone(),
        });
    }
    bytes
}

/// How a client of HTTP/2 begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Asked last: who answers has read all that came before.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0are you?";

thread_local! {
    /// Panics on this thread, caught or not.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// A proxy that everything is thrown at, on this thread.
struct Target {
    runtime: Runtime,
    running: Running,
    seen: Seen,
}

impl Target {
    fn new() -> Self {
        count_panics();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (running, seen) = runtime.block_on(async {
            let agent = Agent::new().await;
            let config = proxy_to(agent.at());
            let seen = strict::serve(agent);
            (start(config, Recorder::quick()).await, seen)
        });
        Self { runtime, running, seen }
    }

    /// Throws bytes, and then asks as everybody does.
    fn throw(&self, bytes: &[u8], http2: bool) {
        self.runtime.block_on(async {
            tokio::time::timeout(LIMIT, self.exchange(bytes, http2)).await.expect("it hangs");
            self.running.idle().await;
            strict::requests(&self.seen).await;
            let answer = self.running.get("/after").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            let requests = strict::requests(&self.seen).await;
            assert_eq!(requests.iter().map(|r| text(&r[..20])).collect::<Vec<_>>(), ["GET /after HTTP/1.1\r"]);
        });
        assert_eq!(PANICS.get(), 0, "a panic");
    }

    async fn exchange(&self, bytes: &[u8], http2: bool) {
        let mut client = self.running.connect().await;
        // It may be cut off in the middle, which is as good an answer as any.
        let _ = client.write_all(bytes).await;
        let mut answer = Vec::new();
        if http2 {
            let _ = client.write_all(PING).await;
            let answered =
                async { while !answer.ends_with(&PING[9..]) && client.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {} };
            // Where the last frame thrown swallows it, there is no answer.
            let _ = tokio::time::timeout(Duration::from_millis(10), answered).await;
        }
        let _ = client.shutdown().await;
        let end = client.read_to_end(&mut answer).await;
        if !http2 && end.is_ok() && !answer.is_empty() {
            // HTTP/2 may have begun, if the preface was not what was spoilt.
            assert!(answer.starts_with(b"HTTP/1.") || answer.starts_with(b"\0"), "{:?}", text(&answer));
        }
    }
}

thread_local! {
    static TARGET: Target = Target::new();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn inv1_no_spoilt_request_is_forwarded_ambiguously(
        well in prop::sample::select(&WELL[..]),
        spoils in prop::collection::vec(spoil(), 1..5),
    ) {
        let mut bytes = well.to_vec();
        for spoil in &spoils {
            spoil.apply(&mut bytes);
        }
        TARGET.with(|target| target.throw(&bytes, false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn inv1_no_spoilt_frames_are_forwarded_ambiguously(pieces in prop::collection::vec(piece(), 1..5)) {
        TARGET.with(|target| target.throw(&[PREFACE, &frames(&pieces)].concat(), true));
    }
}
