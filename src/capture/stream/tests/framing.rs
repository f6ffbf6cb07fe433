//! Bytes into events: against the standard's own examples, and against parsers that see all of the input at once.

use super::super::buffer::Buffer;
use super::*;

/// An event with its name, its data (none: too long) and whether the stream broke off in it.
type Told = (String, Option<String>, bool);

fn told(event: &Event<'_>) -> Option<Told> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    (event.stage != Stage::Line).then(|| (text(event.name), event.data.map(text), event.stage == Stage::Rest))
}

fn sse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Vec<Told> {
    let mut events = Vec::new();
    let mut sse = Sse::new(max);
    for piece in pieces {
        sse.feed(piece, |event| {
            events.extend(told(&event));
            false
        });
    }
    sse.finish(|event| {
        events.extend(told(&event));
        false
    });
    events
}

fn ndjson<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Vec<Told> {
    let mut events = Vec::new();
    let mut ndjson = Ndjson::new(max);
    for piece in pieces {
        ndjson.feed(piece, |event| {
            events.extend(told(&event));
            false
        });
    }
    ndjson.finish(|event| {
        events.extend(told(&event));
        false
    });
    events
}

/// Lines of a whole input, and what stands after the last ending.
fn lines(input: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut at = 0;
    while at < input.len() {
        match input[at] {
            b'\n' => lines.push(std::mem::take(&mut line)),
            b'\r' => {
                lines.push(std::mem::take(&mut line));
                if input.get(at + 1) == Some(&b'\n') {
                    at += 1;
                }
            }
            byte => line.push(byte),
        }
        at += 1;
    }
    (lines, line)
}

/// The standard, read aloud.
fn plain_sse(input: &[u8], max: usize) -> Vec<Told> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let (lines, unfinished) = lines(input);
    let mut events = Vec::new();
    let mut name = Vec::new();
    let mut data: Vec<Vec<u8>> = Vec::new();
    let event = |name: &[u8], data: &[Vec<u8>], is_rest| {
        let name = if name.len() > max.min(1024) { &[] } else { name };
        let data = data.join(&b'\n');
        (text(name), (data.len() <= max).then(|| text(&data)), is_rest)
    };
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                events.push(event(&name, &data, false));
            }
            name.clear();
            data.clear();
            continue;
        }
        let colon = line.iter().position(|&b| b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match &line[..colon] {
            b"data" => data.push(value),
            b"event" => name = value,
            _ => {}
        }
    }
    // Beyond the standard: what was cut off.
    if let Some(value) = unfinished.strip_prefix(b"data:") {
        data.push(value.strip_prefix(b" ").unwrap_or(value).to_vec());
    }
    if unfinished.starts_with(b"event:") {
        name.clear();
    }
    if !data.is_empty() {
        events.push(event(&name, &data, true));
    }
    events
}

fn plain_ndjson(input: &[u8], max: usize) -> Vec<Told> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let lines: Vec<_> = input.split(|&b| b == b'\n').collect();
    let mut documents = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let is_rest = i + 1 == lines.len();
        let document = if i == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }.trim_ascii();
        if line.len() > max {
            documents.push((String::new(), None, is_rest));
        } else if !document.is_empty() {
            documents.push((String::new(), Some(text(document)), is_rest));
        }
    }
    documents
}

