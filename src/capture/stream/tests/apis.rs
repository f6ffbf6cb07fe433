//! The shapes that agent APIs stream, each with rules as a preset has them. Events are written by hand after the vendors' types.

use super::*;

fn sse(events: &[(&str, Value)]) -> String {
    let event = |(name, data): &(&str, Value)| {
        if name.is_empty() { format!("data: {data}\n\n") } else { format!("event: {name}\ndata: {data}\n\n") }
    };
    events.iter().map(event).collect()
}

fn text(read: &Assembled) -> (Option<&str>, bool, bool) {
    (read.text.as_deref(), read.ended, read.failed)
}

#[test]
fn chat_completions() {
    let given = Given {
        append: &["$.choices[0].delta.content"],
        end: &["[DONE]"],
        error: &["$.error"],
        first: &["$.model"],
        last: &["$.usage", "$.choices[0].finish_reason"],
        gathers: &["$.choices[0].delta.reasoning_content", "$.choices[0].delta.tool_calls"],
        ..Given::default()
    };
    let chunk = |delta: Value, end: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "usage": null,
               "choices": [{"index": 0, "delta": delta, "finish_reason": end}]})
    };
    let stream = sse(&[
        ("", json!({"choices": [], "prompt_filter_results": []})),
        ("", chunk(json!({"role": "assistant", "content": "", "reasoning_content": null}), json!(null))),
        ("", chunk(json!({"content": null, "reasoning_content": "Let me "}), json!(null))),
        ("", chunk(json!({"reasoning_content": "think."}), json!(null))),
        ("", chunk(json!({"content": "Bom "}), json!(null))),
        ("", chunk(json!({"content": "dia"}), json!(null))),
        ("", chunk(json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}), json!(null))),
        ("", chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), json!(null))),
        ("", chunk(json!({}), json!("tool_calls"))),
        ("", json!({"choices": [], "usage": {"total_tokens": 5}})),
    ]) + "data: [DONE]\n\n";
    let read = given.sse(&stream);
    assert_eq!(text(&read), (Some("Bom dia"), true, false));
    assert_eq!(read.found, [Some(json!("m")), Some(json!({"total_tokens": 5})), Some(json!("tool_calls"))]);
    let calls = json!([
        [{"index": 0, "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": "{}"}}],
    ]);
    assert_eq!(read.gathered, [Some(json!("Let me think.")), Some(calls)]);
    assert_eq!(text(&given.sse("data: {\"error\":{\"message\":\"down\"}}\n\n")), (None, false, true));
}

#[test]
fn responses() {
    let given = Given {
        append: &["response.output_text.delta:$.delta"],
        end: &["response.completed", "response.incomplete", "response.failed"],
        error: &["response.failed", "error"],
        first: &["$.response.id"],
        last: &["$.response.usage.total_tokens"],
        ..Given::default()
    };
    let typed = |kind: &'static str, mut body: Value| {
        body["type"] = json!(kind);
        (kind, body)
    };
    let start = [
        typed("response.created", json!({"response": {"id": "resp_1", "usage": null}})),
        typed("response.reasoning_summary_text.delta", json!({"delta": "hm"})),
        typed("response.output_text.delta", json!({"item_id": "m", "delta": "Hel"})),
        typed("response.output_text.delta", json!({"item_id": "m", "delta": "lo"})),
        typed("response.output_text.done", json!({"text": "Hello"})),
    ];
    let with = |last| [&start[..], &[last]].concat();
    let read =
        given.sse(&sse(&with(typed("response.completed", json!({"response": {"id": "resp_1", "usage": {"total_tokens": 9}}})))));
    assert_eq!(text(&read), (Some("Hello"), true, false));
    assert_eq!(read.found, [Some(json!("resp_1")), Some(json!(9))]);
    assert_eq!(text(&given.sse(&sse(&with(typed("response.failed", json!({"response": {}})))))), (Some("Hello"), true, true));
    assert_eq!(text(&given.sse(&sse(&start))), (Some("Hello"), false, false));
}

