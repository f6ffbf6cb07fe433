//! What is redacted, and what stays as it is.

use proptest::prelude::*;
use regex::Regex;
use serde_json::json;

use super::*;
use crate::capture::document::document;
use crate::capture::document::tests::{bodies, content_types, of_type};

const CARD: &str = r"\b\d{16}\b";

fn redactor(rules: &[&str]) -> Redactor {
    let rule = |rule: &&str| match rule.strip_prefix("re:") {
        Some(expression) => Redact::Text(Regex::new(expression).unwrap()),
        None => Redact::Json(JsonPath::parse(rule).unwrap()),
    };
    Redactor::new(&rules.iter().map(rule).collect::<Vec<_>>())
}

fn redacted(rules: &[&str], mut document: Value) -> Value {
    let before = document.clone();
    let found = redactor(rules).document(&mut document);
    assert_eq!(found, before != document);
    document
}

#[test]
fn a_path_replaces_all_that_it_finds() {
    let document = json!({ "api_key": "s", "a": { "api_key": { "b": 1 } }, "list": [{ "api_key": null }, { "x/y~z": "s" }] });
    assert_eq!(redacted(&["$.api_key"], document.clone())["api_key"], REDACTED);
    assert_eq!(redacted(&["$.nothing"], document.clone()), document);
    let all = json!({ "api_key": REDACTED, "a": { "api_key": REDACTED }, "list": [{ "api_key": REDACTED }, { "x/y~z": "s" }] });
    assert_eq!(redacted(&["$..api_key"], document.clone()), all);
    assert_eq!(redacted(&["$.list[*]['x/y~z']"], document.clone())["list"][1], json!({ "x/y~z": REDACTED }));
    assert_eq!(redacted(&["$"], document.clone()), REDACTED, "the root itself");
    assert_eq!(redacted(&["$..*"], document), json!({ "api_key": REDACTED, "a": REDACTED, "list": REDACTED }), "one in another");
}

#[test]
fn an_expression_replaces_what_matches_in_every_text() {
    let document = json!({
        "said": "my card is 4111111111111111, not 41111111111111112",
        "number": 4_111_111_111_111_111_u64,
        "small": 42,
        "4111111111111111": { "4111111111111111": true },
        "list": ["4111111111111111", null],
        "json": r#"{"card":"4111111111111111"}"#,
    });
    let expected = json!({
        "said": "my card is [redacted], not 41111111111111112",
        "number": REDACTED,
        "small": 42,
        "[redacted]": { "[redacted]": true },
        "list": [REDACTED, null],
        "json": r#"{"card":"[redacted]"}"#,
    });
    assert_eq!(redacted(&[&format!("re:{CARD}")], document), expected);
    let names = redacted(&[r"re:\d"], json!({ "a1": 1, "a2": "2", "a3": true, "b": "x" }));
    let expected = json!({ "a[redacted]": REDACTED, "a[redacted] 2": REDACTED, "a[redacted] 3": true, "b": "x" });
    assert_eq!(names, expected, "no member is lost");
    let mut text = "mail bob@example.org now".to_owned();
    assert!(redactor(&[r"re:\S+@\S+", "$.x"]).text(&mut text));
    assert_eq!(text, "mail [redacted] now");
    assert!(!redactor(&["$.x"]).text(&mut text));
}

#[test]
fn a_target_is_redacted_by_what_it_means() {
    let redactor = redactor(&[&format!("re:{CARD}"), r"re:\S+@\S+ (street|road)", "re:/users/[0-9]+", "$.path"]);
    for (before, after) in [
        ("/a/b?c=d&e", "/a/b?c=d&e"),
        ("/a%20b/%zz?c=%e9+", "/a%20b/%zz?c=%e9+"),
        ("/cards/4111111111111111/pay", "/cards/[redacted]/pay"),
        ("/cards/%34111111111111111?card=411111111111111%31&x=%20", "/cards/[redacted]?card=[redacted]&x=%20"),
        ("/a?to=bob%40example.org+road%2C1", "/a?to=[redacted]%2C1"),
        ("/users/17/name", "[redacted]/name"),
    ] {
        let mut target = before.to_owned();
        assert_eq!(redactor.target(&mut target), before != after, "{before}");
        assert_eq!(target, after);
    }
}

