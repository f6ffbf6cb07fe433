//! Invariant: memory is bounded by the configuration, not by the traffic.

use super::*;

const MAX: usize = 4096;
/// What stays of any stream, as a multiple of the limit: an unfinished event, the texts with their growth and rows, two budgets.
const TIMES: usize = 12;

fn given() -> Given<'static> {
    Given {
        append: &["$.d"],
        replace: &["r:$.d"],
        by: &["$.id"],
        end: &["[DONE]"],
        first: &["$.a"],
        last: &["$.d"],
        gathers: &["$.d", "$.id", "$.g"],
        max: MAX,
        ..Given::default()
    }
}

/// Feeds what `piece` makes of a count, fifty times the limit in all.
fn flood(format: StreamFormat, mut piece: impl FnMut(usize) -> String) -> Assembled {
    let mut assembler = Assembler::new(given().plan(), format);
    let mut fed = 0;
    for i in 0.. {
        let piece = piece(i);
        fed += piece.len();
        assert!(!assembler.feed(piece.as_bytes()));
        let held = assembler.held();
        assert!(held <= TIMES * MAX, "{held} bytes after {fed}");
        if fed > 50 * MAX {
            break;
        }
    }
    let whole = assembler.finish();
    assert!(whole.text.as_ref().is_none_or(|text| text.len() <= MAX));
    whole
}

#[test]
fn memory_stays_bounded_whatever_comes() {
    use StreamFormat::{Ndjson, Sse};
    let long = "x".repeat(1000);
    let no_end = |start: &'static str| {
        let long = long.clone();
        move |i| if i == 0 { start.to_owned() } else { long.clone() }
    };
    assert!(flood(Sse, no_end("data: {\"d\":\"")).truncated);
    assert!(!flood(Sse, no_end("event: ")).truncated);
    assert!(!flood(Sse, no_end(": ")).truncated);
    assert!(!flood(Sse, no_end("")).truncated);
    assert!(flood(Ndjson, no_end("")).truncated);
    assert!(flood(Sse, |_| "data: x\n".to_owned()).truncated);
    assert!(flood(Sse, |_| "data\n".to_owned()).truncated);
    assert!(!flood(Sse, |_| "event: x\n\n".to_owned()).truncated);
    assert!(flood(Sse, |_| "data: {\"d\":\"é\"}\n\n".to_owned()).truncated);
    assert!(flood(Sse, |i| format!("data: {{\"id\":\"{i}\",\"d\":\"x\"}}\n\n")).truncated);
    assert!(flood(Sse, |i| format!("data: {{\"type\":\"r\",\"id\":{i},\"d\":\"{long}\"}}\n\n")).truncated);
    assert!(flood(Ndjson, |i| format!("{{\"id\":\"{}\",\"d\":\"x\"}}\n", i.to_string().repeat(300))).truncated);
    assert!(flood(Ndjson, |i| format!("{{\"g\":[{i},[],{{}}]}}\n")).truncated);
    assert!(flood(Ndjson, |_| format!("{{\"a\":\"{long}\",\"d\":\"{long}\"}}\n")).truncated);
    let last = flood(Sse, |i| format!("data: {{\"type\":\"r\",\"d\":\"{i}\"}}\n\n"));
    assert!(last.text.is_some_and(|text| text.parse::<usize>().is_ok()), "replaced each time");
}

#[test]
fn a_text_is_cut_between_characters_and_has_no_hole() {
    let given = Given { append: &["a:$.d"], replace: &["r:$.d"], gathers: &["a:$.d"], max: 40, ..Given::default() };
    let event = |name: &str, text: &str| format!("event: {name}\ndata: {{\"d\":\"{text}\"}}\n\n");
    let twenty = "é".repeat(10);
    let fits = event("a", &twenty) + &event("a", &twenty);
    assert_eq!(given.sse(&fits).text.as_deref(), Some("é".repeat(20).as_str()));
    assert!(!given.sse(&fits).truncated);
    let cut = given.sse(&(event("a", "x") + &fits + &event("a", "hole")));
    assert_eq!(cut.text, Some(format!("x{}", "é".repeat(19))));
    assert_eq!(cut.gathered, [cut.text.clone().map(Value::String)]);
    assert!(cut.truncated);
    // There is room for 1 more byte, which the text does not get: something before it is missing.
    let replaced = given.sse(&(event("a", "x") + &fits + &event("r", "anew") + &event("a", "!")));
    assert_eq!((replaced.text.as_deref(), replaced.truncated), (Some("anew!"), true));
}

#[test]
fn an_event_beyond_the_limit_is_passed_over_but_its_name_counts() {
    let given = Given { append: &["$.d"], end: &["done"], error: &["error"], max: 20, ..Given::default() };
    let long = format!("data: {{\"d\":\"{}\"}}\n\n", "x".repeat(20));
    let read = given.sse(&format!("{long}data: {{\"d\":\"1\"}}\n\nevent: error\n{long}data: {{\"d\":\"2\"}}\n\n"));
    assert_eq!((read.text.as_deref(), read.truncated, read.failed, read.ended), (Some("12"), true, true, false));
    let read = given.sse(&format!("data: {{\"d\":\"1\"}}\n\nevent: done\n{long}data: {{\"d\":\"2\"}}\n\n"));
    assert_eq!((read.text.as_deref(), read.truncated, read.ended), (Some("1"), true, true));
}

#[test]
fn an_answer_that_has_no_room_is_left_out_and_the_others_stay() {
    let given = Given { first: &["$.a", "$.b"], last: &["$.c"], max: 30, ..Given::default() };
    let read =
        given.ndjson("{\"a\":\"123456789012\"}\n{\"b\":\"123456789012345678\"}\n{\"c\":\"1\"}\n{\"c\":\"12\"}\n{\"b\":\"2\"}\n");
    assert_eq!(read.found, [Some(json!("123456789012")), Some(json!("2")), Some(json!("12"))]);
    assert!(read.truncated);
}

#[test]
fn json_nested_too_deep_is_none() {
    let given = Given { append: &["$..d"], ..Given::default() };
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let (_, read) = read(&given.plan(), StreamFormat::Ndjson, [format!("{deep}\n{{\"d\":\"1\"}}\n").as_bytes()]);
    assert_eq!(read.text.as_deref(), Some("1"));
}