#[test]
fn events_are_those_of_the_standard() {
    let whole = |name: &str, data: &str| (name.to_owned(), Some(data.to_owned()), false);
    let cut = |name: &str, data: &str| (name.to_owned(), Some(data.to_owned()), true);
    for (stream, events) in [
        // Of the standard itself.
        ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![whole("", "YHOO\n+2\n10")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![whole("", "first event"), whole("", "second event"), whole("", " third event")],
        ),
        ("data\n\ndata\ndata\n\ndata:", vec![whole("", ""), whole("", "\n"), cut("", "")]),
        ("data:test\n\ndata: test\n\n", vec![whole("", "test"), whole("", "test")]),
        ("event: add\ndata: 73\n\nevent: remove\ndata: 21\n\n", vec![whole("add", "73"), whole("remove", "21")]),
        // Endings of lines.
        ("data: a\r\rdata: b\r\n\r\ndata: c\n\n", vec![whole("", "a"), whole("", "b"), whole("", "c")]),
        ("data: a\r\ndata: b\r\r\n", vec![whole("", "a\nb")]),
        ("data: a\n\rdata: b\r\n\n", vec![whole("", "a"), whole("", "b")]),
        ("\r\n\n\r\rdata: a\n\n\n\n", vec![whole("", "a")]),
        // The byte order mark.
        ("\u{feff}data: a\n\n", vec![whole("", "a")]),
        ("\u{feff}\u{feff}data: a\n\n", vec![]),
        ("data: a\n\n\u{feff}data: b\n\n", vec![whole("", "a")]),
        // Fields.
        ("data:a:b\n\ndata : c\n\n data: d\n\nDATA: e\n\ndatabase: f\n\ndat: g\n\n", vec![whole("", "a:b")]),
        ("event: a\nevent: b\ndata: 1\n\ndata: 2\n\n", vec![whole("b", "1"), whole("", "2")]),
        ("data: 1\nevent: a\n\n", vec![whole("a", "1")]),
        ("event: a\nevent\ndata: 1\n\n", vec![whole("", "1")]),
        ("event:  a \ndata: 1\n\n", vec![whole(" a ", "1")]),
        ("data: a\n: comment\nretry: 10\nid: 7\ndata: b\n\n", vec![whole("", "a\nb")]),
        (": heartbeat\n\n:\n\n", vec![]),
        ("event: ping\n\ndata: 1\n\n", vec![whole("", "1")]),
        // What the end cuts off.
        ("data: a\n", vec![cut("", "a")]),
        ("event: x\ndata: a", vec![cut("x", "a")]),
        ("data: a\nevent: x", vec![cut("", "a")]),
        ("data: a\ndata", vec![cut("", "a")]),
        ("event: x\ndat", vec![]),
        ("event: x", vec![]),
        ("", vec![]),
    ] {
        let bytes = stream.as_bytes();
        assert_eq!(sse([bytes], 100), events, "{stream:?}");
        assert_eq!(sse(bytes.chunks(1), 100), events, "{stream:?} byte by byte");
        assert_eq!(plain_sse(bytes, 100), events, "{stream:?} plainly");
    }
}

#[test]
fn documents_are_lines() {
    let whole = |data: &str| (String::new(), Some(data.to_owned()), false);
    for (stream, documents) in [
        ("1\n2\r\n3\n", vec![whole("1"), whole("2"), whole("3")]),
        ("\n\r\n  \n\t1 \n", vec![whole("1")]),
        ("1\r2\n", vec![whole("1\r2")]),
        ("\u{feff}1\n\u{feff}2\n", vec![whole("1"), whole("ï»¿2")]),
        ("1\n2", vec![whole("1"), (String::new(), Some("2".into()), true)]),
        ("1\n  ", vec![whole("1")]),
        ("12345678901\n2\n", vec![(String::new(), None, false), whole("2")]),
        ("12345678901", vec![(String::new(), None, true)]),
    ] {
        let bytes = stream.as_bytes();
        assert_eq!(ndjson([bytes], 10), documents, "{stream:?}");
        assert_eq!(ndjson(bytes.chunks(1), 10), documents, "{stream:?} byte by byte");
        assert_eq!(plain_ndjson(bytes, 10), documents, "{stream:?} plainly");
    }
}

