//! The sink against servers that misbehave: a script of answers, and what was asked.

use super::*;
use crate::config;
use crate::episode::{Episode, Message};
use crate::queue::tests::episode as sample;
use crate::sink::templated::tests::{Script, all, answer, body, service};
use std::sync::Arc;

const EVENTS: &str = "content-type: text/event-stream\r\n";
const SESSION: &str = "mcp-session-id: s1\r\ncontent-type: application/json\r\n";

/// A sink of these keys, as the configuration reads them.
fn sink(url: &str, keys: &str) -> Arc<dyn Sink> {
    let proxy = "[[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n";
    let text = format!("{proxy}[[sink]]\nname = \"s\"\ntype = \"graphiti-mcp\"\nurl = \"{url}/mcp\"\n{keys}\n");
    let config = config::read(&text, std::path::Path::new("c.toml"), &config::Input::default()).unwrap();
    crate::sink::open(&config.sinks[0]).unwrap()
}

fn delivery(session: &str) -> Delivery {
    let messages = vec![Message::new("user", "hi"), Message::new("assistant", "hello\nyou")];
    Delivery { episode: Arc::new(Episode { messages, ..sample(session, 7) }), at: 1_767_225_600_000 }
}

const ID: &str = "00000000-0000-0000-0000-000000000007";

/// An answer of the protocol, in JSON.
#[allow(clippy::unnecessary_wraps)] // an element of a script
fn result(id: u64, result: &Value) -> Option<(u16, &'static str, String)> {
    Some((200, SESSION, json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()))
}

/// What a tool answers, as Graphiti's does.
fn tool(id: u64, said: &Value) -> Option<(u16, &'static str, String)> {
    result(id, &json!({ "content": [{ "type": "text", "text": said.to_string() }], "structuredContent": { "result": said } }))
}

fn added(id: u64) -> Option<(u16, &'static str, String)> {
    tool(id, &json!({ "message": "queued" }))
}

fn shown(id: u64, names: &[&str]) -> Option<(u16, &'static str, String)> {
    let episodes: Vec<_> = names.iter().map(|name| json!({ "name": name })).collect();
    tool(id, &json!({ "message": "some", "episodes": episodes }))
}

/// A session is opened: three answers, to the requests `id` and `id + 1`, and to a notification.
fn opened(id: u64) -> Script {
    let tool = |tool: Tool| {
        let arguments: serde_json::Map<_, _> = tool.arguments.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({ "name": tool.name, "inputSchema": { "properties": arguments } })
    };
    let list = [tool(STATUS), tool(SHOW), tool(ADD)];
    vec![result(id, &json!({ "protocolVersion": "2025-03-26" })), answer(202, ""), result(id + 1, &json!({ "tools": list }))]
}

fn script(acts: impl IntoIterator<Item = Script>) -> Script {
    acts.into_iter().flatten().collect()
}

/// Delivers one; what was asked, and what came of it.
async fn deliver(script: Script) -> (Vec<String>, Result<Receipt, SinkError>) {
    let (url, played) = service(script).await;
    let result = sink(&url, "").deliver(&delivery("s:1")).await;
    (all(played).await, result)
}

#[tokio::test]
async fn an_episode_is_a_memory_in_a_session_that_was_opened_for_it() {
    let (got, result) = deliver(script([opened(0), vec![added(2)]])).await;
    assert_eq!(result.unwrap(), Receipt::Accepted);
    let methods: Vec<_> = got.iter().map(|request| body(request)["method"].as_str().unwrap().to_owned()).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/list", "tools/call"]);
    assert!(got.iter().all(|request| request.starts_with("POST /mcp HTTP/1.1\r\n")
        && request.contains("accept: application/json, text/event-stream\r\n")));
    assert!(!got[0].contains("mcp-session-id") && !got[0].contains("mcp-protocol-version"), "{}", got[0]);
    for request in &got[1..] {
        assert!(request.contains("mcp-session-id: s1\r\n"), "{request}");
        assert!(request.contains("mcp-protocol-version: 2025-03-26\r\n"), "the server's: {request}");
    }
    let group = group_id("s:1");
    assert_eq!(
        body(&got[3])["params"],
        json!({ "name": "add_memory", "arguments": { "name": ID, "episode_body": "user: hi\nassistant: hello\nyou", "group_id": group,
            "source": "message", "source_description": "offramp agent/run", "reference_time": "2026-01-01T00:00:00.000Z" } })
    );
    assert!(group_of("null").starts_with("null-") && group_of("nul") == "nul");
}

