//! Events into what the stream was.

use super::*;

#[test]
fn what_is_found_is_appended_in_the_order_of_rules_and_nodes() {
    let given = Given { append: &["$.b", "$.a[*].t"], ..Given::default() };
    let read = given.sse("data: {\"a\":[{\"t\":\"2\"},{\"t\":3}],\"b\":\"1\"}\n\ndata: {\"b\":null}\n\ndata: {\"b\":{\"c\":1}}\n\ndata: {\"b\":true}\n\n");
    assert_eq!(read.text.as_deref(), Some("123true"));
    assert!(!read.ended && !read.failed && !read.truncated);
    assert_eq!(given.sse("data: {\"b\":\"\"}\n\n: nothing\n\n").text, None);
}

#[test]
fn an_events_names_are_its_field_its_type_and_its_event() {
    let given = Given { append: &["delta:$.d"], ..Given::default() };
    let read = given.sse(
        "event: delta\ndata: {\"d\":\"1\"}\n\ndata: {\"type\":\"delta\",\"d\":\"2\"}\n\ndata: {\"event\":\"delta\",\"d\":\"3\"}\n\n\
         event: other\ndata: {\"type\":\"delta\",\"d\":\"4\"}\n\nevent: other\ndata: {\"d\":\"no\"}\n\ndata: {\"type\":{},\"d\":\"no\"}\n\n\
         data: {\"d\":\"5\"}\nevent: delta\n\n",
    );
    assert_eq!(read.text.as_deref(), Some("12345"));
}

#[test]
fn each_id_has_a_text_and_they_stand_in_order_of_appearance() {
    let given = Given { append: &["$.d"], replace: &["$.r[*]"], by: &["$.id", "$.n"], ..Given::default() };
    let event = |event: Value| format!("data: {event}\n\n");
    let stream = [
        json!({"id": "b", "d": "b1"}),
        json!({"n": 7, "d": "n"}),
        json!({"d": "1, no id: as before"}),
        json!({"id": "b", "d": "b2"}),
        json!({"id": null, "n": 7, "r": ["x", "n2"], "d": "+"}),
        json!({"id": "", "d": "!"}),
    ];
    let mut stream: String = stream.into_iter().map(event).collect();
    assert_eq!(given.sse(&stream).text.as_deref(), Some("b1b2\nn2+!"));
    stream += &event(json!({"id": "new", "r": ["first"]}));
    assert_eq!(given.sse(&stream).text.as_deref(), Some("b1b2\nn2+!\nfirst"));
    stream += &event(json!({"r": ["all of it", ""]}));
    assert_eq!(given.sse(&stream).text.as_deref(), Some("b1b2\nn2+!\nfirst"), "the last node yields nothing");
    stream += &event(json!({"r": ["", "all of it"], "d": "."}));
    assert_eq!(given.sse(&stream).text.as_deref(), Some("all of it."));
    stream += &event(json!({"id": "b", "d": "again"}));
    assert_eq!(given.sse(&stream).text.as_deref(), Some("all of it.\nagain"));
}

#[test]
fn parts_are_one_text_appended_without_and_replaced_with_line_breaks() {
    let given = Given { append: &["a:$.p"], replace: &["r:$.p"], ..Given::default() };
    let parts = json!([{"type": "text", "text": "a"}, {"type": "image", "text": "no"}, "b", {"kind": "text", "text": "c"}, {"text": "d"}, 5]);
    assert_eq!(given.sse(&format!("event: a\ndata: {{\"p\":{parts}}}\n\n")).text.as_deref(), Some("abcd"));
    assert_eq!(given.sse(&format!("event: r\ndata: {{\"p\":{parts}}}\n\n")).text.as_deref(), Some("a\nb\nc\nd"));
}

