//! What has been encoded comes out again, in whatever pieces; what hasn't does no harm.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, FlushCompress};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const ENCODINGS: [&str; 5] = ["gzip", "deflate", "deflate-bare", "br", "zstd"];

/// Encodes by a name of [`ENCODINGS`].
fn encode(name: &str, plain: &[u8]) -> Vec<u8> {
    match name {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate-bare" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(plain).unwrap();
            encoder.into_inner()
        }
        "zstd" => {
            let mut encoded = vec![0; zstd_safe::compress_bound(plain.len())];
            let length = zstd_safe::compress(&mut encoded[..], plain, 3).unwrap();
            encoded.truncate(length);
            encoded
        }
        other => panic!("{other}"),
    }
}

/// The head of a body in these encodings.
fn head(names: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in names {
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(name.trim_end_matches("-bare")).unwrap());
    }
    headers
}

fn decoded(names: &[&str], body: &[u8], limit: usize) -> Result<(Vec<u8>, bool), DecodeError> {
    decode(&head(names), &[Bytes::copy_from_slice(body)], limit).map(|decoded| (decoded.bytes.to_vec(), decoded.cut))
}

fn text() -> Vec<u8> {
    (0..2000).flat_map(|n| format!("data: {{\"number\":{n}}}\n\n").into_bytes()).collect()
}

#[test]
fn every_encoding_is_undone() {
    let plain = text();
    for name in ENCODINGS {
        assert_eq!(decoded(&[name], &encode(name, &plain), 1 << 20), Ok((plain.clone(), false)), "{name}");
        assert_eq!(decoded(&[name], &encode(name, b""), 10), Ok((Vec::new(), false)), "nothing in {name}");
        assert_eq!(decoded(&[name], b"", 10), Ok((Vec::new(), false)), "no body in {name}");
    }
    for names in [&["identity"][..], &[" , Identity"], &[]] {
        assert_eq!(decoded(names, &plain, 1 << 20), Ok((plain.clone(), false)));
        assert_eq!(decoded(names, b"abcd", 3), Ok((b"abc".to_vec(), true)));
    }
    assert_eq!(decoded(&["X-GZip"], &encode("gzip", b"a"), 10), Ok((b"a".to_vec(), false)));
}

#[test]
fn encodings_upon_encodings_are_undone_from_the_right() {
    let plain = text();
    for first in ENCODINGS {
        for second in ENCODINGS {
            let body = encode(second, &encode(first, &plain));
            assert_eq!(decoded(&[first, second], &body, 1 << 20), Ok((plain.clone(), false)), "{first}, {second}");
        }
    }
    let body = encode("zstd", &encode("gzip", b"x"));
    assert_eq!(decoded(&["gzip, identity, zstd"], &body, 10), Ok((b"x".to_vec(), false)));
}

#[test]
fn what_is_not_known_is_told() {
    let unknown = |name: &str| Decoder::of(&head(&[name]), 10).map(|_| ()).unwrap_err();
    assert_eq!(unknown("compress"), DecodeError::Unknown("compress".into()));
    assert_eq!(unknown("gzip, aws-chunked"), DecodeError::Unknown("aws-chunked".into()));
    assert_eq!(unknown("gzip, gzip, gzip, gzip, gzip"), DecodeError::TooMany);
    assert_eq!(DecodeError::TooMany.to_string(), "more than 4 content-encodings are not read");
}

#[test]
fn what_was_flushed_is_there_at_once() {
    const EVENTS: [&[u8]; 3] = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    let mut raw = flate2::Compress::new(Compression::default(), false);
    let mut zstd = zstd_safe::CCtx::create();
    let (mut seen_gzip, mut seen_brotli) = (0, 0);
    let mut decoders =
        ["gzip", "br", "deflate", "zstd"].map(|name| Decoder::of_stream(&head(&[name]), 1 << 20).unwrap().unwrap());
    for event in EVENTS {
        gzip.write_all(event).unwrap();
        gzip.flush().unwrap();
        brotli.write_all(event).unwrap();
        brotli.flush().unwrap();
        let mut bare = Vec::with_capacity(1000);
        raw.compress_vec(event, &mut bare, FlushCompress::Sync).unwrap();
        let mut framed = vec![0; 1000];
        let length = {
            let mut to = zstd_safe::OutBuffer::around(&mut framed[..]);
            zstd.compress_stream(&mut to, &mut zstd_safe::InBuffer::around(event)).unwrap();
            assert_eq!(zstd.flush_stream(&mut to).unwrap(), 0);
            to.pos()
        };
        let pieces = [&gzip.get_ref()[seen_gzip..], &brotli.get_ref()[seen_brotli..], &bare[..], &framed[..length]];
        for (decoder, piece) in decoders.iter_mut().zip(pieces) {
            let mut out = Vec::new();
            decoder.feed(piece, |bytes| out.extend_from_slice(bytes)).unwrap();
            assert_eq!(out, event, "{decoder:?}");
            assert!(decoder.is_cut(), "it has not ended yet");
        }
        (seen_gzip, seen_brotli) = (gzip.get_ref().len(), brotli.get_ref().len());
    }
}