fn group_of(session: &str) -> String {
    arguments(&delivery(session))["group_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_answer_is_found_among_the_events_of_a_stream() {
    let said = json!({ "content": [{ "type": "text", "text": "{\"message\": \"queued\"}" }] });
    let stream = format!(
        ": hello\r\n\r\nevent: message\r\ndata: {}\r\n\r\ndata: {}\n\ndata:{{\"jsonrpc\":\"2.0\",\ndata: \"id\":2,\"result\":{said}}}\n\n",
        json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "isError": true } }),
    );
    let (_, result) = deliver(script([opened(0), vec![Some((200, EVENTS, stream))]])).await;
    assert_eq!(result.unwrap(), Receipt::Accepted);
}

#[tokio::test]
async fn inv4_a_session_that_was_forgotten_is_opened_again_once() {
    for status in [404, 400] {
        let acts = script([opened(0), vec![answer(status, "Session not found")], opened(3), vec![added(5)]]);
        let (got, result) = deliver(acts).await;
        assert_eq!(result.unwrap(), Receipt::Accepted);
        assert!(!got[4].contains("mcp-session-id") && body(&got[4])["method"] == "initialize", "{}", got[4]);
    }
    let (_, result) = deliver(script([opened(0), vec![answer(404, "")], opened(3), vec![answer(404, "")]])).await;
    let error = result.unwrap_err();
    assert_eq!((error.cause, error.ambiguous), (Cause::Status(404), false));
}

#[tokio::test]
async fn a_server_without_what_is_needed_is_a_misconfiguration_and_gets_no_episode() {
    let mut old = opened(0);
    old[2] = result(
        1,
        &json!({ "tools": [{ "name": "add_memory", "inputSchema": { "properties": { "name": {}, "episode_body": {},
        "group_id": {}, "source": {}, "source_description": {} } } }] }),
    );
    for (script, says) in [
        (old, "no argument reference_time of add_memory"),
        (vec![answer(307, "")], "no MCP session: answered 307"),
        (vec![answer(421, "Invalid Host header")], "Invalid Host header"),
        (vec![answer(200, "<html>")], "no MCP session: no answer"),
    ] {
        let error = deliver(script).await.1.unwrap_err();
        assert!(error.message.contains(says) && !error.ambiguous, "{error:?}");
        assert!(says.ends_with("no answer") || error.cause == Cause::Status(404), "{error:?}");
    }
    for status in [401, 429, 503] {
        let error = deliver(vec![answer(status, "")]).await.1.unwrap_err();
        assert_eq!(error.cause, Cause::Status(status));
    }
}

#[tokio::test]
async fn inv4_what_an_answer_means_and_whether_it_leaves_doubt() {
    let error = |code: i64| Some((200, SESSION, json!({ "id": 2, "error": { "code": code, "message": "says so" } }).to_string()));
    let is_error = result(2, &json!({ "isError": true, "content": [{ "type": "text", "text": "Error executing tool" }] }));
    for (act, cause, ambiguous, says) in [
        (tool(2, &json!({ "error": "Services not initialized" })), Cause::Status(500), false, "Services not initialized"),
        (is_error, Cause::Status(500), true, "Error executing tool"),
        (error(-32602), Cause::Status(500), false, "says so"),
        (error(-32603), Cause::Status(500), true, "says so"),
        (answer(413, "Request body too large"), Cause::Status(413), false, "too large"),
        (answer(503, "busy"), Cause::Status(503), false, "busy"),
        (Some((200, EVENTS, ": ping\n\n".to_owned())), Cause::Timeout, true, "none in what it said"),
        (tool(2, &json!({ "episodes": [] })), Cause::Timeout, true, "not what add_memory answers"),
        (None, Cause::Timeout, true, ""),
    ] {
        let error = deliver(script([opened(0), vec![act]])).await.1.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (cause, ambiguous), "{error:?}");
        assert!(error.message.contains(says), "{error:?}");
    }
}

