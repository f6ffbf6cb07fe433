//! An upstream that reads requests to the letter of RFC 9112, and keeps every byte that it gets.

use tokio::io::AsyncRead;

use super::*;

/// How far the bytes of a connection are one request.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// They are one, and it is so long.
    Complete(usize),
    /// They may become one.
    Incomplete,
    /// They are none, or could be read in more than one way.
    Wrong(String),
}

/// Reads one request, and tolerates nothing.
pub fn parse(bytes: &[u8]) -> Parsed {
    match parse_request(bytes) {
        Ok(Some(length)) => Parsed::Complete(length),
        Ok(None) => Parsed::Incomplete,
        Err(what) => Parsed::Wrong(what),
    }
}

fn parse_request(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at)? else { return Ok(None) };
    let parts: Vec<&[u8]> = first.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else { return Err(format!("the request line {:?}", text(first))) };
    let is_target = target.starts_with(b"/") || target == b"*";
    if !is_token(method) || !is_target || target.iter().any(|&b| b <= b' ' || b == 0x7f) {
        return Err(format!("the request line {:?}", text(first)));
    }
    let Some(fields) = fields(bytes, &mut at)? else { return Ok(None) };
    let all =
        |name: &str| fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| *v).collect::<Vec<_>>();
    if all("host").len() != 1 {
        return Err(format!("{} Host lines", all("host").len()));
    }
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Ok(Some(at)),
        ([length], []) => {
            let digits = std::str::from_utf8(length).ok().filter(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|l| l.parse::<usize>().ok()).ok_or(format!("the length {:?}", text(length)))?;
            Ok((bytes.len() - at >= length).then_some(at + length))
        }
        ([], [b"chunked"]) => chunks(bytes, at),
        (lengths, codings) => Err(format!("{} lengths and {} codings", lengths.len(), codings.len())),
    }
}

fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let Some(size) = line(bytes, &mut at)? else { return Ok(None) };
        let hex = std::str::from_utf8(size).ok().filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = hex.and_then(|s| usize::from_str_radix(s, 16).ok()).ok_or(format!("the chunk size {:?}", text(size)))?;
        if size == 0 {
            let trailers = fields(bytes, &mut at)?;
            return Ok(trailers.map(|_| at));
        }
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk that is longer than its size".to_owned());
        }
        at += size + 2;
    }
}

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Header lines, up to and with the empty one.
fn fields<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<Fields<'a>>, String> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(bytes, at)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let colon = line.iter().position(|&b| b == b':').ok_or(format!("the header line {:?}", text(line)))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(format!("the header line {:?}", text(line)));
        }
        fields.push((name, value));
    }
}

/// A line that ends with CR and LF, and has neither anywhere else.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, String> {
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().position(|&b| b == b'\r' || b == b'\n') else { return Ok(None) };
    match &rest[end..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            *at += end + 2;
            Ok(Some(&rest[..end]))
        }
        _ => Err(format!("a bare CR or LF behind {:?}", text(&rest[..end]))),
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// What came by each connection so far, and whether it is still open.
pub type Seen = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

/// Serves every connection: answers its first request, and waits for what else may come.
pub fn serve(agent: Agent) -> Seen {
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let stream = agent.accept().await;
            tokio::spawn(serve_one(stream, Arc::clone(&keep)));
        }
    });
    seen
}

async fn serve_one(mut stream: TcpStream, seen: Seen) {
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push((Vec::new(), true));
        seen.len() - 1
    };
    let (mut read, mut answered) = (Vec::new(), false);
    while more(&mut stream, &mut read).await {
        seen.lock().unwrap()[place].0.clone_from(&read);
        match parse(&read) {
            Parsed::Complete(_) if !answered => {
                answered = true;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
            }
            Parsed::Wrong(_) => break,
            _ => {}
        }
    }
    seen.lock().unwrap()[place].1 = false;
}

async fn more(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> bool {
    stream.read_buf(read).await.is_ok_and(|n| n > 0)
}

/// Waits until every connection has ended, and takes what came by them: each at most one request, which is what is asserted.
pub async fn requests(seen: &Seen) -> Vec<Vec<u8>> {
    eventually(|| seen.lock().unwrap().iter().all(|(_, open)| !open)).await;
    let requests: Vec<_> = std::mem::take(&mut *seen.lock().unwrap()).into_iter().map(|(bytes, _)| bytes).collect();
    for request in &requests {
        match parse(request) {
            Parsed::Complete(length) => assert_eq!(length, request.len(), "more than one request: {:?}", text(request)),
            Parsed::Incomplete => {}
            Parsed::Wrong(what) => panic!("{what} in {:?}", text(request)),
        }
    }
    requests
}

#[test]
fn it_takes_what_is_right_and_nothing_else() {
    let right: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok",
        b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n",
    ];
    for request in right {
        assert_eq!(parse(request), Parsed::Complete(request.len()), "{}", text(request));
        for end in 0..request.len() {
            assert_eq!(parse(&request[..end]), Parsed::Incomplete, "{}", text(&request[..end]));
        }
    }
    let wrong: [&[u8]; 12] = [
        b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\nok",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
    ];
    for request in wrong {
        assert!(matches!(parse(request), Parsed::Wrong(_)), "{}", text(request));
    }
}