#[test]
fn members_follow_each_other_and_what_is_behind_them_is_passed_over() {
    let two = [encode("gzip", b"one "), encode("gzip", b"two")].concat();
    for behind in [&b""[..], b"\0\0\0\0", b"garbage", b"\x1fx"] {
        let body = [&two, behind].concat();
        assert_eq!(decoded(&["gzip"], &body, 100), Ok((b"one two".to_vec(), false)), "{behind:?}");
    }
    let frames = [encode("zstd", b"one "), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), encode("zstd", b"two")].concat();
    assert_eq!(decoded(&["zstd"], &frames, 100), Ok((b"one two".to_vec(), false)));
    for name in ["deflate", "deflate-bare", "br"] {
        let body = [&encode(name, b"one")[..], b"garbage"].concat();
        assert_eq!(decoded(&[name], &body, 100), Ok((b"one".to_vec(), false)), "{name}");
    }
}

#[test]
fn a_head_of_gzip_may_say_all_that_it_can() {
    let plain = encode("gzip", b"hello");
    let (fixed, rest) = plain.split_at(10);
    let optional: [(u8, &[u8]); 4] = [(4, b"\x05\x00extra"), (8, b"name\0"), (16, b"comment\0"), (2, b"\x12\x34")];
    for flags in 0_u8..16 {
        let mut head = fixed.to_vec();
        for (bit, (flag, bytes)) in optional.iter().enumerate() {
            if flags & (1 << bit) != 0 {
                head[3] |= flag;
                head.extend_from_slice(bytes);
            }
        }
        assert_eq!(decoded(&["gzip"], &[&head, rest].concat(), 100), Ok((b"hello".to_vec(), false)), "{flags:b}");
    }
    let reserved = [&fixed[..3], &[0x20], &fixed[4..], rest].concat();
    assert_eq!(decoded(&["gzip"], &reserved, 100), Err(DecodeError::Damaged));
}

#[test]
fn what_broke_off_is_there_as_far_as_it_came_and_what_is_damaged_is_told() {
    let plain = text();
    for name in ENCODINGS {
        let body = encode(name, &plain);
        let (out, cut) = decoded(&[name], &body[..body.len() - 1], 1 << 20).unwrap();
        assert!(cut && plain.starts_with(&out), "{name}");
        let (out, cut) = decoded(&[name], &body[..body.len() / 2], 1 << 20).unwrap();
        assert!(cut && plain.starts_with(&out), "{name}");
        assert!(!out.is_empty() || name == "zstd" || name == "br", "{name}: a block is decoded as it comes");
        assert_eq!(decoded(&[name], b"\xff\xff\xff\xffno such thing", 100), Err(DecodeError::Damaged), "{name}");
    }
    let mut body = encode("gzip", &plain);
    let last = body.len() - 1;
    body[last] ^= 1;
    assert_eq!(decoded(&["gzip"], &body, 1 << 20), Err(DecodeError::Damaged), "its length is another one");
    body[last] ^= 1;
    body[last - 4] ^= 1;
    assert_eq!(decoded(&["gzip"], &body, 1 << 20), Err(DecodeError::Damaged), "its checksum is another one");
}

#[test]
fn inv9_a_bomb_is_cut_at_the_limit() {
    const LIMIT: usize = 100_000;
    let zeros = vec![0_u8; 8 << 20];
    for name in ENCODINGS {
        let body = encode(name, &zeros);
        let (out, cut) = decoded(&[name], &body, LIMIT).unwrap();
        assert_eq!((out.len(), cut), (LIMIT, true), "{name}");
        let body = encode("gzip", &body);
        let (out, cut) = decoded(&[name, "gzip"], &body, LIMIT).unwrap();
        assert_eq!((out.len(), cut), (LIMIT, true), "{name}, gzip");
    }
    // A bomb inside that yields nothing: members without a byte in them.
    let empty = encode("gzip", b"").repeat(1 << 20);
    let (out, cut) = decoded(&["gzip", "br"], &encode("br", &empty), LIMIT).unwrap();
    assert_eq!((out.len(), cut), (0, true));
    let exact = encode("gzip", &zeros[..LIMIT]);
    assert_eq!(decoded(&["gzip"], &exact, LIMIT).unwrap(), (zeros[..LIMIT].to_vec(), false), "the limit itself is within it");
}