#[test]
fn of_two_keys_two_remain_and_of_one_one() {
    let redactor = redactor(&[r"re:\S+@\S+", "$.user"]);
    let key = |text: &str| {
        let mut key = text.to_owned();
        assert_eq!(redactor.key(&mut key), key != text);
        key
    };
    assert_eq!(key("bob@example.org"), "redacted-686b5e4cf4f963ad");
    assert_eq!(key("chat of bob@example.org"), key("chat of bob@example.org"));
    assert_ne!(key("chat of bob@example.org"), key("chat of eve@example.org"));
    assert_eq!(key("session-1"), "session-1");

    let asked = |user: &str| json!({ "user": user, "text": "bob@example.org" });
    let user = |user: &str| redactor.document_of_keys(&asked(user)).unwrap()["user"].as_str().unwrap().to_owned();
    assert_eq!(user("bob"), user("bob"));
    assert_ne!(user("bob"), user("eve"));
    assert!(user("bob").starts_with("redacted-"));
    assert_eq!(redactor.document_of_keys(&asked("bob")).unwrap()["text"], "bob@example.org", "left to the key");
    assert_eq!(redactor.document_of_keys(&json!({ "text": "bob@example.org" })), None);
}

fn body(rules: &[&str], content_type: &str, body: &str) -> Option<String> {
    redactor(rules).body(&of_type(content_type), body.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn a_body_is_written_anew_only_where_something_was_found() {
    let rules = ["$.api_key", "re:\\b\\d{16}\\b"];
    for (content_type, before, after) in [
        ("application/json", r#"{ "a": 1 }"#, None),
        ("application/json", r#"{ "a": 1, "api_key": 2 }"#, Some(r#"{"a":1,"api_key":"[redacted]"}"#)),
        ("application/json", r#"{ "a": "411111111111111\u0031" }"#, Some(r#"{"a":"[redacted]"}"#)),
        ("", r#"{"api_key":"s"}"#, Some(r#"{"api_key":"[redacted]"}"#)),
        ("application/json", r#"{"a":{"b":1,"b":"s"}}"#, Some(r#"{"a":{"b":"s"}}"#)),
        ("application/json", r#"{"api_key":"s"#, Some(REDACTED)),
        ("application/x-www-form-urlencoded", r#"{"api_key":"s"}"#, Some(r#"{"api_key":"[redacted]"}"#)),
        ("application/x-www-form-urlencoded", "a=1&b=%20x", None),
        (
            "application/x-www-form-urlencoded",
            "a=1&api_key=s&a=4111%311111111%31111",
            Some("a=1&a=%5Bredacted%5D&api_key=%5Bredacted%5D"),
        ),
        ("text/plain", "the card 4111111111111111", Some("the card [redacted]")),
        ("text/plain", "4111111111111111", Some(REDACTED)),
        ("text/plain", "nothing", None),
    ] {
        assert_eq!(body(&rules, content_type, before).as_deref(), after, "{content_type}: {before}");
    }
    assert_eq!(redactor(&rules).body(&of_type("image/png"), b"\x89PNG 4111111111111111 \xff"), None, "no text");
    let latin = redactor(&rules).body(&of_type("text/plain; charset=latin1"), b"caf\xe9 4111111111111111");
    assert_eq!(latin.as_deref(), Some(&b"caf\xe9 [redacted]"[..]));
    assert_eq!(redactor(&[]).body(&of_type("application/json"), b"{"), None);
}

fn part(head: &str, body: &str) -> String {
    format!("--xx\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n")
}

#[test]
fn parts_of_a_form_become_what_their_fields_do() {
    let form = |parts: &[String]| format!("{}--xx--\r\n", parts.concat());
    let of = |rules: &[&str], parts: &[String]| body(rules, "multipart/form-data; boundary=xx", &form(parts));
    let parts = [
        part("name=\"api_key\"", "s"),
        part("name=\"tag\"", "a"),
        part("name=\"tag\"", "b"),
        part("name=\"data\"\r\ncontent-type: application/json", r#"[{"id":1,"x":2}]"#),
        part("name=\"file\"; filename=\"4111111111111111.txt\"\r\ncontent-type: text/plain", "4111111111111111"),
    ];
    let changed = |rules: &[&str], changes: &[(usize, String)]| {
        let mut expected = parts.clone();
        for (place, change) in changes {
            expected[*place].clone_from(change);
        }
        assert_eq!(of(rules, &parts), Some(form(&expected)), "{rules:?}");
    };
    changed(&["$.api_key"], &[(0, part("name=\"api_key\"", REDACTED))]);
    changed(&["$.tag[1]"], &[(2, part("name=\"tag\"", REDACTED))]);
    changed(&["$.tag"], &[(1, part("name=\"tag\"", REDACTED)), (2, part("name=\"tag\"", REDACTED))]);
    let data = part("name=\"data\"\r\ncontent-type: application/json", r#"[{"id":"[redacted]","x":2}]"#);
    changed(&["$.data[0].id"], &[(3, data)]);
    let file = part("name=\"file\"; filename=\"[redacted]\"\r\ncontent-type: text/plain", "4111111111111111");
    changed(&["$.file.filename"], &[(4, file)]);
    let file = part("name=\"file\"; filename=\"[redacted]\"\r\ncontent-type: text/plain", REDACTED);
    changed(&["$.file"], &[(4, file)]);
    let file = part("name=\"file\"; filename=\"[redacted].txt\"\r\ncontent-type: text/plain", REDACTED);
    changed(&[&format!("re:{CARD}")], &[(4, file)]);
    assert_eq!(of(&["$.nothing"], &parts), None);
    assert_eq!(body(&["$.nothing"], "multipart/form-data; boundary=yy", &form(&parts)).as_deref(), Some(REDACTED));
}

fn json_values() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z]{0,4}", "[0-9@ -]{0,24}", "[a-z]{1,3}@[a-z]{1,3}", any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Whether an expression matches in anything that a document has as text.
fn matches(document: &Value, expression: &Regex) -> bool {
    match document {
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => expression.is_match(&number.to_string()),
        Value::String(text) => expression.is_match(text),
        Value::Array(items) => items.iter().any(|item| matches(item, expression)),
        Value::Object(members) => members.iter().any(|(name, member)| expression.is_match(name) || matches(member, expression)),
    }
}

const EXPRESSIONS: [&str; 5] = [CARD, r"\d{4,}", r"[a-z]+@[a-z]+", r"\d\d", r"(?i)q"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_that_matches_is_left(mut document in json_values(), expression in prop::sample::select(&EXPRESSIONS)) {
        let mut rest = document.to_string();
        let redactor = redactor(&[&format!("re:{expression}")]);
        let expression = Regex::new(expression).unwrap();
        redactor.document(&mut document);
        prop_assert!(!matches(&document, &expression), "{document}");
        redactor.text(&mut rest);
        prop_assert!(!expression.is_match(&rest));
    }

    #[test]
    fn paths_leave_nothing_where_they_look(
        mut document in json_values(),
        path in prop::sample::select(vec!["$", "$.*", "$..*", "$[0]", "$..[1]", "$[?@.a]", "$..[?@ > 3]", "$['a','b']", "$[::2]"]),
    ) {
        let rules = [Redact::Json(JsonPath::parse(path).unwrap())];
        Redactor::new(&rules).document(&mut document);
        let left = JsonPath::parse(path).unwrap().query(&document).all().into_iter().filter(|node| *node != REDACTED).count();
        // What was found may have had the members by which it was found; it is gone as a whole.
        prop_assert_eq!(left, 0);
    }

    #[test]
    fn whatever_body_comes_is_redacted_or_left(content_type in content_types(), bytes in bodies()) {
        let redactor = redactor(&["$..a", "re:b"]);
        let headers = of_type(&content_type);
        if let Some(redacted) = redactor.body(&headers, &bytes)
            && let Some(document) = document(&headers, &redacted)
        {
            prop_assert!(!matches(&document, &Regex::new("b").unwrap()), "{document}");
        }
    }
}
