use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::pattern::PathPattern;

fn kept(body: &str) -> Kept {
    // In pieces, as it comes off the wire.
    let frames: Vec<_> = body.as_bytes().chunks(7).map(bytes::Bytes::copy_from_slice).collect();
    Kept { frames, len: body.len(), total: body.len() as u64, ended: true, ..Kept::default() }
}

fn req(path: &str) -> Source {
    Source::ReqJson(JsonPath::parse(path).unwrap())
}

fn resp(path: &str) -> Source {
    Source::RespJson(JsonPath::parse(path).unwrap())
}

const REQUEST: &str = r#"{
    "message_content": "Buenas", "empty": "", "nothing": null, "number": 42, "float": 1.5, "yes": true, "no": false, "list": [], "object": {"a": 1},
    "messages": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {}}, {"type": "input_text", "text": "two"}]}
    ]
}"#;
const RESPONSE: &str = r#"{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}], "success": true, "failed": false,
    "output": [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "said"}]}]}"#;

fn with_seen<R>(request: Option<&Kept>, response: &Kept, look: impl FnOnce(&Seen<'_>) -> R) -> R {
    let pattern = PathPattern::parse("/agent/{agent}/run").unwrap();
    let mut request_headers = HeaderMap::new();
    request_headers.insert("x-session", HeaderValue::from_static("h1"));
    request_headers.insert("x-empty", HeaderValue::from_static(""));
    request_headers.append("cookie", HeaderValue::from_static("a=1; sid=c1"));
    request_headers.append("cookie", HeaderValue::from_static("b=\"quoted\""));
    let mut response_headers = HeaderMap::new();
    response_headers.insert("location", HeaderValue::from_static("/threads/9"));
    let redactor = Redactor::default();
    let request = Document::new(&request_headers, request, 1 << 20, &redactor);
    let response = Response::Document(Document::new(&response_headers, Some(response), 1 << 20, &redactor));
    look(&Seen {
        params: pattern.matches("/agent/my%20agent/run"),
        query: Some("session=q%201&plus=a+b&flag&empty="),
        request_headers: &request_headers,
        response_headers: &response_headers,
        request: &request,
        response: Some(&response),
    })
}

#[test]
fn every_source_yields_its_text_or_nothing() {
    let header = |name| Source::ReqHeader(HeaderName::from_static(name));
    let query = |name: &str| Source::ReqQuery(name.to_owned());
    let cookie = |name: &str| Source::ReqCookie(name.to_owned());
    let table = [
        (req("$.message_content"), Some("Buenas")),
        (req("$.empty"), None),
        (req("$.nothing"), None),
        (req("$.absent"), None),
        (req("$.list"), None),
        (req("$.object"), None),
        (req("$.number"), Some("42")),
        (req("$.float"), Some("1.5")),
        (req("$.yes"), Some("true")),
        (req("$.no"), Some("false")),
        (req("$.messages[?@.role == 'user'].content"), Some("first")),
        (req("$.messages[-1].content"), Some("one\ntwo")),
        (resp("$.choices[0].message.content"), Some("a")),
        (resp("$.output[?@.type == 'message'].content"), Some("said")),
        (header("x-session"), Some("h1")),
        (header("x-empty"), None),
        (header("x-absent"), None),
        (Source::RespHeader(HeaderName::from_static("location")), Some("/threads/9")),
        (Source::ReqPath("agent".to_owned()), Some("my agent")),
        (Source::ReqPath("other".to_owned()), None),
        (query("session"), Some("q 1")),
        (query("plus"), Some("a b")),
        (query("flag"), None),
        (query("empty"), None),
        (query("absent"), None),
        (cookie("sid"), Some("c1")),
        (cookie("b"), Some("quoted")),
        (cookie("absent"), None),
        (Source::Const("fixed".to_owned()), Some("fixed")),
    ];
    with_seen(Some(&kept(REQUEST)), &kept(RESPONSE), |seen| {
        for (source, expected) in table {
            assert_eq!(seen.text(std::slice::from_ref(&source), Want::Key).as_deref(), expected, "{source:?}");
        }
    });
}

#[test]
fn the_first_source_that_yields_wins_and_the_last_user_message_is_the_input() {
    with_seen(Some(&kept(REQUEST)), &kept(RESPONSE), |seen| {
        let sources = [req("$.absent"), req("$.nothing"), resp("$.choices[*].message.content"), Source::Const("late".to_owned())];
        assert_eq!(seen.text(&sources, Want::Key).as_deref(), Some("a"));
        assert_eq!(seen.text(&[req("$.messages[?@.role == 'user'].content")], Want::Input).as_deref(), Some("one\ntwo"));
        assert_eq!(seen.text(&[], Want::Key), None);
    });
}

#[test]
fn success_is_judged_by_what_is_neither_absent_false_null_nor_empty() {
    let (request, response) = (kept(REQUEST), kept(RESPONSE));
    with_seen(Some(&request), &response, |seen| {
        for (source, expected) in [
            (resp("$.success"), Judgement::Holds),
            (resp("$.failed"), Judgement::Fails),
            (resp("$.absent"), Judgement::Fails),
            (req("$.nothing"), Judgement::Fails),
            (req("$.empty"), Judgement::Fails),
            (req("$.list"), Judgement::Fails),
            (req("$.object"), Judgement::Holds),
            (req("$.number"), Judgement::Holds),
            (Source::ReqHeader(HeaderName::from_static("x-session")), Judgement::Holds),
            (Source::ReqHeader(HeaderName::from_static("x-empty")), Judgement::Fails),
        ] {
            assert_eq!(seen.judge(&source), expected, "{source:?}");
        }
    });
    let cut = Kept { total: response.total + 1, ..response };
    with_seen(None, &cut, |seen| {
        assert_eq!(seen.judge(&resp("$.success")), Judgement::Unseen);
        assert_eq!(seen.judge(&req("$.number")), Judgement::Unseen);
        assert_eq!(seen.text(&[req("$.number")], Want::Key), None);
    });
}

#[test]
fn what_is_no_json_yields_nothing() {
    for body in ["", "   ", "{\"message_content\": \"cut", "<html></html>", "\u{feff}{}"] {
        with_seen(Some(&kept(body)), &kept(body), |seen| {
            assert_eq!(seen.text(&[req("$.message_content"), resp("$")], Want::Key), None, "{body:?}");
        });
    }
}

/// One step of a path, valid by itself.
fn steps() -> impl Strategy<Value = String> {
    let index = || prop_oneof![-4_i64..5, Just(9_007_199_254_740_991), Just(-9_007_199_254_740_991)];
    let bound = move || prop_oneof![Just(String::new()), index().prop_map(|index| index.to_string())];
    let name = || prop::sample::select(vec!["a", "b", "é"]);
    let compared = prop::sample::select(vec![
        "@",
        "@.a",
        "@['b']",
        "$.a",
        "@[0]",
        "1",
        "-0.5e3",
        "'a'",
        "null",
        "true",
        "length(@.a)",
        "count(@..*)",
    ]);
    let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let pattern = prop::sample::select(vec!["'a.*'", "'['", "@.b", "'(a|b){2,3}'", "'\\\\p{Lu}'"]);
    prop_oneof![
        name().prop_map(|name| format!(".{name}")),
        name().prop_map(|name| format!("..{name}")),
        name().prop_map(|name| format!("['{name}',0,*]")),
        prop::sample::select(vec![".*", "..*", "[*]", "..[*]"]).prop_map(ToOwned::to_owned),
        index().prop_map(|index| format!("[{index}]")),
        (bound(), bound(), bound()).prop_map(|(from, to, step)| format!("[{from}:{to}:{step}]")),
        (compared.clone(), operator, compared).prop_map(|(one, operator, other)| format!("[?{one} {operator} {other}]")),
        (prop::sample::select(vec!["match", "search"]), pattern).prop_map(|(f, pattern)| format!("[?{f}(@.a, {pattern})]")),
        prop::sample::select(vec!["[?@.a]", "[?!@.b]", "[?@.a && (@.b || $..a)]", "[?value(@..a) == 1]"])
            .prop_map(ToOwned::to_owned),
    ]
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1.5e300),
            json!(u64::MAX),
            json!("a"),
            json!(""),
            json!("[")
        ]),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        let name = prop::sample::select(vec!["a", "b", "é", "text", "type"]).prop_map(ToOwned::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a document is and whatever an operator looks for in it: a text that isn't empty, or none.
    #[test]
    fn any_path_into_any_document_yields_a_text_or_nothing(
        document in documents(),
        steps in prop::collection::vec(steps(), 0..4),
    ) {
        let path = format!("${}", steps.concat());
        // A step may be refused, for its number say; then there is no such source.
        if let (Ok(request), Ok(response)) = (Source::parse(&format!("req.json:{path}")), Source::parse(&format!("resp.json:{path}"))) {
            let body = kept(&document.to_string());
            with_seen(Some(&body), &body, |seen| {
                for source in [request, response] {
                    let sources = std::slice::from_ref(&source);
                    for want in [Want::Key, Want::Input, Want::Output, Want::Metadata] {
                        assert!(seen.text(sources, want).is_none_or(|text| !text.is_empty()), "{path}");
                    }
                    assert_ne!(seen.judge(&source), Judgement::Unseen, "{path}");
                }
            });
        }
    }

    #[test]
    fn any_bytes_are_no_document_at_worst(body in prop::collection::vec(any::<u8>(), 0..100), path in steps()) {
        if let Ok(path) = JsonPath::parse(&format!("${path}")) {
            let body = Kept { len: body.len(), total: body.len() as u64, frames: vec![body.into()], ended: true, ..Kept::default() };
            with_seen(Some(&body), &body, |seen| {
                let _ = seen.text(&[Source::ReqJson(path.clone()), Source::RespJson(path)], Want::Input);
            });
        }
    }
}