#[test]
fn inv9_a_stream_may_be_long_but_not_out_of_proportion() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut decoder = Decoder::of_stream(&head(&["gzip"]), 1000).unwrap().unwrap();
    let (mut seen, mut total) = (0, 0);
    for number in 0..5000_u32 {
        write!(encoder, "data: {{\"number\":{number},\"text\":\"a few words\"}}\n\n").unwrap();
        encoder.flush().unwrap();
        decoder.feed(&encoder.get_ref()[seen..], |bytes| total += bytes.len()).unwrap();
        seen = encoder.get_ref().len();
    }
    assert!(total > 200_000, "all of it, far beyond the limit: {total}");
    let bomb = encode("gzip", &vec![0; 8 << 20]);
    let mut decoder = Decoder::of_stream(&head(&["gzip"]), 1000).unwrap().unwrap();
    let mut total = 0;
    decoder.feed(&bomb, |bytes| total += bytes.len()).unwrap();
    assert_eq!((total, decoder.is_cut()), (1000 + bomb.len() * STREAM_RATIO, true));
    decoder.feed(&bomb, |_| panic!("no more")).unwrap();
}

#[test]
fn inv9_a_window_beyond_what_the_encoding_may_ask_for_is_refused() {
    // A frame of zstd whose window is 1 GiB, and a stream of br that asks for the large windows of its own program.
    assert_eq!(decoded(&["zstd"], b"\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00", 100), Err(DecodeError::Damaged));
    assert_eq!(decoded(&["br"], b"\x11\x1e\x0b\x00\x80a\x03", 100), Err(DecodeError::Damaged));
}

/// Cuts a body into pieces at these places.
fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places.into_iter().chain([body.len()]) {
        pieces.push(&body[from..place]);
        from = place;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_encoded_comes_out_in_whatever_pieces(
        plain in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            prop::collection::vec(0_u8..4, 0..100_000),
            any::<u8>().prop_flat_map(|byte| (0..200_000_usize).prop_map(move |length| vec![byte; length])),
        ],
        names in prop::collection::vec(prop::sample::select(&ENCODINGS), 1..=3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let body = names.iter().fold(plain.clone(), |body, name| encode(name, &body));
        let mut decoder = Decoder::of(&head(&names), plain.len().max(1)).unwrap().unwrap();
        let mut out = Vec::new();
        for piece in pieces(&body, &cuts) {
            decoder.feed(piece, |bytes| out.extend_from_slice(bytes)).unwrap();
        }
        prop_assert!(!decoder.is_cut());
        prop_assert!(out == plain);
    }

    /// Whatever comes: no panic, nothing beyond the limit, the same in pieces as whole.
    #[test]
    fn arbitrary_bytes_do_no_harm(
        seed in prop::collection::vec(any::<u8>(), 0..300),
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        encoded in any::<bool>(),
        names in prop::collection::vec(prop::sample::select(&ENCODINGS), 1..=2),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        limit in 0_usize..2000,
    ) {
        let mut body = if encoded { names.iter().fold(seed.repeat(10), |body, name| encode(name, &body)) } else { seed };
        for (place, byte) in harm {
            if !body.is_empty() {
                let place = place.index(body.len());
                body[place] = byte;
            }
        }
        let mut decoder = Decoder::of(&head(&names), limit).unwrap().unwrap();
        let mut out = Vec::new();
        let mut damaged = false;
        for piece in pieces(&body, &cuts) {
            damaged |= decoder.feed(piece, |bytes| out.extend_from_slice(bytes)).is_err();
        }
        prop_assert!(out.len() <= limit);
        match decoded(&names, &body, limit) {
            Ok((whole, cut)) => prop_assert!(!damaged && whole == out && cut == decoder.is_cut()),
            // In pieces more may come out, and reach the limit, before the damage is seen.
            Err(_) => prop_assert!(damaged || decoder.is_cut()),
        }
    }
}