#[test]
fn data_of_several_lines_is_one_document_and_what_is_none_is_passed_over() {
    let given = Given { append: &["$.d"], ..Given::default() };
    let read = given.sse("data: {\"d\":\ndata: \"1\"}\n\ndata: {\"d\":\"no\"\n\ndata: {\"d\":\"no\"} x\n\ndata: hello\n\ndata:\n\ndata: {\"d\":\"2\"}\n\n");
    assert_eq!(read.text.as_deref(), Some("12"));
    let stream = b"data: {\"d\":\"a\xffb\"}\n\n";
    assert_eq!(everywhere(&given.plan(), StreamFormat::Sse, stream).text.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn the_end_is_a_whole_data_a_name_or_something_at_a_path() {
    let given = Given { append: &["$.d"], end: &["[DONE]", "message_end", "$.done", "status:$.final"], ..Given::default() };
    for end in [
        "data: [DONE]",
        "data:[DONE]",
        "data: [DONE] ",
        "event: message_end\ndata: {}",
        "data: {}\nevent: message_end",
        "data: {\"type\":\"message_end\"}",
        "data: {\"event\":\"message_end\"}",
        "data: {\"done\":true}",
        "data: {\"done\":0}",
        "event: status\ndata: {\"final\":\"x\"}",
        "event: message_end\ndata: no JSON",
        "data: {\"done\":\ndata: true}",
    ] {
        for ending in ["\n", "\r", "\r\n"] {
            let stream = format!("data: {{\"d\":\"1\"}}\n\n{end}\n\ndata: {{\"d\":\"no\"}}\n\n{end}\n\n").replace('\n', ending);
            let read = given.sse(&stream);
            assert!(read.ended, "{stream:?}");
            assert_eq!(read.text.as_deref(), Some("1"), "{stream:?}");
        }
    }
    for other in [
        "data: DONE",
        "data: [DONE]x",
        "event: [done]\ndata: {}",
        "data: {\"done\":false}",
        "data: {\"done\":\"\"}",
        "data: {\"done\":{}}",
        "data: {\"final\":true}",
        "data: {\"type\":[\"message_end\"]}",
        "event: message_end",
    ] {
        let read = given.sse(&format!("{other}\n\ndata: {{\"d\":\"2\"}}\n\n"));
        assert!(!read.ended, "{other:?}");
        assert_eq!(read.text.as_deref(), Some("2"), "{other:?}");
    }
}

#[test]
fn the_event_that_ends_the_stream_is_read_like_any_other() {
    let given = Given { append: &["$.d"], end: &["$.done"], last: &["$.n"], ..Given::default() };
    let read = given.ndjson("{\"d\":\"a\"}\n{\"d\":\"b\",\"done\":true,\"n\":3}\n{\"d\":\"c\"}\n");
    assert_eq!((read.text.as_deref(), read.ended, &read.found[..]), (Some("ab"), true, &[Some(json!(3))][..]));
}

#[test]
fn the_end_is_seen_with_the_byte_that_completes_its_line() {
    let given = Given { append: &["$.d"], end: &["[DONE]", "end", "$.done"], ..Given::default() };
    let position = |format, stream: &str| read(&given.plan(), format, stream.as_bytes().chunks(1)).0;
    for (stream, marked) in [
        ("data: [DONE]\n\n", "data: [DONE]\n"),
        ("data: [DONE]\r\n\r\n", "data: [DONE]\r"),
        ("data: [DONE]\r\r", "data: [DONE]\r"),
        ("data: 1\n\ndata: {\"done\":1}\nid: 1\n\n", "data: 1\n\ndata: {\"done\":1}\n"),
        ("event: end\ndata: x\n\n", "event: end\ndata: x\n"),
        // What isn't known earlier.
        ("data: x\nevent: end\n\n", "data: x\nevent: end\n\n"),
        ("data: {\ndata: \"done\":1}\n\n", "data: {\ndata: \"done\":1}\n\n"),
        // A client that reads lines takes the first for the end; one that reads events gets the same frame.
        ("data: [DONE]\ndata: more\n\n", "data: [DONE]\n"),
    ] {
        assert_eq!(position(StreamFormat::Sse, stream), Some(marked.len() - 1), "{stream:?}");
        given.sse(stream);
    }
    assert_eq!(position(StreamFormat::Ndjson, "{}\n{\"done\":true}\r\n{}\n"), Some("{}\n{\"done\":true}\r\n".len() - 1));
    assert_eq!(position(StreamFormat::Sse, "data: [DONE]"), None);
}

#[test]
fn an_event_that_was_cut_off_counts_if_it_is_whole_json_or_a_marker() {
    let given = Given { append: &["$.d"], end: &["[DONE]"], ..Given::default() };
    for (rest, text, ended) in [
        ("data: {\"d\":\"2\"}\n", "12", false),
        ("data: {\"d\":\"2\"}", "12", false),
        ("data: {\"d\":\ndata: \"2\"}\n", "12", false),
        ("data: {\"d\":\"2\"", "1", false),
        ("data: {\"d\":\"2\"}\ndata: x", "1", false),
        ("data: [DONE]", "1", true),
        ("data: [DON", "1", false),
    ] {
        let read = given.sse(&format!("data: {{\"d\":\"1\"}}\n\n{rest}"));
        assert_eq!((read.text.as_deref(), read.ended), (Some(text), ended), "{rest:?}");
        assert!(!read.truncated);
    }
    assert_eq!(given.ndjson("{\"d\":\"1\"}\n{\"d\":\"2\"}").text.as_deref(), Some("12"));
    assert_eq!(given.ndjson("{\"d\":\"1\"}\n{\"d\":\"2\"").text.as_deref(), Some("1"));
}

#[test]
fn a_failure_is_told_and_does_not_end_the_stream_by_itself() {
    let given = Given { append: &["$.d"], end: &["end"], error: &["error", "$.error"], ..Given::default() };
    for failure in ["event: error\ndata: oh", "data: {\"type\":\"error\"}", "data: {\"error\":{\"code\":1}}"] {
        let read = given.sse(&format!("{failure}\n\ndata: {{\"d\":\"2\"}}\n\n"));
        assert_eq!((read.text.as_deref(), read.failed, read.ended), (Some("2"), true, false), "{failure}");
    }
    assert!(!given.sse("data: {\"error\":null}\n\nevent: end\ndata: 1\n\ndata: {\"error\":1}\n\n").failed);
    assert!(!given.sse("").failed);
}

#[test]
fn a_probe_keeps_the_first_or_the_last_answer_that_is_one() {
    let given = Given { first: &["$.a", "$.x", "$.l[*]"], last: &["$.a", "$.x"], ..Given::default() };
    let read = given.sse(
        "data: {\"a\":null,\"l\":[\"\",\"skipped: the first node is none\"]}\n\ndata: {\"a\":\"\"}\n\ndata: {\"a\":[]}\n\ndata: {\"a\":1}\n\n\
         data: {\"a\":{\"b\":2},\"l\":[\"x\",\"y\"]}\n\ndata: {\"a\":{}}\n\ndata: {\"a\":null}\n\ndata: {\"b\":null}\n\n",
    );
    assert_eq!(read.found, [Some(json!(1)), None, Some(json!("x")), Some(json!({"b": 2})), None]);
    assert_eq!(read.text, None);
    let ok = Given { first: &["$.ok"], last: &["$.ok"], ..Given::default() };
    let read = ok.sse("data: {\"ok\":false}\n\ndata: {\"ok\":true}\n\ndata: {\"ok\":false}\n\n");
    assert_eq!(read.found, [Some(json!(true)), Some(json!(false))], "some event was right; the last was not");
    assert_eq!(ok.sse("data: {\"ok\":false}\n\n").found, [Some(json!(false)), Some(json!(false))]);
    assert_eq!(ok.sse("").found, [None, None]);
}

#[test]
fn a_source_gathers_strings_into_a_text_and_anything_else_into_a_list() {
    let given = Given { gathers: &["$.r", "$.t", "n:$.r", "$.none", "$.m"], ..Given::default() };
    let read = given.sse(
        "data: {\"r\":\"a\",\"t\":[{\"i\":0}],\"m\":\"x\"}\n\ndata: {\"r\":null,\"m\":\"y\"}\n\nevent: n\ndata: {\"r\":\"b\",\"t\":[{\"i\":1}]}\n\n\
         data: {\"m\":1}\n\ndata: {\"m\":\"z\"}\n\n",
    );
    assert_eq!(
        read.gathered,
        [Some(json!("ab")), Some(json!([[{"i": 0}], [{"i": 1}]])), Some(json!("b")), None, Some(json!(["xy", 1, "z"]))]
    );
    assert_eq!(given.sse("data: {\"r\":\"\"}\n\n").gathered, [None, None, None, None, None]);
}

const EVENTS: &[&[u8]] = &[
    b"data: {\"d\":\"1\"}\n\n",
    b"data: {\"d\":\"\xc3\xa9\xe2\x82\xac\"}\r\n\r\n",
    b"event: r\ndata: {\"d\":\"whole\"}\n\n",
    b"data: {\"type\":\"r\",\"id\":\"a\",\"d\":\"whole\"}\n\n",
    b"data: {\"id\":\"a\",\"d\":\"x\",\"g\":\"s\"}\n\n",
    b"data: {\"id\":\"b\",\"d\":[\"p\",{\"text\":\"q\"}],\"g\":[1]}\n\n",
    b"data: {\"d\":\"late\"}\nevent: end\n\n",
    b"data: {\"ok\":true}\n\n",
    b"data: {\"ok\":false}\n\n",
    b"data: {\"error\":1}\n\n",
    b"data: [DONE]\n\n",
    b"data: [DONE]\ndata: more\n\n",
    b"data: {\"done\":\ndata: 1}\n\n",
    b"data: {\"done\":1,\"d\":\"!\"}\nid: 1\n\n",
    b": c\n",
    b"\n",
    b"\r",
    b"data: ",
    b"event: end",
    b"{\"d\":\"n\"}\n",
    b"{\"d\":\"n\",\"done\":1}\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn however_a_stream_is_cut_it_is_the_same_and_ends_at_the_same_byte(
        stream in made_of(EVENTS),
        cuts in cuts(),
        max in prop_oneof![1..40_usize, Just(1000)],
        format in proptest::sample::select(vec![StreamFormat::Sse, StreamFormat::Ndjson]),
        end in proptest::sample::subsequence(vec!["[DONE]", "end", "$.done"], 0..=3),
    ) {
        let given = Given {
            append: &["$.d", "end:$.d"], replace: &["r:$.d"], by: &["$.id"], end: &end, error: &["$.error"],
            first: &["$.ok", "$.d"], last: &["$.ok", "$.d"], gathers: &["$.g", "$.d", "r:$"], max,
        };
        let plan = given.plan();
        let (end, bytewise) = read(&plan, format, stream.chunks(1));
        let pieces = pieces(&stream, &cuts);
        let (piece, assembled) = read(&plan, format, pieces.iter().copied());
        prop_assert_eq!(&assembled, &bytewise);
        let expected = end.map(|end| {
            let mut seen = 0;
            pieces.iter().position(|piece| { seen += piece.len(); end < seen }).unwrap()
        });
        prop_assert_eq!(piece, expected);
        prop_assert!(assembled.text.as_ref().is_none_or(|text| text.len() <= max && !text.is_empty()));
    }
}
