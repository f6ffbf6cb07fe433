//! What bodies are as documents.

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The head of a body of this type.
pub(in crate::capture) fn of_type(content_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(content_type.as_bytes()).unwrap());
    }
    headers
}

fn read(content_type: &str, body: &[u8]) -> Option<Value> {
    document(&of_type(content_type), body)
}

#[test]
fn json_is_read_whatever_it_is_called() {
    let types = ["application/json", "application/problem+json; charset=utf-8", "text/plain", "", "application/octet-stream"];
    for content_type in types.into_iter().chain(["application/x-www-form-urlencoded", "APPLICATION/JSON;charset=\"nonsense\""]) {
        assert_eq!(read(content_type, r#"{"a":[1,"é"]}"#.as_bytes()), Some(json!({ "a": [1, "é"] })), "{content_type}");
        assert_eq!(read(content_type, "\n\n \n{}\r\n".as_bytes()), Some(json!({})), "kept alive, {content_type}");
    }
    assert_eq!(read("application/json", b"{\"a\":\"\xff\"}"), Some(json!({ "a": "\u{fffd}" })));
    for body in ["", "  \n", "{\"a\":", "<html></html>", "data: {}\n\n", "{} {}"] {
        assert_eq!(read("application/json", body.as_bytes()), None, "{body}");
    }
    assert_eq!(read("", format!("{}{}", "[".repeat(200), "]".repeat(200)).as_bytes()), None, "too deep");
}

#[test]
fn text_is_read_as_its_charset_or_its_byte_order_mark_says() {
    assert_eq!(read("application/json; charset=ISO-8859-1", b"{\"a\":\"\xe9\"}"), Some(json!({ "a": "é" })));
    assert_eq!(read("application/json;x=y; Charset = \"windows-1252\"", b"{\"a\":\"\x80\"}"), Some(json!({ "a": "€" })));
    assert_eq!(read("application/json", b"\xef\xbb\xbf{\"a\":1}"), Some(json!({ "a": 1 })));
    assert_eq!(read("application/json; charset=latin1", "\u{feff}{\"a\":\"é\"}".as_bytes()), Some(json!({ "a": "é" })));
    let wide: Vec<u8> = "\u{feff}{\"a\":\"é\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read("application/json", &wide), Some(json!({ "a": "é" })));
    assert_eq!(text(&of_type("text/plain; charset=latin1"), b"caf\xe9"), "café");
    assert_eq!(text(&of_type("text/plain"), b"caf\xe9"), "caf\u{fffd}");
}

#[test]
fn a_form_is_an_object_of_its_fields() {
    let body = b"message=caf%C3%A9+au+lait&tag=a&empty=&flag&tag=b&tag=c&session%5Bid%5D=1&odd=a=b";
    let fields =
        json!({ "message": "café au lait", "tag": ["a", "b", "c"], "empty": "", "flag": "", "session[id]": "1", "odd": "a=b" });
    assert_eq!(read("application/x-www-form-urlencoded", body), Some(fields));
    assert_eq!(read("application/x-www-form-urlencoded; charset=utf-8", b""), None);
    assert_eq!(read("application/x-www-form-urlencoded", "a&".repeat(10_001).as_bytes()), None, "too many");
}

const MULTIPART: &str = "--xx\r\ncontent-disposition: form-data; name=\"message\"\r\n\r\nhello\r\nyou\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"tag\"\r\n\r\na\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"tag\"\r\n\r\nb\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"data\"\r\ncontent-type: application/json\r\n\r\n[{\"id\":7}]\r\n\
    --xx\r\ncontent-disposition: form-data; name=\"file\"; filename=\"note.txt\"\r\ncontent-type: text/plain\r\n\r\nsome bytes\r\n\
    --xx--\r\n";

#[test]
fn a_multipart_form_is_an_object_of_its_fields_and_files_are_named() {
    let fields = json!({
        "message": "hello\r\nyou",
        "tag": ["a", "b"],
        "data": [{ "id": 7 }],
        "file": { "filename": "note.txt", "content_type": "text/plain", "size": 10 },
    });
    assert_eq!(read("multipart/form-data; boundary=xx", MULTIPART.as_bytes()), Some(fields.clone()));
    let headers = of_type("multipart/form-data; boundary=\"xx\"");
    let written = multipart(&headers, &parts(&headers, MULTIPART.as_bytes()).unwrap()).unwrap();
    assert_eq!(document(&headers, &written), Some(fields), "written again it is the same");
    assert_eq!(String::from_utf8(written).unwrap(), MULTIPART);
    for (content_type, body) in [
        ("multipart/form-data", MULTIPART),
        ("multipart/form-data; boundary=yy", MULTIPART),
        ("multipart/form-data; boundary=xx", &MULTIPART[..MULTIPART.len() - 20]),
        ("multipart/form-data; boundary=xx", ""),
    ] {
        assert_eq!(read(content_type, body.as_bytes()), None, "{content_type}");
    }
    let latin = "--xx\r\ncontent-disposition: form-data; name=\"a\"\r\ncontent-type: text/plain; charset=latin1\r\n\r\n";
    let latin = [latin.as_bytes(), b"\xe9\r\n--xx--"].concat();
    assert_eq!(read("multipart/form-data; boundary=xx", &latin), Some(json!({ "a": "é" })));
}

/// Types that are read in different ways, and any other.
pub(in crate::capture) fn content_types() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "application/json",
            "application/json; charset=utf-16",
            "text/plain; charset=latin1",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=xx",
        ])
        .prop_map(ToOwned::to_owned),
        "[ -~]{0,60}",
    ]
}

/// Bodies that look a little like something.
pub(in crate::capture) fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "--xx\r\n",
        "--xx--",
        "\r\n\r\n",
        "content-disposition: form-data; name=\"a\"",
        "; filename=\"b\"",
        "\r\n",
        "content-type: application/json",
        "{\"a\":",
        "}",
        "[",
        "]",
        ",",
        "\"b\"",
        "1",
        "null",
        "&",
        "=",
        "%4",
        "+",
        "\u{feff}",
        "é",
        " ",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(word, 0..30).prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_comes_is_a_document_or_none(content_type in content_types(), body in bodies()) {
        let headers = of_type(&content_type);
        if let Some(document) = document(&headers, &body) {
            prop_assert!(serde_json::to_string(&document).is_ok());
        }
        let _ = text(&headers, &body);
    }
}
