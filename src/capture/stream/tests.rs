use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;
use crate::config::{Marker, Stream};

mod apis;
mod bounds;
mod framing;
mod reading;

/// Rules, written as in a configuration.
#[derive(Default)]
struct Given<'a> {
    append: &'a [&'a str],
    replace: &'a [&'a str],
    by: &'a [&'a str],
    end: &'a [&'a str],
    error: &'a [&'a str],
    first: &'a [&'a str],
    last: &'a [&'a str],
    gathers: &'a [&'a str],
    max: usize,
}

impl Given<'_> {
    fn plan(&self) -> Arc<Plan> {
        let path = |text: &&str| JsonPath::parse(text).unwrap();
        let paths = |texts: &[&str]| texts.iter().map(|text| EventPath::parse(text).unwrap()).collect::<Vec<_>>();
        let marker = |text: &&str| EventPath::parse(text).map_or_else(|_| Marker::Text((*text).to_owned()), Marker::Path);
        let probe = |pick| move |text: &&str| Probe { path: path(text), pick };
        Arc::new(Plan::new(
            &Stream {
                format: StreamFormat::Sse,
                append: paths(self.append),
                replace: paths(self.replace),
                by: self.by.iter().map(path).collect(),
                end: self.end.iter().map(marker).collect(),
                error: self.error.iter().map(marker).collect(),
            },
            self.first.iter().map(probe(Pick::First)).chain(self.last.iter().map(probe(Pick::Last))).collect(),
            paths(self.gathers),
            Redactor::default(),
            if self.max == 0 { 1 << 20 } else { self.max },
        ))
    }

    /// Reads a stream of server-sent events.
    fn sse(&self, stream: &str) -> Assembled {
        everywhere(&self.plan(), StreamFormat::Sse, stream.as_bytes())
    }

    /// Reads a stream of documents.
    fn ndjson(&self, stream: &str) -> Assembled {
        everywhere(&self.plan(), StreamFormat::Ndjson, stream.as_bytes())
    }
}

/// Reads a stream in one piece, byte by byte, and in two pieces cut everywhere: it must be the same each time.
fn everywhere(plan: &Arc<Plan>, format: StreamFormat, stream: &[u8]) -> Assembled {
    let (end, bytewise) = read(plan, format, stream.chunks(1));
    for cut in 0..=stream.len() {
        let (before, after) = stream.split_at(cut);
        let (at, cut_once) = read(plan, format, [before, after]);
        assert_eq!(cut_once, bytewise, "cut at {cut} of {}", String::from_utf8_lossy(stream));
        assert_eq!(at, end.map(|end| usize::from(end >= cut)), "the end, cut at {cut}");
    }
    bytewise
}

/// Reads a stream; in which piece the end was seen, and what it was.
fn read<'a>(plan: &Arc<Plan>, format: StreamFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Option<usize>, Assembled) {
    let mut assembler = Assembler::new(plan.clone(), format);
    let mut end = None;
    for (i, piece) in pieces.into_iter().enumerate() {
        if assembler.feed(piece) {
            assert_eq!(end, None, "the end is told once");
            end = Some(i);
        }
    }
    let whole = assembler.finish();
    assert!(whole.ended || end.is_none());
    (end, whole)
}

/// A stream cut into pieces.
fn pieces<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places.into_iter().chain([stream.len()]) {
        pieces.push(&stream[from..place]);
        from = place;
    }
    pieces
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..8)
}

/// Bytes made of what means something to a parser.
fn made_of(parts: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        12 => proptest::sample::select(parts).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}