#[test]
fn anthropic_messages() {
    let given = Given {
        append: &["content_block_delta:$.delta.text"],
        end: &["message_stop"],
        error: &["error"],
        first: &["$.message.id"],
        gathers: &["content_block_delta:$.delta.thinking"],
        ..Given::default()
    };
    let delta = |delta: Value| ("content_block_delta", json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    let start = [
        ("message_start", json!({"type": "message_start", "message": {"id": "msg_1", "content": []}})),
        ("content_block_start", json!({"type": "content_block_start", "content_block": {"type": "text", "text": ""}})),
        ("ping", json!({"type": "ping"})),
        delta(json!({"type": "thinking_delta", "thinking": "so"})),
        delta(json!({"type": "input_json_delta", "partial_json": "{"})),
        delta(json!({"type": "text_delta", "text": "Oi"})),
        delta(json!({"type": "text_delta", "text": "!"})),
    ];
    let read = given.sse(&sse(&[&start[..], &[("message_stop", json!({"type": "message_stop"}))]].concat()));
    assert_eq!(text(&read), (Some("Oi!"), true, false));
    assert_eq!((&read.found[0], &read.gathered[0]), (&Some(json!("msg_1")), &Some(json!("so"))));
    let failed = [&start[..], &[("error", json!({"type": "error", "error": {"type": "overloaded_error"}}))]].concat();
    assert_eq!(text(&given.sse(&sse(&failed))), (Some("Oi!"), false, true));
}

#[test]
fn langgraph() {
    let given = Given {
        append: &["messages:$[0].content"],
        replace: &["messages/partial:$[?@.type=='ai'].content", "values:$.messages[?@.type=='ai'].content"],
        by: &["$[0].id"],
        error: &["error"],
        ..Given::default()
    };
    let chunk = |id: &str, content: Value| {
        ("messages", json!([{"type": "AIMessageChunk", "id": id, "content": content}, {"langgraph_step": 1}]))
    };
    let read = given.sse(
        &(": heartbeat\n\n".to_owned()
            + &sse(&[
                ("metadata", json!({"run_id": "r"})),
                chunk("a", json!("one ")),
                chunk("b", json!([{"type": "text", "text": "two", "index": 0}])),
                chunk("a", json!("more")),
                chunk("b", json!([])),
            ])),
    );
    assert_eq!(text(&read), (Some("one more\ntwo"), false, false));
    let partial = |text: &str| ("messages/partial", json!([{"type": "ai", "id": "a", "content": text}]));
    assert_eq!(
        text(&given.sse(&sse(&[partial(""), partial("cumu"), partial("cumulative")]))),
        (Some("cumulative"), false, false)
    );
    let values = |texts: &[&str]| {
        let messages: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| json!({"type": if i % 2 == 0 { "human" } else { "ai" }, "content": text}))
            .collect();
        ("values", json!({"messages": messages}))
    };
    let read = given.sse(&sse(&[
        values(&["q"]),
        values(&["q", "first"]),
        values(&["q", "first", "r", "last"]),
        ("error", json!({"message": "x"})),
    ]));
    assert_eq!(text(&read), (Some("last"), false, true));
}

#[test]
fn a2a_until_0_3() {
    let given = Given {
        append: &["$[?@.kind=='artifact-update' && @.append==true].artifact.parts"],
        replace: &["$[?@.kind=='artifact-update' && @.append!=true].artifact.parts", "$[?@.kind=='message'].parts"],
        by: &["$.result.artifact.artifactId"],
        end: &["$.result.final"],
        error: &["$.error", "$[?@.status.state=='failed'].status"],
        first: &["$.result.contextId"],
        ..Given::default()
    };
    let result = |result: Value| ("", json!({"jsonrpc": "2.0", "id": 1, "result": result}));
    let artifact = |id: &str, append: Value, text: &str| {
        result(json!({"kind": "artifact-update", "contextId": "c", "append": append,
                      "artifact": {"artifactId": id, "parts": [{"kind": "text", "text": text}, {"kind": "data", "data": {}}]}}))
    };
    let status = |state: &str, last: bool| {
        result(json!({"kind": "status-update", "contextId": "c", "status": {"state": state}, "final": last}))
    };
    let read = given.sse(&sse(&[
        result(json!({"kind": "task", "id": "t", "contextId": "c", "status": {"state": "submitted"}})),
        status("working", false),
        artifact("x", json!(false), "draft"),
        artifact("x", json!(null), "re"),
        artifact("y", json!(true), "other"),
        artifact("x", json!(true), "place"),
        status("completed", true),
    ]));
    assert_eq!(text(&read), (Some("replace\nother"), true, false));
    assert_eq!(read.found, [Some(json!("c"))]);
    assert_eq!(text(&given.sse(&sse(&[artifact("x", json!(true), "a"), status("failed", true)]))), (Some("a"), true, true));
    let message = result(json!({"kind": "message", "parts": [{"kind": "text", "text": "a"}, {"kind": "text", "text": "b"}]}));
    assert_eq!(text(&given.sse(&sse(&[message]))), (Some("a\nb"), false, false));
}

