//! What a vendor's own client makes of an answer that came through offramp is what offramp records: the SDKs of `OpenAI`, Anthropic,
//! Ollama, A2A and `LangGraph` ask a golden upstream, and the text that each of them accumulated is the output of the episode.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::offramp::Offramp;
use crate::support::parts::PRESETS;
use crate::support::process::{Process, Reports};
use crate::support::world::LIMIT;

/// Where each preset's exchanges are.
const ROUTES: [(&str, &str); 8] = [
    ("openai-chat", "/v1/chat/completions"),
    ("openai-responses", "/v1/responses"),
    ("anthropic-messages", "/v1/messages"),
    ("ollama-chat", "/api/chat"),
    ("a2a", "/"),
    ("a2a", "/message:send"),
    ("a2a", "/message:stream"),
    ("langgraph", "/threads/{thread_id}/runs/{*kind}"),
];

fn config(upstream: &str) -> String {
    let mut text = format!("[[proxy]]\nname = 'agent'\nlisten = '127.0.0.1:0'\nupstream = 'http://127.0.0.1:{upstream}'\n");
    for (at, (preset, path)) in ROUTES.iter().enumerate() {
        let _ = write!(text, "[[proxy.route]]\nname = 'r{at}'\nmethod = 'POST'\npath = '{path}'\npreset = '{preset}'\n");
    }
    text + "[queue]\npath = 'queue'\nmin_free_disk = '1MiB'\n[[sink]]\nname = 'log'\ntype = 'file'\npath = 'episodes.jsonl'\n\
            [admin]\nlisten = '127.0.0.1:0'\n[log]\nformat = 'json'\n"
}

#[test]
fn what_a_vendors_client_heard_is_what_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = PRESETS.program("upstream.py", dir.path());
    serve.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let mut upstream = Process::start("upstream", serve, Reports::Stdout, dir.path());
    let port = upstream.wait_for("its port", |line| line.strip_prefix("listening on ").map(str::to_owned));
    let mut offramp = Offramp::start(dir.path(), &config(&port));

    let mut clients = PRESETS.program("clients.py", dir.path());
    let asked = clients.args(["--url", &format!("http://{}", offramp.proxy("agent"))]).output().unwrap();
    assert!(asked.status.success(), "the clients failed:\n{}", String::from_utf8_lossy(&asked.stderr));
    let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let heard = told["heard"].as_array().unwrap();
    assert!(heard.len() >= 40, "{told:#}");

    offramp.wait_for_delivery(heard.len(), LIMIT);
    let written = fs::read_to_string(dir.path().join("episodes.jsonl")).unwrap();
    let episodes: Vec<Value> = written.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    for one in heard {
        let episode = episodes.iter().find(|episode| episode["session"] == one["session"]);
        let episode = episode.unwrap_or_else(|| panic!("no episode of {}", one["case"]));
        let said = |role: &str| {
            let messages = episode["messages"].as_array().unwrap();
            messages.iter().find(|message| message["role"] == role).map_or("", |message| message["content"].as_str().unwrap())
        };
        assert_eq!(said("assistant"), one["text"].as_str().unwrap(), "{}: {episode:#}", one["case"]);
        assert_eq!((said("user"), episode["end"].as_str()), ("Who am I?", Some("complete")), "{}", one["case"]);
    }
    assert!(offramp.stop().success());
}