#[tokio::test]
async fn inv10_what_a_server_repeats_of_the_credentials_is_not_told() {
    let (url, _) = service(script([opened(0), vec![tool(2, &json!({ "error": "not s3cret" }))]])).await;
    let error = sink(&url, "headers = { authorization = \"Bearer s3cret\" }").deliver(&delivery("s")).await.unwrap_err();
    assert_eq!(error.message, "answered an error: not [redacted]");
}

#[tokio::test]
async fn inv4_a_group_is_looked_through_to_its_end() {
    let many = vec!["another"; FIRST];
    let more = vec!["another"; FIRST + 1];
    for (pages, presence) in [
        (vec![shown(2, &["another", ID])], Presence::Present),
        (vec![shown(2, &["another"])], Presence::Absent),
        (vec![shown(2, &[])], Presence::Absent),
        (vec![shown(2, &many), shown(3, &more)], Presence::Absent),
        (vec![shown(2, &many), shown(3, &[&*more, &[ID]].concat())], Presence::Present),
    ] {
        let asked: Vec<_> = [FIRST, FIRST * 10].into_iter().take(pages.len()).collect();
        let (url, played) = service(script([opened(0), pages])).await;
        assert_eq!(sink(&url, "").look_up(&delivery("g")).await.unwrap(), presence);
        let got = all(played).await;
        let arguments: Vec<_> = got[3..].iter().map(|request| body(request)["params"]["arguments"].clone()).collect();
        let expected: Vec<_> = asked.iter().map(|n| json!({ "group_ids": ["g"], "max_episodes": n })).collect();
        assert_eq!(arguments, expected);
    }
}

#[tokio::test]
async fn inv4_a_group_that_shows_nothing_for_long_is_no_proof_on_falkordb() {
    for (database, pauses) in [("falkordb", true), ("neo4j", false)] {
        let status = tool(5, &json!({ "status": "ok", "message": format!("running and connected to {database} database") }));
        let looks = vec![shown(2, &[]), shown(3, &[]), shown(4, &[]), status, shown(6, &["another"]), shown(7, &[])];
        let (url, played) = service(script([opened(0), looks])).await;
        let sink = sink(&url, "timeout = \"100s\"");
        let look = async || sink.look_up(&delivery("g")).await;
        let later = async |seconds| {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(seconds)).await;
            tokio::time::resume();
        };
        assert_eq!(look().await.unwrap(), Presence::Absent);
        later(49).await;
        assert_eq!(look().await.unwrap(), Presence::Absent);
        later(1).await;
        match look().await {
            Err(error) => {
                assert!(pauses && error.message.contains("nothing of group g can be read back"), "{error:?}");
                assert_eq!((error.cause, error.ambiguous), (Cause::Status(404), false));
            }
            Ok(presence) => assert!(!pauses && presence == Presence::Absent),
        }
        assert_eq!(look().await.unwrap(), Presence::Absent, "it shows something");
        later(49).await;
        assert_eq!(look().await.unwrap(), Presence::Absent, "and has time again");
        assert_eq!(all(played).await.len(), 9);
    }
}

#[tokio::test]
async fn what_is_accepted_is_delivered_where_nothing_is_read_back() {
    let mut script = opened(0);
    script.push(added(2));
    let (url, _) = service(script).await;
    let sink = sink(&url, "confirm = { mode = \"accepted\" }");
    assert_eq!(sink.deliver(&delivery("g")).await.unwrap(), Receipt::Delivered);
    assert_eq!((sink.look_up(&delivery("g")).await.unwrap(), sink.follow()), (Presence::Unknown, None));
}

#[tokio::test]
async fn a_server_that_has_shown_two_groups_looks_where_it_writes() {
    let looks = vec![shown(2, &["one"]), shown(3, &[ID]), shown(4, &[]), shown(5, &[])];
    let (url, played) = service(script([opened(0), looks])).await;
    let sink = sink(&url, "");
    for (group, presence) in [("g", Presence::Absent), ("h", Presence::Present), ("i", Presence::Absent), ("i", Presence::Absent)]
    {
        assert_eq!(sink.look_up(&delivery(group)).await.unwrap(), presence);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
    }
    assert_eq!(all(played).await.len(), 7, "it isn't asked what it is");
}