#[test]
fn an_event_beyond_the_limit_comes_without_its_data_and_the_next_one_is_whole() {
    let too_long = |name: &str| (name.to_owned(), None, false);
    let whole = |data: &str| (String::new(), Some(data.to_owned()), false);
    for (stream, events) in [
        ("data: 123456\n\ndata: 12345\n\n", vec![too_long(""), whole("12345")]),
        ("data: 123\ndata: 45\n\ndata: 123\ndata: 4\n\n", vec![too_long(""), whole("123\n4")]),
        ("data: 123456\ndata: 1\n\ndata: 1\n\n", vec![too_long(""), whole("1")]),
        ("event: a\ndata: 123456\n\n", vec![too_long("a")]),
        ("event: abcdef\ndata: 1\n\n", vec![whole("1")]),
        (": a very long comment\ndata: 1\n\n", vec![whole("1")]),
        ("a_very_long_field: 1\ndata: 1\n\n", vec![whole("1")]),
    ] {
        let bytes = stream.as_bytes();
        assert_eq!(sse([bytes], 5), events, "{stream:?}");
        assert_eq!(sse(bytes.chunks(1), 5), events, "{stream:?} byte by byte");
    }
}

#[test]
fn an_event_in_one_piece_is_not_copied() {
    let mut sse = Sse::new(1000);
    sse.feed(b"event: a\ndata: {\"a\": 1}\nid: 1\n\ndata: 2\r\n\r\n", |_| false);
    assert!(sse.held() <= 1, "the name alone");
    sse.feed(b"data: 12345", |_| false);
    assert_eq!(sse.held(), 6);
    let mut ndjson = Ndjson::new(1000);
    ndjson.feed(b"{\"a\": 1}\n{}\n", |_| false);
    assert_eq!(ndjson.held(), 0);
}

#[test]
fn a_buffer_asks_for_no_more_memory_than_its_limit() {
    let mut buffer = Buffer::new(1000);
    for _ in 0..1000 {
        buffer.push(b"x");
        assert!(buffer.held() <= 1000);
    }
    assert_eq!(buffer.get().map(<[u8]>::len), Some(1000));
    buffer.push(b"x");
    assert!(buffer.is_over() && buffer.get().is_none());
    buffer.push(b"");
    assert_eq!(buffer.get(), None);
    buffer.clear();
    buffer.push(b"y");
    assert_eq!(buffer.get(), Some(&b"y"[..]));
}

const SSE_PARTS: &[&[u8]] = &[
    b"data: ",
    b"data:",
    b"data",
    b"event: ",
    b"event:",
    b"event",
    b"event: a",
    b": c",
    b":",
    b"id: 1",
    b"retry",
    b" ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"{\"a\":1}",
    b"[DONE]",
    b"dat",
    b"databas",
    b"x",
    b"1234567",
    b"\xef",
    b"\xef\xbb",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0",
];
const NDJSON_PARTS: &[&[u8]] =
    &[b"\n", b"\r\n", b"\r", b" ", b"\t", b"{\"a\":1}", b"[1,", b"2]", b"null", b"1234567", b"\xef\xbb\xbf", b"\xef", b"\xff"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sse_in_pieces_is_what_it_is_at_once(stream in made_of(SSE_PARTS), cuts in cuts(), max in 0..20_usize) {
        let expected = plain_sse(&stream, max);
        prop_assert_eq!(sse(pieces(&stream, &cuts), max), expected.clone());
        prop_assert_eq!(sse(stream.chunks(1), max), expected);
    }

    #[test]
    fn ndjson_in_pieces_is_what_it_is_at_once(stream in made_of(NDJSON_PARTS), cuts in cuts(), max in 0..20_usize) {
        let expected = plain_ndjson(&stream, max);
        prop_assert_eq!(ndjson(pieces(&stream, &cuts), max), expected.clone());
        prop_assert_eq!(ndjson(stream.chunks(1), max), expected);
    }

    #[test]
    fn any_bytes_are_read_alike_however_cut(stream in proptest::collection::vec(any::<u8>(), 0..200), cuts in cuts()) {
        prop_assert_eq!(sse(pieces(&stream, &cuts), 50), plain_sse(&stream, 50));
        prop_assert_eq!(ndjson(pieces(&stream, &cuts), 50), plain_ndjson(&stream, 50));
    }
}
