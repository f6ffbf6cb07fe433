//! The sink against services that misbehave: a script of answers, and what was asked.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config;
use crate::episode::{Episode, Message};
use crate::queue::tests::episode as sample;

/// What a service answers: status, further head lines, body. `None` breaks the connection off.
pub type Script = Vec<Option<(u16, &'static str, String)>>;

#[allow(clippy::unnecessary_wraps)] // an element of a script
pub fn answer(status: u16, body: &str) -> Option<(u16, &'static str, String)> {
    Some((status, "", body.to_owned()))
}

/// A service that plays a script, one connection for each answer; ends with the requests that it got.
pub async fn service(script: Script) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let played = tokio::spawn(async move {
        let mut requests = Vec::new();
        for act in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.windows(4).any(|w| w == b"\r\n\r\n") {
                got.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8_lossy(&got).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            requests.push(format!("{head}{}", String::from_utf8(body).unwrap()));
            if let Some((status, head, body)) = act {
                let head = format!("HTTP/1.1 {status} X\r\n{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        }
        requests
    });
    (url, played)
}

/// The requests that a script got, once all of it was played.
pub async fn all(played: JoinHandle<Vec<String>>) -> Vec<String> {
    tokio::time::timeout(Duration::from_secs(60), played).await.expect("every act of the script is asked for").unwrap()
}

/// A sink of these keys, as the configuration reads them.
fn sink(url: &str, keys: &str) -> Arc<dyn Sink> {
    crate::sink::open(&configured(url, keys).unwrap()).unwrap()
}

fn configured(url: &str, keys: &str) -> Result<config::Sink, config::Faults> {
    let proxy = "[[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n";
    let text = format!("{proxy}[[sink]]\nname = \"s\"\ntype = \"http\"\nurl = \"{url}\"\n{keys}\n");
    config::read(&text, std::path::Path::new("c.toml"), &config::Input::default()).map(|mut config| config.sinks.remove(0))
}

fn turn() -> Episode {
    Episode {
        user: Some("u/1".into()),
        agent: Some("agent-1".into()),
        messages: vec![Message::new("user", "say \"hi\" <b>"), Message::new("developer", "hello\n{{ id }}")],
        metadata: r#"{"thread":"t 1","none":null}"#.into(),
        ..sample("s:1", 7)
    }
}

fn delivery() -> Delivery {
    Delivery { episode: Arc::new(turn()), at: 1_767_225_600_000 }
}

const ID: &str = "00000000-0000-0000-0000-000000000007";
const AT: &str = "2026-01-01T00:00:00.000Z";

pub fn body(request: &str) -> serde_json::Value {
    let body = request.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Delivers and looks up as often as the script has answers; the requests, and what came of each.
async fn deliver(script: Script, keys: &str) -> (String, Result<Receipt, SinkError>) {
    let (url, played) = service(script).await;
    let result = sink(&url, keys).deliver(&delivery()).await;
    (all(played).await.remove(0), result)
}

#[tokio::test]
async fn a_request_is_what_its_templates_make_of_the_episode() {
    let keys = r#"
        method = "{{ 'PUT' if user else 'POST' }}"
        path = "/threads/{{ metadata.thread }}/{{ user }}?at={{ at }}"
        headers = { idempotency-key = "{{ id }}", authorization = "Bearer s3cret", x-group = "{{ group_id }}" }
        body = '{"said": {{ transcript | tojson }}, "agent": {{ agent | tojson }}}'"#;
    let (got, result) = deliver(vec![answer(200, "")], keys).await;
    assert_eq!(result.unwrap(), Receipt::Delivered);
    assert!(got.starts_with("PUT /threads/t%201/u%2F1?at=2026-01-01T00%3A00%3A00.000Z HTTP/1.1\r\n"), "{got}");
    let group = format!("x-group: {}", group_id("s:1"));
    for line in [&format!("idempotency-key: {ID}"), "authorization: Bearer s3cret", &group, "content-type: application/json"] {
        assert!(got.contains(&format!("{line}\r\n")), "{line}: {got}");
    }
    let said = "user: say \"hi\" <b>\ndeveloper: hello\n{{ id }}";
    assert_eq!(body(&got), json!({ "said": said, "agent": "agent-1" }));

    let (got, _) =
        deliver(vec![answer(200, "")], "method = \"GET\"\npath = \"/x\"\nbody = '''\n{% if not id %}x{% endif %}\n'''").await;
    assert!(!got.contains("content-type") && !got.contains("content-length"), "a blank body is none: {got}");
}

#[tokio::test]
async fn inv6_what_a_template_lacks_is_the_episodes_fault_and_nothing_is_sent() {
    for (keys, why) in [
        ("path = \"/{{ metadata.nothing }}\"", "`path` does not fit the episode: undefined value"),
        ("path = \"/{{ metadata.none }}\"", "null has no place here"),
        ("path = \"/{{ metadata.thread.x.y }}\"", "`path`"),
        ("path = \"/{{ '..' }}/x\"", "has . or .. in it"),
        ("path = \"{% if not id %}/{% endif %}\"", "begins with no /"),
        ("path = \"/\"\nmethod = \"{{ metadata.thread }}\"", "`method` does not fit the episode: \"t 1\" is none"),
        (
            "path = \"/\"\nheaders = { x = \"{{ transcript }}\" }",
            "`x` does not fit the episode: what it makes has a control character",
        ),
        ("path = \"/\"\nbody = '{\"a\": {{ user }}}'", "what it makes is not JSON"),
        ("path = \"/\"\nbody = '{{ messages[7].content }}'", "`body`"),
        ("path = \"/\"\nbody = '{{ 1 // 0 }}'", "`body`"),
    ] {
        let error = sink("http://127.0.0.1:1", keys).deliver(&delivery()).await.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Unfit, false), "{keys}: {error}");
        assert!(error.message.contains(why), "{keys}: {error}");
    }
}

#[tokio::test]
async fn what_an_answer_means_is_what_the_keys_say() {
    let keys = "path = \"/\"\nsuccess = [200, 202]\ndelivered_if = \"status == 409 and answer.code == 'exists' and id in text\"";
    let exists = format!(r#"{{"code":"exists","id":"{ID}"}}"#);
    for body in [answer(202, ""), answer(409, &exists)] {
        assert_eq!(deliver(vec![body], keys).await.1.unwrap(), Receipt::Delivered);
    }
    for (status, body) in [(409, r#"{"code":"busy"}"#), (409, "not JSON"), (204, ""), (302, ""), (500, &exists)] {
        let error = deliver(vec![answer(status, body)], keys).await.1.unwrap_err();
        assert_eq!((error.cause, error.ambiguous), (Cause::Status(status), false), "{error}");
    }
    let busy = Some((503, "retry-after: 7\r\n", "later".to_owned()));
    let error = deliver(vec![busy], keys).await.1.unwrap_err();
    assert_eq!(
        (error.retry_after, error.message.as_str()),
        (Some(Duration::from_secs(7)), "answered 503 Service Unavailable: later")
    );
    let error = deliver(vec![None], keys).await.1.unwrap_err();
    assert_eq!((error.cause, error.ambiguous), (Cause::Timeout, true), "nobody knows what it did: {error}");
    let error = sink("http://127.0.0.1:1", keys).deliver(&delivery()).await.unwrap_err();
    assert_eq!((error.cause, error.ambiguous), (Cause::Connect, false), "{error}");
}

#[tokio::test]
async fn what_is_repaired_is_followed_or_tried_again() {
    let keys = "path = \"/\"\nrepair = { if = \"status == 409\", path = \"/retry/{{ id }}\" }";
    let (url, played) = service(vec![answer(409, "it rests"), answer(204, "")]).await;
    let error = sink(&url, keys).deliver(&delivery()).await.unwrap_err();
    assert_eq!((error.cause, error.message.as_str()), (Cause::Status(409), "answered 409 Conflict: it rests"));
    assert!(all(played).await[1].starts_with(&format!("POST /retry/{ID} HTTP/1.1\r\n")));
    let (url, _) = service(vec![answer(409, ""), answer(200, "")]).await;
    let keys = format!("{keys}\nconfirm = {{ path = \"/\", present = \"answer.there\" }}");
    assert_eq!(sink(&url, &keys).deliver(&delivery()).await.unwrap(), Receipt::Accepted);
}

#[tokio::test]
async fn inv10_what_a_service_repeats_of_a_header_is_not_told() {
    let keys = r#"
        path = "/"
        headers = { x-api-key = "k3y-of-mine" }
        [sink.confirm]
        path = "/it"
        present = "answer.there"
        failed = "{{ answer.why }}""#;
    let error = deliver(vec![answer(401, "no such key k3y-of-mine")], keys).await.1.unwrap_err();
    assert_eq!(error.message, "answered 401 Unauthorized: no such key [redacted]");
    let script = vec![answer(200, r#"{"why":"k3y-of-mine has no credit"}"#), answer(200, r#"{"why":null}"#)];
    let (url, _) = service(script).await;
    let sink = sink(&url, keys);
    assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Failed("[redacted] has no credit".to_owned()));
    assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Absent, "null says nothing");
    assert!(!format!("{:?}", configured("http://h", keys).unwrap()).contains("k3y"));
}

const TRACKED: &str = r#"
    path = "/"
    [sink.confirm]
    path = "/track/{{ answer.track }}"
    present = "answer.state == 'done'"
    failed = "{% if answer.state == 'failed' %}why: {{ answer.why }}{% endif %}""#;

#[tokio::test]
async fn inv7_an_accepted_episode_is_delivered_when_the_service_shows_it() {
    let state = |state: &str| answer(200, &format!(r#"{{"state":"{state}","why":"no credit"}}"#));
    let script = vec![answer(200, r#"{"track":"t/1"}"#), state("new"), answer(500, "oh"), None, state("failed"), state("done")];
    let (url, played) = service(script).await;
    let sink = sink(&url, TRACKED);
    let delivery = delivery();
    assert_eq!(sink.follow(), Some(Follow { timeout: Duration::from_secs(900), poll: Duration::from_secs(1) }));
    assert_eq!(sink.deliver(&delivery).await.unwrap(), Receipt::Accepted);
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Absent);
    assert_eq!(sink.look_up(&delivery).await.unwrap_err().cause, Cause::Status(500));
    let error = sink.look_up(&delivery).await.unwrap_err();
    assert_eq!((error.cause, error.ambiguous), (Cause::Timeout, false), "a look changes nothing");
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Failed("why: no credit".to_owned()));
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Present);
    assert!(all(played).await[1].starts_with("GET /track/t%2F1 HTTP/1.1\r\n"));

    // What accepted it is not kept for longer, and is in no other process.
    assert_eq!(sink.look_up(&delivery).await.unwrap(), Presence::Unknown);
}

#[tokio::test]
async fn an_answer_that_is_no_json_or_too_long_is_one_that_is_not_known() {
    for body in ["thanks".to_owned(), format!(r#"{{"track":"{}"}}"#, "x".repeat(LARGEST))] {
        let (url, played) = service(vec![answer(200, &body)]).await;
        let sink = sink(&url, TRACKED);
        assert_eq!(sink.deliver(&delivery()).await.unwrap(), Receipt::Accepted);
        assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Unknown);
        all(played).await;
    }
}

#[tokio::test]
async fn inv9_no_more_answers_are_kept_than_so_many() {
    let config = configured("http://h", TRACKED).unwrap();
    let config::SinkKind::Http(service) = &config.kind else { panic!("{config:?}") };
    let sink = TemplatedSink::new(Client::new(&config).unwrap(), service);
    let answer = Answer { status: http::StatusCode::OK, headers: HeaderMap::new(), body: b"{}".to_vec() };
    for n in 0..KEPT + 10 {
        sink.remember(Uuid::from_u128(n as u128), &answer);
        sink.remember(Uuid::from_u128(n as u128), &answer);
    }
    let kept = sink.answers();
    assert_eq!((kept.len(), kept[0].0), (KEPT, Uuid::from_u128(10)));
}

#[tokio::test]
async fn a_sink_that_cannot_ask_or_need_not_says_so() {
    let sink = sink("http://127.0.0.1:1", "path = \"/\"");
    assert_eq!((sink.look_up(&delivery()).await.unwrap(), sink.follow()), (Presence::Unknown, None));

    let keys = "path = \"/\"\nconfirm = { mode = \"accepted\", settle = \"5s\", path = \"/\", present = \"answer == [1]\" }";
    let (url, _) = service(vec![answer(200, ""), answer(200, "[]"), answer(200, "[1]")]).await;
    let sink = self::sink(&url, keys);
    assert_eq!((sink.deliver(&delivery()).await.unwrap(), sink.follow()), (Receipt::Delivered, None));
    assert_eq!(sink.settle(), Duration::from_secs(5));
    assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Absent);
    assert_eq!(sink.look_up(&delivery()).await.unwrap(), Presence::Present);
}

mod presets;