#[test]
fn a2a_1_0() {
    let given = Given {
        append: &["$..[?@.append==true].artifact.parts"],
        replace: &["$..[?@.append!=true].artifact.parts", "$..message.parts"],
        by: &["$..artifact.artifactId"],
        end: &["$..status[?match(@, 'TASK_STATE_(COMPLETED|FAILED|CANCELED|REJECTED|INPUT_REQUIRED|AUTH_REQUIRED)')]"],
        error: &["$..status[?@=='TASK_STATE_FAILED' || @=='TASK_STATE_REJECTED']"],
        ..Given::default()
    };
    let artifact = |append: bool, text: &str| {
        ("", json!({"artifactUpdate": {"artifact": {"artifactId": "x", "parts": [{"text": text}]}, "append": append}}))
    };
    let status = |state: &str| ("", json!({"statusUpdate": {"status": {"state": state}}}));
    let read = given.sse(&sse(&[
        ("", json!({"task": {"id": "t", "status": {"state": "TASK_STATE_SUBMITTED"}}})),
        status("TASK_STATE_WORKING"),
        artifact(false, "on"),
        artifact(true, "e"),
        status("TASK_STATE_COMPLETED"),
        artifact(true, "no"),
    ]));
    assert_eq!(text(&read), (Some("one"), true, false));
    // JSON-RPC wraps the same.
    let wrapped = |(name, result): (&'static str, Value)| (name, json!({"jsonrpc": "2.0", "id": "1", "result": result}));
    let read = given.sse(&sse(&[artifact(false, "a"), artifact(true, "b"), status("TASK_STATE_FAILED")].map(wrapped)));
    assert_eq!(text(&read), (Some("ab"), true, true));
}

#[test]
fn dify() {
    let given = Given {
        append: &["message:$.answer", "agent_message:$.answer"],
        replace: &["message_replace:$.answer"],
        end: &["message_end", "error"],
        error: &["error"],
        first: &["$.conversation_id"],
        ..Given::default()
    };
    let message = |event: &str, answer: &str| ("", json!({"event": event, "conversation_id": "c", "answer": answer}));
    let end = ("", json!({"event": "message_end", "conversation_id": "c", "metadata": {}}));
    let stream = |events: &[(&str, Value)]| "event: ping\n\n".to_owned() + &sse(events);
    let read = given.sse(&stream(&[
        message("message", "Olá"),
        ("", json!({"event": "agent_thought", "thought": "no"})),
        message("agent_message", ", tudo"),
        end.clone(),
        ("", json!({"event": "tts_message_end", "audio": ""})),
    ]));
    assert_eq!(text(&read), (Some("Olá, tudo"), true, false));
    assert_eq!(read.found, [Some(json!("c"))]);
    let read = given.sse(&stream(&[message("message", "rude"), message("message_replace", "polite"), end]));
    assert_eq!(text(&read), (Some("polite"), true, false));
    let read = given.sse(&stream(&[message("message", "half"), ("", json!({"event": "error", "status": 400, "code": "x"}))]));
    assert_eq!(text(&read), (Some("half"), true, true));
}

#[test]
fn ollama_chat() {
    let given = Given {
        append: &["$.message.content"],
        end: &["$.done"],
        error: &["$.error"],
        last: &["$.eval_count"],
        gathers: &["$.message.thinking"],
        ..Given::default()
    };
    let chunk = |message: Value, done: bool| json!({"model": "m", "message": message, "done": done}).to_string() + "\n";
    let stream = chunk(json!({"role": "assistant", "content": "", "thinking": "hm"}), false)
        + &chunk(json!({"role": "assistant", "content": "Oi"}), false)
        + "{\"message\":{\"content\":\"!\"},\"done\":true,\"eval_count\":2}\n";
    let read = given.ndjson(&stream);
    assert_eq!(text(&read), (Some("Oi!"), true, false));
    assert_eq!((&read.found[0], &read.gathered[0]), (&Some(json!(2)), &Some(json!("hm"))));
    assert_eq!(
        text(&given.ndjson(&(chunk(json!({"content": "O"}), false) + "{\"error\":\"unexpected EOF\"}\n"))),
        (Some("O"), false, true)
    );
}

#[test]
fn ag_ui() {
    let given = Given {
        append: &["TEXT_MESSAGE_CONTENT:$.delta", "TEXT_MESSAGE_CHUNK:$.delta"],
        replace: &["MESSAGES_SNAPSHOT:$.messages[?@.role=='assistant'].content"],
        by: &["$.messageId"],
        end: &["RUN_FINISHED", "RUN_ERROR"],
        error: &["RUN_ERROR"],
        first: &["$.threadId"],
        ..Given::default()
    };
    let content = |id: &str, delta: &str| ("", json!({"type": "TEXT_MESSAGE_CONTENT", "messageId": id, "delta": delta}));
    let start = [
        ("", json!({"type": "RUN_STARTED", "threadId": "t", "runId": "r"})),
        ("", json!({"type": "TEXT_MESSAGE_START", "messageId": "1", "role": "assistant"})),
        content("1", "a"),
        content("2", "b"),
        content("1", "c"),
        ("", json!({"type": "TOOL_CALL_ARGS", "toolCallId": "x", "delta": "{"})),
        ("", json!({"type": "TEXT_MESSAGE_CHUNK", "messageId": "2", "delta": "d"})),
    ];
    let end = ("", json!({"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}));
    let read = given.sse(&sse(&[&start[..], std::slice::from_ref(&end)].concat()));
    assert_eq!(text(&read), (Some("ac\nbd"), true, false));
    assert_eq!(read.found, [Some(json!("t"))]);
    let snapshot = json!({"type": "MESSAGES_SNAPSHOT", "messages": [
        {"role": "assistant", "content": "old"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "whole"},
    ]});
    assert_eq!(text(&given.sse(&sse(&[&start[..], &[("", snapshot), end]].concat()))), (Some("whole"), true, false));
    let failed = given.sse(&sse(&[&start[..], &[("", json!({"type": "RUN_ERROR", "message": "x"}))]].concat()));
    assert_eq!(text(&failed), (Some("ac\nbd"), true, true));
}

#[test]
fn ai_sdk() {
    let given = Given {
        append: &["text-delta:$.delta"],
        by: &["$.id"],
        end: &["[DONE]"],
        error: &["error", "abort"],
        ..Given::default()
    };
    let delta = |id: &str, text: &str| ("", json!({"type": "text-delta", "id": id, "delta": text}));
    let stream = sse(&[
        ("", json!({"type": "start", "messageId": "m"})),
        ("", json!({"type": "reasoning-delta", "id": "r", "delta": "hm"})),
        ("", json!({"type": "text-start", "id": "0"})),
        delta("0", "Hi "),
        delta("0", "there"),
        ("", json!({"type": "text-end", "id": "0"})),
        delta("1", "next step"),
        ("", json!({"type": "finish"})),
    ]);
    assert_eq!(text(&given.sse(&(stream.clone() + "data: [DONE]\n\n"))), (Some("Hi there\nnext step"), true, false));
    assert_eq!(text(&given.sse(&stream)), (Some("Hi there\nnext step"), false, false));
    assert_eq!(
        text(&given.sse(&(stream + "data: {\"type\":\"error\",\"errorText\":\"x\"}\n\n"))),
        (Some("Hi there\nnext step"), false, true)
    );
}
